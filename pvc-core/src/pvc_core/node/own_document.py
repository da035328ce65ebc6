"""A document that only this node writes: one round trip per write, as its version is known from the last."""

from typing import Final, Generic, TypeVar

from pvc_core.model.base import Document
from pvc_core.node.context import NodeContext
from pvc_core.store import documents
from pvc_core.store.documents import Entry
from pvc_core.store.keys import Key

T = TypeVar("T", bound=Document)


class OwnDocument(Generic[T]):
    """The document at a key.  Not for several threads at once."""

    def __init__(self, context: NodeContext, key: Key[T]) -> None:
        self._context: Final = context
        self._key: Final = key
        self._entry: Entry[T] | None = None
        self._unknown = True

    def value(self) -> T | None:
        """Return what is written now, read only when that is not known.  Raises StoreUnavailable, CorruptDocument."""
        entry = self._known()
        return None if entry is None else entry.value

    def write(self, new: T) -> None:
        """Write under this node's lease.  Raises StoreUnavailable, LeaseLost, TransactionFailed."""
        store, guard = self._context.store, self._context.lease.guard()
        entry = self._known()
        operation = documents.create(self._key, new) if entry is None else entry.put(new)
        self._unknown = True
        store.commit(operation, *guard)
        self._unknown = False
        self._entry = Entry(self._key, new, 0 if entry is None else entry.version + 1, operation.value)

    def delete(self) -> None:
        """Delete it, if it is there.  Raises StoreUnavailable, LeaseLost, TransactionFailed."""
        guard = self._context.lease.guard()
        entry = self._known()
        if entry is not None:
            self._unknown = True
            self._context.store.commit(entry.delete(), *guard)
            self._unknown = False
            self._entry = None

    def _known(self) -> Entry[T] | None:
        if self._unknown:
            self._entry = documents.read(self._context.store, self._key)
            self._unknown = False
        return self._entry
