"""Requests that kazoo 2.11 lacks, or whose answers it does not read well enough.

Layouts are those of ZooKeeper's ``zookeeper.jute``, ``MultiOperationRecord`` and ``MultiResponse``.
An object with ``type``, ``serialize()`` and ``deserialize(buffer, offset)`` is what kazoo's
connection sends.
"""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, Final, assert_never

from kazoo.protocol.serialization import (
    CheckVersion,
    MultiHeader,
    SetData,
    Transaction,
    multiheader_struct,
    read_string,
    write_string,
)
from kazoo.protocol.serialization import Create as CreateRequest
from kazoo.protocol.serialization import Delete as DeleteRequest
from msgspec import Struct

from pvc_core.store.api import Check, CheckAbsent, Create, Delete, Failure, Node, Operation, Put

PERSISTENT_RECURSIVE: Final = 1
NO_NODE: Final = -101
NO_AUTH: Final = -102
FAILURES: Final = {
    NO_NODE: Failure.NO_NODE,
    -103: Failure.BAD_VERSION,
    -108: Failure.EPHEMERAL_PARENT,
    -110: Failure.EXISTS,
    -111: Failure.NOT_EMPTY,
}
"""What the servers answer for the operation of a transaction that failed."""
BESIDE_FAILURE: Final = (0, -2)
"""What they answer for the others: "rolled back", and "runtime inconsistency" behind it."""

_HEADER: Final = struct.Struct("!iBi")
_INT: Final = struct.Struct("!i")
_STAT: Final = struct.Struct("!qqqqiiiqiiq")
_END: Final = multiheader_struct.pack(-1, True, -1)
_GET_DATA: Final = 4
_GET_CHILDREN: Final = 8
_ERROR: Final = -1


class AddWatch(Struct, frozen=True):
    """A watch that stays until the connection ends (ZooKeeper 3.6 and later)."""

    path: str
    type: ClassVar[int] = 106

    def serialize(self) -> bytes:
        return bytes(write_string(self.path)) + _INT.pack(PERSISTENT_RECURSIVE)

    @staticmethod
    def deserialize(_buffer: bytes, _offset: int) -> None:
        return None


class MultiRead(Struct, frozen=True):
    """Many reads in one request (ZooKeeper 3.6 and later).

    Answers for each path a Node, or the names of its children, or an error code.
    """

    paths: Sequence[str]
    children: bool = False
    """Read the names of the children instead of the value."""
    type: ClassVar[int] = 22

    def serialize(self) -> bytes:
        header = multiheader_struct.pack(_GET_CHILDREN if self.children else _GET_DATA, False, -1)
        parts: list[bytes] = []
        for path in self.paths:
            raw = path.encode()
            parts += (header, _INT.pack(len(raw)), raw, b"\0")
        parts.append(_END)
        return b"".join(parts)

    @staticmethod
    def deserialize(buffer: bytes, offset: int) -> list[Node | list[str] | int]:
        answers: list[Node | list[str] | int] = []
        while True:
            kind, done, error = _HEADER.unpack_from(buffer, offset)
            offset += _HEADER.size
            if done:
                return answers
            if kind == _ERROR:
                answers.append(error)
                offset += _INT.size
            elif kind == _GET_CHILDREN:
                (count,) = _INT.unpack_from(buffer, offset)
                offset += _INT.size
                names: list[str] = []
                for _ in range(count):
                    name, offset = read_string(buffer, offset)
                    names.append(name)
                answers.append(names)
            else:
                (length,) = _INT.unpack_from(buffer, offset)
                offset += _INT.size
                end = offset + max(length, 0)
                stat = _STAT.unpack_from(buffer, end)
                answers.append(Node(buffer[offset:end], stat[4], stat[7] != 0))
                offset = end + _STAT.size


class Multi(Struct, frozen=True):
    """A transaction; answers one error code per operation, 0 for those that did not fail.

    kazoo's own answer leaves operations out and mixes exceptions with results.
    """

    operations: Sequence[Any]
    """Requests of ``kazoo.protocol.serialization``."""
    type: ClassVar[int] = Transaction.type

    def serialize(self) -> bytes:
        parts: list[bytes] = []
        for operation in self.operations:
            parts += (multiheader_struct.pack(operation.type, False, -1), operation.serialize())
        parts.append(_END)
        return b"".join(parts)

    @staticmethod
    def deserialize(buffer: bytes, offset: int) -> list[int]:
        codes: list[int] = []
        while True:
            header, offset = MultiHeader.deserialize(buffer, offset)
            if header.done:
                return codes
            if header.type == _ERROR:
                codes.append(_INT.unpack_from(buffer, offset)[0])
                offset += _INT.size
                continue
            codes.append(0)
            if header.type == 1:  # create: the path
                offset += _INT.size + _INT.unpack_from(buffer, offset)[0]
            elif header.type == 5:  # setData: the stat
                offset += _STAT.size


def requests_for(operation: Operation, acl: Sequence[Any]) -> list[Any]:
    """Return what an operation is in a ``Multi``; ``acl`` is for the nodes that it creates."""
    match operation:
        case Create(path, value, ephemeral):
            return [CreateRequest(path, value, acl, 1 if ephemeral else 0)]
        case Put(path, value, version):
            return [SetData(path, value, version)]
        case Delete(path, version):
            return [DeleteRequest(path, version)]
        case Check(path, version):
            return [CheckVersion(path, version)]
        case CheckAbsent(path):
            # ZooKeeper has no such check; to create and delete is one, and leaves nothing behind.
            return [CreateRequest(path, b"", acl, 0), DeleteRequest(path, -1)]
        case _:
            assert_never(operation)
