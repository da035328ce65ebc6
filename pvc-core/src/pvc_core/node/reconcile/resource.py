"""Resources of kinds that plugins bring: core keeps spec and status, the plugin makes them so."""

from typing import Any, Final

import msgspec

from pvc_core.node.context import NodeContext
from pvc_core.store import keys
from pvc_core.store.api import Create, Delete, Failure, Node, Operation, Put, TransactionFailed
from pvc_core.store.documents import CorruptDocument

_PARENTS: Final = (keys.SPEC, keys.STATUS, keys.NAME, keys.REF)


def make_parents(context: NodeContext, kinds: tuple[str, ...]) -> None:
    """Create the places for documents of these kinds; there already is success."""
    for path in (f"{parent}/{kind}" for kind in kinds for parent in _PARENTS):
        if context.store.get(path) is None:
            try:
                context.store.commit(Create(path, b""))
            except TransactionFailed as error:
                if error.failure is not Failure.EXISTS:
                    raise


class ResourceReconciler:
    """Reconciler of one plugin's kind: gives the spec to the plugin and writes what it answers as the status."""

    def __init__(self, context: NodeContext, kind: str) -> None:
        self._context = context
        self._kind = kind

    def reconcile(self, id_: str) -> float | None:
        """Have the plugins look at one resource; those it does not concern answer None."""
        spec_path, status_path = f"{keys.SPEC}/{self._kind}/{id_}", f"{keys.STATUS}/{self._kind}/{id_}"
        spec, status = self._context.store.get_many([spec_path, status_path])
        answers = self._context.drivers.collect(
            "resource_reconcile", kind=self._kind, id=id_, spec=None if spec is None else _decoded(spec, spec_path)
        )
        answer: dict[str, Any] | None = next((answer for answer in answers if isinstance(answer, dict)), None)
        operation = self._write(status_path, status, None if spec is None else answer, gone=spec is None)
        if operation is not None:
            self._context.store.commit(operation, *self._context.lease.guard())
        return None

    def _write(self, path: str, status: Node | None, answer: dict[str, Any] | None, *, gone: bool) -> Operation | None:
        if gone:
            return None if status is None else Delete(path, status.version)
        if answer is None:
            return None
        value = msgspec.json.encode(answer)
        if status is None:
            return Create(path, value)
        return None if status.value == value else Put(path, value, status.version)


def _decoded(node: Node, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(node.value, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        # Not taken for a spec that is gone: that would undo the resource.
        raise CorruptDocument(f"{path} does not hold a JSON object: {error}") from error
