"""A node's disks: loop devices over sparse files, which are there for as long as its power is on.

The node's first process attaches them, with autoclear, and holds them open: when it dies the kernel detaches them, whoever
or whatever ended it.  So nothing of a run that was killed is left behind.

Layout and numbers are those of <linux/loop.h>, and of loop(4); LOOP_CONFIGURE came with Linux 5.8.
"""

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Final

from pvc_sandbox.errors import SandboxError

LINK: Final = "pvc-disk"
"""A disk is ``/dev/pvc-disk1`` on its node, whatever number its loop device has after a boot."""
_CONTROL: Final = "loop-control"
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_AUTOCLEAR: Final = 4
_CONFIG: Final = struct.Struct("=II 5Q4I 64s64s32s 2Q 8Q")
"""struct loop_config: descriptor, block size, struct loop_info64, reserved."""
_NAME_BYTES: Final = 64
_ATTEMPTS: Final = 100
"""How often another process may take the free device before us."""


def make_image(path: Path, size: int) -> None:
    """Make a disk's file of so many bytes, sparse and empty; one that is there stays as it is."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.truncate(size)
    new.replace(path)


def attach(image: Path, number: int, dev: Path = Path("/dev")) -> int:
    """Show ``image`` as disk ``number`` (from 1) in a node's own /dev; return the descriptor that keeps it attached.

    Raises SandboxError when this machine has no loop devices, OSError for what the kernel refuses.
    """
    with image.open("r+b") as file:
        for _ in range(_ATTEMPTS):
            name = _free_device(dev)
            device = os.open(_node(dev, name), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _configuration(file.fileno(), image))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
                # It is another node's by now, whose disk must not be seen here.
                (dev / name).unlink()
            else:
                (dev / f"{LINK}{number}").symlink_to(name)
                return device
    raise SandboxError(f"no loop device for {image}: others take them as soon as they are free")


def is_loop_device(name: str) -> bool:
    """Return whether something in /dev is called like a loop device."""
    return name.startswith("loop") and name[4:].isdigit()


def _free_device(dev: Path) -> str:
    try:
        with (dev / _CONTROL).open("r+b", buffering=0) as control:
            return f"loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
    except FileNotFoundError:
        raise SandboxError(
            f"{dev / _CONTROL} is not there, and a node's disks are loop devices: load the kernel's module `loop`"
        ) from None


def _node(dev: Path, name: str) -> Path:
    """Return the device's node, made if need be: the kernel makes that of a new device in the machine's /dev only."""
    path = dev / name
    if not path.exists():
        major, minor = Path("/sys/block", name, "dev").read_text().split(":")
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
    return path


def _configuration(descriptor: int, image: Path) -> bytes:
    # The name is for people only: `losetup` shows it where the file itself cannot be told.
    name = os.fsencode(image)[-_NAME_BYTES + 1 :]
    numbers = (0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR)
    return _CONFIG.pack(descriptor, 0, *numbers, name, b"", b"", 0, 0, *(0,) * 8)
