"""An operator's word that a node is dead."""

import logging

from pvc_core.model.errors import Conflict, InUse, InvalidRequest
from pvc_core.model.fence import FenceRecord, FenceStage, Proof, ProofKind, new_record
from pvc_core.model.node import LeaseGeneration
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.transaction import attempt
from pvc_core.plan.fencing import with_event, with_proof
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent
from pvc_core.store.documents import Entry, create, maybe

log = logging.getLogger(__name__)


class FenceConfirm(Request, frozen=True, kw_only=True):
    """Say that a node runs nothing and will not by itself."""

    node: str
    by: str
    """Who says so: ``user@host``."""
    reason: str = ""
    """How they know, in a few words."""
    lease: int | None = None
    """Generation of the lease whose loss is meant, as shown to them; None: the last one, whichever it is."""


class FenceConfirmed(View, frozen=True, kw_only=True):
    """The record with the operator's word."""

    recorded: bool
    """False: there was a proof for the whole node already, and nothing was changed."""
    proof: Proof
    """The one that holds."""
    record: FenceRecord


def fence_confirm(ops: Ops, request: FenceConfirm) -> FenceConfirmed:
    """Record an operator's proof of a node's death: its VMs are then taken from it and started elsewhere.

    Also for a node that is in maintenance, or whose daemon was stopped on purpose.  Raises NotFound, InUse (it has its
    lease, so it is at work), Conflict (it has been back since what was shown), InvalidRequest (it never had a lease).
    """
    if not request.by.strip():
        raise InvalidRequest("by: say who confirms it, such as user@host")

    def once() -> FenceConfirmed:
        node = resolve.node(ops, request.node).value.id
        generation, fence = keys.generation(node), keys.fence(node)
        lease, last_found, found = ops.store.get_many([keys.lease(node).path, generation.path, fence.path])
        last = maybe(generation, last_found)
        if lease is not None:
            raise not_dead(node)
        if last is None:
            raise InvalidRequest(f"node {node} never had a lease, so there is nothing that it could run")
        if request.lease not in (None, last.value.generation):
            raise Conflict(
                f"node {node} has been back since, and is lost again (lease {last.value.generation}, not {request.lease}): "
                "nothing was recorded; look at it again, and repeat this if it is dead now"
            )
        old = maybe(fence, found)
        record = _current(ops, node, last, old)
        holds = record.whole_node()
        if holds is not None:
            return FenceConfirmed(recorded=False, proof=holds, record=record)
        said = request.reason.strip() or "an operator confirmed that it runs nothing"
        proof = Proof(kind=ProofKind.OPERATOR, evidence=said, by=request.by, at=ops.wall())
        told = f"{proof.kind}: {said}"
        record = with_event(with_proof(record, proof), FenceStage.PROVEN, told, request.by, proof.at)
        ops.store.commit(
            create(fence, record) if old is None else old.put(record),
            CheckAbsent(keys.lease(node).path),
            Check(generation.path, last.version),
        )
        log.warning("fence-confirmed node=%s lease=%d by=%s reason=%r", node, record.lease, request.by, said)
        return FenceConfirmed(recorded=True, proof=proof, record=record)

    return attempt(f"the death of node {request.node!r} could not be recorded", once)


def not_dead(node: str) -> InUse:
    """Return the error for a node whose death is not recorded."""
    return InUse(
        f"node {node} has its lease, so it is at work now: nothing was recorded; if it must be stopped, cut its power "
        f"with 'pvc fence off {node} --force', and repeat this when its lease is gone"
    )


def _current(ops: Ops, node: str, last: Entry[LeaseGeneration], old: Entry[FenceRecord] | None) -> FenceRecord:
    """Return the record of the loss of the last lease; a new one where there is none."""
    if old is not None and old.value.lease == last.value.generation:
        return old.value
    return new_record(node, last.value.generation, old.value if old is not None else None, ops.wall())
