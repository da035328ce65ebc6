"""Limits of NICs on a host whose kernel lacks parts of traffic control.

libvirt limits what comes to a guest with a class of ``htb``, below which it wants the fair queue ``sfq`` and a filter by mark;
and what a guest sends with the action ``police`` (``virNetDevBandwidthSet``).  Kernels of small virtual machines often have
``htb`` alone.  There the class keeps the limit all the same; what is missing is left out, and nothing is limited the other way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from pvc_core.plugin.process import Completed

_TC: Final = "/usr/sbin/tc"
_REAL: Final = "/run/testkit-tc"

_SHIM: Final = f"""#!/bin/sh
said=$({_REAL} "$@" 2>&1) && {{ echo "$said"; exit 0; }}
status=$?
case "$*" in
*" sfq "*|*" fw "*|*" police "*) exit 0 ;;
esac
echo "$said" >&2
exit $status
"""


class Exec(Protocol):
    """Runs a command on the host, in a mount namespace of its own."""

    def __call__(self, argv: Sequence[str], *, deadline_s: float = ..., stdin: bytes = ...) -> Completed: ...


@contextmanager
def shaping(exec_: Exec) -> Iterator[None]:
    """Have ``tc`` on a host leave out what its kernel cannot do, of what libvirt wants."""
    exec_(["cp", _TC, _REAL]).check()
    exec_(["sh", "-c", f"cat > {_REAL}-shim && chmod 755 {_REAL}-shim"], stdin=_SHIM.encode()).check()
    exec_(["mount", "--bind", f"{_REAL}-shim", _TC]).check()
    try:
        yield
    finally:
        exec_(["umount", _TC]).check()
