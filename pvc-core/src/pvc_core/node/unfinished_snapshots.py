"""The primary's duty to finish what became of snapshots whose task came to no good end."""

import logging
from typing import Final

from pvc_core.model.errors import Conflict, NoNodeFits, PvcError
from pvc_core.model.vm_snapshot import VmSnapshotState
from pvc_core.node.context import NodeContext
from pvc_core.ops.context import Ops
from pvc_core.ops.vm_snapshot import finish
from pvc_core.ops.vm_snapshot_documents import all_snapshots, in_work
from pvc_core.store.api import Operation

log = logging.getLogger(__name__)

_LOOK_S: Final = 600.0
"""All documents are read this often: leftovers only take room, and people are told of them at once."""


class UnfinishedSnapshots:
    """Duty: snapshots that were not completed are deleted, and those that were being renamed are."""

    def __init__(self, context: NodeContext, ops: Ops) -> None:
        self._context = context
        self._ops = ops
        self._due = context.clock.monotonic() + _LOOK_S

    def __call__(self, guard: tuple[Operation, ...]) -> float | None:
        """Begin a new task for each whose own is over."""
        now = self._context.clock.monotonic()
        if now < self._due:
            return self._due - now
        self._due = now + _LOOK_S
        for entry in all_snapshots(self._context.store):
            snapshot = entry.value
            if snapshot.state is VmSnapshotState.COMPLETE or in_work(self._context.store, snapshot.task):
                continue
            try:
                task = finish(self._ops, snapshot, *guard)
            except (Conflict, NoNodeFits) as error:
                log.info("vm-snapshot-kept snapshot=%s error=%s", snapshot.id, error)
            except PvcError as error:
                log.warning("vm-snapshot-kept snapshot=%s error=%s", snapshot.id, error)
            else:
                if task is not None:
                    log.warning(
                        "vm-snapshot-unfinished snapshot=%s state=%s task=%s",
                        snapshot.id,
                        snapshot.state.value,
                        task.id,
                    )
        return _LOOK_S
