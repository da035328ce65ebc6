"""The first process of a node: ``python -m pvc_sandbox.node_init SPEC LOCK_FD``.

It makes the node's namespaces, mounts what a host of its own would have, and then supervises services.  When it
dies, the kernel ends everything in its PID namespace: that is the node's power cut.
"""

import os
import socket
import sys
from pathlib import Path

import msgspec

from pvc_sandbox import syscalls
from pvc_sandbox.control import SOCKET_NAME
from pvc_sandbox.devices import DeviceEvents, mount_devices
from pvc_sandbox.disks import attach
from pvc_sandbox.records import go_on_recorded
from pvc_sandbox.supervisor import Supervisor


class InitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is made of."""

    name: str
    run: str
    """Directory that becomes /run."""
    pid_file: str
    binds: tuple[tuple[str, str], ...]
    """Files and directories of the machine, and what each stands in place of in the node."""
    disks: tuple[str, ...] = ()
    """Files that are the node's disks."""


def main() -> None:
    """Become the first process of a node; the process that was called ends as soon as that is recorded."""
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=InitSpec)
    syscalls.unshare(
        syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWPID
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWNET
    )
    go_on_recorded(Path(spec.pid_file), int(sys.argv[2]))
    _run(spec)


def _run(spec: InitSpec) -> None:
    os.chdir("/")
    _mount(spec)
    for number, image in enumerate(spec.disks, 1):
        attach(Path(image), number)  # held open for ever: see there
    socket.sethostname(spec.name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = Path("/run") / SOCKET_NAME
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    listener.listen()
    supervisor = Supervisor(listener, Path("/run"))
    events = DeviceEvents()
    supervisor.also(events, events.handle)
    supervisor.run()


def _mount(spec: InitSpec) -> None:
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    _forget_mounts_of_the_machine()
    for source, target in spec.binds:
        place = Path(target)
        if not place.exists():
            if Path(source).is_dir():
                place.mkdir(parents=True)
            else:
                place.touch()
        syscalls.bind(source, target)
    # Of this PID namespace, and of this network namespace: /sys/class/net shows the node's own links.
    syscalls.mount("proc", "/proc", "proc")
    syscalls.mount("sysfs", "/sys", "sysfs")
    staging = Path(spec.run) / "dev"
    staging.mkdir()
    mount_devices(staging)
    staging.rmdir()
    syscalls.bind(spec.run, "/run")


def _forget_mounts_of_the_machine() -> None:
    """Let go of the copies of mounts that came with the mount namespace and are to be hidden.

    Below /run a named network namespace is such a mount: while any copy of it is held, deleting the name does not
    end it.  Below /sys the machine's cgroups are: libvirt finds them in the list of mounts, hidden or not.
    """
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed(mounts):
        if place.startswith(("/run/", "/sys/")):
            syscalls.unmount(place)


if __name__ == "__main__":
    main()
