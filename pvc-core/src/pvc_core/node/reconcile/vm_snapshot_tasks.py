"""The task runners for snapshots of whole VMs."""

from typing import Final

from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.together import Together
from pvc_core.node.reconcile.vm_snapshot_change import ChangeVmSnapshots
from pvc_core.node.reconcile.vm_snapshot_create import CreateVmSnapshot
from pvc_core.ops.context import Ops
from pvc_core.ops.vm_snapshot import CREATE, DELETE, RENAME
from pvc_core.ops.vm_snapshot_rollback import ROLLBACK
from pvc_core.plugin.specs.lifecycle import TaskRunner

REPEATED: Final = frozenset({CREATE, RENAME, DELETE, ROLLBACK})
"""Kinds of tasks that the next daemon begins again when the one that ran them died: each finds out how far it came."""


def vm_snapshot_runners(
    context: NodeContext, ops: Ops, exclusive: Exclusive, together: Together
) -> dict[str, TaskRunner]:
    """Return the runners by kind."""
    change = ChangeVmSnapshots(context, ops, exclusive)
    return {
        CREATE: CreateVmSnapshot(context, exclusive, together),
        RENAME: change.rename,
        DELETE: change.delete,
        ROLLBACK: change.roll_back,
    }
