"""Who takes care of VMs, networks, pools and volumes on a node, and who runs core's own tasks."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.lock_tasks import lock_runners
from pvc_core.node.reconcile.network import NetworkReconciler
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcile.pool import PoolReconciler
from pvc_core.node.reconcile.storage_tasks import storage_runners
from pvc_core.node.reconcile.together import Threads, Together
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.node.reconcile.vm_snapshot_tasks import REPEATED, vm_snapshot_runners
from pvc_core.node.reconcile.volume import VolumeReconciler
from pvc_core.ops.context import Ops
from pvc_core.plugin.specs.lifecycle import TaskRunner


class Core(NamedTuple):
    """What core itself does on a node; reconcilers and runners share which objects are in work."""

    reconcilers: Callable[[NodeReconciler], Mapping[str, Reconciler]]
    runners: dict[str, TaskRunner]
    repeated: frozenset[str]
    """Kinds of tasks that are begun again after the daemon died."""


def core(
    context: NodeContext, ops: Ops, *, together: Together = Threads, imported: Callable[[str], None] = lambda _: None
) -> Core:
    """Return core's reconcilers by kind, and its task runners by kind.

    ``together`` makes calls at the same time; ``imported`` is told the path of a file when the task that had to make a
    volume of it has ended.
    """
    exclusive = Exclusive()

    def reconcilers(node: NodeReconciler) -> Mapping[str, Reconciler]:
        return {
            "vm": VmReconciler(context, parked=node.parked, exclusive=exclusive),
            "network": NetworkReconciler(context, ops),
            "pool": PoolReconciler(context, ops),
            "volume": VolumeReconciler(context, ops, exclusive),
        }

    runners = (
        storage_runners(context, exclusive, imported)
        | lock_runners(context)
        | vm_snapshot_runners(context, ops, exclusive, together)
    )
    return Core(reconcilers, runners, REPEATED)
