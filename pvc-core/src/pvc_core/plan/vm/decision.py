"""The decision itself, apart from moves."""

import msgspec

from pvc_core.model.base import Condition, with_condition, without_condition
from pvc_core.model.vm import (
    Rollback,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    hardware_changed,
    started_with,
)
from pvc_core.plan.backoff import least
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
from pvc_core.plan.vm.devices import again_in
from pvc_core.plan.vm.disks import disk_conditions, disks_behind, plugging
from pvc_core.plan.vm.migration import leaving, migrating, target
from pvc_core.plan.vm.nics import nic_conditions, nics_behind, plugging_nics
from pvc_core.plan.vm.status import backoff_left, crashed, say
from pvc_core.plan.vm.stop import let_go, releasing, stopping
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
    if vm.rollback is not None:
        return say(s, vm, VmState.WAITING, _rolling_back(vm.rollback)) or Idle()
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
    released = releasing(vm)
    if released is not None:
        return released
    state = VmState.DISABLED if vm.power == "disabled" else VmState.STOPPED
    reason = _rolling_back(vm.rollback) if vm.rollback is not None else ""
    return say(s, vm, state, reason, restart_done=vm.restart_request, crashes=0, failed_moves=0) or Idle()


def _rolling_back(rollback: Rollback) -> str:
    return f"it is not started until its disks are rolled back to snapshot {rollback.name} (task {rollback.task})"


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
    plugged = plugging(s, vm, domain) or plugging_nics(s, vm, domain)
    if plugged is not None:
        return plugged
    stable = domain.running_for_s >= s.limits.stable_s
    changes: dict[str, object] = {"vnc": domain.vnc, "accelerator": domain.accelerator, "failed_moves": 0, "halted": 0}
    if stable:
        changes["crashes"] = 0
    conditions = disk_conditions(s, vm, domain, _hardware_condition(s, vm, domain))
    changes["conditions"] = nic_conditions(s, vm, domain, conditions)
    reason = "" if domain.executing else "the guest is paused"
    said = say(s, vm, VmState.RUNNING, reason, **changes)
    if said is not None:
        return msgspec.structs.replace(said, forget_arrival=True)
    settles = None if stable or not (status and status.crashes) else s.limits.stable_s - domain.running_for_s
    return Idle(again_s=least(settles, again_in(s, vm)))


def _hardware_condition(s: Snapshot, vm: VmSpec, domain: DomainView) -> tuple[Condition, ...]:
    status = s.status
    if status is None:
        return ()
    behind = (*disks_behind(s, vm, domain), *nics_behind(s, vm, domain))
    if not (behind or hardware_changed(vm, status)):
        return without_condition(status.conditions, "Hardware")
    which = f" ({', '.join(behind)})" if behind else ""
    message = f"the guest runs with older settings{which}; restart it to apply the new ones"
    return with_condition(
        status.conditions, Condition(type="Hardware", ok=False, reason="RestartNeeded", message=message)
    )


def _not_running(s: Snapshot, vm: VmSpec) -> Action:
    """The guest should run here, and does not: it was never started, or it ended by itself."""
    if vm.rollback is not None:
        return let_go(s)
    status, released = s.status, releasing(vm)
    if released is not None:
        return released
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
