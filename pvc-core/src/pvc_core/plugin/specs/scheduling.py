"""Scheduling: named selectors, and filters and weighers of any plugin.

These run wherever a placement is decided (CLI, primary, node), on a snapshot, so they do no I/O, read no
clock and return within milliseconds.  Deadline 1 s for all nodes together.
"""

import abc

from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec
from pvc_core.plugin.markers import hookspec


class SelectorDriver(abc.ABC):
    """A named way to choose among the nodes that fit.

    Kind: driver hook; the VM's (or cluster's) ``selector`` names it.  An exception: the decision falls
    back to ``mem`` and says so.
    """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def selector_score(self, vm: VmSpec, node: NodeView) -> float:
        """Return how good the node is for the VM: the highest wins, ties go to the first by name."""


class SchedulingHooks:
    """Kind: collect hooks; every enabled plugin may add to the decision."""

    @hookspec
    def node_filter(self, vm: VmSpec, node: NodeView) -> str | None:
        """Return why this node cannot take the VM, or None.  An exception counts as a reason."""

    @hookspec
    def node_weight(self, vm: VmSpec, node: NodeView) -> float | None:
        """Return a number from -1.0 (avoid) to 1.0 (prefer), or None.  An exception counts as None."""
