"""An operator's word that a node is dead."""

import pytest

from pvc_core.model.errors import InUse, InvalidRequest, NotFound
from pvc_core.model.fence import FenceEvent, FenceStage, Proof, ProofKind, StorageBlock
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm
from pvc_core.store import keys
from pvc_core.store.api import ANY, Delete
from pvc_core.store.documents import read

ANN = "ann@desk"


def confirm(small, node="hv3", **more):
    return fence_confirm(small.ops, FenceConfirm(**({"node": node, "by": ANN} | more)))


def stored(small):
    return read(small.store, keys.fence("hv3")).value


@pytest.mark.parametrize("stage", [FenceStage.SUSPECTED, FenceStage.FENCING])
def test_it_is_a_proof_in_the_record_of_the_loss(small, stage):
    small.kill("hv3")
    event = FenceEvent(at=1.0, by="hv1", stage=stage, message="its lease 1 is gone")
    small.record("hv3", stage=stage, opened=990.0, waits_for="power: no answer", round=3, events=(event,))
    done = confirm(small, reason="I pulled the plugs")
    record = stored(small)
    assert done.recorded
    assert done.record == record
    assert record.proofs == (Proof(kind=ProofKind.OPERATOR, evidence="I pulled the plugs", by=ANN, at=small.now),)
    assert (record.stage, record.opened, record.changed, record.round) == (FenceStage.PROVEN, 990.0, small.now, 3)
    assert (record.waits_for, record.dirty) == ("", True)
    assert record.events == (
        event,
        FenceEvent(at=small.now, by=ANN, stage=FenceStage.PROVEN, message="operator: I pulled the plugs"),
    )


@pytest.mark.parametrize(
    "prepare",
    [
        lambda s: s.kill("hv3"),
        lambda s: s.release("hv3"),
        lambda s: (s.set_node("hv3", maintenance=True), s.kill("hv3")),
    ],
    ids=["not seen yet", "stopped on purpose", "maintenance"],
)
def test_it_opens_the_record_where_there_is_none(small, prepare):
    prepare(small)
    confirm(small)
    record = stored(small)
    assert (record.lease, record.stage, record.opened) == (1, FenceStage.PROVEN, small.now)
    assert record.proofs[0].evidence == "an operator confirmed that it runs nothing"


def test_the_record_of_an_earlier_lease_is_followed_by_a_new_one_with_its_debts(small):
    small.kill("hv3")
    block = StorageBlock(driver="dir", lease=0)
    old = Proof(kind=ProofKind.POWER, evidence="off", by="hv1")
    small.record("hv3", lease=0, stage=FenceStage.RETURNED, proofs=(old,), drained=True, blocked=(block,))
    confirm(small)
    record = stored(small)
    assert (record.lease, [proof.kind for proof in record.proofs]) == (1, [ProofKind.OPERATOR])
    assert (record.drained, record.dirty, record.blocked) == (True, True, (block,))


def test_a_proof_of_storage_is_made_one_for_the_whole_node(small):
    small.kill("hv3")
    partly = Proof(kind=ProofKind.STORAGE, evidence="ceph", by="hv1", pools=("p",))
    small.record("hv3", stage=FenceStage.RECOVERED, proofs=(partly,))
    assert confirm(small).recorded
    assert stored(small).stage is FenceStage.PROVEN
    assert [proof.kind for proof in stored(small).proofs] == [ProofKind.STORAGE, ProofKind.OPERATOR]


def test_said_again_it_changes_nothing(small):
    small.kill("hv3")
    confirm(small)
    before = small.dump()
    again = confirm(small, by="bob@desk")
    assert (again.recorded, again.proof.by) == (False, ANN)
    assert small.dump() == before


def test_a_node_at_work_is_not_dead(small):
    before = small.dump()
    with pytest.raises(InUse, match="node hv3 has its lease, so it is at work now: nothing was recorded"):
        confirm(small)
    assert small.dump() == before


def test_a_node_that_comes_back_meanwhile_is_not_dead(small):
    small.kill("hv3")
    small.before_commit(keys.fence("hv3").path, lambda: small.revive("hv3"))
    with pytest.raises(InUse, match="it is at work now"):
        confirm(small)
    assert read(small.store, keys.fence("hv3")) is None


def test_what_the_primary_writes_meanwhile_is_kept(small):
    small.kill("hv3")
    small.before_commit(keys.fence("hv3").path, lambda: small.record("hv3", stage=FenceStage.FENCING, round=7))
    assert confirm(small).record.round == 7


def test_a_wrong_request_is_refused(small):
    with pytest.raises(NotFound, match="no node named 'hv9'"):
        confirm(small, "hv9")
    with pytest.raises(InvalidRequest, match="say who confirms it"):
        confirm(small, by=" ")
    small.kill("hv3")
    small.store.commit(Delete(keys.generation("hv3").path, ANY))
    with pytest.raises(InvalidRequest, match="never had a lease"):
        confirm(small)
