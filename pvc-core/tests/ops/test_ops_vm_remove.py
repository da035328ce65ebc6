"""Removing VMs."""

import pytest

from pvc_core.model.errors import InUse
from pvc_core.model.vm import VmClaim
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition
from pvc_core.ops.vm_remove import VmRemove, vm_forget, vm_remove
from pvc_core.ops.volume import VolumeQuery, volume_info
from pvc_core.store import keys
from pvc_core.store.api import Check, TransactionFailed
from pvc_core.store.documents import create

EQUIPMENT = {
    "disks": (DiskDefinition(pool="ssd", volume="web"),),
    "nics": (NicDefinition(network="lan"), NicDefinition(network="lan")),
}


def remove(small, **more):
    return vm_remove(small.ops, VmRemove(vm="web", **more))


def test_vm_that_never_ran_is_gone_at_once_with_all_its_documents(equipped):
    before = equipped.dump()
    equipped.define(**EQUIPMENT)
    removed = remove(equipped)
    assert (removed.name, removed.gone, removed.volumes) == ("web", True, ())
    assert equipped.dump() == before


def test_vm_that_ran_once_is_gone_at_once(equipped):
    before = equipped.dump()
    equipped.report_stopped(equipped.run(**EQUIPMENT))
    assert remove(equipped).gone
    assert equipped.dump() == before


def test_volumes_go_with_it_only_when_asked(equipped):
    equipped.define(**EQUIPMENT)
    removed = remove(equipped, volumes=True)
    assert removed.volumes == ("ssd/web",)
    volume = volume_info(equipped.ops, VolumeQuery(volume="ssd/web"))
    assert (volume.deleting, volume.state, volume.vm) == (True, "deleting", None)
    assert not volume_info(equipped.ops, VolumeQuery(volume="ssd/db")).deleting


def test_running_vm_needs_force_and_is_left_to_its_node(equipped):
    id_ = equipped.run(**EQUIPMENT)
    before = equipped.dump()
    with pytest.raises(InUse, match="VM 'web' runs on node hv1: shut it down first, or remove it with force"):
        remove(equipped)
    assert equipped.dump() == before
    removed = remove(equipped, force=True, volumes=True)
    assert (removed.gone, removed.volumes) == (False, ("ssd/web",))
    spec = equipped.spec(id_)
    assert (spec.deleting, spec.delete_volumes, spec.generation) == (True, True, 3)
    assert not vm_forget(equipped.ops, id_)
    assert remove(equipped).gone is False


def test_removal_while_it_moves_is_left_to_the_node_that_holds_it(small):
    id_ = small.run()
    small.write_spec(id_, node="hv3")
    remove(small, force=True)
    assert small.spec(id_).node == "hv1"


def test_node_forgets_it_when_the_claim_is_given_up(equipped):
    before = equipped.dump()
    id_ = equipped.run(**EQUIPMENT)
    remove(equipped, force=True)
    equipped.claim(id_, "")
    assert vm_forget(equipped.ops, id_)
    assert equipped.dump() == before
    assert vm_forget(equipped.ops, id_)


def test_second_removal_finishes_what_no_node_finishes(small):
    id_ = small.run()
    remove(small, force=True)
    small.kill("hv1")
    small.claim(id_, "")
    assert remove(small).gone


def test_vm_that_is_not_being_removed_is_not_forgotten(small):
    id_ = small.define()
    before = small.dump()
    assert not vm_forget(small.ops, id_)
    assert small.dump() == before


def test_forgetting_needs_the_guard_to_hold(small):
    id_ = small.run()
    remove(small, force=True)
    small.claim(id_, "")
    small.kill("hv1")
    with pytest.raises(TransactionFailed):
        vm_forget(small.ops, id_, (Check(keys.lease("hv1").path),))
    assert small.spec(id_).deleting


def test_vm_whose_claim_is_taken_in_the_last_moment_is_not_removed(small):
    id_ = small.define(node="hv1")

    def take():
        small.tree.fault = None
        small.store.commit(create(keys.claim(id_), VmClaim(vm=id_, node="hv1", lease=1, epoch=1)))

    small.before_commit("/spec/vm/", take)
    with pytest.raises(InUse, match="VM 'web' runs on node hv1"):
        remove(small)
    assert not small.spec(id_).deleting


def test_index_nodes_of_another_vm_are_left_alone(equipped):
    equipped.define(**EQUIPMENT)
    other = equipped.define("other")
    equipped.put(keys.name("vm", "web"), other.encode())
    assert vm_remove(equipped.ops, VmRemove(vm=equipped.ids("vm", but=other)[0])).gone
    assert equipped.store.get(keys.name("vm", "web")).value.decode() == other
