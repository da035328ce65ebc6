"""Removes image files that were sent to this node and that nobody goes on with."""

import logging
from typing import Final

from pvc_core.node.uploads import Uploads
from pvc_core.ops.context import Ops
from pvc_core.ops.task import TaskList, task_list

log = logging.getLogger(__name__)

_LOOK_S: Final = 600.0


class UploadSweeper:
    """Reconciler of the key ``("upload", "")``."""

    def __init__(self, ops: Ops, uploads: Uploads) -> None:
        self._ops = ops
        self._uploads = uploads

    def reconcile(self, id_: str) -> float | None:
        """Look through the files; return when to do so again.  Raises StoreUnavailable."""
        del id_
        idle = self._uploads.idle()
        if idle:
            needed = {task.arguments.get("path") for task in task_list(self._ops, TaskList(unfinished=True))}
            for path in idle:
                if str(path) not in needed:
                    log.warning("upload-given-up upload=%s", path.name)
                    self._uploads.remove(path.name)
        return _LOOK_S
