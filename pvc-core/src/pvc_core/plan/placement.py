"""Which node takes a VM."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pvc_core.model.base import Value
from pvc_core.model.errors import NoNodeFits
from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec

Selector = Callable[[VmSpec, NodeView], float]
NodeFilter = Callable[[VmSpec, NodeView], str | None]
Weigher = Callable[[VmSpec, NodeView], float | None]


class Policy(NamedTuple):
    """How nodes are chosen, beyond the filters of core."""

    default_selector: str = "mem"
    selectors: Mapping[str, Selector] = {}
    filters: tuple[NodeFilter, ...] = ()
    weighers: tuple[Weigher, ...] = ()


class Decision(Value, frozen=True, kw_only=True):
    """The answer, with its reasons."""

    vm: str
    node: str | None
    selector: str
    reasons: dict[str, str] = {}
    scores: dict[str, float] = {}
    note: str = ""


def place(
    vm: VmSpec,
    views: Iterable[NodeView],
    policy: Policy,
    capabilities: frozenset[str] = frozenset(),
    *,
    exclude: Mapping[str, str] = {},
) -> Decision:
    """Choose a node for a VM."""
    raise NotImplementedError


def require_node(vm: VmSpec, decision: Decision) -> str:
    """Return the chosen node."""
    raise NoNodeFits("", {})
