"""What a node does first when it is back after it was proven dead: it ends every domain that it may not run any more.

Until that is done and recorded it does nothing else: no VM is started or adopted here, and the primary neither puts
the node back into service nor opens storage to it.
"""

import logging
from typing import Final

from msgspec.structs import replace

from pvc_core.hypervisor.api import HypervisorUnavailable
from pvc_core.model.errors import PvcError
from pvc_core.model.fence import FenceRecord, FenceStage
from pvc_core.node.context import NodeContext
from pvc_core.plan.fencing import with_event
from pvc_core.plan.revocation import given_up
from pvc_core.store import documents, keys
from pvc_core.store.api import Operation
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

_FENCED: Final = (FenceStage.PROVEN, FenceStage.RECOVERED)


class NotClean(PvcError):
    """Domains that have lost their claims are still there."""


def clean_up(context: NodeContext) -> bool:
    """End what this node has lost, if its fence record says that it may have lost something; return whether it did.

    Where storage was closed to it, that is everything: writes have failed, so the claims it still has are given up
    too, and the guests start afresh where there is a place for them.

    Raises NotClean when a domain could not be ended, StoreUnavailable, Conflict, HypervisorUnavailable: call it again.
    """
    me = context.name
    entry = documents.read(context.store, keys.fence(me))
    if entry is None or not entry.value.dirty:
        return False
    closed = bool(entry.value.blocked)
    lost = _lost(context, closed=closed)
    wrong = _end(context, lost)
    left = _lost(context, closed=closed)
    if left:
        why = "; ".join(f"{vm} ({wrong.get(vm, 'it is here again')})" for vm in left)
        _tell(context, entry, f"domains that it may not run any more do not end: {why}")
        raise NotClean(f"node {me} was fenced and still has domains that it may not run: {why}")
    if closed:
        _give_up_claims(context)
    _record(context, entry, len(lost))
    return True


def _lost(context: NodeContext, *, closed: bool) -> list[str]:
    """Return the VMs whose domains are here without right; where storage was closed none has a right."""
    here = sorted(context.hypervisor.domains())
    claims = documents.read_many(context.store, [keys.claim(vm) for vm in here])
    return [
        vm
        for vm, claim in zip(here, claims, strict=True)
        if closed or claim is None or claim.value.node != context.name
    ]


def _end(context: NodeContext, vms: list[str]) -> dict[str, str]:
    """End domains; return why some did not end.  Raises HypervisorUnavailable."""
    wrong = {}
    for vm in vms:
        log.warning("domain-ended vm=%s node=%s reason=claim-lost-while-fenced", vm, context.name)
        try:
            context.hypervisor.destroy(vm)
        except HypervisorUnavailable:
            raise
        except PvcError as error:
            # The others must not go on because of this one.
            wrong[vm] = str(error)
    return wrong


def _give_up_claims(context: NodeContext) -> None:
    store, me = context.store, context.name
    claims = documents.read_all(store, [keys.claim(vm) for vm in sorted(store.children(keys.CLAIM))])
    for claim in claims:
        if claim.value.node != me:
            continue
        vm = claim.value.vm
        spec, status = documents.read(store, keys.vm_spec(vm)), documents.read(store, keys.vm_status(vm))
        vacant, said = given_up(
            me, claim.value, spec.value if spec is not None else None, status.value if status is not None else None
        )
        operations: list[Operation] = [claim.put(vacant)]
        if status is not None and said is not None:
            operations.append(status.put(said))
        store.commit(*operations, *context.lease.guard())
        log.warning("claim-given-up vm=%s node=%s reason=storage-was-closed", vm, me)


def _tell(context: NodeContext, entry: Entry[FenceRecord], why: str) -> None:
    """Let the record say what the clean-up waits for: nothing else of this node does until it is done."""
    if entry.value.waits_for != why:
        context.store.commit(entry.put(replace(entry.value, waits_for=why)), *context.lease.guard())


def _record(context: NodeContext, entry: Entry[FenceRecord], ended: int) -> None:
    record, wall = replace(entry.value, dirty=False, waits_for=""), context.clock.wall()
    said = f"it is back and clean: {ended} domains were ended"
    stage = FenceStage.RETURNED if record.stage in _FENCED else record.stage
    context.store.commit(entry.put(with_event(record, stage, said, context.name, wall)), *context.lease.guard())
    log.warning("node-cleaned node=%s lease=%d ended=%d", context.name, record.lease, ended)
