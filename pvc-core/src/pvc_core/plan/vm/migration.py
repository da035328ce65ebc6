"""The moves of a VM: what the holder of its claim does, and what the target of a live migration does."""

from typing import Final

from pvc_core.model.vm import MAY_EXECUTE_ON_TARGET, MigrationPhase, MigrationRecord, VmSpec, VmState
from pvc_core.plan.vm.action import (
    AbortTransfer,
    Action,
    Answer,
    AskTarget,
    BeginMigration,
    BeginTransfer,
    DestroyDomain,
    Detach,
    EndMigration,
    HandOver,
    Idle,
    PrepareIncoming,
    RevertMove,
    StartTransfer,
)
from pvc_core.plan.vm.status import left, say
from pvc_core.plan.vm.stop import let_go, stopping
from pvc_core.plan.vm.view import DomainView, Ended, Snapshot

LIVE_ATTEMPTS: Final = 3
"""Live migrations of one move that may fail before it is done otherwise, or given up."""


def target(s: Snapshot, record: MigrationRecord) -> Action:
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


def leaving(s: Snapshot, vm: VmSpec) -> Action:
    target = vm.node
    if s.domain is None:
        return let_go(s)
    if target is None:
        return stopping(s, vm)
    method = vm.move_method or vm.migration
    failed = s.status.failed_moves if s.status is not None and s.status.failed_target == target else 0
    if not s.target_alive:
        return say(s, vm, VmState.RUNNING, f"waiting to move: node {target} is not alive") or Idle(again_s=5.0)
    if method == "shutdown" or (method == "live-or-shutdown" and (s.live_obstacle or failed >= LIVE_ATTEMPTS)):
        return stopping(s, vm)
    if s.live_obstacle:
        return RevertMove(why=s.live_obstacle)
    if failed >= LIVE_ATTEMPTS:
        last = s.status.last_migration.message if s.status and s.status.last_migration else ""
        return RevertMove(why=f"{failed} live migrations to {target} failed, the last with: {last}")
    wait = left(s.memory.move_not_before, s.now)
    return Idle(again_s=wait) if wait else BeginMigration(target=target)


def migrating(s: Snapshot, vm: VmSpec, record: MigrationRecord) -> Action:
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
        case MigrationPhase.PREPARE | MigrationPhase.READY if not s.target_alive:
            return EndMigration(failed=True, message=f"node {record.target} lost its lease")
        case MigrationPhase.PREPARE:
            if waited > s.limits.prepare_s:
                return EndMigration(failed=True, message=f"node {record.target} did not get ready in time")
            return say(s, vm, VmState.MIGRATING, f"{record.target} gets ready") or Idle(again_s=5.0)
        case MigrationPhase.READY:
            return BeginTransfer() if s.outgoing_free else Idle(again_s=0.5)
        case MigrationPhase.TRANSFER:
            return _transferring(s, vm, record, s.domain, wanted=wanted, waited=waited)
        case MigrationPhase.UNCERTAIN:
            said = say(s, vm, VmState.MIGRATING, f"paused: waiting for {record.target} to say whether it runs there")
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
        return say(s, vm, VmState.MIGRATING, f"to {record.target}, {percent} % done") or Idle(again_s=1.0)
    if not domain.executing:
        return AskTarget()
    if domain.transfer_failed:
        return EndMigration(failed=True, message=domain.transfer_error or "the transfer failed")
    if s.memory.started_transfer == record.attempt:
        return EndMigration(failed=True, message=s.memory.transfer_error or "the transfer ended without a result")
    if not s.target_alive or not wanted:
        return EndMigration(failed=not s.target_alive, message=f"node {record.target} lost its lease")
    return StartTransfer(target_address=record.target_address, admission=record.admission, attempt=record.attempt)


def _gone_while_migrating(s: Snapshot, record: MigrationRecord) -> Action:
    if record.phase in MAY_EXECUTE_ON_TARGET:
        # Only a guest that executes here shuts itself down.  What crashed or was destroyed may have been the copy that
        # is left, paused, when the guest executes at the target already.
        ended_here = record.phase is MigrationPhase.TRANSFER and s.ended is Ended.SHUTDOWN
        if not ended_here:
            return HandOver()
    return EndMigration(failed=False, message="the guest ended")
