"""The decisions of plan.vm, one rule at a time; whole schedules are in the simulator's tests."""

import pytest
from msgspec.structs import replace

from pvc_core.model.vm import (
    MigrationPhase,
    MigrationRecord,
    MigrationResult,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    started_with,
)
from pvc_core.plan import vm as plan

VM = VmSpec(id="v1", name="web", memory_mib=512, vcpus=1, power="running", node="a")
MINE = VmClaim(vm="v1", node="a", lease=7, epoch=3)
RUNNING = plan.DomainView(executing=True, running_for_s=5.0)


def snapshot(**changes: object) -> plan.Snapshot:
    base: dict[str, object] = {"me": "a", "lease": 7, "now": 100.0, "vm": VM, "address": "10.0.0.1"}
    return plan.Snapshot(**(base | changes))  # type: ignore[arg-type]


def status(state: VmState, **changes: object) -> VmStatus:
    known = VmStatus(id="v1", state=state, node="a", observed_generation=1, **started_with(VM))
    return replace(known, **changes)


def migrating(phase: MigrationPhase, **changes: object) -> VmClaim:
    record = MigrationRecord(
        target="b", attempt="m1", phase=phase, target_lease=4, target_address="10.0.0.2", admission="way"
    )
    return replace(MINE, migration=replace(record, **changes))


def test_vm_is_started_only_after_its_claim_was_taken():
    first = plan.decide(snapshot())
    assert first == plan.TakeClaim()
    second = plan.decide(snapshot(claim=MINE))
    assert isinstance(second, plan.SetStatus)
    assert second.status.state is VmState.STARTING
    assert plan.decide(snapshot(claim=MINE, status=second.status)) == plan.StartDomain()


def test_claim_of_another_node_is_never_taken():
    held = replace(MINE, node="b")
    assert plan.decide(snapshot(claim=held)) == plan.Idle()


def test_released_claim_is_taken_again():
    assert plan.decide(snapshot(claim=replace(MINE, node=""))) == plan.TakeClaim()


def test_domain_without_claim_is_ended_when_another_node_holds_it():
    action = plan.decide(snapshot(claim=replace(MINE, node="b"), domain=RUNNING))
    assert isinstance(action, plan.DestroyDomain)


def test_domain_without_claim_is_adopted_when_nobody_holds_it():
    assert plan.decide(snapshot(vm=replace(VM, node="b"), domain=RUNNING)) == plan.TakeClaim(adopt=True)


def test_domain_of_an_unknown_vm_is_left_alone():
    assert plan.decide(snapshot(vm=None, domain=RUNNING)) == plan.Idle()


def test_claim_is_renewed_under_a_new_lease_before_anything_else():
    assert plan.decide(snapshot(claim=replace(MINE, lease=6), domain=RUNNING)) == plan.RenewClaim()


def test_stopped_vm_releases_its_claim_only_when_the_domain_is_gone_and_detached():
    stop = replace(VM, power="stopped", generation=2)
    asked = plan.decide(snapshot(vm=stop, claim=MINE, domain=RUNNING, status=status(VmState.RUNNING)))
    assert isinstance(asked, plan.SetStatus)
    assert plan.decide(snapshot(vm=stop, claim=MINE, domain=RUNNING, status=asked.status)) == plan.ShutdownDomain()
    attached = plan.Memory(attached=True)
    assert plan.decide(snapshot(vm=stop, claim=MINE, status=asked.status, memory=attached)) == plan.Detach()
    assert plan.decide(snapshot(vm=stop, claim=MINE, status=asked.status)) == plan.ReleaseClaim()


def test_guest_that_ignores_shutdown_is_cut_off_after_its_time_limit():
    stop = replace(VM, power="stopped", generation=2, shutdown_timeout_s=30)
    stopping = status(VmState.STOPPING, observed_generation=2)
    waited = plan.Memory(attached=True, shutdown_since=75.0, shutdown_asked=95.0)
    patient = plan.decide(snapshot(vm=stop, claim=MINE, domain=RUNNING, status=stopping, memory=waited))
    assert patient == plan.Idle(again_s=5.0)
    late = plan.decide(snapshot(vm=stop, claim=MINE, domain=RUNNING, status=stopping, memory=waited, now=105.0))
    assert isinstance(late, plan.DestroyDomain)


@pytest.mark.parametrize(("crashes", "pause"), [(0, 2.0), (1, 4.0), (2, 8.0)])
def test_crashed_guest_is_restarted_after_a_growing_pause(crashes: int, pause: float):
    ran = status(VmState.RUNNING, crashes=crashes)
    action = plan.decide(snapshot(claim=MINE, status=ran, ended=plan.Ended.CRASHED))
    assert isinstance(action, plan.SetStatus)
    assert (action.status.state, action.status.crashes, action.backoff_s) == (VmState.BACKOFF, crashes + 1, pause)


def test_guest_that_crashes_too_often_is_left_failed_and_its_claim_released():
    ran = status(VmState.RUNNING, crashes=5)
    action = plan.decide(snapshot(claim=MINE, status=ran, ended=plan.Ended.CRASHED))
    assert isinstance(action, plan.SetStatus)
    assert action.status.state is VmState.FAILED
    assert "gave up after 6" in action.status.reason
    assert plan.decide(snapshot(claim=MINE, status=action.status)) == plan.ReleaseClaim()
    assert plan.decide(snapshot(claim=replace(MINE, node=""), status=action.status)) == plan.Idle()
    wanted_again = replace(VM, generation=2)
    assert (
        plan.decide(snapshot(vm=wanted_again, claim=replace(MINE, node=""), status=action.status)) == plan.TakeClaim()
    )


@pytest.mark.parametrize(
    ("policy", "ended", "state"),
    [
        ("always", plan.Ended.SHUTDOWN, VmState.BACKOFF),
        ("on-crash", plan.Ended.SHUTDOWN, VmState.STOPPED),
        ("on-crash", plan.Ended.CRASHED, VmState.BACKOFF),
        ("on-crash", plan.Ended.UNKNOWN, VmState.BACKOFF),
        ("never", plan.Ended.CRASHED, VmState.STOPPED),
    ],
)
def test_restart_policy(policy: str, ended: plan.Ended, state: VmState):
    vm = replace(VM, restart=policy)
    action = plan.decide(snapshot(vm=vm, claim=MINE, status=status(VmState.RUNNING), ended=ended))
    assert isinstance(action, plan.SetStatus)
    assert action.status.state is state


def test_waiting_vm_says_why_it_has_no_place():
    action = plan.decide(snapshot(no_room="node a has no room"))
    assert isinstance(action, plan.SetStatus)
    assert (action.status.state, action.status.reason) == (VmState.WAITING, "node a has no room")


MOVE = replace(VM, node="b", home="a", generation=2)


def leaving(**changes: object) -> plan.Snapshot:
    base: dict[str, object] = {
        "vm": MOVE,
        "claim": MINE,
        "domain": RUNNING,
        "status": status(VmState.RUNNING),
        "target_alive": True,
    }
    return snapshot(**(base | changes))


def test_move_waits_for_a_target_that_is_alive():
    action = plan.decide(leaving(target_alive=False))
    assert isinstance(action, plan.SetStatus)
    assert "not alive" in action.status.reason


def test_live_migration_takes_each_phase_in_order():
    assert plan.decide(leaving()) == plan.BeginMigration(target="b")
    assert plan.decide(leaving(claim=migrating(MigrationPhase.READY))) == plan.BeginTransfer()
    transfer = migrating(MigrationPhase.TRANSFER)
    assert plan.decide(leaving(claim=transfer)) == plan.StartTransfer(
        target_address="10.0.0.2", admission="way", attempt="m1"
    )
    gone = leaving(claim=transfer, domain=None, ended=plan.Ended.MIGRATED)
    assert plan.decide(gone) == plan.HandOver()


def test_target_prepares_answers_and_reports_arrival():
    def as_target(phase: MigrationPhase, **changes: object) -> plan.Snapshot:
        return snapshot(me="b", lease=4, vm=MOVE, claim=migrating(phase), **changes)

    assert plan.decide(as_target(MigrationPhase.PREPARE)) == plan.PrepareIncoming(attempt="m1")
    ready = plan.Memory(attached=True, prepared="m1")
    assert plan.decide(as_target(MigrationPhase.PREPARE, memory=ready)) == plan.Answer(phase=MigrationPhase.READY)
    half = plan.DomainView(executing=False, incoming=True)
    assert plan.decide(as_target(MigrationPhase.TRANSFER, domain=half)) == plan.Idle(again_s=1.0)
    here = plan.decide(as_target(MigrationPhase.TRANSFER, domain=RUNNING))
    assert here == plan.Answer(phase=MigrationPhase.ARRIVED)


def test_target_that_drains_refuses():
    action = plan.decide(
        snapshot(me="b", lease=4, vm=MOVE, claim=migrating(MigrationPhase.PREPARE), accepting="node b is flushed")
    )
    assert action == plan.Answer(phase=MigrationPhase.REFUSED, message="node b is flushed")


def test_target_is_asked_when_libvirt_does_not_know_where_the_guest_executes():
    paused = plan.DomainView(executing=False, transfer_failed=True)
    assert plan.decide(leaving(claim=migrating(MigrationPhase.TRANSFER), domain=paused)) == plan.AskTarget()
    waits = plan.decide(leaving(claim=migrating(MigrationPhase.UNCERTAIN), domain=paused))
    assert isinstance(waits, plan.SetStatus)
    arrived = plan.decide(leaving(claim=migrating(MigrationPhase.ARRIVED), domain=paused))
    assert isinstance(arrived, plan.DestroyDomain)


def test_paused_copy_is_started_afresh_when_the_target_does_not_have_the_guest():
    paused = plan.DomainView(executing=False, transfer_failed=True)
    action = plan.decide(leaving(claim=migrating(MigrationPhase.REFUSED), domain=paused))
    assert isinstance(action, plan.DestroyDomain)


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        (None, plan.Answer(phase=MigrationPhase.REFUSED, message="the guest is not here")),
        (RUNNING, plan.Answer(phase=MigrationPhase.ARRIVED)),
    ],
)
def test_target_that_is_asked_says_what_it_sees(domain: plan.DomainView | None, answer: plan.Answer):
    asked = snapshot(me="b", lease=4, vm=MOVE, claim=migrating(MigrationPhase.UNCERTAIN), domain=domain)
    assert plan.decide(asked) == answer


def test_claim_of_an_uncertain_guest_goes_to_the_target_when_the_paused_copy_is_gone():
    gone = leaving(claim=migrating(MigrationPhase.UNCERTAIN), domain=None, ended=plan.Ended.DESTROYED)
    assert plan.decide(gone) == plan.HandOver()


def test_failed_transfer_is_recorded_when_the_guest_executes_here():
    failed = plan.DomainView(executing=True, transfer_failed=True, transfer_error="no route")
    action = plan.decide(leaving(claim=migrating(MigrationPhase.TRANSFER), domain=failed))
    assert action == plan.EndMigration(failed=True, message="no route")


def test_guest_that_ended_by_itself_in_the_transfer_is_not_handed_over():
    action = plan.decide(leaving(claim=migrating(MigrationPhase.TRANSFER), domain=None, ended=plan.Ended.SHUTDOWN))
    assert action == plan.EndMigration(failed=False, message="the guest ended")


@pytest.mark.parametrize("ended", [plan.Ended.CRASHED, plan.Ended.DESTROYED, plan.Ended.UNKNOWN])
def test_guest_whose_copy_was_killed_in_the_transfer_may_execute_at_the_target(ended):
    action = plan.decide(leaving(claim=migrating(MigrationPhase.TRANSFER), domain=None, ended=ended))
    assert action == plan.HandOver()


def test_claim_is_handed_over_when_the_end_of_the_domain_was_not_seen():
    action = plan.decide(leaving(claim=migrating(MigrationPhase.TRANSFER), domain=None, ended=plan.Ended.UNKNOWN))
    assert action == plan.HandOver()


FAILED_MOVES = {
    "failed_moves": plan.LIVE_ATTEMPTS,
    "failed_target": "b",
    "last_migration": MigrationResult(source="a", target="b", method="live", ok=False, message="no route"),
}


def test_move_that_failed_live_is_done_by_shutdown_when_the_method_allows():
    action = plan.decide(leaving(status=status(VmState.RUNNING, **FAILED_MOVES)))
    assert isinstance(action, plan.SetStatus)
    assert action.status.state is VmState.STOPPING


def test_live_only_move_that_failed_is_given_up_with_the_reason():
    action = plan.decide(leaving(vm=replace(MOVE, migration="live"), status=status(VmState.RUNNING, **FAILED_MOVES)))
    assert isinstance(action, plan.RevertMove)
    assert "no route" in action.why


def test_move_that_is_not_wanted_any_more_is_undone_before_the_transfer_and_aborted_during_it():
    back = replace(MOVE, node="a", home=None, generation=3)
    assert plan.decide(leaving(vm=back, claim=migrating(MigrationPhase.PREPARE))) == plan.EndMigration(
        failed=False, message="the move is not wanted any more"
    )
    moving = plan.DomainView(executing=True, transfer=True)
    action = plan.decide(leaving(vm=back, claim=migrating(MigrationPhase.TRANSFER), domain=moving))
    assert isinstance(action, plan.AbortTransfer)


def test_stopped_vm_that_is_placed_elsewhere_is_released_here_and_started_there():
    assert plan.decide(leaving(domain=None)) == plan.ReleaseClaim()
    there = snapshot(me="b", lease=4, vm=MOVE, claim=replace(MINE, node=""), status=status(VmState.STOPPING))
    assert plan.decide(there) == plan.TakeClaim()


def test_guest_without_a_place_is_shut_down_before_its_claim_is_released():
    action = plan.decide(leaving(vm=replace(MOVE, node=None)))
    assert isinstance(action, plan.SetStatus)
    assert action.status.state is VmState.STOPPING


def test_running_guest_with_changed_hardware_says_that_it_needs_a_restart():
    grown = replace(VM, memory_mib=1024, generation=2)
    action = plan.decide(snapshot(vm=grown, claim=MINE, domain=RUNNING, status=status(VmState.RUNNING)))
    assert isinstance(action, plan.SetStatus)
    assert [c.reason for c in action.status.conditions] == ["RestartNeeded"]


def test_requested_restart_shuts_down_then_starts_once():
    again = replace(VM, restart_request=1, generation=2)
    down = plan.decide(snapshot(vm=again, claim=MINE, domain=RUNNING, status=status(VmState.RUNNING)))
    assert isinstance(down, plan.SetStatus)
    assert down.status.state is VmState.STOPPING
    up = plan.decide(snapshot(vm=again, claim=MINE, status=down.status))
    assert isinstance(up, plan.SetStatus)
    assert (up.status.state, up.status.restart_done) == (VmState.STARTING, 1)


def test_removed_vm_is_ended_released_and_then_forgotten():
    gone = replace(VM, deleting=True, generation=2)
    assert isinstance(plan.decide(snapshot(vm=gone, claim=MINE, domain=RUNNING)), plan.DestroyDomain)
    assert plan.decide(snapshot(vm=gone, claim=MINE)) == plan.ReleaseClaim()
    assert plan.decide(snapshot(vm=gone, claim=replace(MINE, node=""))) == plan.RemoveDocuments()


def test_parked_guest_is_shut_down_and_waits_on_its_flushed_node():
    parked = plan.decide(
        snapshot(claim=MINE, domain=RUNNING, status=status(VmState.RUNNING), parked=True, accepting="node a is flushed")
    )
    assert isinstance(parked, plan.SetStatus)
    assert parked.status.state is VmState.STOPPING
    waits = plan.decide(snapshot(claim=replace(MINE, node=""), status=parked.status, accepting="node a is flushed"))
    assert isinstance(waits, plan.SetStatus)
    assert waits.status.state is VmState.WAITING
