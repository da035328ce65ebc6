"""Named network namespaces, as those of ``ip netns``: made, entered and removed."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pyroute2 import netns

from pvc_core.plugin import DriverError

NAMED: Final = Path("/run/netns")
"""Where named namespaces are mounted."""
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    """Return whether a namespace is there; the mere file that a killed process left of one is not."""
    path = NAMED / name
    try:
        return path.stat().st_dev != NAMED.stat().st_dev
    except FileNotFoundError:
        return False


def names(prefix: str) -> list[str]:
    """Return the names of all namespaces, halves of them included, that begin with ``prefix``."""
    try:
        return sorted(path.name for path in NAMED.iterdir() if path.name.startswith(prefix))
    except FileNotFoundError:
        return []


def create(name: str) -> None:
    """Make a namespace; one that is there is kept."""
    if exists(name):
        return
    with _telling(f"making network namespace {name}"):
        (NAMED / name).unlink(missing_ok=True)
        netns.create(name)


def remove(name: str) -> None:
    """Remove a namespace and with it the devices that are only in it; gone already is success.

    The kernel ends the namespace when the last process in it has ended too.
    """
    with _telling(f"removing network namespace {name}"):
        if exists(name):
            netns.remove(name)
        else:
            (NAMED / name).unlink(missing_ok=True)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Have this thread in a namespace; it comes back at the end.

    A socket, and a child process, belongs to the namespace in which it was made.  Raises DriverError when there is none of
    this name.
    """
    try:
        there = (NAMED / name).open("rb")
    except OSError as error:
        raise DriverError(f"there is no network namespace {name}: {error.strerror}") from error
    with Path("/proc/thread-self/ns/net").open("rb") as home, there:
        _enter(name, there.fileno())
        try:
            yield
        finally:
            _enter("of this process", home.fileno())


def _enter(name: str, descriptor: int) -> None:
    # os.setns() came with Python 3.12.
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise DriverError(
            f"cannot enter network namespace {name}: {os.strerror(number)}", retryable=number != errno.EPERM
        )


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriverError(f"{what}: {error.strerror}") from error
