"""Which node takes a VM.

Filters first: each says why a node cannot take the VM, so "no node fits" tells the reason of every node.  Then
the selector scores those that are left; weighers of plugins shift the score.  The answer depends on the
nodes and the VM only, never on their order: the highest score wins, and of equal ones the first by name.

Memory counts by what VMs may use at most, not by what they use now: a node whose guests are idle today is not
overcommitted tomorrow.  vCPUs may be shared between VMs, but one VM never gets more than the node has CPUs.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.base import Value
from pvc_core.model.errors import NoNodeFits
from pvc_core.model.names import did_you_mean
from pvc_core.model.placement import NodeView
from pvc_core.model.units import format_mib
from pvc_core.model.vm import VmSpec

Selector = Callable[[VmSpec, NodeView], float]
"""Scores a node for a VM: the highest wins."""

NodeFilter = Callable[[VmSpec, NodeView], str | None]
"""Returns why a node cannot take a VM, or None."""

Weigher = Callable[[VmSpec, NodeView], float | None]
"""Returns a number from -1.0 (avoid) to 1.0 (prefer), or None."""

CORE_SELECTORS: Final[Mapping[str, Selector]] = {
    "mem": lambda _, node: node.memory_mib - node.allocated_mib,
    "memprov": lambda _, node: node.memory_mib - node.provisioned_mib,
    "vcpus": lambda _, node: -node.allocated_vcpus,
    "load": lambda _, node: -node.load1,
    "vms": lambda _, node: -node.vms,
}
"""mem: most memory not allocated to VMs that run; memprov: most memory not provisioned to VMs placed there,
running or not; vcpus: fewest vCPUs of VMs that run; load: lowest 1-minute load; vms: fewest VMs that run."""


class Policy(NamedTuple):
    """How nodes are chosen, beyond the filters of core."""

    default_selector: str = "mem"
    """For VMs that name none."""
    selectors: Mapping[str, Selector] = {}
    """Those of plugins; core's own are always there."""
    filters: tuple[NodeFilter, ...] = ()
    weighers: tuple[Weigher, ...] = ()

    def known(self) -> dict[str, Selector]:
        """Return all selectors by name."""
        return {**self.selectors, **CORE_SELECTORS}


CORE_POLICY: Final = Policy()
"""Core's selectors and filters alone."""


class Decision(Value, frozen=True, kw_only=True):
    """The answer, with what led to it."""

    vm: str
    """Name of the VM."""
    node: str | None
    """None: no node fits."""
    selector: str
    reasons: dict[str, str] = {}
    """Node -> why it cannot take the VM."""
    scores: dict[str, float] = {}
    """Node -> its score, of those that can."""
    note: str = ""
    """What did not go by the rules: an unknown selector, a plugin that failed."""


def obstacle(
    vm: VmSpec, node: NodeView, policy: Policy = CORE_POLICY, capabilities: frozenset[str] = frozenset()
) -> str | None:
    """Return why this node cannot take the VM, or None when it can.

    ``capabilities`` are those that the VM's disks and NICs need, such as ``storage:dir``.
    """
    for fit in (_in_service, _within_limit, _has_accelerator, _enough_cpus, _enough_memory):
        reason = fit(vm, node)
        if reason is not None:
            return reason
    missing = sorted(capabilities - node.capabilities)
    if missing:
        return "it has no working " + ", ".join(_driver(word) for word in missing)
    for extra in policy.filters:
        reason = _asked(extra, vm, node)
        if reason is not None:
            return reason
    return None


def place(
    vm: VmSpec,
    views: Iterable[NodeView],
    policy: Policy = CORE_POLICY,
    capabilities: frozenset[str] = frozenset(),
    *,
    exclude: Mapping[str, str] = {},
) -> Decision:
    """Choose a node for a VM that the views do not count yet.

    ``exclude`` maps a node that must not be chosen to the reason.
    """
    nodes = sorted(views, key=lambda view: view.name)
    name = vm.selector or policy.default_selector
    selectors = policy.known()
    selector, note = selectors.get(name), ""
    if selector is None:
        note = f"there is no selector {name!r}{did_you_mean(name, selectors)}; mem was used"
        name, selector = "mem", CORE_SELECTORS["mem"]
    reasons: dict[str, str] = {}
    fitting: list[NodeView] = []
    for node in nodes:
        reason = exclude.get(node.name) or obstacle(vm, node, policy, capabilities)
        if reason:
            reasons[node.name] = reason
        else:
            fitting.append(node)
    try:
        raw = {node.name: float(selector(vm, node)) for node in fitting}
    except Exception as error:  # a plugin's: whatever it raises must not stop VMs from being placed
        note = f"selector {name!r} failed ({type(error).__name__}: {error}); mem was used"
        name = "mem"
        raw = {node.name: float(CORE_SELECTORS["mem"](vm, node)) for node in fitting}
    scores = _weighed(vm, fitting, raw, policy.weighers) if policy.weighers else raw
    best = min(scores, key=lambda node: (-scores[node], -raw[node], node), default=None)
    return Decision(vm=vm.name, node=best, selector=name, reasons=reasons, scores=scores, note=note)


def require_node(decision: Decision) -> str:
    """Return the chosen node; raise NoNodeFits that says why, per node."""
    if decision.node is not None:
        return decision.node
    raise NoNodeFits(describe(decision.vm, decision.reasons), dict(decision.reasons))


def describe(vm: str, reasons: Mapping[str, str]) -> str:
    """Return the sentence for a VM that fits nowhere."""
    if not reasons:
        return f"no node can take VM {vm!r}: the cluster has no nodes"
    why = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))
    return f"no node can take VM {vm!r}: {why}"


def with_vm(view: NodeView, vm: VmSpec) -> NodeView:
    """Return the node as it is once the VM is on its way there."""
    return replace(
        view,
        free_mib=max(0, view.free_mib - vm.memory_mib),
        allocated_mib=view.allocated_mib + vm.memory_mib,
        provisioned_mib=view.provisioned_mib + vm.memory_mib,
        allocated_vcpus=view.allocated_vcpus + vm.vcpus,
        vms=view.vms + 1,
    )


def without_vm(view: NodeView, vm: VmSpec) -> NodeView:
    """Return the node as it is without a VM that it counts."""
    return replace(
        view,
        allocated_mib=max(0, view.allocated_mib - vm.memory_mib),
        provisioned_mib=max(0, view.provisioned_mib - vm.memory_mib),
        allocated_vcpus=max(0, view.allocated_vcpus - vm.vcpus),
        vms=max(0, view.vms - 1),
    )


def _in_service(_: VmSpec, node: NodeView) -> str | None:
    if not node.alive:
        return node.not_ready_reason or "it is not alive"
    if not node.ready:
        return node.not_ready_reason or "it takes no VMs now"
    return None


def _within_limit(vm: VmSpec, node: NodeView) -> str | None:
    if vm.node_limit and node.name not in vm.node_limit:
        return f"it is not in the VM's node limit ({', '.join(vm.node_limit)})"
    return None


def _has_accelerator(vm: VmSpec, node: NodeView) -> str | None:
    if vm.accelerator != "auto" and vm.accelerator not in node.accelerators:
        return f"it cannot run guests with {vm.accelerator}"
    return None


def _enough_cpus(vm: VmSpec, node: NodeView) -> str | None:
    if vm.vcpus > node.cpus:
        return f"{vm.vcpus} vCPUs wanted, it has {node.cpus} CPUs"
    return None


def _enough_memory(vm: VmSpec, node: NodeView) -> str | None:
    if node.allocated_mib + vm.memory_mib <= node.memory_mib:
        return None
    if vm.memory_mib > node.memory_mib:
        return f"{format_mib(vm.memory_mib)} wanted, it has {format_mib(node.memory_mib)} for VMs in all"
    left = max(0, node.memory_mib - node.allocated_mib)
    return f"{format_mib(vm.memory_mib)} wanted, {format_mib(left)} of {format_mib(node.memory_mib)} left"


def _driver(capability: str) -> str:
    kind, _, name = capability.partition(":")
    return f"{kind} driver {name}" if name else capability


def _asked(extra: NodeFilter, vm: VmSpec, node: NodeView) -> str | None:
    try:
        return extra(vm, node) or None
    except Exception as error:  # a plugin's: a node it cannot judge is not chosen, and the reason says so
        return f"a filter failed: {type(error).__name__}: {error}"


def _weighed(
    vm: VmSpec, nodes: list[NodeView], raw: Mapping[str, float], weighers: tuple[Weigher, ...]
) -> dict[str, float]:
    """Return the scores on a scale of 0 to 1, plus the weights: a weight of 1 outdoes the whole scale."""
    low, high = min(raw.values(), default=0.0), max(raw.values(), default=0.0)
    span = high - low
    return {
        node.name: ((raw[node.name] - low) / span if span else 0.0) + sum(_weight(w, vm, node) for w in weighers)
        for node in nodes
    }


def _weight(weigher: Weigher, vm: VmSpec, node: NodeView) -> float:
    try:
        weight = weigher(vm, node)
        return 0.0 if weight is None else max(-1.0, min(1.0, float(weight)))
    except Exception:  # a plugin's: its specification says that a failure counts as no opinion
        return 0.0
