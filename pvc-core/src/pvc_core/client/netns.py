"""Entering a network namespace, for clusters that are simulated on one machine."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from pvc_core.model.errors import InvalidRequest

_CLONE_NEWNET: Final = 0x40000000
_NAMED: Final = Path("/run/netns")


def enter(namespace: str) -> None:
    """Move this thread, and the threads it starts later, into a network namespace.

    ``namespace`` is a name as of ``ip netns``, or the path of a namespace file.  Called before any socket
    is opened and any thread is started, because setns(2) acts on the calling thread only.  Raises
    InvalidRequest when there is no such namespace or the process may not enter it (it needs CAP_SYS_ADMIN).
    """
    path = Path(namespace) if "/" in namespace else _NAMED / namespace
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"cannot enter network namespace {namespace!r}: {path}: {error.strerror}") from error
    try:
        # os.setns() came with Python 3.12; this is 3.11.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            hint = "; it must be run as root" if number == errno.EPERM else ""
            raise InvalidRequest(f"cannot enter network namespace {namespace!r}: {os.strerror(number)}{hint}")
    finally:
        os.close(descriptor)
