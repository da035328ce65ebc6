"""What the driver and its worker processes say to each other: one frame per message, over pipes.

A frame is the length of its body (4 bytes, big-endian) and the body (MessagePack).  The driver sends ``Open`` once and
then one ``Call`` after the other; a worker answers each with any number of ``Progress`` and one ``Done`` or ``Failed``,
and says once by which address Ceph knows it (``Connected``).
Each ``Progress`` is answered with a ``Proceed``.
"""

import struct
from typing import Any, Final, NamedTuple

import msgspec

from pvc_core.plugin import (
    AuthFailed,
    Cancelled,
    DriverError,
    NotReady,
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    Unsupported,
)

HEAD: Final = struct.Struct(">I")
MAX_BODY: Final = 64 * 1024 * 1024

_KINDS: Final[dict[str, type[DriverError]]] = {
    kind.__name__: kind for kind in (AuthFailed, NotReady, ObjectBusy, ObjectExists, ObjectMissing, Unsupported)
}
_CANCELLED: Final = "Cancelled"
_BLOCKED: Final = "ClientBlocked"


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """With what the worker connects."""

    conf: str
    user: str
    keyring: str = ""
    state_pool: str = "pvc"
    node: str = ""
    """Name of the node it works for."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Do something."""

    name: str
    """As in ``worker.calls``."""
    arguments: dict[str, Any] = {}
    dead: tuple[str, ...] = ()
    """Clients of Ceph that were killed at work: they are to be forgotten first."""


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """The worker is a client of Ceph from now on."""

    address: str


class Readable(NamedTuple):
    """What of a volume can be read for long."""

    snapshot: str
    instant: str
    """Its identity, by which it is found out whether it is still there."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A call goes on."""

    done: float


class Proceed(msgspec.Struct, frozen=True):
    """Answer to ``Progress``."""

    stop: bool = False


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A call succeeded."""

    value: Any = None


class ClientBlocked(NotReady):
    """Ceph does not serve this client any more: its node was blocked since it connected."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A call failed."""

    kind: str
    message: str
    retryable: bool = True
    defect: bool = False
    """Nobody expected it: the worker is not to be used again."""


Answer = Connected | Progress | Done | Failed


def failure(error: DriverError | Cancelled) -> Failed:
    """Return what tells the driver of an error."""
    if isinstance(error, Cancelled):
        return Failed(kind=_CANCELLED, message=str(error))
    return Failed(kind=type(error).__name__, message=str(error), retryable=error.retryable)


def exception(failed: Failed) -> DriverError | Cancelled:
    """Return the error that a worker told of."""
    if failed.kind == _CANCELLED:
        return Cancelled(failed.message)
    kind = ClientBlocked if failed.kind == _BLOCKED else _KINDS.get(failed.kind, DriverError)
    error = kind(failed.message)
    error.retryable = failed.retryable
    return error
