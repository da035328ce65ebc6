"""Whole clusters under seeded faults: see pvc_core.testkit.simulator.

The mutations show that the invariants are worth something: each is a mistake that a fencer or a node could make.
"""

import concurrent.futures
import os
from collections import Counter

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import FenceLevel
from pvc_core.model.vm import MigrationPhase, VmSpec, removed_disks
from pvc_core.node import fence_calls, fence_jobs, revoker, spare, watchdog
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.plan import fencing, revocation
from pvc_core.plan import vm as plan
from pvc_core.plan.vm import decision, disks
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.testkit.simulator.run import Failed, Run, run

SEEDS = 1000
BATCH = 25


def _batch(first: int) -> tuple[list[Run], list[str]]:
    runs, failures = [], []
    for seed in range(first, first + BATCH):
        try:
            runs.append(run(seed)._replace(trace=()))
        except Failed as failure:
            failures.append(str(failure))
    return runs, failures


@pytest.mark.timeout(1800)
def test_a_thousand_seeded_schedules_keep_every_invariant():
    runs: list[Run] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, failures in pool.map(_batch, range(0, SEEDS, BATCH)):
            assert not failures, "\n\n".join(failures)
            runs += done
    assert len(runs) == SEEDS
    assert {3, 4, 5, 6, 7, 8, 9} == {r.nodes for r in runs}
    # The schedules are worth something: requests were carried out, faults struck, nodes were fenced and VMs freed.
    assert sum(r.requests for r in runs) > 20 * SEEDS
    assert sum(sum(r.faults.values()) for r in runs) > 5 * SEEDS
    proofs = sum((Counter(r.proofs) for r in runs), Counter[str]())
    assert set(proofs) == {"power-off-confirmed", "storage-blocked", "watchdog-expired", "operator"}
    assert sum(r.revoked for r in runs) > SEEDS
    assert sum(len(r.figures) for r in runs) > SEEDS / 10


def test_one_seed_gives_one_run():
    assert [run(seed) for seed in (4710, 4711)] == [run(seed) for seed in (4710, 4711)]


def test_a_run_with_the_daemons_logs_is_the_same_run():
    assert run(4711, verbose=True)._replace(trace=()) == run(4711)._replace(trace=())


def test_a_claim_that_is_released_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch):
    decide = plan.decide

    def careless(s: plan.Snapshot) -> plan.Action:
        action = decide(s)
        # As if the shutdown of a guest that moves were not waited for.
        return plan.ReleaseClaim() if isinstance(action, plan.ShutdownDomain) else action

    monkeypatch.setattr(plan, "decide", careless)
    _some_seed_fails("which its claim does not allow|executes on .* at once")


def test_a_target_that_starts_the_guest_itself_is_noticed(monkeypatch: pytest.MonkeyPatch):
    decide = plan.decide

    def greedy(s: plan.Snapshot) -> plan.Action:
        record = s.claim.migration if s.claim is not None else None
        early = record is not None and record.target == s.me and record.phase is MigrationPhase.READY
        return plan.StartDomain() if early and s.domain is None else decide(s)

    monkeypatch.setattr(plan, "decide", greedy)
    _some_seed_fails("which its claim does not allow|executes on .* at once")


def test_a_write_that_comes_after_the_lease_it_was_decided_under_is_noticed(monkeypatch: pytest.MonkeyPatch):
    def unguarded(self: VmReconciler, *operations: object) -> None:
        self._c.store.commit(*operations)

    monkeypatch.setattr(VmReconciler, "_commit", unguarded)
    _some_seed_fails("takes the claim of VM .* with lease|without a lease", "thread_stalls_soon")


def test_a_device_that_cannot_say_whether_the_power_is_off_and_is_believed_is_noticed(monkeypatch: pytest.MonkeyPatch):
    call = fence_calls.FenceCalls._call

    def credulous(self: fence_calls.FenceCalls, *args: object) -> tuple[PowerState, str]:
        state, error = call(self, *args)
        return (PowerState.OFF, "") if state is PowerState.UNKNOWN and not error else (state, error)

    monkeypatch.setattr(fence_calls.FenceCalls, "_call", credulous)
    _some_seed_fails("records power-off-confirmed .* but its", "fence_device", "link", "daemon_stops")


def test_half_a_power_cut_that_is_taken_for_a_whole_one_is_noticed(monkeypatch: pytest.MonkeyPatch):
    off = fence_calls.FenceCalls.off

    def half(self: fence_calls.FenceCalls, node: str, level: FenceLevel, **more: object) -> fence_calls.Outcome:
        return off(self, node, FenceLevel(devices=level.devices[:1]), **more)

    monkeypatch.setattr(fence_calls.FenceCalls, "off", half)
    _some_seed_fails("records power-off-confirmed .* but its", "link", "daemon_stops")


def test_a_watchdog_that_is_fed_without_a_lease_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watchdog, "may_feed", lambda *_: True)
    _some_seed_fails("records watchdog-expired .* but its host still runs", "link")


def test_a_watchdog_that_is_relied_on_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watchdog, "down_after", lambda feeding_s, timeout_s: feeding_s + timeout_s / 2)
    _some_seed_fails("records watchdog-expired .* but its host still runs", "watchdog_starves")


def test_a_node_that_is_fenced_although_it_is_back_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fence_jobs.FenceJobs, "_spared", lambda *_: "")
    _some_seed_fails("fences .*, which has had a lease for", "back_while_fenced")


def test_a_node_that_is_fenced_in_maintenance_is_noticed(monkeypatch: pytest.MonkeyPatch):
    decide = fencing.decide
    monkeypatch.setattr(fencing, "decide", lambda s: decide(s._replace(maintenance="")))
    _overlook(monkeypatch, "maintenance")
    _some_seed_fails("fences .*, which is (in maintenance|left alone)", "spared_while_fenced")


def test_a_node_that_is_fenced_although_its_daemon_was_stopped_on_purpose_is_noticed(monkeypatch: pytest.MonkeyPatch):
    decide = fencing.decide
    monkeypatch.setattr(fencing, "decide", lambda s: decide(s._replace(last=replace(s.last, released=False))))
    _overlook(monkeypatch, "on purpose")
    _some_seed_fails("fences .*, which gave its lease up on purpose", "daemon_stopped")


def test_a_guest_that_is_started_afresh_while_it_may_have_arrived_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch):
    revoke = revocation.revoke

    def forgetful(dead: str, claim: object, *more: object) -> object:
        return revoke(dead, replace(claim, migration=None), *more)

    monkeypatch.setattr(revoker, "revoke", forgetful)
    _some_seed_fails("which its claim does not allow|executes on .* at once", "lost_while_migrating")


def test_a_proof_of_an_earlier_loss_is_not_enough(monkeypatch: pytest.MonkeyPatch):
    new_loss = fencing._new_loss

    def lazy(s: fencing.Situation, before: object) -> fencing.Step:
        return fencing.Revoke() if s.record is not None and s.record.proofs else new_loss(s, before)

    monkeypatch.setattr(fencing, "_new_loss", lazy)
    _some_seed_fails("whose lease .* is newer than the one of the proof|never ended|still claims", "power_cut", "link")


def test_a_disk_that_is_given_away_before_the_guest_has_let_go_of_it_is_noticed(monkeypatch: pytest.MonkeyPatch):
    def careless(s: plan.Snapshot, vm: VmSpec, domain: plan.DomainView) -> plan.Action | None:
        removed = removed_disks(vm)
        return plan.ReleaseDisks(volumes=removed) if removed and s.status else plugging(s, vm, domain)

    plugging = decision.plugging
    monkeypatch.setattr(decision, "plugging", careless)
    _some_seed_fails("which belongs to|and its status names")


def test_a_disk_that_is_plugged_in_before_that_is_said_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disks, "recorded", lambda status, _: status)
    _some_seed_fails("and its status names")


def _overlook(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Let the last look before power is cut overlook one reason to leave the node alone."""
    look = spare.why_spared

    def careless(*asked: object) -> str:
        found = look(*asked)
        return "" if reason in found else found

    monkeypatch.setattr(fence_jobs, "why_spared", careless)


def _some_seed_fails(pattern: str, *only: str, seeds: int = 60) -> None:
    with pytest.raises(Failed, match=pattern) as failure:
        for seed in range(seeds):
            run(seed, only=only)
    assert "trace of seed" in str(failure.value)
