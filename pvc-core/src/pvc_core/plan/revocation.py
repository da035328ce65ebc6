"""What becomes of a VM whose claim is taken from a node that is proven dead.

Invariant: the new claim allows the guest to execute nowhere that it may not be executing already.  Nobody gets the
claim, but for one case: a live migration whose guest may execute on its target by now is that target's business.
"""

from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from pvc_core.model.fence import FenceRecord, Proof, VmRecovery
from pvc_core.model.vm import MAY_EXECUTE_ON_TARGET, MigrationPhase, VmClaim, VmSpec, VmState, VmStatus


class Revocation(NamedTuple):
    """The documents that replace the old ones."""

    claim: VmClaim
    status: VmStatus | None
    """None: it stays as it is."""
    outcome: VmRecovery


def covering(record: FenceRecord, vm: VmSpec | None, status: VmStatus | None, pools: Collection[str]) -> Proof | None:
    """Return the proof that the node cannot run, or not harm, this VM any more; None: there is none.

    ``pools`` are the ids of the pools of all that its guest may write to (``VmStatus.running_disks``), whatever its spec says
    by now.  Blocked storage proves nothing about a VM without disks, nor about one whose spec is gone, or whose guest
    can write to more than its disks.
    """
    whole = record.whole_node()
    if whole is not None:
        return whole
    if vm is None or status is None or status.running_disks is None:
        return None
    if not pools or not set(pools) <= record.proven_pools():
        return None
    return next(proof for proof in record.proofs if proof.pools)


def revoke(
    dead: str, claim: VmClaim, vm: VmSpec | None, status: VmStatus | None, proof: Proof, wall: float
) -> Revocation:
    """Take a claim from the dead node that holds it."""
    new, after = _without(dead, claim, vm, status, proof.kind)
    restarted = after is not None and after.state is VmState.WAITING
    outcome = VmRecovery(
        vm=claim.vm,
        name=vm.name if vm is not None else "",
        outcome="handed-over" if new.node else "freed" if restarted else "not-restarted",
        target=new.node,
        proof=proof.kind,
        at=wall,
    )
    return Revocation(new, after, outcome)


def given_up(node: str, claim: VmClaim, vm: VmSpec | None, status: VmStatus | None) -> tuple[VmClaim, VmStatus | None]:
    """Return the claim and status of a VM whose node gives the claim up: it has ended the guest, whose writes failed."""
    return _without(node, claim, vm, status, "its storage was closed")


def refused_by_the_dead(dead: str, claim: VmClaim) -> VmClaim | None:
    """Return the claim of a migration to the dead node that waits for its answer: it is refused in the node's place.

    Its holder keeps a paused copy that may be older than the disks, so what the holder does then is to start afresh.
    """
    record = claim.migration
    if not claim.node or record is None or record.target != dead or record.phase is not MigrationPhase.UNCERTAIN:
        return None
    message = f"node {dead} is proven dead"
    return replace(claim, migration=replace(record, phase=MigrationPhase.REFUSED, message=message))


def _without(
    node: str, claim: VmClaim, vm: VmSpec | None, status: VmStatus | None, why: str
) -> tuple[VmClaim, VmStatus | None]:
    record = claim.migration
    if record is not None and record.phase in MAY_EXECUTE_ON_TARGET and record.target != node:
        return VmClaim(vm=claim.vm, node=record.target, lease=record.target_lease, epoch=claim.epoch + 1), None
    vacant = VmClaim(vm=claim.vm, node="", lease=0, epoch=claim.epoch)
    return vacant, _status(node, vm, status, why) if vm is not None else None


def _status(dead: str, vm: VmSpec, status: VmStatus | None, why: str) -> VmStatus:
    old = status or VmStatus(id=vm.id)
    here = replace(old, node=None, observed_generation=vm.generation, vnc="", failed_moves=0, failed_target=None)
    if vm.power != "running":
        state = VmState.DISABLED if vm.power == "disabled" else VmState.STOPPED
        return replace(here, state=state, reason="", restart_done=vm.restart_request)
    if old.halted == vm.generation:
        return replace(here, state=old.state, reason=old.reason)
    if vm.restart == "never":
        why = f"node {dead} failed under it, and it is not to be restarted"
        return replace(here, state=VmState.STOPPED, reason=why, halted=vm.generation)
    return replace(here, state=VmState.WAITING, reason=f"node {dead} failed ({why}); it waits for a place")
