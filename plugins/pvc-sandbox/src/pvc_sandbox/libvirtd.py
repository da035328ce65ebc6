"""libvirtd of a node: configuration, and the files that tell the nodes apart.

Checked with libvirt 9.0 and QEMU 7.2; what each setting is for is said where it is not plain.
"""

import uuid
from pathlib import Path
from typing import Final

from pvc_sandbox.control import Service
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import MAX_NODES, Layout

SOCKET: Final = "libvirt/libvirt-sock"
_DEBIAN_UID: Final = 64055
"""Of user libvirt-qemu, as Debian allots it."""

CONSOLES: Final = "/var/log/libvirt/console"
"""Logs of the guests' consoles, as a node sees them."""


def console_logs(layout: Layout, number: int) -> Path:
    """Return where a node's console logs are on this machine."""
    return layout.node_state(number) / "libvirt/log/console"


def configure(layout: Layout, number: int) -> tuple[tuple[str, str], ...]:
    """Write a node's libvirt files; return what is to be mounted where in the node."""
    state = layout.node_state(number)
    for directory in ("lib", "log", "cache"):
        (state / "libvirt" / directory).mkdir(parents=True, exist_ok=True)
    identity = _identity(state)
    address = layout.cluster_address(number)
    write_atomically(state / "libvirt/etc/libvirtd.conf", _LIBVIRTD.format(uuid=identity))
    write_atomically(state / "libvirt/etc/qemu.conf", _QEMU.format(address=address))
    write_atomically(state / "etc/machine-id", identity.hex + "\n")
    write_atomically(state / "etc/hosts", _hosts(layout))
    # libvirtd refuses to start without Debian's user for QEMU, even where QEMU runs as root.
    _with_line(
        state / "etc/passwd", "libvirt-qemu", f"x:{_DEBIAN_UID}:{_DEBIAN_UID}::/var/lib/libvirt:/usr/sbin/nologin"
    )
    _with_line(state / "etc/group", "libvirt-qemu", f"x:{_DEBIAN_UID}:")
    machine_id = Path("/etc/machine-id")
    if not machine_id.exists():  # containers often have none, and a file can only be mounted over a file
        machine_id.touch()
    return (
        (str(state / "libvirt/etc"), "/etc/libvirt"),
        (str(state / "libvirt/lib"), "/var/lib/libvirt"),
        (str(state / "libvirt/log"), "/var/log/libvirt"),
        (str(state / "libvirt/cache"), "/var/cache/libvirt"),
        *((str(state / "etc" / name), f"/etc/{name}") for name in ("machine-id", "hosts", "passwd", "group")),
    )


def service(layout: Layout, number: int) -> Service:
    """Return the daemon itself.  ``--listen``: other nodes' libvirtd migrate guests to it over TCP."""
    return Service(
        name="libvirtd",
        argv=("libvirtd", "--listen", "-f", "/etc/libvirt/libvirtd.conf"),
        log=str(layout.node_state(number) / "log/libvirtd.log"),
    )


def uri(layout: Layout, number: int) -> str:
    """Return the URI with which the machine itself reaches a node's libvirt, through its socket."""
    return f"qemu+unix:///system?socket={layout.node_run(number) / SOCKET}"


def _identity(state: Path) -> uuid.UUID:
    """Return the node's own UUID, made once: libvirt takes hosts with equal ones for the same host."""
    path = state / "uuid"
    if not path.exists():
        write_atomically(path, f"{uuid.uuid4()}\n")
    return uuid.UUID(path.read_text().strip())


def _hosts(layout: Layout) -> str:
    lines = ["127.0.0.1 localhost"]
    lines += [f"{layout.cluster_address(number)} {layout.node_name(number)}" for number in range(1, MAX_NODES + 1)]
    return "\n".join(lines) + "\n"


def _with_line(path: Path, name: str, rest: str) -> None:
    lines = Path("/etc", path.name).read_text().splitlines()
    if not any(line.startswith(f"{name}:") for line in lines):
        lines.append(f"{name}:{rest}")
    write_atomically(path, "\n".join(lines) + "\n")


_LIBVIRTD: Final = """\
host_uuid = "{uuid}"
listen_tcp = 1
# on by default with --listen, and then it wants certificates
listen_tls = 0
auth_tcp = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
# A peer whose power is cut says nothing: it is given up after 6 s, not after the default of 30 s.
keepalive_interval = 1
keepalive_count = 5
"""

_QEMU: Final = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
# The node is a namespace already, and its /dev is its own.
namespaces = []
# The machine's cgroups belong to the machine.
cgroup_controllers = []
# virtlogd is not there.
stdio_handler = "file"
migration_host = "{address}"
vnc_listen = "0.0.0.0"
keepalive_interval = 1
keepalive_count = 5
"""
