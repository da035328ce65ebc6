"""The last loss of each node: list, info, and waiting for its end."""

import threading

import pytest

from pvc_core.model.errors import NotFound
from pvc_core.model.fence import FenceEvent, FenceStage, Proof, ProofKind, VmRecovery
from pvc_core.ops.fence_record import FenceList, FenceQuery, fence_info, fence_list, wait_fence
from pvc_core.ops.waiting import WaitTimeout

PROOF = Proof(kind=ProofKind.POWER, evidence="ipmi: off", by="hv1")


def taken(vm, outcome="freed"):
    return VmRecovery(vm=vm, name=vm, outcome=outcome, proof=ProofKind.POWER)


def test_each_node_has_its_last_loss(small):
    assert fence_list(small.ops, FenceList()) == []
    small.record("hv3", stage=FenceStage.FENCING, round=2, waits_for="power: no answer", changed=1005.0)
    vms = (taken("a"), taken("b", "handed-over"), taken("c", "not-restarted"))
    small.record("hv1", stage=FenceStage.RETURNED, proofs=(PROOF,), vms=vms)
    returned, fencing = fence_list(small.ops, FenceList())
    assert (fencing.node, fencing.stage, fencing.active, fencing.round) == ("hv3", FenceStage.FENCING, True, 2)
    assert (fencing.opened, fencing.changed, fencing.waits_for) == (small.now, 1005.0, "power: no answer")
    assert (returned.node, returned.active, returned.proofs) == ("hv1", False, (ProofKind.POWER,))
    assert (returned.recovered, returned.stopped) == (2, 1)
    assert fence_list(small.ops, FenceList(active=True)) == [fencing]


def test_info_says_which_vms_no_proof_covers(small):
    for name in ("free", "held"):
        small.run(name, node="hv3")
    small.claim(small.info("free").view.id, "")
    small.record("hv3", stage=FenceStage.RECOVERED, proofs=(PROOF,))
    found = fence_info(small.ops, FenceQuery(node="hv3"))
    assert found.left == ("held",)
    assert found.record.proofs == (PROOF,)
    small.record("hv3", stage=FenceStage.RETURNED)
    assert fence_info(small.ops, FenceQuery(node="hv3")).left == ()


def test_a_node_that_never_was_lost_has_none(small):
    with pytest.raises(NotFound, match="node hv3 was never lost"):
        fence_info(small.ops, FenceQuery(node="hv3"))
    with pytest.raises(NotFound, match="no node named 'hv9'"):
        fence_info(small.ops, FenceQuery(node="hv9"))


@pytest.mark.parametrize("end", [FenceStage.RECOVERED, FenceStage.CANCELLED, FenceStage.RETURNED])
def test_waiting_ends_with_the_fencing(small, end):
    events = (FenceEvent(at=1.0, by="hv1", stage=FenceStage.SUSPECTED, message="its lease 1 is gone"),)
    small.record("hv3", stage=FenceStage.SUSPECTED, events=events)
    seen = []
    follow = [
        {"stage": FenceStage.FENCING, "waits_for": "power: no answer", "events": events},
        {"stage": end},
    ]

    def report(progress):
        seen.append(progress.message)
        threading.Thread(target=small.record, args=("hv3",), kwargs=follow.pop(0)).start()

    found = wait_fence(small.ops, "hv3", timeout_s=30, report=report)
    assert found.row.stage is end
    assert seen == ["suspected: its lease 1 is gone", "fencing: power: no answer"]


def test_waiting_may_take_too_long(small):
    small.record("hv3", stage=FenceStage.PROVEN)
    with pytest.raises(WaitTimeout, match="the fencing of node hv3 is not over"):
        wait_fence(small.ops, "hv3", timeout_s=0)
