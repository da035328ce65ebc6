"""The decision itself, apart from moves."""

import msgspec

from pvc_core.model.base import Condition, with_condition, without_condition
from pvc_core.model.vm import VmClaim, VmSpec, VmState, VmStatus, hardware, started_with
from pvc_core.plan.vm.action import (
    Action,
    DestroyDomain,
    Detach,
    Idle,
    RemoveDocuments,
    RenewClaim,
    StartDomain,
    TakeClaim,
)
from pvc_core.plan.vm.migration import leaving, migrating, target
from pvc_core.plan.vm.status import backoff_left, crashed, say
from pvc_core.plan.vm.stop import let_go, stopping
from pvc_core.plan.vm.view import DomainView, Ended, Snapshot


def decide(s: Snapshot) -> Action:
    """Return the next action of node ``s.me`` for this VM."""
    claim = s.claim
    if claim is not None and claim.node == s.me:
        return _holder(s, claim)
    if claim is not None and claim.node and claim.migration is not None and claim.migration.target == s.me:
        return target(s, claim.migration)
    return _without_claim(s)


def _without_claim(s: Snapshot) -> Action:
    vacant = s.claim is None or not s.claim.node
    if s.domain is not None:
        if not vacant:
            return DestroyDomain(why=f"node {s.claim.node if s.claim else ''} holds its claim")
        # Without a spec nobody can say whether it is wanted: it is left alone, and reported by the node.
        return TakeClaim(adopt=True) if s.vm is not None else Idle()
    if s.memory.attached:
        return Detach()
    if s.vm is None or s.vm.node != s.me or not vacant:
        return Idle()
    if s.vm.deleting:
        return RemoveDocuments()
    if s.vm.power != "running":
        return _rest(s, s.vm)
    return _want_to_start(s, s.vm)


def _want_to_start(s: Snapshot, vm: VmSpec) -> Action:
    if s.status is not None and s.status.halted == vm.generation:
        return Idle()
    if s.accepting:
        return say(s, vm, VmState.WAITING, s.accepting) or Idle()
    if s.cannot_run:
        return say(s, vm, VmState.WAITING, s.cannot_run) or Idle(again_s=10.0)
    if s.no_room:
        return say(s, vm, VmState.WAITING, s.no_room) or Idle(again_s=10.0)
    wait = backoff_left(s)
    return Idle(again_s=wait) if wait else TakeClaim()


def _rest(s: Snapshot, vm: VmSpec) -> Action:
    """Say that it is stopped; a restart asked for meanwhile has nothing left to do."""
    state = VmState.DISABLED if vm.power == "disabled" else VmState.STOPPED
    return say(s, vm, state, "", restart_done=vm.restart_request, crashes=0, failed_moves=0) or Idle()


def _holder(s: Snapshot, claim: VmClaim) -> Action:
    if claim.lease != s.lease:
        return RenewClaim()
    if s.vm is None:
        # Its documents were removed under us: the guest is left alone, the claim of no guest is given up.
        return Idle() if s.domain is not None else let_go(s)
    if claim.migration is not None:
        return migrating(s, s.vm, claim.migration)
    if s.domain is not None and s.domain.incoming:
        return _just_arrived(s)
    if s.vm.deleting:
        return DestroyDomain(why="it is being removed") if s.domain is not None else let_go(s)
    if s.vm.power != "running":
        return stopping(s, s.vm) if s.domain is not None else let_go(s)
    if s.vm.node != s.me:
        return leaving(s, s.vm)
    if s.parked:
        return stopping(s, s.vm) if s.domain is not None else let_go(s)
    return _running(s, s.vm, s.domain) if s.domain is not None else _not_running(s, s.vm)


def _just_arrived(s: Snapshot) -> Action:
    """The claim was handed over to us; libvirt lets the guest execute within moments."""
    since = s.memory.phase_since
    if since is not None and s.now - since > s.limits.prepare_s:
        return DestroyDomain(why="its migration to this node never completed")
    return Idle(again_s=0.5)


def _running(s: Snapshot, vm: VmSpec, domain: DomainView) -> Action:
    status = s.status
    if status is not None and vm.restart_request > status.restart_done:
        return stopping(s, vm)
    stable = domain.running_for_s >= s.limits.stable_s
    changes: dict[str, object] = {"vnc": domain.vnc, "accelerator": domain.accelerator, "failed_moves": 0, "halted": 0}
    if stable:
        changes["crashes"] = 0
    conditions = status.conditions if status else ()
    wanted, now = hardware(vm), status.running_hardware if status else ""
    if now and wanted != now:
        conditions = with_condition(
            conditions,
            Condition(
                type="Hardware",
                ok=False,
                reason="RestartNeeded",
                message="the guest runs with older settings; restart it to apply the new ones",
            ),
        )
    else:
        conditions = without_condition(conditions, "Hardware")
    changes["conditions"] = conditions
    reason = "" if domain.executing else "the guest is paused"
    said = say(s, vm, VmState.RUNNING, reason, **changes)
    if said is not None:
        return msgspec.structs.replace(said, forget_arrival=True)
    return (
        Idle() if stable or not (status and status.crashes) else Idle(again_s=s.limits.stable_s - domain.running_for_s)
    )


def _not_running(s: Snapshot, vm: VmSpec) -> Action:
    """The guest should run here, and does not: it was never started, or it ended by itself."""
    status = s.status
    if status is None or status.state is VmState.STARTING:
        refusal = s.accepting or s.cannot_run or s.no_room
        if refusal:
            return let_go(s)
        return _starting(s, vm)
    if status.halted == vm.generation:
        return let_go(s)
    if vm.restart_request > status.restart_done:
        return _starting(s, vm, restart_done=vm.restart_request)
    if status.state in (VmState.RUNNING, VmState.MIGRATING) and status.node == s.me:
        return _ended(s, vm, status)
    wait = backoff_left(s)
    return Idle(again_s=wait) if wait else _starting(s, vm)


def _starting(s: Snapshot, vm: VmSpec, **changes: object) -> Action:
    """Say with which settings it is started, then start it."""
    return say(s, vm, VmState.STARTING, "", **started_with(vm), **changes) or StartDomain()


def _ended(s: Snapshot, vm: VmSpec, status: VmStatus) -> Action:
    """Record an end that nobody asked for, once: the state it leads to does not come here again."""
    by_guest = s.ended is Ended.SHUTDOWN
    if vm.restart == "never" or (vm.restart == "on-crash" and by_guest):
        why = (
            "the guest shut itself down"
            if by_guest
            else f"the guest ended ({s.ended.value}) and is not to be restarted"
        )
        return say(s, vm, VmState.STOPPED, why, halted=vm.generation) or let_go(s)
    return crashed(s, vm, status, "the guest shut itself down" if by_guest else f"the guest ended ({s.ended.value})")
