"""Placement rules of this node's plugins, for the decisions its daemon takes."""

from typing import Final

from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec
from pvc_core.plan.placement import Policy, Selector
from pvc_core.runtime.api import Drivers

_SCHEDULING: Final = "scheduling:"


def policy_of(drivers: Drivers) -> Policy:
    """Return the selectors, filters and weighers of the plugins that work now."""
    names = {
        capability.removeprefix(_SCHEDULING)
        for plugin in drivers.status()
        for capability in plugin.capabilities
        if capability.startswith(_SCHEDULING)
    }

    def refuse(vm: VmSpec, node: NodeView) -> str | None:
        return next(iter(drivers.collect("node_filter", vm=vm, node=node)), None)

    def weigh(vm: VmSpec, node: NodeView) -> float | None:
        weights = drivers.collect("node_weight", vm=vm, node=node)
        return sum(weights) if weights else None

    return Policy(
        selectors={name: _selector(drivers, name) for name in sorted(names)}, filters=(refuse,), weighers=(weigh,)
    )


def _selector(drivers: Drivers, name: str) -> Selector:
    return lambda vm, node: drivers.selector(name).selector_score(vm, node)
