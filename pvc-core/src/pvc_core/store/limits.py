"""What ZooKeeper takes: path syntax and sizes.  Checked before anything is sent, in every implementation.

ZooKeeper closes the connection on a request above ``jute.maxbuffer`` (1 MiB - 1), which would fail
everything else in flight, and says of a bad path only that it is one.
"""

from collections.abc import Iterable
from typing import Final

from pvc_core.model.errors import InvalidRequest
from pvc_core.store.api import Create, Operation, Put

MAX_REQUEST: Final = 1_000_000
"""Bytes that one value, or all of a transaction, may have; leaves room for headers and ACLs."""
OPERATION_OVERHEAD: Final = 120
"""Bytes of an operation beside path and value, rounded up: headers, lengths, version, one ACL."""

_FORBIDDEN: Final = frozenset(
    [
        *map(chr, range(0x20)),
        *map(chr, range(0x7F, 0xA0)),
        *map(chr, range(0xD800, 0xF900)),
        *map(chr, range(0xFFF0, 0x10000)),
    ]
)


class TooLarge(InvalidRequest):
    """A value, or a transaction, is larger than the store takes."""


def check_path(path: str) -> str:
    """Return ``path``; raise InvalidRequest unless ZooKeeper accepts it (PathUtils.validatePath of ZooKeeper 3.8)."""
    if path == "/":
        return path
    if not path.startswith("/") or path.endswith("/"):
        raise InvalidRequest(f"{path!r} is not a path of the state tree: it must begin with '/' and not end with one")
    if not _FORBIDDEN.isdisjoint(path):
        raise InvalidRequest(f"{path!r} is not a path of the state tree: it has control or private characters")
    if "//" in path or "/." in path:
        for part in path[1:].split("/"):
            if part in ("", ".", ".."):
                raise InvalidRequest(f"{path!r} is not a path of the state tree: it has the component {part!r}")
    return path


def parent(path: str) -> str:
    """Return the path of a node's parent."""
    return path.rpartition("/")[0] or "/"


def at_or_below(path: str, prefix: str) -> bool:
    """Return whether a path is ``prefix`` or below it."""
    return prefix in ("/", path) or path.startswith(prefix + "/")


def request_size(operation: Operation) -> int:
    """Return an upper bound of the bytes an operation has in a transaction."""
    size = len(operation.path.encode()) + OPERATION_OVERHEAD
    return size + len(operation.value) if isinstance(operation, Create | Put) else size


def check_transaction(operations: Iterable[Operation]) -> None:
    """Raise InvalidRequest on a bad path, TooLarge on a value or a transaction above ``MAX_REQUEST``."""
    total = 0
    for operation in operations:
        check_path(operation.path)
        if isinstance(operation, Create | Put) and len(operation.value) > MAX_REQUEST:
            raise TooLarge(
                f"the value for {operation.path} has {len(operation.value):,} bytes; the state store takes at most "
                f"{MAX_REQUEST:,}: make it smaller"
            )
        total += request_size(operation)
    if total > MAX_REQUEST:
        raise TooLarge(
            f"the transaction has about {total:,} bytes; the state store takes at most {MAX_REQUEST:,}: "
            "do it in several smaller ones"
        )
