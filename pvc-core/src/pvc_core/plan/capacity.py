"""Whether the VMs that run would still fit after the loss of the largest node (n-1).

A node that is down already is that one loss: its memory stays in the sum, so that one failure does not make the
check demand room for two.  When more is down than the largest node has, what is alive counts.
"""

from collections.abc import Iterable

from pvc_core.model.base import Value
from pvc_core.model.placement import NodeView
from pvc_core.model.units import format_mib


class Capacity(Value, frozen=True, kw_only=True):
    """Memory of the cluster in MiB, and the verdict on n-1."""

    nodes: int = 0
    total_mib: int = 0
    """Of all nodes known, for VMs; nodes that are down count with what they last reported."""
    alive_mib: int = 0
    """Of the nodes that are alive."""
    largest: str = ""
    """The largest node."""
    largest_mib: int = 0
    available_mib: int = 0
    """What is left for VMs when the largest node is lost."""
    running_mib: int = 0
    """Maximum memory of the VMs that run or should run, each counted once."""
    degraded: bool = False
    """The VMs that run exceed what is available."""
    message: str = ""
    """The verdict in a sentence; empty when all is well."""


def capacity(views: Iterable[NodeView], running_mib: int) -> Capacity:
    """Return the memory of the cluster and whether it could lose its largest node.

    With a single node there is nothing to fall back on, so n-1 says nothing: only running out of its own memory
    is degraded then.
    """
    nodes = sorted(views, key=lambda view: (-view.memory_mib, view.name))
    total = sum(view.memory_mib for view in nodes)
    alive = sum(view.memory_mib for view in nodes if view.alive)
    largest = nodes[0] if nodes else None
    lost = largest.memory_mib if largest is not None and len(nodes) > 1 else 0
    available = min(total - lost, alive) if len(nodes) > 1 else total
    return Capacity(
        nodes=len(nodes),
        total_mib=total,
        alive_mib=alive,
        largest=largest.name if largest is not None else "",
        largest_mib=largest.memory_mib if largest is not None else 0,
        available_mib=available,
        running_mib=running_mib,
        degraded=running_mib > available,
        message=_verdict(running_mib, available, largest, lost) if running_mib > available else "",
    )


def _verdict(running_mib: int, available_mib: int, largest: NodeView | None, lost_mib: int) -> str:
    where = "the cluster has"
    if largest is not None and lost_mib:
        where = f"the others have when the largest node ({largest.name}, {format_mib(lost_mib)}) is lost"
    return (
        f"running VMs may use {format_mib(running_mib)}, more than the {format_mib(available_mib)} that {where}: "
        "stop VMs or add memory"
    )
