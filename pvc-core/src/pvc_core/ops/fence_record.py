"""The records of the nodes' losses: list, info, and waiting for the end of a fencing."""

from typing import Final

from pvc_core.model.errors import NotFound
from pvc_core.model.fence import ACTIVE, FenceRecord, FenceStage, ProofKind
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.snapshot import ClaimRow, read_cluster
from pvc_core.ops.waiting import Done, Progress, Report, wait_until
from pvc_core.store import keys
from pvc_core.store.documents import Entry, read, read_many

_OVER: Final = frozenset(FenceStage) - {FenceStage.SUSPECTED, FenceStage.FENCING, FenceStage.PROVEN}


class FenceRow(View, frozen=True, kw_only=True):
    """The last loss of a node."""

    node: str
    stage: FenceStage
    active: bool
    """The node is not back."""
    lease: int
    """Generation of the lease that was lost."""
    opened: float
    """When the loss was seen, seconds since the epoch."""
    changed: float
    """When it entered this stage."""
    round: int = 0
    """Rounds through all means that brought no proof."""
    waits_for: str = ""
    """What it waits for, one sentence; empty: for nothing."""
    proofs: tuple[ProofKind, ...] = ()
    recovered: int = 0
    """VMs that were taken from it, and start or run elsewhere."""
    stopped: int = 0
    """VMs that were taken from it and are not to be started."""


class FenceInfo(View, frozen=True, kw_only=True):
    """Everything about the last loss of a node."""

    row: FenceRow
    record: FenceRecord
    left: tuple[str, ...] = ()
    """Names of VMs that the node still has the right to run: no proof covers them so far."""


class FenceList(Request, frozen=True, kw_only=True):
    """Which losses to list."""

    active: bool = False
    """Only those of nodes that are not back."""


class FenceQuery(Request, frozen=True, kw_only=True):
    """One node."""

    node: str


def fence_list(ops: Ops, request: FenceList) -> list[FenceRow]:
    """List the last loss of each node that was ever lost, sorted by node."""
    wanted = [keys.fence(name) for name in ops.store.children(keys.FENCE)]
    rows = [_row(entry.value) for entry in read_many(ops.store, wanted) if entry is not None]
    return [row for row in rows if row.active or not request.active]


def fence_info(ops: Ops, request: FenceQuery) -> FenceInfo:
    """Return everything about the last loss of a node.  Raises NotFound, also for a node that never was lost."""
    record = _find(ops, request.node).value
    return FenceInfo(row=_row(record), record=record, left=_left(ops, record) if record.stage in ACTIVE else ())


def wait_fence(ops: Ops, node: str, *, timeout_s: float, report: Report | None = None) -> FenceInfo:
    """Wait until a fencing is over: its VMs are taken from the node, or it came back.  Raises NotFound, WaitTimeout."""
    key = _find(ops, node).key

    def look() -> Done[None] | Progress:
        entry = read(ops.store, key)
        if entry is None or entry.value.stage in _OVER:
            return Done(None)
        record = entry.value
        said = record.waits_for or (record.events[-1].message if record.events else "")
        return Progress(f"{record.stage}: {said}" if said else record.stage.value)

    wait_until(ops, f"the fencing of node {node} is not over", [key.path], look, timeout_s=timeout_s, report=report)
    return fence_info(ops, FenceQuery(node=node))


def _find(ops: Ops, node: str) -> Entry[FenceRecord]:
    name = resolve.node(ops, node).value.id
    entry = read(ops.store, keys.fence(name))
    if entry is None:
        raise NotFound(f"node {name} was never lost: there is no record of a fencing")
    return entry


def _row(record: FenceRecord) -> FenceRow:
    stopped = sum(vm.outcome == "not-restarted" for vm in record.vms)
    return FenceRow(
        node=record.node,
        stage=record.stage,
        active=record.stage in ACTIVE,
        lease=record.lease,
        opened=record.opened,
        changed=record.changed,
        round=record.round,
        waits_for=record.waits_for,
        proofs=tuple(proof.kind for proof in record.proofs),
        recovered=len(record.vms) - stopped,
        stopped=stopped,
    )


def _left(ops: Ops, record: FenceRecord) -> tuple[str, ...]:
    snapshot = read_cluster(ops)
    held = (row.name for row in snapshot.vms.values() if _holder(snapshot.claims.get(row.id)) == record.node)
    return tuple(sorted(held))


def _holder(claim: ClaimRow | None) -> str:
    return claim.node if claim is not None else ""
