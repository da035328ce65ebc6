"""A node's power on an operator's request: task ``fence.power`` of a coordinator.

Its arguments: ``node``; ``action``: ``status``, ``off``, ``on`` or ``cycle``; ``force``.  Its result: ``power``, ``level``
and ``message``; for ``status`` ``LEVEL.DEVICE`` -> ``DRIVER: on``, ``off``, or what is wrong with the device.
"""

from typing import Final, Literal, NamedTuple

from pvc_core.model.errors import InUse, InvalidRequest, NoNodeFits
from pvc_core.model.fence import FenceStage
from pvc_core.model.node import NodeSpec
from pvc_core.model.task import Task
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.node import read_primary
from pvc_core.ops.snapshot import NodeFacts, read_nodes
from pvc_core.ops.task import TaskCreate, begin
from pvc_core.ops.transaction import attempt
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Operation
from pvc_core.store.documents import read

KIND: Final = "fence.power"

_DEVICE_S: Final = 80
"""Time limit of a task for each device: the deadlines of its switching and of reading it back."""
_SPARE_S: Final = 60


class FenceTest(Request, frozen=True, kw_only=True):
    """Ask every fence device of a node now."""

    node: str
    coordinator: str = ""
    """Who asks; empty: the primary, or any other coordinator that can."""


class FencePower(Request, frozen=True, kw_only=True):
    """Switch a node's power by its fence levels."""

    node: str
    action: Literal["off", "on", "cycle"]
    force: bool = False
    """Also while the node is at work, or is being fenced."""
    coordinator: str = ""
    """Who does it; empty: the primary, or any other coordinator that can."""


def fence_test(ops: Ops, request: FenceTest) -> Task:
    """Begin to ask every fence device of a node: task ``fence.power``, which changes nothing.

    Raises NotFound, InvalidRequest (it has no fence levels), NoNodeFits (no coordinator can ask).
    """
    spec = _with_levels(ops, request.node)
    chosen = _coordinator(ops, spec, request.coordinator)
    return begin(ops, _task(spec, "status", chosen, force=False))


def fence_power(ops: Ops, request: FencePower) -> Task:
    """Begin to switch a node's power: task ``fence.power``.

    Raises NotFound, InvalidRequest (it has no fence levels), NoNodeFits (no coordinator can do it), InUse without
    ``force``: off or cycle of a node that has its lease, and anything while a proof of its death is being sought.
    """

    def once() -> Task:
        spec = _with_levels(ops, request.node)
        chosen = _coordinator(ops, spec, request.coordinator)
        checks = () if request.force else _checks(ops, spec.id, request.action)
        return begin(ops, _task(spec, request.action, chosen, force=request.force), *checks)

    return attempt(f"the power of node {request.node!r} could not be switched", once)


def at_work(node: str) -> InUse:
    """Return the error for a node whose power is not cut without force."""
    return InUse(f"node {node} has its lease, so it is at work: flush it and stop its daemon first, or use --force")


def _checks(ops: Ops, node: str, action: str) -> tuple[Operation, ...]:
    """Return what must still hold when the task is written; raises InUse."""
    fence = keys.fence(node)
    record = read(ops.store, fence)
    checks: list[Operation] = [CheckAbsent(fence.path) if record is None else Check(fence.path, record.version)]
    if action == "on":
        lease = []
    elif ops.store.get(keys.lease(node).path) is not None:
        raise at_work(node)
    else:
        lease = [CheckAbsent(keys.lease(node).path)]
    if record is not None and record.value.stage is FenceStage.FENCING:
        raise InUse(
            f"node {node} is being fenced now, and switching its power at the same time could undo that: see 'pvc fence "
            f"info {node}', or use --force"
        )
    return (*checks, *lease)


def _with_levels(ops: Ops, node: str) -> NodeSpec:
    spec = resolve.node(ops, node).value
    if not spec.fence_levels:
        raise InvalidRequest(f"node {spec.id} has no fence levels: add one with 'pvc fence level add {spec.id}'")
    return spec


def _task(spec: NodeSpec, action: str, coordinator: str, *, force: bool) -> TaskCreate:
    devices = sum(len(level.devices) for level in spec.fence_levels)
    return TaskCreate(
        kind=KIND,
        node=coordinator,
        arguments={"node": spec.id, "action": action, "force": force},
        subject=f"node {spec.id}",
        time_limit_s=_SPARE_S + devices * _DEVICE_S * (2 if action == "cycle" else 1),
    )


class _Choice(NamedTuple):
    lacking: int
    """Fence drivers that do not work there."""
    not_primary: bool
    name: str


def _coordinator(ops: Ops, spec: NodeSpec, wanted: str) -> str:
    """Return the coordinator that shall do it; not the node itself, which may be unable to reach its own controller."""
    drivers = {device.driver for level in spec.fence_levels for device in level.devices}
    nodes = read_nodes(ops.store)
    if wanted:
        resolve.node(ops, wanted)
    primary = read_primary(ops)
    reasons: dict[str, str] = {}
    choices: list[_Choice] = []
    for name, facts in sorted(nodes.items()):
        lacking = [driver for driver in sorted(drivers) if not facts.offers(f"fencing:{driver}")]
        why = _unable(name, facts, spec.id) or (
            f"it has no working fence driver {' or '.join(lacking)}" if len(lacking) == len(drivers) else ""
        )
        if why:
            reasons[name] = why
        else:
            choices.append(_Choice(len(lacking), name != primary, name))
    if wanted and wanted in reasons:
        raise NoNodeFits(f"node {wanted} cannot reach the fence devices of {spec.id}: {reasons[wanted]}", reasons)
    if wanted:
        return wanted
    if not choices:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NoNodeFits(f"no coordinator can use the fence devices of node {spec.id}: {why}", reasons)
    return min(choices).name


def _unable(name: str, facts: NodeFacts, target: str) -> str:
    if facts.spec.role != "coordinator":
        return "it is no coordinator"
    if name == target:
        return "it is the node itself"
    if not facts.alive or facts.status is None or facts.status.daemon != "running":
        return facts.not_ready() or "its daemon is not running"
    return ""
