"""Removes image files that were sent to this node and that nobody goes on with."""

from typing import Final

from pvc_core.model.task import FINAL
from pvc_core.node.context import NodeContext
from pvc_core.node.uploads import Uploads
from pvc_core.store import keys
from pvc_core.store.documents import read_many

_LOOK_S: Final = 600.0


class UploadSweeper:
    """Reconciler of the key ``("upload", "")``."""

    def __init__(self, context: NodeContext, uploads: Uploads) -> None:
        self._context = context
        self._uploads = uploads

    def reconcile(self, id_: str) -> float | None:
        """Look through the files; return when to do so again.  Raises StoreUnavailable."""
        del id_
        store = self._context.store
        tasks = [
            entry.value for entry in read_many(store, [keys.task(id_) for id_ in store.children(keys.TASK)]) if entry
        ]
        self._uploads.sweep({str(task.arguments.get("path")) for task in tasks if task.state not in FINAL})
        return _LOOK_S
