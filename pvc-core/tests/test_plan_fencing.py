"""What the primary does next about a lost node, as a table and under random circumstances."""

import itertools
import math
import random

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import (
    EARLIER,
    KEPT,
    FenceAttempt,
    FenceDevice,
    FenceLevel,
    FenceRecord,
    FenceStage,
    Proof,
    ProofKind,
    StorageBlock,
)
from pvc_core.model.node import LeaseGeneration
from pvc_core.plan import fencing as plan

LEVELS = tuple(FenceLevel(devices=(FenceDevice(driver=f"driver{n}"),)) for n in (1, 2))
AFTER_PROOF = (FenceStage.PROVEN, FenceStage.RECOVERED, FenceStage.RETURNED)
LIMITS = plan.Limits(grace_s=5.0, retry_s=5.0, retry_max_s=60.0)


def situation(**changes):
    given = {
        "node": "n3",
        "me": "n1",
        "now": 1000.0,
        "wall": 5000.0,
        "last": LeaseGeneration(node="n3", generation=7),
        "leased": False,
        "lost_for": 6.0,
        "cold_for": 0.0,
        "maintenance": "",
        "heeded_for": math.inf,
        "recovery": ("power", "storage", "watchdog"),
        "levels": LEVELS,
        "can_block": False,
        "record": FenceRecord(node="n3", lease=7, stage=FenceStage.FENCING),
        "search": plan.Search(),
        "limits": LIMITS,
    }
    return plan.Situation(**(given | changes))


def record(stage=FenceStage.FENCING, *kinds, **changes):
    proofs = tuple(Proof(kind=kind, evidence="seen", by="n1") for kind in kinds)
    return FenceRecord(**({"node": "n3", "lease": 7, "stage": stage, "proofs": proofs} | changes))


def failed(s, **attempt):
    tried = FenceAttempt(**({"means": "power", "level": 1, "message": "no answer"} | attempt))
    return plan.answered(s, s.record, tried, None)


def test_a_loss_opens_a_record():
    step = plan.decide(situation(record=None, lost_for=0.0))
    assert (step.record.stage, step.record.lease) == (FenceStage.SUSPECTED, 7)


def test_a_further_loss_takes_over_what_is_owed():
    block = StorageBlock(driver="rbd", lease=6, pools=("p",))
    before = record(FenceStage.RETURNED, ProofKind.POWER, lease=6, dirty=True, drained=True, blocked=(block,))
    new = plan.decide(situation(record=before, lost_for=0.0)).record
    assert (new.lease, new.dirty, new.drained, new.blocked, new.proofs) == (7, True, True, (block,), ())


def test_a_record_tells_of_the_losses_before():
    found = record(FenceStage.RETURNED, ProofKind.POWER, lease=0)
    for lease in range(1, 2 * EARLIER):
        last = LeaseGeneration(node="n3", generation=lease)
        found = plan.decide(situation(record=found, last=last, lost_for=0.0)).record
    assert [loss.lease for loss in found.earlier] == list(range(2 * EARLIER - 2, EARLIER - 2, -1))


def test_the_grace_time_is_waited_for():
    step = plan.decide(situation(record=record(FenceStage.SUSPECTED), lost_for=3.0))
    assert step == plan.Wait(2.0)


def test_after_the_grace_time_the_stage_is_entered_before_anything_is_done():
    step = plan.decide(situation(record=record(FenceStage.SUSPECTED)))
    assert step.record.stage is FenceStage.FENCING


def test_the_first_level_is_tried_first():
    assert plan.decide(situation()) == plan.CutPower(1)


def test_a_failed_level_leads_to_the_next():
    s = situation()
    write = failed(s)
    assert plan.decide(s._replace(record=write.record, search=write.search)) == plan.CutPower(2)


def test_storage_is_closed_beside_the_second_level():
    s = situation(can_block=True, search=plan.Search(level=2, in_flight=frozenset({"power"})))
    assert plan.decide(s) == plan.BlockStorage()


def test_storage_is_not_closed_while_the_first_level_may_still_work():
    s = situation(can_block=True, search=plan.Search(in_flight=frozenset({"power"})))
    assert isinstance(plan.decide(s), plan.Wait)


def test_storage_is_closed_at_once_without_levels():
    assert plan.decide(situation(can_block=True, levels=())) == plan.BlockStorage()


def test_a_round_without_proof_says_why_and_pauses_longer_each_time():
    s = situation(search=plan.Search(level=3))
    pauses = []
    for _ in range(6):
        write = plan.decide(s)
        assert isinstance(write, plan.Write)
        pauses.append(write.search.not_before - s.now)
        s = s._replace(record=write.record, search=plan.Search(level=3))
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert write.record.waits_for.startswith("power: ")


def test_after_the_pause_the_first_level_is_tried_again():
    write = plan.decide(situation(search=plan.Search(level=3)))
    s = situation(record=write.record, search=write.search)
    assert plan.decide(s) == plan.Wait(5.0)
    assert plan.decide(s._replace(now=s.now + 5.0)) == plan.CutPower(1)


def test_a_watchdog_counts_once_its_time_is_over_even_while_power_is_being_cut():
    last = LeaseGeneration(node="n3", generation=7, watchdog_down_s=20.0)
    s = situation(last=last, lost_for=19.9, search=plan.Search(in_flight=frozenset({"power"})))
    assert plan.decide(s) == plan.Wait(pytest.approx(0.1))
    step = plan.decide(s._replace(lost_for=20.0))
    assert step.record.proofs[0].kind is ProofKind.WATCHDOG
    assert step.record.stage is FenceStage.PROVEN


@pytest.mark.parametrize("means", ["power", "storage", "watchdog"])
def test_only_what_the_policy_allows_is_used(means):
    last = LeaseGeneration(node="n3", generation=7, watchdog_down_s=1.0)
    step = plan.decide(situation(last=last, can_block=True, recovery=(means,)))
    if means == "power":
        assert step == plan.CutPower(1)
    elif means == "storage":
        assert step == plan.BlockStorage()
    else:
        assert step.record.proofs[0].kind is ProofKind.WATCHDOG


@pytest.mark.parametrize("stage", [FenceStage.SUSPECTED, FenceStage.FENCING])
def test_a_node_that_is_back_is_let_go(stage):
    step = plan.decide(situation(leased=True, record=record(stage)))
    assert step.record.stage is FenceStage.CANCELLED


def test_a_node_that_was_back_and_stopped_on_purpose_is_let_go():
    last = LeaseGeneration(node="n3", generation=8, released=True)
    step = plan.decide(situation(last=last))
    assert step.record.stage is FenceStage.CANCELLED


def test_what_is_under_way_is_waited_for_before_the_node_is_let_go():
    search = plan.Search(in_flight=frozenset({"power"}))
    assert plan.decide(situation(leased=True, search=search)) == plan.Wait()


def test_a_proof_for_the_whole_node_frees_its_vms():
    assert plan.decide(situation(record=record(FenceStage.PROVEN, ProofKind.POWER))) == plan.Revoke()


def test_closed_storage_frees_vms_while_a_proof_for_the_others_is_sought():
    proven = record(FenceStage.PROVEN, ProofKind.STORAGE)
    assert plan.decide(situation(record=proven)) == plan.Revoke()
    assert plan.decide(situation(record=proven, uncovered=("web",))) == plan.CutPower(1)
    busy = plan.Search(in_flight=frozenset({"power"}))
    assert plan.decide(situation(record=proven, uncovered=("web",), search=busy)) == plan.Revoke()


def test_the_grace_time_begins_anew_when_maintenance_ends():
    fresh = FenceRecord(node="n3", lease=7)
    assert plan.decide(situation(record=fresh, lost_for=900.0, heeded_for=2.0)) == plan.Wait(3.0)
    step = plan.decide(situation(record=fresh, lost_for=900.0, heeded_for=5.0))
    assert step.record.stage is FenceStage.FENCING
    assert "gone for 900.0 s" in step.told


def test_a_node_in_maintenance_is_not_switched_on():
    done = record(FenceStage.RECOVERED, ProofKind.POWER)
    step = plan.decide(situation(record=done, power_on=True, maintenance="the node is in maintenance"))
    assert step == plan.Revoke()


def test_vms_that_no_proof_covers_are_named_with_what_stands_in_the_way():
    proven = record(FenceStage.PROVEN, ProofKind.STORAGE)
    tried = plan.Search(level=3, storage_tried=True)
    step = plan.decide(situation(record=proven, uncovered=tuple("abcdefg"), search=tried, recovery=("watchdog",)))
    assert step.record.waits_for == "no proof covers a, b, c, d, e and 2 more VMs; watchdog: it had armed none"


def test_what_could_not_be_closed_is_tried_again_and_what_is_proven_already_is_not_said_twice():
    proof = Proof(kind=ProofKind.STORAGE, evidence="seen", by="n1", pools=("p1",))
    proven = replace(record(FenceStage.PROVEN), proofs=(proof,))
    s = situation(record=proven, uncovered=("web",), levels=(), can_block=True)
    assert plan.decide(s) == plan.BlockStorage()
    attempt = FenceAttempt(means="storage", ok=True, message="pool two: no answer")
    again = plan.answered(s, proven, attempt, proof)
    assert again.record.proofs == (proof,)
    assert again.search.storage_tried
    both = replace(proof, pools=("p1", "p2"))
    assert plan.answered(s, proven, attempt, both).record.proven_pools() == {"p1", "p2"}


def test_a_node_is_switched_on_only_after_its_power_was_cut_for_it_and_its_vms_are_free():
    done = record(FenceStage.RECOVERED, ProofKind.POWER)
    assert plan.decide(situation(record=done, power_on=True)) == plan.SwitchOn()
    assert plan.decide(situation(record=done)) == plan.Revoke()
    assert plan.decide(situation(record=record(FenceStage.PROVEN, ProofKind.POWER), power_on=True)) == plan.Revoke()
    by_watchdog = record(FenceStage.RECOVERED, ProofKind.WATCHDOG)
    assert plan.decide(situation(record=by_watchdog, power_on=True)) == plan.Revoke()


def test_switching_on_is_given_up_after_some_tries():
    s = situation(record=record(FenceStage.RECOVERED, ProofKind.POWER), power_on=True)
    for _ in range(plan.SWITCH_ON_TRIES):
        assert plan.decide(s) == plan.SwitchOn()
        write = plan.switched_on(s, s.record, "no answer", ok=False)
        s = s._replace(record=write.record, search=write.search, now=write.search.not_before)
    assert plan.decide(s) == plan.Revoke()
    assert s.record.powered_on == "could not be switched on: no answer"


def test_storage_is_opened_when_the_node_is_clean_and_not_before():
    block = StorageBlock(driver="rbd", lease=7, pools=("p",))
    dirty = record(FenceStage.PROVEN, ProofKind.STORAGE, dirty=True, blocked=(block,))
    assert plan.decide(situation(leased=True, record=dirty)) == plan.Wait()
    clean = replace(dirty, dirty=False, stage=FenceStage.RETURNED)
    assert plan.decide(situation(leased=True, record=clean)) == plan.OpenStorage()


def test_opening_storage_is_tried_for_ever_with_pauses():
    block = StorageBlock(driver="rbd", lease=7, pools=("p",))
    s = situation(leased=True, record=record(FenceStage.RETURNED, ProofKind.STORAGE, blocked=(block,)))
    for _ in range(20):
        write = plan.opened(s, s.record, "no answer")
        s = s._replace(record=write.record, search=write.search)
        assert isinstance(plan.decide(s), plan.Wait)
        s = s._replace(now=s.now + plan.decide(s).again_s)
        assert plan.decide(s) == plan.OpenStorage()
    assert plan.opened(s, s.record, "").record.blocked == ()


def test_only_a_node_that_the_fencing_took_out_of_service_is_put_back():
    back = record(FenceStage.RETURNED, ProofKind.POWER, drained=True)
    assert plan.decide(situation(leased=True, record=back, put_back=True, drains=True)) == plan.PutBack()
    assert plan.decide(situation(leased=True, record=back, drains=True)) == plan.Wait()
    own = replace(back, drained=False)
    assert plan.decide(situation(leased=True, record=own, put_back=True, drains=True)) == plan.Wait()


def test_a_node_that_an_operator_put_back_is_not_put_back_again_later():
    back = record(FenceStage.RETURNED, ProofKind.POWER, drained=True)
    step = plan.decide(situation(leased=True, record=back, put_back=True))
    assert not step.record.drained


def test_a_record_stays_bounded_and_keeps_how_it_began():
    grown = record()
    for number in range(10 * KEPT):
        grown = plan.with_event(grown, FenceStage.FENCING, str(number), "n1", float(number))
    assert len(grown.events) == KEPT
    assert (grown.events[0].message, grown.events[-1].message) == ("0", str(10 * KEPT - 1))


def _random(rng):
    kinds = rng.sample(list(ProofKind), rng.choice((0, 0, 1, 2)))
    stages = [stage for stage in FenceStage if (stage in AFTER_PROOF) is bool(kinds)]
    lease = rng.choice((6, 7, 7, 7))
    found = record(rng.choice(stages), *kinds, lease=lease, dirty=rng.random() < 0.5, drained=rng.random() < 0.5)
    leased = rng.random() < 0.3
    flights = frozenset(rng.sample(["power", "storage", "switch-on", "open-storage"], rng.choice((0, 0, 1))))
    return situation(
        record=None if rng.random() < 0.1 else found,
        leased=leased,
        lost_for=0.0 if leased else rng.choice((0.0, 3.0, 5.0, 8.0, 100.0)),
        maintenance=rng.choice(("", "", "", "the node is in maintenance")),
        recovery=tuple(rng.sample(["power", "storage", "watchdog"], rng.randrange(4))),
        levels=LEVELS[: rng.randrange(3)],
        can_block=rng.random() < 0.5,
        search=plan.Search(rng.randint(1, 3), rng.random() < 0.5, flights, rng.choice((0.0, 1003.0))),
        last=LeaseGeneration(
            node="n3", generation=7, released=rng.random() < 0.2, watchdog_down_s=rng.choice((0.0, 20.0))
        ),
        uncovered=("web",) * rng.randrange(2),
        drains=rng.random() < 0.5,
        power_on=rng.random() < 0.5,
        put_back=rng.random() < 0.5,
    )


def test_whatever_the_circumstances_nothing_is_cut_or_taken_without_grounds():
    rng = random.Random(1)
    seen = set()
    for s in itertools.islice(iter(lambda: _random(rng), None), 50_000):
        step = plan.decide(s)
        seen.add(type(step))
        mine = s.record is not None and s.record.lease == s.last.generation
        match step:
            case plan.Revoke():
                assert mine and s.record.proofs and not s.leased
            case plan.CutPower(level):
                assert mine and not s.leased and not s.maintenance and not s.last.released
                assert s.lost_for >= LIMITS.grace_s or s.record.proofs
                assert "power" in s.recovery and level <= len(s.levels) and "power" not in s.search.in_flight
                assert s.record.whole_node() is None
            case plan.BlockStorage():
                assert mine and not s.leased and not s.maintenance and not s.last.released
                assert "storage" in s.recovery and s.can_block and s.record.whole_node() is None
            case plan.OpenStorage() | plan.PutBack():
                assert s.leased and not s.record.dirty
            case plan.SwitchOn():
                assert mine and not s.leased and s.power_on
            case plan.Write(new):
                same = s.record is not None and s.record.lease == new.lease
                gained = set(new.proofs) - set(s.record.proofs if same else ())
                assert all(p.kind is ProofKind.WATCHDOG and s.lost_for >= s.last.watchdog_down_s > 0 for p in gained)
                assert same or new.proofs == ()
    assert seen >= {plan.Write, plan.Wait, plan.CutPower, plan.BlockStorage, plan.Revoke, plan.SwitchOn, plan.PutBack}
