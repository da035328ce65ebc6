"""The few Linux system calls that Python 3.11 does not offer."""

import ctypes
import os
from typing import Final

# <linux/sched.h>
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

# <sys/mount.h>
MS_NOSUID: Final = 2
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` (unshare(2)); a new PID namespace holds from the next fork on."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount (mount(2)); the error names the target."""
    arguments = [text.encode() for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode()), f"mount {source} on {target}")


def bind(source: str, target: str) -> None:
    """Show ``source``, a file or a directory, in place of ``target``."""
    mount(source, target, flags=MS_BIND)


def unmount(target: str) -> None:
    """Detach a mount and everything below it, used or not."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")
