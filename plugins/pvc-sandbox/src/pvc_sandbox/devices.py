"""A node's own /dev.

The kernel's devtmpfs is one for all namespaces, and a macvtap's device is called ``/dev/tap<ifindex>``: two
nodes in which the same interface index came up would silently open each other's tap.  So each node gets a
tmpfs with the machine's devices, and taps appear there as udev would make them: from the kernel's events,
which each network namespace gets for its own links only.  Of the loop devices a node sees its own disks only.
"""

import os
import socket
import stat
from pathlib import Path
from typing import Final

from pvc_sandbox.disks import is_loop_device
from pvc_sandbox.syscalls import MS_MOVE, MS_NOEXEC, MS_NOSUID, mount

_OWN: Final = {"pts", "shm", "mqueue", "hugepages", "ptmx"}
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_NETLINK_KOBJECT_UEVENT: Final = 15
_EVENTS_OF_THE_KERNEL: Final = 1


def mount_devices(staging: Path) -> None:
    """Replace /dev of this mount namespace; ``staging`` is an empty directory outside /dev."""
    mount("tmpfs", str(staging), "tmpfs", MS_NOSUID, "mode=755,size=1m")
    _copy_nodes(Path("/dev"), staging)
    for name, target in _LINKS.items():
        (staging / name).symlink_to(target)
    for name in ("pts", "shm"):
        (staging / name).mkdir()
    mount("devpts", str(staging / "pts"), "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    mount("tmpfs", str(staging / "shm"), "tmpfs", MS_NOSUID)
    # Moving needs the parent mount to be private, which it is; the machine's own /dev lies below, out of sight.
    mount(str(staging), "/dev", flags=MS_MOVE)


def _copy_nodes(source: Path, target: Path) -> None:
    device = source.stat().st_dev
    for entry in source.iterdir():
        if entry.name in _OWN or _is_of_another_node(entry.name) or _is_spare_terminal(entry.name):
            continue
        found = entry.lstat()
        copy = target / entry.name
        if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
            copy.mkdir(mode=stat.S_IMODE(found.st_mode))
            _copy_nodes(entry, copy)
        elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            os.mknod(copy, found.st_mode, found.st_rdev)
            copy.chmod(stat.S_IMODE(found.st_mode))
            os.chown(copy, found.st_uid, found.st_gid)


def _is_of_another_node(name: str) -> bool:
    return _is_tap(name) or is_loop_device(name)


def _is_tap(name: str) -> bool:
    return name.startswith("tap") and name[3:].isdigit()


def _is_spare_terminal(name: str) -> bool:
    return name.startswith(("tty", "vcs")) and name not in ("tty", "tty0", "ttyS0")


class DeviceEvents:
    """Makes and removes the node's tap devices as the kernel reports them."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
        )
        self._socket.bind((0, _EVENTS_OF_THE_KERNEL))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def handle(self) -> None:
        """Act on the events that are waiting."""
        while True:
            try:
                message = self._socket.recv(65536)
            except BlockingIOError:
                return
            fields = dict(line.split("=", 1) for line in message.decode("utf-8", "replace").split("\0") if "=" in line)
            name = fields.get("DEVNAME", "").removeprefix("/dev/")
            if not _is_tap(name):
                continue
            path = Path("/dev") / name
            path.unlink(missing_ok=True)
            if fields.get("ACTION") == "add":
                number = os.makedev(int(fields["MAJOR"]), int(fields["MINOR"]))
                os.mknod(path, stat.S_IFCHR | 0o660, number)
