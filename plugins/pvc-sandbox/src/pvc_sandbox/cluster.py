"""What makes a cluster of simulated hosts: which of them are coordinators, and every node's configuration."""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml

from pvc_sandbox import ceph, fencing, frr, libvirtd, managed, systemctl, zookeeper
from pvc_sandbox.boot import Equipment, Watchdog
from pvc_sandbox.control import PROGRAMS, Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.host import WATCHDOG_SOCKET
from pvc_sandbox.layout import MAX_NODES, PLAN_FILE, Layout
from pvc_sandbox.node_bmc import make_password

DAEMON: Final = "pvcnoded"
DEFAULT_NODES: Final = 3
DISKS_WITH_CEPH: Final = 2
"""The first gets an OSD, the second stays empty."""
_FIXED: Final = ("storage", "disks", "disk_gib")
"""Fields of the plan that cannot be changed once the cluster is there."""
_MOST_DISKS: Final = 16
_WATCHDOG_S: Final = 60.0
_WRONG_CONFIGURATION: Final = 78
"""EX_CONFIG of sysexits.h: starting it again is useless."""


class ClusterPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox's cluster consists of; kept in its state directory."""

    nodes: int = DEFAULT_NODES
    coordinators: int = DEFAULT_NODES
    """The first so many nodes; fixed when the cluster is made."""
    memory_mib: int = 2048
    """What each node believes it has."""
    reserved_memory_mib: int = 256
    accelerator: str = "tcg"
    """Emulation works wherever the sandbox does; ``kvm`` and ``auto`` need a machine whose KVM runs Linux guests."""
    timing: dict[str, float | int] = {}
    """Section ``timing`` of every node; what is not here has its default."""
    plugins: dict[str, dict[str, Any]] = msgspec.field(default_factory=lambda: {"dir": {}, "bridge": {}})
    """Section ``plugins`` of every node; the one that fences through BMCs comes by itself, and so does what the sections of
    managed networks' plugins do not say (module ``managed``)."""
    bmc: bool = True
    """Every node has a BMC, and is fenced through it."""
    watchdog: bool = False
    """Every node has a watchdog, and a daemon that feeds it."""
    watchdog_timeout_s: float = 8.0
    """For which the daemon asks."""
    watchdog_reboot_s: float = 1.0
    """After a reset by its watchdog a node is on again after so many seconds; below 0: it stays off."""
    storage: Literal["dir", "ceph"] = "dir"
    """``ceph``: every node has disks and an OSD, every coordinator a monitor and a manager."""
    disks: Annotated[int, msgspec.Meta(ge=0, le=_MOST_DISKS)] = 0
    """So many every node has, sparse; with Ceph at least one."""
    disk_gib: Annotated[int, msgspec.Meta(ge=1)] = 4

    @property
    def has_ceph(self) -> bool:
        """Whether Ceph runs in its nodes."""
        return self.storage == "ceph"

    @property
    def has_units(self) -> bool:
        """Whether its nodes have services that are kept by ``systemctl``."""
        return self.has_ceph or self.frr

    @property
    def frr(self) -> bool:
        """Whether FRR runs in its nodes, and a router outside: its networks are managed."""
        return managed.PLUGIN in self.plugins

    def coordinator_numbers(self) -> range:
        """Return the numbers of the coordinators."""
        return range(1, self.coordinators + 1)

    def node_numbers(self) -> range:
        """Return the numbers of all nodes."""
        return range(1, self.nodes + 1)


def coordinators_for(nodes: int) -> int:
    """Return how many of so many nodes are coordinators: a majority must survive, so 1, 3 or 5."""
    return max(count for count in (1, 3, 5) if count <= nodes)


def load_plan(layout: Layout) -> ClusterPlan | None:
    """Return the plan of an existing cluster."""
    path = Path(layout.state) / PLAN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterPlan)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise SandboxError(f"{path} cannot be read ({error}); remove the sandbox: pvc sandbox down") from error


def make_plan(layout: Layout, nodes: int | None, **changes: Any) -> ClusterPlan:
    """Return the plan for ``up``: what is there, with ``changes``, grown to ``nodes``; and record it.

    A change of ``network`` to ``vxlan`` adds the plugins of managed networks; ``bridge`` is what a cluster has without.
    Raises SandboxError for what cannot be.
    """
    if nodes is not None and not 1 <= nodes <= MAX_NODES:
        raise SandboxError(f"a sandbox has 1 to {MAX_NODES} nodes, not {nodes}")
    known = load_plan(layout)
    network = changes.pop("network", None)
    changed = {name: value for name, value in changes.items() if value is not None}
    if known is None:
        count = nodes or DEFAULT_NODES
        if changed.get("storage") == "ceph":
            changed = {"disks": DISKS_WITH_CEPH, **changed}
        plan = ClusterPlan(nodes=count, coordinators=coordinators_for(count), **changed)
        plan = _with_network(plan, network)
    elif nodes is not None and nodes < known.nodes:
        raise SandboxError(
            f"sandbox {layout.name!r} has {known.nodes} nodes already, so it cannot have {nodes}; "
            f"begin anew: pvc sandbox down --name {layout.name}"
        )
    else:
        _check_fixed(layout, known, changed)
        # New nodes are hypervisors: an ensemble does not grow while it runs.
        plan = msgspec.structs.replace(known, nodes=nodes or known.nodes, **changed)
        plan = _with_network(plan, network)
        if plan.frr != known.frr:
            raise SandboxError(
                f"sandbox {layout.name!r} was made {'with' if known.frr else 'without'} managed networks, which cannot be "
                f"changed; begin anew: pvc sandbox down --name {layout.name}"
            )
    record = msgspec.json.encode(plan)
    try:
        plan = msgspec.json.decode(record, type=ClusterPlan)  # as a later `up` will read it
    except msgspec.ValidationError as error:
        raise SandboxError(f"a cluster cannot be like that: {error}") from None
    if plan.has_ceph and not plan.disks:
        raise SandboxError(
            "a cluster cannot be like that: with Ceph every node needs a disk for its OSD, so disks >= 1"
        )
    write_atomically(Path(layout.state) / PLAN_FILE, record)
    return plan


def _with_network(plan: ClusterPlan, network: str | None) -> ClusterPlan:
    match network:
        case None:
            return plan
        case "vxlan":
            added = {name: plan.plugins.get(name, {}) for name in managed.PLUGINS}
            return msgspec.structs.replace(plan, plugins={**plan.plugins, **added})
        case "bridge":
            kept = {name: section for name, section in plan.plugins.items() if name not in managed.PLUGINS}
            return msgspec.structs.replace(plan, plugins=kept)
        case _:
            raise SandboxError(f"a cluster cannot be like that: its network is bridge or vxlan, not {network!r}")


def _check_fixed(layout: Layout, known: ClusterPlan, changed: Mapping[str, Any]) -> None:
    for name in _FIXED:
        before = getattr(known, name)
        if changed.get(name, before) != before:
            raise SandboxError(
                f"sandbox {layout.name!r} was made with {name} {before!r}, which cannot become {changed[name]!r}; "
                f"begin anew: pvc sandbox down --name {layout.name}"
            )


def configure(layout: Layout, plan: ClusterPlan) -> None:
    """Write what all nodes and clients have in common: the client's configuration, the services' token."""
    layout.shared.mkdir(parents=True, exist_ok=True)
    make_password(layout)
    token = Path(layout.state) / "token"
    if not token.exists():
        write_atomically(token, secrets.token_hex(16) + "\n", mode=0o600)
    if plan.has_ceph:
        ceph.configure(layout, plan.coordinator_numbers(), plan.nodes)
    client = {
        "cluster": _cluster_section(layout, plan),
        "service": _service_section(layout),
        "network_namespace": layout.switch,
    }
    heading = f"# How pvc reaches the sandbox {layout.name!r} from this machine.\n"
    write_atomically(layout.client_config, _yaml(heading, client))


def node_config(layout: Layout, number: int) -> Path:
    """Return the path of a node's pvcnoded.yml."""
    return layout.node_state(number) / "pvcnoded.yml"


def node_is_configured(layout: Layout, plan: ClusterPlan, number: int) -> bool:
    """Return whether a node's configuration is what ``node_services`` would write."""
    path = node_config(layout, number)
    return path.exists() and path.read_text() == _node_yaml(layout, plan, number)


def node_watchdog(plan: ClusterPlan) -> Watchdog | None:
    """Return what every node has for a watchdog."""
    return Watchdog(reboot_s=plan.watchdog_reboot_s) if plan.watchdog else None


def node_equipment(layout: Layout, plan: ClusterPlan, number: int) -> Equipment:
    """Return what every node has beside its cables."""
    binds = (
        *(ceph.node_binds(layout, number) if plan.has_ceph else ()),
        *(frr.node_binds(layout, number) if plan.frr else ()),
    )
    return Equipment(disks=(plan.disk_gib << 30,) * plan.disks, binds=binds, router=plan.frr)


def node_services(layout: Layout, plan: ClusterPlan, number: int) -> list[Service]:
    """Write a node's configuration and return its daemons, beside libvirtd, in the order of their start."""
    write_atomically(node_config(layout, number), _node_yaml(layout, plan, number))
    services = []
    if number in plan.coordinator_numbers():
        members = plan.coordinator_numbers()
        services.append(zookeeper.configure(layout, number, members, lease_s=plan.timing.get("lease")))
    if plan.has_ceph:
        ceph.configure_node(layout, number)
    if plan.frr:
        frr.configure_node(layout, number)
    if plan.has_units:
        systemctl.install(systemctl.programs(layout, number), layout.node_state(number))
    services.append(
        Service(
            name=DAEMON,
            argv=(sys.executable, "-m", "pvc_core.node.main", "--config", str(node_config(layout, number))),
            log=str(layout.node_state(number) / "log/pvcnoded.log"),
            env={"PYTHONUNBUFFERED": "1", "PATH": _programs(layout, plan, number)},
            stop_timeout_s=30.0,
            notifies=True,
            watchdog_s=_WATCHDOG_S,
            final_exits=(_WRONG_CONFIGURATION,),
        )
    )
    return services


def _node_yaml(layout: Layout, plan: ClusterPlan, number: int) -> str:
    given = managed.sections(layout, coordinator=number in plan.coordinator_numbers())
    section: dict[str, Any] = {
        "cluster": _cluster_section(layout, plan),
        "node": {
            "name": layout.node_name(number),
            "address": layout.cluster_address(number),
            "memory_mib": plan.memory_mib,
            "reserved_memory_mib": plan.reserved_memory_mib,
            "accelerator": plan.accelerator,
            "state_directory": str(layout.node_state(number) / "pvc"),
            # The same path on every node, as it must be: a guest that moves takes it along.
            "console_directory": libvirtd.CONSOLES,
            "upload_directory": str(layout.node_state(number) / "upload"),
        },
        "service": _service_section(layout),
        "plugins": {
            **({fencing.PLUGIN: {}} if plan.bmc else {}),
            **({ceph.PLUGIN: {"osd_layout": "raw"}} if plan.has_ceph else {}),
            **{name: {**given.get(name, {}), **section} for name, section in plan.plugins.items()},
        },
    }
    if plan.watchdog:
        section["watchdog"] = {"device": f"/run/{WATCHDOG_SOCKET}", "timeout": plan.watchdog_timeout_s}
    if plan.timing:
        section["timing"] = dict(plan.timing)
    return _yaml(f"# Node {layout.node_name(number)} of a sandbox.\n", section)


def shell_environment(layout: Layout, plan: ClusterPlan, number: int) -> list[str]:
    """Return NAME=VALUE words for a shell on a node: ``pvc`` is on its path and finds the cluster."""
    return [
        f"PVC_CONFIG={node_config(layout, number)}",
        f"PATH={Path(sys.executable).parent}:{_programs(layout, plan, number)}",
        f"PS1={layout.node_name(number)}:\\w# ",
    ]


def _programs(layout: Layout, plan: ClusterPlan, number: int) -> str:
    """Return where a node's programs are sought."""
    return f"{systemctl.programs(layout, number)}:{PROGRAMS}" if plan.has_units else PROGRAMS


def _cluster_section(layout: Layout, plan: ClusterPlan) -> dict[str, Any]:
    members = [
        {"name": layout.node_name(number), "address": layout.cluster_address(number)}
        for number in plan.coordinator_numbers()
    ]
    return {"name": layout.name, "coordinators": members, "zookeeper": {"port": zookeeper.PORT}}


def _service_section(layout: Layout) -> dict[str, Any]:
    return {"token_file": str(Path(layout.state) / "token")}


def _yaml(heading: str, content: Mapping[str, Any]) -> str:
    return heading + yaml.safe_dump(dict(content), sort_keys=False)
