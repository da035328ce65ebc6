"""Where the VMs of one or more nodes go, decided for all of them before the first moves.

The VM of the highest priority chooses first, of several the largest, and each choice is counted before the next, so
that they do not all run to the same node.  When the VMs' own selectors leave some over, the whole is planned again: of
one priority, VMs with the fewest nodes to choose from go first, and each goes to the fullest node that can take it,
which leaves larger gaps for the rest.  The plan that leaves fewer of the highest priority over is taken, then of the
next.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from pvc_core.model.base import Value
from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec
from pvc_core.plan.placement import CORE_POLICY, Policy, obstacle, place, with_vm

_TIGHTEST: Final = "tightest"


class Candidate(Value, frozen=True, kw_only=True):
    """A VM that has to go somewhere."""

    vm: VmSpec
    capabilities: frozenset[str] = frozenset()
    """What its disks and NICs need, such as ``storage:dir``."""
    exclude: dict[str, str] = {}
    """Nodes it must not go to, with the reason: the one it leaves."""


class Assignment(Value, frozen=True, kw_only=True):
    """A VM and its new node."""

    vm: str
    """Id."""
    name: str
    target: str


class Unplaced(Value, frozen=True, kw_only=True):
    """A VM that fits nowhere."""

    vm: str
    name: str
    reasons: dict[str, str]
    """Node -> why it cannot take the VM, after all that were assigned before."""


class Evacuation(Value, frozen=True, kw_only=True):
    """The whole plan, in the order in which the VMs chose."""

    assignments: tuple[Assignment, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    repacked: bool = False
    """The VMs' own selectors would have left VMs over, so they were packed as tightly as possible."""


def plan_evacuation(
    candidates: Iterable[Candidate], views: Iterable[NodeView], policy: Policy = CORE_POLICY
) -> Evacuation:
    """Assign every VM to a node, as far as they fit.

    The views must not count the candidates, except on nodes that these are excluded from.
    """
    ordered = sorted(candidates, key=lambda c: (-c.vm.priority, -c.vm.memory_mib, -c.vm.vcpus, c.vm.name, c.vm.id))
    nodes = {view.name: view for view in views}
    plan = _assign(ordered, nodes, policy)
    if not plan.unplaced:
        return plan
    tight = _assign(_hardest_first(ordered, nodes, policy), nodes, _with_tightest(policy))
    if _left_over(tight, ordered) < _left_over(plan, ordered):
        return replace(tight, repacked=True)
    return plan


def _assign(candidates: list[Candidate], nodes: Mapping[str, NodeView], policy: Policy) -> Evacuation:
    views = dict(nodes)
    assignments: list[Assignment] = []
    unplaced: list[Unplaced] = []
    for candidate in candidates:
        vm = candidate.vm
        decision = place(vm, views.values(), policy, candidate.capabilities, exclude=candidate.exclude)
        if decision.node is None:
            unplaced.append(Unplaced(vm=vm.id, name=vm.name, reasons=decision.reasons))
        else:
            assignments.append(Assignment(vm=vm.id, name=vm.name, target=decision.node))
            views[decision.node] = with_vm(views[decision.node], vm)
    return Evacuation(assignments=tuple(assignments), unplaced=tuple(unplaced))


def _hardest_first(ordered: list[Candidate], nodes: Mapping[str, NodeView], policy: Policy) -> list[Candidate]:
    choices = {
        c.vm.id: sum(
            name not in c.exclude and obstacle(c.vm, view, policy, c.capabilities) is None
            for name, view in nodes.items()
        )
        for c in ordered
    }
    tight = [replace(c, vm=replace(c.vm, selector=_TIGHTEST)) for c in ordered]
    return sorted(tight, key=lambda c: (-c.vm.priority, choices[c.vm.id]))


def _with_tightest(policy: Policy) -> Policy:
    # Weighers are preferences; packing is for need.
    return policy._replace(
        selectors={**policy.selectors, _TIGHTEST: lambda _, node: node.allocated_mib - node.memory_mib}, weighers=()
    )


def _left_over(plan: Evacuation, ordered: Iterable[Candidate]) -> list[tuple[int, int]]:
    """Return how many VMs are left over and their memory, the highest priority first."""
    unplaced = {item.vm for item in plan.unplaced}
    result: dict[int, tuple[int, int]] = {}
    for candidate in ordered:
        count, memory = result.setdefault(candidate.vm.priority, (0, 0))
        if candidate.vm.id in unplaced:
            result[candidate.vm.priority] = count + 1, memory + candidate.vm.memory_mib
    return list(result.values())
