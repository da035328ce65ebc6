"""Who takes care of VMs, networks, pools and volumes on a node."""

from collections.abc import Mapping

from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.plugin.specs.lifecycle import TaskRunner


def default_reconcilers(context: NodeContext, node: NodeReconciler) -> Mapping[str, Reconciler]:
    """Return core's reconcilers by kind."""
    return {"vm": VmReconciler(context, parked=node.parked)}


def default_runners(context: NodeContext) -> dict[str, TaskRunner]:
    """Return core's own task runners by kind."""
    del context
    return {}
