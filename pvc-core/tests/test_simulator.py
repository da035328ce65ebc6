"""Whole clusters under seeded faults: see pvc_core.testkit.simulator."""

import concurrent.futures
import os

import pytest

from pvc_core.model.vm import MigrationPhase
from pvc_core.plan import vm as plan
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


@pytest.mark.timeout(1200)
def test_a_thousand_seeded_schedules_keep_every_invariant():
    runs: list[Run] = []
    with concurrent.futures.ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, failures in pool.map(_batch, range(0, SEEDS, BATCH)):
            assert not failures, "\n\n".join(failures)
            runs += done
    assert len(runs) == SEEDS
    assert {3, 4, 5, 6, 7} == {r.nodes for r in runs}
    # The schedules are worth something: requests were carried out and faults struck.
    assert sum(r.requests for r in runs) > 20 * SEEDS
    assert sum(r.faults for r in runs) > 5 * SEEDS


def test_one_seed_gives_one_run():
    assert run(4711) == run(4711)


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


def _some_seed_fails(pattern: str) -> None:
    with pytest.raises(Failed, match=pattern) as failure:
        for seed in range(40):
            run(seed)
    assert "trace of seed" in str(failure.value)
