"""Named network namespaces, as those of ``ip netns``: made, entered and removed."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pvc_core.plugin import DriverError

NAMED: Final = Path("/run/netns")
"""Where named namespaces are mounted."""
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_SHARED: Final = 0x100000
_MNT_DETACH: Final = 2
_libc: Final = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    """Return whether a namespace is there; the mere file that a killed process left of one is not."""
    path = NAMED / name
    with _telling(f"looking for network namespace {name}"):
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
        _share_names()
        (NAMED / name).unlink(missing_ok=True)
        (NAMED / name).touch(mode=0o444, exist_ok=False)
        _in_a_thread(lambda: _make(name))


def remove(name: str) -> None:
    """Remove a namespace and with it the devices that are only in it; gone already is success.

    The kernel ends the namespace when the last process in it has ended too.
    """
    with _telling(f"removing network namespace {name}"):
        if exists(name):
            _done(_libc.umount2(bytes(NAMED / name), _MNT_DETACH))
        (NAMED / name).unlink(missing_ok=True)


def opened(name: str) -> IO[bytes]:
    """Return the open file of a namespace; raises DriverError when there is none of this name, or half of one."""
    if not exists(name):
        raise DriverError(f"there is no network namespace {name}")
    try:
        return (NAMED / name).open("rb")
    except OSError as error:
        raise DriverError(f"there is no network namespace {name}: {error.strerror}") from error


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Have this thread in a namespace; it comes back at the end.

    A socket, and a child process, belongs to the namespace in which it was made.  Raises DriverError when there is none of
    this name.
    """
    with opened(name) as there, Path("/proc/thread-self/ns/net").open("rb") as home:
        _enter(name, there.fileno())
        try:
            yield
        finally:
            _enter("of this process", home.fileno())


def _share_names() -> None:
    """Make the directory of names such that other mount namespaces see what is mounted in it, as ip-netns(8) does."""
    NAMED.mkdir(parents=True, exist_ok=True)
    place = bytes(NAMED)
    if _libc.mount(b"", place, b"none", _MS_SHARED | _MS_REC, None):
        _done(_libc.mount(place, place, b"none", _MS_BIND | _MS_REC, None))
        _done(_libc.mount(b"", place, b"none", _MS_SHARED | _MS_REC, None))


def _make(name: str) -> None:
    _done(_libc.unshare(_CLONE_NEWNET))
    _done(_libc.mount(b"/proc/thread-self/ns/net", bytes(NAMED / name), b"none", _MS_BIND, None))


def _in_a_thread(call: Callable[[], None]) -> None:
    """Make a call in a thread that ends with it: it leaves this process's namespace without a way back."""
    errors: list[OSError] = []

    def called() -> None:
        try:
            call()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=called, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def _done(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


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
