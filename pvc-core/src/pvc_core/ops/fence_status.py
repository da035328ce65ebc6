"""How nodes would be fenced: their devices as coordinators found them, and what would come of a loss."""

from typing import Literal

from pvc_core.model.fence import FenceLevel, FenceStage, ProofKind
from pvc_core.model.names import not_found
from pvc_core.ops.context import Ops
from pvc_core.ops.fence_facts import FenceFacts, blocking_drivers, read_fence_facts
from pvc_core.ops.message import Request, View
from pvc_core.ops.snapshot import NodeFacts
from pvc_core.plan.fence_outlook import Outlook, outlook


class FenceStatus(Request, frozen=True, kw_only=True):
    """Which nodes."""

    node: str = ""
    """Empty: all."""


class DeviceCheck(View, frozen=True, kw_only=True):
    """What a coordinator found when it last asked a fence device."""

    coordinator: str
    power: Literal["on", "off", "unknown"]
    error: str = ""
    """Why it cannot be used from there; empty: it answers."""
    took_s: float = 0.0
    checked: float = 0.0
    """Seconds since the epoch; 0: never."""


class DeviceView(View, frozen=True, kw_only=True):
    """A fence device of a node."""

    level: int
    device: int
    """Number within its level, from 1."""
    driver: str
    parameters: dict[str, str] = {}
    checks: tuple[DeviceCheck, ...] = ()
    """By the coordinators that are alive, but for the node itself; the primary's first."""


class NodeFencing(View, frozen=True, kw_only=True):
    """How a node would be fenced."""

    node: str
    lease: Literal["held", "lost", "released", "none"]
    """``released``: given up on purpose; ``none``: it never had one."""
    generation: int = 0
    """Of that lease: raised each time the node is back."""
    left_alone: str = ""
    """Why it would not be fenced now: maintenance, or a daemon that was stopped on purpose."""
    stage: FenceStage | None = None
    """Of the fencing that is going on; None: the node is not lost, or left alone."""
    waits_for: str = ""
    """Why that has no proof yet."""
    proofs: tuple[ProofKind, ...] = ()
    """Those that it has."""
    devices: tuple[DeviceView, ...] = ()
    watchdog_down_s: float = 0.0
    """Seconds after the end of its lease by which the watchdog that it has armed has reset it; 0: it has none."""
    storage: tuple[str, ...] = ()
    """Storage drivers that know by what to keep it from writing."""
    vms: tuple[str, ...] = ()
    """Names of the VMs that should run and are here."""
    outlook: Outlook


def fence_status(ops: Ops, request: FenceStatus) -> list[NodeFencing]:
    """Return how each node would be fenced, sorted by name, in a fixed number of round trips.  Raises NotFound."""
    facts = read_fence_facts(ops)
    if request.node and request.node not in facts.nodes:
        raise not_found("node", request.node, facts.nodes)
    return [_view(facts, name) for name in sorted(facts.nodes) if request.node in ("", name)]


def _view(facts: FenceFacts, name: str) -> NodeFencing:
    node = facts.nodes[name]
    record = facts.record(name) if not node.alive else None
    subject = facts.subject(name)
    return NodeFencing(
        node=name,
        lease=_lease(node),
        generation=node.last.generation,
        left_alone=facts.left_alone(name),
        stage=record.stage if record is not None else None,
        waits_for=record.waits_for if record is not None else "",
        proofs=tuple(proof.kind for proof in record.proofs) if record is not None else (),
        devices=tuple(
            view
            for number, level in enumerate(node.spec.fence_levels, 1)
            for view in _devices(facts, name, number, level)
        ),
        watchdog_down_s=node.last.watchdog_down_s,
        storage=tuple(sorted(blocking_drivers(node))),
        vms=tuple(guest.name for guest in subject.guests),
        outlook=outlook(subject),
    )


def _devices(facts: FenceFacts, node: str, number: int, level: FenceLevel) -> list[DeviceView]:
    subject = facts.subject(node)
    fencers = (*subject.fencers, *subject.others)
    views: list[DeviceView] = []
    for index, device in enumerate(level.devices, 1):
        checks: list[DeviceCheck] = []
        for fencer in fencers:
            health = fencer.health(number, index, device.driver)
            if health is not None:
                checks.append(
                    DeviceCheck(
                        coordinator=fencer.name,
                        power=health.power,
                        error=health.error,
                        took_s=health.took_s,
                        checked=health.checked,
                    )
                )
        views.append(
            DeviceView(
                level=number, device=index, driver=device.driver, parameters=device.parameters, checks=tuple(checks)
            )
        )
    return views


def _lease(node: NodeFacts) -> Literal["held", "lost", "released", "none"]:
    if node.alive:
        return "held"
    if not node.last.generation:
        return "none"
    return "released" if node.released else "lost"
