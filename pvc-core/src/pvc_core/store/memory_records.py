"""The nodes of the in-memory state tree and ZooKeeper's rules for them.  Not thread-safe: its owner locks."""

from collections.abc import Callable, Sequence
from typing import assert_never

from pvc_core.store.api import (
    ANY,
    Check,
    CheckAbsent,
    Create,
    Delete,
    Failure,
    Node,
    Operation,
    Put,
    TransactionFailed,
)
from pvc_core.store.limits import parent


class _Record:
    __slots__ = ("_node", "children", "owner", "value", "version")

    def __init__(self, value: bytes, owner: int) -> None:
        self.value = value
        self.version = 0
        self.owner = owner
        self.children: set[str] = set()
        self._node = Node(value, 0, owner != 0)

    def node(self) -> Node:
        return self._node

    def set(self, value: bytes, version: int) -> None:
        self.value, self.version = value, version
        self._node = Node(value, version, self.owner != 0)

    def copy(self) -> "_Record":
        other = _Record(self.value, self.owner)
        other.set(self.value, self.version)
        other.children = set(self.children)
        return other


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Records:
    """All nodes by path.  An ephemeral node has the number of its session as owner, any other 0."""

    def __init__(self) -> None:
        self._records = {"/": _Record(b"", 0)}

    def get(self, path: str) -> Node | None:
        """Return the node, or None."""
        record = self._records.get(path)
        return None if record is None else record.node()

    def children(self, path: str) -> list[str]:
        """Return the names of the children, sorted."""
        record = self._records.get(path)
        return [] if record is None else sorted(record.children)

    def copy(self) -> "Records":
        """Return all nodes as they are now."""
        other = Records()
        other._records = {path: record.copy() for path, record in self._records.items()}
        return other

    def dump(self) -> dict[str, Node]:
        """Return every node but the root, by path."""
        return {path: record.node() for path, record in sorted(self._records.items()) if path != "/"}

    def apply(self, operations: Sequence[Operation], owner: int) -> list[str]:
        """Carry out all operations or none, each seeing what those before it did; return the changed paths in order.

        Raises TransactionFailed.
        """
        undo: list[Callable[[], None]] = []
        changed: list[str] = []
        for operation in operations:
            try:
                if self._step(operation, owner, undo):
                    changed.append(operation.path)
            except _RefusedError as refused:
                for revert in reversed(undo):
                    revert()
                raise TransactionFailed(operation, refused.failure) from None
        return changed

    def end_session(self, owner: int) -> list[str]:
        """Delete the ephemeral nodes of a session; return their paths."""
        gone = sorted(path for path, record in self._records.items() if record.owner == owner)
        for path in gone:
            self._remove(path)
        return gone

    def _step(self, operation: Operation, owner: int, undo: list[Callable[[], None]]) -> bool:
        path = operation.path
        match operation:
            case Create(_, value, ephemeral):
                self._demand_absent(path)
                self._add(path, _Record(value, owner if ephemeral else 0))
                undo.append(lambda: self._remove(path))
                return True
            case Put(_, value, version):
                record = self._demand(path, version)
                old = (record.value, record.version)
                record.set(value, record.version + 1)
                undo.append(lambda: record.set(*old))
                return True
            case Delete(_, version):
                record = self._demand(path, version)
                if record.children:
                    raise _RefusedError(Failure.NOT_EMPTY)
                self._remove(path)
                undo.append(lambda: self._add(path, record))
                return True
            case Check(_, version):
                self._demand(path, version)
                return False
            case CheckAbsent():
                self._demand_absent(path)
                return False
            case _:
                assert_never(operation)

    def _demand(self, path: str, version: int) -> _Record:
        record = self._records.get(path)
        if record is None:
            raise _RefusedError(Failure.NO_NODE)
        if version not in (ANY, record.version):
            raise _RefusedError(Failure.BAD_VERSION)
        return record

    def _demand_absent(self, path: str) -> None:
        if path in self._records:
            raise _RefusedError(Failure.EXISTS)
        above = self._records.get(parent(path))
        if above is None:
            raise _RefusedError(Failure.NO_NODE)
        if above.owner:
            raise _RefusedError(Failure.EPHEMERAL_PARENT)

    def _add(self, path: str, record: _Record) -> None:
        self._records[path] = record
        self._records[parent(path)].children.add(_name(path))

    def _remove(self, path: str) -> None:
        del self._records[path]
        self._records[parent(path)].children.discard(_name(path))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
