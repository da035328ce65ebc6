"""The table of core's commands: where each is found, and its line in the help."""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A command (with a target) or a group (with commands)."""

    name: str
    help: str
    target: str = ""
    commands: tuple["Entry", ...] = ()


_SHADOWING: Final = {"list": "list_", "import": "import_"}
"""Commands whose function cannot have their name."""


def _commands(**modules: tuple[tuple[str, str], ...]) -> tuple[Entry, ...]:
    """Return commands; each keyword is a module of ``cli.commands`` with its commands' names and help lines."""
    return tuple(
        Entry(command, text, f"pvc_core.cli.commands.{module}:{_SHADOWING.get(command, command.replace('-', '_'))}")
        for module, commands in modules.items()
        for command, text in commands
    )


def _attribute(command: str) -> str:
    return _SHADOWING.get(command, command.replace("-", "_"))


def _group(name: str, help_: str, *groups: Entry, **modules: tuple[tuple[str, str], ...]) -> Entry:
    """Return a group of commands, as ``_commands`` takes them, and of the groups in it."""
    return Entry(name, help_, commands=(*_commands(**modules), *groups))


CORE: Final = (
    _group(
        "cluster",
        "The cluster as a whole: state, settings, backup.",
        cluster=(
            ("status", "Show the state of the cluster."),
            ("settings", "Show or change settings that hold for the whole cluster."),
            ("maintenance", "Show or switch maintenance mode of the cluster."),
        ),
        state_tree=(
            ("init", "Prepare an empty state store for a new cluster."),
            ("upgrade", "Bring the layout of the state tree up to date."),
            ("protect", "Close a state tree to all but the login in the configuration."),
            ("backup", "Write the state tree to a file."),
            ("restore", "Read the state tree back from a file."),
        ),
    ),
    _group(
        "node",
        "Nodes: state, evacuation, primary role.",
        node_show=(
            ("list", "List the nodes."),
            ("info", "Show one node in detail."),
            ("log", "Say how to read the log of a node."),
        ),
        node=(
            ("flush", "Move all VMs away from a node and keep it empty."),
            ("ready", "Return a node to service and bring its VMs home."),
            ("primary", "Make a node the primary coordinator."),
            ("secondary", "Make the primary coordinator give up its role."),
            ("maintenance", "Show or switch maintenance mode of a node."),
            ("remove", "Remove a node from the cluster."),
        ),
    ),
    _group(
        "vm",
        "Virtual machines: define, run, move, watch.",
        _group(
            "disk",
            "Disks of a VM, while it runs or not.",
            vm_disk=(
                ("list", "List the disks of a VM."),
                ("add", "Give a VM a volume as its last disk."),
                ("remove", "Take a disk from a VM; the volume stays."),
                ("modify", "Change what a disk of a VM may do, or how it is cached."),
            ),
        ),
        _group(
            "nic",
            "NICs of a VM, while it runs or not.",
            vm_nic=(
                ("list", "List the NICs of a VM."),
                ("add", "Give a VM another NIC."),
                ("remove", "Take a NIC from a VM."),
                ("modify", "Change a NIC of a VM."),
            ),
        ),
        _group(
            "snapshot",
            "Snapshots of whole VMs: all disks at one instant.",
            vm_snapshot=(
                ("list", "List the snapshots of a VM, or of all VMs."),
                ("info", "Show one snapshot of a VM in detail."),
                ("create", "Keep the contents of all disks of a VM."),
                ("rollback", "Give all disks of a VM the contents of a snapshot."),
                ("rename", "Rename a snapshot of a VM."),
                ("delete", "Delete a snapshot of a VM."),
                ("abandon", "Let a VM be started though a roll-back was not finished."),
            ),
        ),
        vm_show=(
            ("list", "List the VMs."),
            ("info", "Show one VM in detail."),
            ("dump", "Print the definition of a VM."),
        ),
        vm_define=(("define", "Define VMs from a file (YAML or libvirt XML)."),),
        vm_modify=(
            ("modify", "Change the definition of a VM."),
            ("rename", "Rename a VM."),
            ("autostart", "Start a VM whenever its node returns to service, or not."),
            ("tag", "Show, add or remove tags of a VM."),
        ),
        vm_power=(
            ("start", "Start a VM."),
            ("shutdown", "Ask a VM to shut down; cut its power when its time is over."),
            ("stop", "Cut the power of a VM at once."),
            ("restart", "Shut a VM down and start it again."),
            ("disable", "Mark a VM as off on purpose."),
            ("remove", "Remove a VM."),
        ),
        vm_move=(
            ("move", "Move a VM to another node for good."),
            ("migrate", "Move a VM to another node for a while: it remembers its home."),
            ("unmigrate", "Bring a VM back to its home node."),
        ),
        vm_locks=(("flush-locks", "Break what still holds the disks of a VM that runs nowhere."),),
        vm_console=(
            ("log", "Show what a VM wrote to its serial console."),
            ("console", "Connect to the serial console of a VM."),
        ),
    ),
    _group(
        "network",
        "Virtual networks that VMs are attached to.",
        network=(
            ("list", "List the networks."),
            ("info", "Show one network in detail, node by node."),
            ("add", "Add a network."),
            ("modify", "Change a network."),
            ("remove", "Remove a network."),
        ),
        network_check=(("check", "Have every node look for what is wrong with a network."),),
    ),
    Entry(
        "storage",
        "Storage pools, volumes and snapshots.",
        commands=(
            _group(
                "pool",
                "Pools: where volumes are kept.",
                pool=(
                    ("list", "List the pools."),
                    ("info", "Show one pool in detail."),
                    ("add", "Add a pool."),
                    ("modify", "Change a pool."),
                    ("remove", "Remove a pool."),
                ),
            ),
            _group(
                "volume",
                "Volumes: the disks of VMs.",
                volume=(
                    ("list", "List the volumes."),
                    ("info", "Show one volume in detail."),
                    ("add", "Create an empty volume."),
                    ("resize", "Make a volume larger."),
                    ("rename", "Rename a volume."),
                    ("clone", "Make a new volume from another one."),
                    ("remove", "Remove a volume and everything on it."),
                ),
                volume_files=(
                    ("upload", "Make a new volume from an image file on this machine."),
                    ("import", "Make a new volume from an image file on a node."),
                    ("export", "Write a volume to an image file on a node."),
                ),
            ),
            _group(
                "snapshot",
                "Snapshots: a volume's contents at one instant.",
                snapshot=(
                    ("list", "List the snapshots of a volume."),
                    ("create", "Keep the contents of a volume under a name."),
                    ("rollback", "Give a volume the contents of a snapshot."),
                    ("rename", "Rename a snapshot."),
                    ("protect", "Forbid removing a snapshot, or allow it again."),
                    ("remove", "Remove a snapshot."),
                ),
            ),
        ),
    ),
    Entry(
        "fence",
        "Fencing: make sure that a lost node is dead.",
        commands=(
            *_commands(
                fence=(("status", "Show how each node would be fenced, and what would come of a loss."),),
                fence_record=(
                    ("list", "List the last loss of each node."),
                    ("info", "Show the course of a node's last loss."),
                ),
                fence_power=(
                    ("test", "Ask the fence devices of a node whether they could be used."),
                    ("on", "Switch a node on."),
                    ("off", "Cut the power of a node."),
                    ("cycle", "Cut the power of a node and switch it on again."),
                    ("confirm", "Confirm that a node is dead, so that its VMs start elsewhere."),
                ),
            ),
            _group(
                "level",
                "Fence levels: the devices that cut a node's power.",
                fence_level=(
                    ("list", "List the fence levels."),
                    ("add", "Add a fence device to a node."),
                    ("remove", "Remove a fence level, or one of its devices."),
                ),
            ),
        ),
    ),
    _group(
        "plugin",
        "Plugins: what is installed, enabled, working.",
        plugin=(
            ("list", "List the plugins."),
            ("show", "Show one plugin in detail."),
            ("doctor", "Check installed plugins and say what is wrong."),
        ),
    ),
    _group(
        "config",
        "Configuration files.",
        config=(
            ("check", "Check a configuration file without starting anything."),
            ("sample", "Print a commented sample configuration."),
            ("show", "Print the configuration in effect, defaults included."),
        ),
    ),
    _group(
        "task",
        "One-off jobs such as imports and roll-backs.",
        task=(
            ("list", "List the tasks."),
            ("info", "Show one task in detail."),
            ("wait", "Wait for a task to end."),
            ("cancel", "Ask a task to stop."),
        ),
    ),
    Entry(
        "simulate",
        "Play failures on a simulated cluster, from scenario files.",
        "pvc_core.testkit.scenario.cli:simulate",
    ),
    Entry(
        "completion",
        "Print the script that completes words in your shell.",
        "pvc_core.cli.commands.completion:completion",
    ),
)
"""All commands that core brings."""
