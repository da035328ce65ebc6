"""Choosing or checking a node for one VM, against the cluster as it is now."""

from collections.abc import Mapping
from typing import NamedTuple

from pvc_core.model.errors import NoNodeFits
from pvc_core.model.names import not_found
from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import ClusterSnapshot, read_cluster
from pvc_core.plan.placement import Decision, obstacle, place, require_node


class Choice(NamedTuple):
    """A node, and how it was found."""

    node: str
    chosen_by: str = ""
    """The selector; empty when the node was named or kept."""


def choose_node(
    ops: Ops,
    vm: VmSpec,
    capabilities: frozenset[str],
    *,
    wanted: str | None = None,
    preferred: str | None = None,
    exclude: Mapping[str, str] = {},
) -> Choice:
    """Return a node that can take the VM now.

    ``wanted`` is taken or refused; ``preferred`` is taken if it can take it.  The VM itself does not count against
    any node.  Raises NotFound (``wanted``), NoNodeFits with the reason per node.
    """
    snapshot = read_cluster(ops)
    if wanted is not None:
        _require(ops, snapshot, vm, capabilities, wanted)
        return Choice(wanted)
    if preferred is not None and not refusal(ops, snapshot, vm, capabilities, preferred):
        return Choice(preferred)
    decision = decide(ops, snapshot, vm, capabilities, exclude)
    return Choice(require_node(decision), decision.selector)


def decide(
    ops: Ops, snapshot: ClusterSnapshot, vm: VmSpec, capabilities: frozenset[str], exclude: Mapping[str, str] = {}
) -> Decision:
    """Choose among all nodes of a snapshot."""
    return place(vm, snapshot.views({vm.id}), snapshot.policy(ops), capabilities, exclude=exclude)


def refusal(ops: Ops, snapshot: ClusterSnapshot, vm: VmSpec, capabilities: frozenset[str], node: str) -> str:
    """Return why one node cannot take the VM, or an empty string."""
    view = next((view for view in snapshot.views({vm.id}) if view.name == node), None)
    if view is None:
        return "it is not part of the cluster"
    return obstacle(vm, view, snapshot.policy(ops), capabilities) or ""


def _require(ops: Ops, snapshot: ClusterSnapshot, vm: VmSpec, capabilities: frozenset[str], node: str) -> None:
    if node not in snapshot.nodes:
        raise not_found("node", node, snapshot.nodes)
    reason = refusal(ops, snapshot, vm, capabilities, node)
    if reason:
        raise NoNodeFits(f"node {node} cannot take VM {vm.name!r}: {reason}", {node: reason})
