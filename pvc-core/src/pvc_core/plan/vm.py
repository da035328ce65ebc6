"""What a node does next for one VM.

Invariant: a VM's domain executes on at most one node, and only on the holder of its claim; while the
claim's migration is in phase TRANSFER, UNCERTAIN or ARRIVED also on the migration's target, where libvirt's
own protocol lets at most one side execute.

It holds because of these rules, each of which is one compare-and-set of the claim or one local effect:

1. A node starts a domain only while it holds the claim.
2. The claim is taken only when nobody holds it, under our own valid lease.
3. It is given up only by its holder, after the domain is confirmed gone here, and not while the target may be
   executing the guest: then it goes to the target.
4. TRANSFER is recorded before libvirt is told to move the guest, and leaves that phase backwards only when
   the domain is confirmed to execute *here* with no transfer in progress, or to have ended otherwise than
   by migration.  A copy that is left paused here is asked about (UNCERTAIN) and never resumed: the target
   may have executed the guest for a while, so its memory is older than its disks.
5. A node that finds a domain without the claim (and is not the target of its transfer) ends the domain when
   another node holds the claim, and takes the claim when nobody does.

``decide`` is a pure function of a snapshot; it returns one action.  The reconciler carries it out and asks
again, so the death of the daemon between any two actions loses nothing: whatever is only in ``Memory`` is
allowed to be forgotten.
"""

import enum
from typing import Final

import msgspec

from pvc_core.model.base import Condition, Value, with_condition, without_condition
from pvc_core.model.vm import (
    MAY_EXECUTE_ON_TARGET,
    MigrationPhase,
    MigrationRecord,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    hardware,
)

LIVE_ATTEMPTS: Final = 3
"""Live migrations of one move that may fail before it is done otherwise, or given up."""
ACPI_REPEAT_S: Final = 10.0
"""A guest is asked again to shut down this often: one that was still booting ignores the first request."""


_LEAST_S: Final = 0.02
"""Least wait: the sum of two times may round to just before the moment that is waited for."""


class DomainView(Value, frozen=True, kw_only=True):
    """The VM's domain on this node."""

    executing: bool
    """Its processors run."""
    incoming: bool = False
    """It is the target half of a transfer."""
    transfer: bool = False
    """A transfer away from here is in progress."""
    transfer_failed: bool = False
    transfer_error: str = ""
    transfer_progress: float = 0.0
    running_for_s: float = 0.0
    vnc: str = ""
    accelerator: str = ""


class Ended(enum.StrEnum):
    """Why the domain is not here any more, as far as is known."""

    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    MIGRATED = "migrated"
    UNKNOWN = "unknown"


class Memory(Value, frozen=True, kw_only=True):
    """What this daemon remembers of the VM; all of it may be lost at any time."""

    attached: bool = False
    """Disks or NICs may be attached here."""
    prepared: str = ""
    """The attempt that disks and NICs were prepared for."""
    started_transfer: str = ""
    """The attempt whose transfer this daemon started."""
    shutdown_since: float | None = None
    shutdown_asked: float | None = None
    backoff_until: float | None = None
    move_not_before: float | None = None
    phase_since: float | None = None
    """When the migration's current attempt and phase were first seen."""
    transfer_error: str = ""
    """Why starting it failed."""
    aborted: str = ""
    """The attempt that was told to stop."""
    arrived_from: str = ""
    """The source of the migration that brought the guest here."""


class Limits(Value, frozen=True, kw_only=True):
    """Durations in seconds, and counts; see the ``timing`` section of the configuration."""

    prepare_s: float = 60.0
    migration_s: float = 600.0
    backoff_s: float = 2.0
    backoff_max_s: float = 300.0
    give_up: int = 6
    stable_s: float = 60.0


class Snapshot(Value, frozen=True, kw_only=True):
    """All that the decision rests on."""

    me: str
    lease: int
    """Generation of our lease."""
    address: str = ""
    now: float
    """Monotonic seconds."""
    vm: VmSpec | None
    status: VmStatus | None = None
    claim: VmClaim | None = None
    domain: DomainView | None = None
    ended: Ended = Ended.UNKNOWN
    memory: Memory = Memory()
    limits: Limits = Limits()
    target_alive: bool = False
    """The node that the VM is to move to has its lease."""
    accepting: str = ""
    """Why this node takes no VMs now (draining, maintenance); empty: it does."""
    parked: bool = False
    """This node drains and no other has room: the guest is shut down and waits."""
    no_room: str = ""
    """Why this VM does not fit here now; empty: it does."""
    cannot_run: str = ""
    """Why this node cannot run it at all now (a driver is missing); empty: it can."""
    live_obstacle: str = ""
    """Why it cannot be moved live (a passed-through device); empty: it can."""
    outgoing_free: bool = True
    """This node may begin one more transfer."""
    incoming_free: bool = True


class Idle(Value, frozen=True, kw_only=True):
    """Nothing to do; ``again_s``: look again after this long without any event."""

    again_s: float | None = None


class TakeClaim(Value, frozen=True, kw_only=True):
    """Take the vacant claim.  ``adopt``: the domain is here already, wherever the spec places it."""

    adopt: bool = False


class RenewClaim(Value, frozen=True, kw_only=True):
    """Write our new lease's generation into the claim we hold."""


class ReleaseClaim(Value, frozen=True, kw_only=True):
    """Give the claim up: the domain is confirmed gone."""


class StartDomain(Value, frozen=True, kw_only=True):
    """Attach disks and NICs and start the domain."""


class ShutdownDomain(Value, frozen=True, kw_only=True):
    """Ask the guest to shut down."""


class DestroyDomain(Value, frozen=True, kw_only=True):
    """Cut the domain's power."""

    why: str


class Detach(Value, frozen=True, kw_only=True):
    """Release the disks and NICs of the VM on this node."""


class BeginMigration(Value, frozen=True, kw_only=True):
    """Record a new attempt, phase PREPARE."""

    target: str


class PrepareIncoming(Value, frozen=True, kw_only=True):
    """Attach disks and NICs for a guest that is to come."""

    attempt: str


class Answer(Value, frozen=True, kw_only=True):
    """As target: enter READY, REFUSED or ARRIVED."""

    phase: MigrationPhase
    message: str = ""


class BeginTransfer(Value, frozen=True, kw_only=True):
    """Enter TRANSFER: from now on the target may have the guest."""


class AskTarget(Value, frozen=True, kw_only=True):
    """Enter UNCERTAIN."""


class StartTransfer(Value, frozen=True, kw_only=True):
    """Tell libvirt to move the guest."""

    target_address: str
    attempt: str


class AbortTransfer(Value, frozen=True, kw_only=True):
    """Tell libvirt to stop moving the guest."""

    attempt: str
    why: str


class HandOver(Value, frozen=True, kw_only=True):
    """Give the claim to the target of the transfer: the domain is confirmed gone here."""


class EndMigration(Value, frozen=True, kw_only=True):
    """Remove the migration from the claim we keep; ``failed`` counts it against the move."""

    failed: bool
    message: str


class RevertMove(Value, frozen=True, kw_only=True):
    """Place the VM here again: the move is given up."""

    why: str


class SetStatus(Value, frozen=True, kw_only=True):
    """Write the VM's status; ``backoff_s``: remember not to start it sooner."""

    status: VmStatus
    backoff_s: float | None = None
    forget_arrival: bool = False


class RemoveDocuments(Value, frozen=True, kw_only=True):
    """The VM is gone: remove all its documents."""


Action = (
    Idle
    | TakeClaim
    | RenewClaim
    | ReleaseClaim
    | StartDomain
    | ShutdownDomain
    | DestroyDomain
    | Detach
    | BeginMigration
    | PrepareIncoming
    | Answer
    | BeginTransfer
    | AskTarget
    | StartTransfer
    | AbortTransfer
    | HandOver
    | EndMigration
    | RevertMove
    | SetStatus
    | RemoveDocuments
)


def decide(s: Snapshot) -> Action:
    """Return the next action of node ``s.me`` for this VM."""
    claim = s.claim
    if claim is not None and claim.node == s.me:
        return _holder(s, claim)
    if claim is not None and claim.node and claim.migration is not None and claim.migration.target == s.me:
        return _target(s, claim.migration)
    return _without_claim(s)


def backoff(crashes: int, limits: Limits) -> float:
    """Return the pause in seconds before the next start after so many crashes in a row."""
    return min(limits.backoff_max_s, limits.backoff_s * 2.0 ** max(0, crashes - 1))


# --- a node that neither holds the claim nor awaits the guest ---------------------------------------


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
        return _say(s, vm, VmState.WAITING, s.accepting) or Idle()
    if s.cannot_run:
        return _say(s, vm, VmState.WAITING, s.cannot_run) or Idle(again_s=10.0)
    if s.no_room:
        return _say(s, vm, VmState.WAITING, s.no_room) or Idle(again_s=10.0)
    wait = _backoff_left(s)
    return Idle(again_s=wait) if wait else TakeClaim()


def _rest(s: Snapshot, vm: VmSpec) -> Action:
    """Say that it is stopped; a restart asked for meanwhile has nothing left to do."""
    state = VmState.DISABLED if vm.power == "disabled" else VmState.STOPPED
    return _say(s, vm, state, "", restart_done=vm.restart_request, crashes=0, failed_moves=0) or Idle()


# --- the target of a migration ----------------------------------------------------------------------


def _target(s: Snapshot, record: MigrationRecord) -> Action:
    match record.phase:
        case MigrationPhase.PREPARE:
            return _asked_to_prepare(s, record)
        case MigrationPhase.TRANSFER:
            if s.domain is not None and s.domain.executing and not s.domain.incoming:
                return Answer(phase=MigrationPhase.ARRIVED)
            return Idle(again_s=1.0)
        case MigrationPhase.REFUSED:
            return Detach() if s.memory.attached else Idle()
        case MigrationPhase.READY:
            # A daemon that was restarted here has forgotten what it prepared: attaching again is harmless.
            return Idle() if s.memory.prepared == record.attempt else PrepareIncoming(attempt=record.attempt)
        case MigrationPhase.UNCERTAIN:
            return _asked_whether_it_arrived(s)
        case MigrationPhase.ARRIVED:
            return Idle()


def _asked_whether_it_arrived(s: Snapshot) -> Action:
    if s.domain is None:
        return Answer(phase=MigrationPhase.REFUSED, message="the guest is not here")
    if s.domain.executing and not s.domain.incoming:
        return Answer(phase=MigrationPhase.ARRIVED)
    return DestroyDomain(why="the transfer that brought this half guest is over")


def _asked_to_prepare(s: Snapshot, record: MigrationRecord) -> Action:
    refusal = s.accepting or s.cannot_run or s.no_room
    if refusal:
        return Detach() if s.memory.attached else Answer(phase=MigrationPhase.REFUSED, message=refusal)
    if s.domain is not None:
        # The transfer has not begun, so this is the half guest of an attempt that ended.
        return DestroyDomain(why="left over from an earlier migration")
    if not s.incoming_free:
        return Idle(again_s=0.5)
    if s.memory.prepared != record.attempt:
        return PrepareIncoming(attempt=record.attempt)
    return Answer(phase=MigrationPhase.READY)


# --- the holder -------------------------------------------------------------------------------------


def _holder(s: Snapshot, claim: VmClaim) -> Action:
    if claim.lease != s.lease:
        return RenewClaim()
    if s.vm is None:
        # Its documents were removed under us: the guest is left alone, the claim of no guest is given up.
        return Idle() if s.domain is not None else _let_go(s)
    if claim.migration is not None:
        return _migrating(s, s.vm, claim.migration)
    if s.domain is not None and s.domain.incoming:
        return _just_arrived(s)
    if s.vm.deleting:
        return DestroyDomain(why="it is being removed") if s.domain is not None else _let_go(s)
    if s.vm.power != "running":
        return _stopping(s, s.vm) if s.domain is not None else _let_go(s)
    if s.vm.node != s.me:
        return _leaving(s, s.vm)
    if s.parked:
        return _stopping(s, s.vm) if s.domain is not None else _let_go(s)
    return _running(s, s.vm, s.domain) if s.domain is not None else _not_running(s, s.vm)


def _let_go(s: Snapshot) -> Action:
    return Detach() if s.memory.attached else ReleaseClaim()


def _just_arrived(s: Snapshot) -> Action:
    """The claim was handed over to us; libvirt lets the guest execute within moments."""
    since = s.memory.phase_since
    if since is not None and s.now - since > s.limits.prepare_s:
        return DestroyDomain(why="its migration to this node never completed")
    return Idle(again_s=0.5)


def _running(s: Snapshot, vm: VmSpec, domain: DomainView) -> Action:
    status = s.status
    if status is not None and vm.restart_request > status.restart_done:
        return _stopping(s, vm)
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
    said = _say(s, vm, VmState.RUNNING, reason, **changes)
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
            return _let_go(s)
        return _starting(s, vm)
    if status.halted == vm.generation:
        return _let_go(s)
    if vm.restart_request > status.restart_done:
        return _starting(s, vm, restart_done=vm.restart_request)
    if status.state in (VmState.RUNNING, VmState.MIGRATING) and status.node == s.me:
        return _ended(s, vm, status)
    wait = _backoff_left(s)
    return Idle(again_s=wait) if wait else _starting(s, vm)


def _starting(s: Snapshot, vm: VmSpec, **changes: object) -> Action:
    """Say with which settings it is started, then start it."""
    return _say(s, vm, VmState.STARTING, "", running_hardware=hardware(vm), **changes) or StartDomain()


def _ended(s: Snapshot, vm: VmSpec, status: VmStatus) -> Action:
    """Record an end that nobody asked for, once: the state it leads to does not come here again."""
    by_guest = s.ended is Ended.SHUTDOWN
    if vm.restart == "never" or (vm.restart == "on-crash" and by_guest):
        why = (
            "the guest shut itself down"
            if by_guest
            else f"the guest ended ({s.ended.value}) and is not to be restarted"
        )
        return _say(s, vm, VmState.STOPPED, why, halted=vm.generation) or _let_go(s)
    return crashed(s, vm, status, "the guest shut itself down" if by_guest else f"the guest ended ({s.ended.value})")


def crashed(s: Snapshot, vm: VmSpec, status: VmStatus, what: str) -> SetStatus:
    """Return the status after one more unwanted end (or failed start), and how long to wait."""
    crashes = status.crashes + 1
    if crashes >= s.limits.give_up:
        new = _status(
            s,
            vm,
            VmState.FAILED,
            f"{what}; gave up after {crashes} times in a row: correct the cause, then start it",
            crashes=crashes,
            halted=vm.generation,
        )
        return SetStatus(status=new)
    pause = backoff(crashes, s.limits)
    reason = f"{what}; starting it again in {pause:g} s (attempt {crashes + 1} of {s.limits.give_up})"
    return SetStatus(status=_status(s, vm, VmState.BACKOFF, reason, crashes=crashes), backoff_s=pause)


def _stopping(s: Snapshot, vm: VmSpec) -> Action:
    """End the guest: by force when asked for, else by ACPI within the VM's time limit."""
    if vm.power == "disabled" or (vm.power == "stopped" and vm.stop_forced):
        return DestroyDomain(why="forced stop")
    said = _say(s, vm, VmState.STOPPING, "")
    if said is not None:
        return said
    since, asked = s.memory.shutdown_since, s.memory.shutdown_asked
    if since is None or asked is None:
        return ShutdownDomain()
    if s.now - since >= vm.shutdown_timeout_s:
        return DestroyDomain(why=f"it did not shut down within {vm.shutdown_timeout_s} s")
    if s.now - asked >= ACPI_REPEAT_S:
        return ShutdownDomain()
    return Idle(again_s=max(_LEAST_S, min(asked + ACPI_REPEAT_S, since + vm.shutdown_timeout_s) - s.now))


# --- the holder while the VM is to go elsewhere -----------------------------------------------------


def _leaving(s: Snapshot, vm: VmSpec) -> Action:
    target = vm.node
    if s.domain is None:
        return _let_go(s)
    if target is None:
        return _stopping(s, vm)
    method = vm.move_method or vm.migration
    failed = s.status.failed_moves if s.status is not None and s.status.failed_target == target else 0
    if not s.target_alive:
        return _say(s, vm, VmState.RUNNING, f"waiting to move: node {target} is not alive") or Idle(again_s=5.0)
    if method == "shutdown" or (method == "live-or-shutdown" and (s.live_obstacle or failed >= LIVE_ATTEMPTS)):
        return _stopping(s, vm)
    if s.live_obstacle:
        return RevertMove(why=s.live_obstacle)
    if failed >= LIVE_ATTEMPTS:
        last = s.status.last_migration.message if s.status and s.status.last_migration else ""
        return RevertMove(why=f"{failed} live migrations to {target} failed, the last with: {last}")
    wait = _left(s.memory.move_not_before, s.now)
    return Idle(again_s=wait) if wait else BeginMigration(target=target)


def _migrating(s: Snapshot, vm: VmSpec, record: MigrationRecord) -> Action:
    if s.domain is None:
        return _gone_while_migrating(s, record)
    wanted = vm.node == record.target and vm.power == "running" and not vm.deleting
    waited = s.now - s.memory.phase_since if s.memory.phase_since is not None else 0.0
    match record.phase:
        case MigrationPhase.REFUSED if not s.domain.executing:
            return DestroyDomain(why="a paused copy of it may be older than its disks: it is started afresh")
        case MigrationPhase.REFUSED:
            return EndMigration(failed=True, message=f"node {record.target} refused: {record.message}")
        case MigrationPhase.PREPARE | MigrationPhase.READY if not wanted:
            return EndMigration(failed=False, message="the move is not wanted any more")
        case MigrationPhase.PREPARE:
            if not s.target_alive:
                return EndMigration(failed=True, message=f"node {record.target} lost its lease")
            if waited > s.limits.prepare_s:
                return EndMigration(failed=True, message=f"node {record.target} did not get ready in time")
            return _say(s, vm, VmState.MIGRATING, f"{record.target} gets ready") or Idle(again_s=5.0)
        case MigrationPhase.READY:
            return BeginTransfer() if s.outgoing_free else Idle(again_s=0.5)
        case MigrationPhase.TRANSFER:
            return _transferring(s, vm, record, s.domain, wanted=wanted, waited=waited)
        case MigrationPhase.UNCERTAIN:
            said = _say(s, vm, VmState.MIGRATING, f"paused: waiting for {record.target} to say whether it runs there")
            return said or Idle(again_s=5.0)
        case MigrationPhase.ARRIVED:
            if s.domain.transfer:
                return Idle(again_s=0.2)
            return DestroyDomain(why=f"the guest executes on {record.target}; this copy was left behind")


def _transferring(
    s: Snapshot, vm: VmSpec, record: MigrationRecord, domain: DomainView, *, wanted: bool, waited: float
) -> Action:
    if domain.transfer:
        if s.memory.aborted != record.attempt:
            if not wanted:
                return AbortTransfer(attempt=record.attempt, why="the move is not wanted any more")
            if waited > s.limits.migration_s:
                return AbortTransfer(attempt=record.attempt, why=f"it took longer than {s.limits.migration_s:g} s")
        # In steps, so that the status is not written every second.
        percent = int(domain.transfer_progress * 5) * 20
        return _say(s, vm, VmState.MIGRATING, f"to {record.target}, {percent} % done") or Idle(again_s=1.0)
    if not domain.executing:
        return AskTarget()
    if domain.transfer_failed:
        return EndMigration(failed=True, message=domain.transfer_error or "the transfer failed")
    if s.memory.started_transfer == record.attempt:
        return EndMigration(failed=True, message=s.memory.transfer_error or "the transfer ended without a result")
    if not s.target_alive or not wanted:
        return EndMigration(failed=not s.target_alive, message=f"node {record.target} lost its lease")
    return StartTransfer(target_address=record.target_address, attempt=record.attempt)


def _gone_while_migrating(s: Snapshot, record: MigrationRecord) -> Action:
    if record.phase in MAY_EXECUTE_ON_TARGET:
        ended_here = s.ended in (Ended.SHUTDOWN, Ended.CRASHED, Ended.DESTROYED)
        if record.phase is not MigrationPhase.TRANSFER or not ended_here:
            return HandOver()
    return EndMigration(failed=False, message="the guest ended")


# --- status -----------------------------------------------------------------------------------------


def _left(until: float | None, now: float) -> float:
    return max(0.0, until - now) if until is not None else 0.0


def _backoff_left(s: Snapshot) -> float:
    return _left(s.memory.backoff_until, s.now)


def _status(s: Snapshot, vm: VmSpec, state: VmState, reason: str, **changes: object) -> VmStatus:
    old = s.status or VmStatus(id=vm.id)
    return msgspec.structs.replace(
        old, state=state, reason=reason, node=s.me, observed_generation=vm.generation, **changes
    )


def _say(s: Snapshot, vm: VmSpec, state: VmState, reason: str, **changes: object) -> SetStatus | None:
    """Return the action that makes the status say this, or None when it does already."""
    new = _status(s, vm, state, reason, **changes)
    return None if new == s.status else SetStatus(status=new)
