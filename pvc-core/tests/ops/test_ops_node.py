"""Nodes: list, info, service, primary role, removal."""

import pytest

from pvc_core.model.base import Condition
from pvc_core.model.errors import InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.fence import FenceHealth, FenceRecord
from pvc_core.model.node import LeaseGeneration, Memory, PluginStatus, Primary
from pvc_core.ops.node import NodeList, NodeQuery, node_info, node_list
from pvc_core.ops.node_service import (
    NodeFlush,
    NodeMaintenance,
    NodePrimary,
    Nothing,
    node_flush,
    node_maintenance,
    node_primary,
    node_ready,
    node_remove,
    node_secondary,
    primary_info,
)
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.store import keys
from pvc_core.store.documents import create, read


def rows(small, **request):
    return {row.name: row for row in node_list(small.ops, NodeList(**request))}


def test_list_counts_what_runs_is_on_its_way_and_is_placed(small):
    running = small.run("a", memory="2G", vcpus=2)
    small.define("b", memory="1G", node="hv1")
    small.define("c", memory="1G", vcpus=3, start=True, node="hv1")
    small.claim(running, "hv1", migration_to="hv2")
    hv1, hv2 = rows(small)["hv1"], rows(small)["hv2"]
    assert (hv1.allocated_mib, hv1.provisioned_mib, hv1.allocated_vcpus, hv1.vms) == (3072, 4096, 5, 2)
    assert (hv2.allocated_mib, hv2.provisioned_mib, hv2.vms) == (2048, 0, 1)


def test_list_is_sorted_and_filtered(small):
    small.add_node("hv10")
    assert list(rows(small)) == ["hv1", "hv10", "hv2", "hv3"]
    assert list(rows(small, name="^hv1$")) == ["hv1"]
    with pytest.raises(InvalidRequest):
        rows(small, name="[")


def test_node_says_why_it_takes_no_vms(small):
    small.set_node("hv1", scheduling="drain")
    small.report_node("hv2", daemon="stopping")
    small.kill("hv3")
    found = rows(small)
    assert {name: (row.ready, row.reason) for name, row in found.items()} == {
        "hv1": (False, "it is flushed"),
        "hv2": (False, "its daemon is stopping"),
        "hv3": (False, "its lease is gone"),
    }
    assert [row.daemon for row in found.values()] == ["running", "stopping", "lost"]


def test_daemon_that_gave_its_lease_up_is_stopped_not_lost(small):
    entry = read(small.store, keys.generation("hv3"))
    small.store.commit(entry.put(LeaseGeneration(node="hv3", generation=1, released=True)))
    small.kill("hv3")
    assert (rows(small)["hv3"].daemon, rows(small)["hv3"].reason) == ("stopped", "its daemon is stopped")


def test_memory_is_without_the_hosts_reserve_and_problems_are_told(small):
    small.report_node(
        "hv1",
        memory=Memory(total_mib=8192, reserved_mib=1024),
        conditions=(Condition(type="Clock", ok=False, message="it is 5 s late"), Condition(type="Disk", ok=True)),
        plugins=(PluginStatus(name="ceph", state="failed", error="no monitor answers"),),
    )
    row = rows(small)["hv1"]
    assert row.memory_mib == 7168
    assert row.problems == ("Clock: it is 5 s late", "plugin ceph is failed: no monitor answers")


def test_info_names_the_vms(small):
    small.run("here", node="hv1")
    small.define("placed", node="hv1")
    away = small.run("away", node="hv1")
    small.write_spec(away, node="hv2", home="hv1")
    small.claim(away, "hv2")
    info = node_info(small.ops, NodeQuery(node="hv1"))
    assert (info.vms, info.placed, info.away, info.lease) == (("here",), ("placed",), ("away",), 1)
    small.kill("hv1")
    assert node_info(small.ops, NodeQuery(node="hv1")).lease is None
    with pytest.raises(NotFound, match="no node named 'hv'; did you mean 'hv"):
        node_info(small.ops, NodeQuery(node="hv"))


# --- service ----------------------------------------------------------------------------------------


def test_flush_answers_the_plan_and_asks_the_node_to_drain(small):
    for name, memory in (("a", "3G"), ("b", "2G"), ("c", "1G")):
        small.run(name, memory=memory, node="hv1")
    flush = node_flush(small.ops, NodeFlush(node="hv1"))
    assert flush.moves == {"a": "hv2", "b": "hv3", "c": "hv3"}
    assert read(small.store, keys.node_spec("hv1")).value.scheduling == "drain"
    assert read(small.store, keys.node_spec("hv1")).value.generation == 2
    node_flush(small.ops, NodeFlush(node="hv1"))
    assert read(small.store, keys.node_spec("hv1")).value.generation == 2


def test_flush_that_leaves_vms_over_needs_force(small):
    small.run("large", memory="8G", node="hv1")
    small.run("other", memory="1G", node="hv2")
    small.set_node("hv3", scheduling="drain")
    before = small.dump()
    with pytest.raises(NoNodeFits, match="node hv1 cannot be flushed: no node can take VM 'large': hv1: ") as caught:
        node_flush(small.ops, NodeFlush(node="hv1"))
    assert caught.value.reasons["hv2"] == "8 GiB wanted, 7 GiB of 8 GiB left"
    assert small.dump() == before
    flush = node_flush(small.ops, NodeFlush(node="hv1", force=True))
    assert set(flush.stuck["large"]) == {"hv1", "hv2", "hv3"}


def test_maintenance_may_end_by_itself(small):
    row = node_maintenance(small.ops, NodeMaintenance(node="hv1", maintenance=True, for_s=60.0))
    assert (row.maintenance, row.maintenance_until) == (True, small.now + 60)
    assert node_maintenance(small.ops, NodeMaintenance(node="hv1", maintenance=True)).maintenance_until == 0
    with pytest.raises(InvalidRequest, match="switched on, not off"):
        node_maintenance(small.ops, NodeMaintenance(node="hv1", maintenance=False, for_s=60.0))


def test_ready_and_maintenance(small):
    node_flush(small.ops, NodeFlush(node="hv1"))
    assert node_ready(small.ops, NodeQuery(node="hv1")).ready
    assert node_maintenance(small.ops, NodeMaintenance(node="hv1", maintenance=True)).reason == "it is in maintenance"
    assert node_maintenance(small.ops, NodeMaintenance(node="hv1", maintenance=False)).ready
    for act in (node_ready,):
        with pytest.raises(NotFound):
            act(small.ops, NodeQuery(node="hv9"))


# --- primary ----------------------------------------------------------------------------------------


def make_primary(small, node, **more):
    entry = read(small.store, keys.PRIMARY)
    small.store.commit(entry.put(Primary(node=node, term=1, stage="active", **more)))


def test_primary_is_asked_to_move(small):
    make_primary(small, "hv1")
    view = node_primary(small.ops, NodePrimary(node="hv2"))
    assert (view.node, view.wanted) == ("hv1", "hv2")
    assert node_primary(small.ops, NodePrimary(node="hv1")).wanted is None
    assert node_secondary(small.ops, NodeQuery(node="hv1")).wanted == "*"
    assert primary_info(small.ops, Nothing()).wanted == "*"


def test_secondary_of_a_node_that_is_not_primary_only_takes_back_a_wish(small):
    make_primary(small, "hv1", wanted="hv2")
    assert node_secondary(small.ops, NodeQuery(node="hv3")).wanted == "hv2"
    assert node_secondary(small.ops, NodeQuery(node="hv2")).wanted is None


@pytest.mark.parametrize(
    ("node", "message"),
    [("hyp", "node hyp is a hypervisor: only coordinators"), ("hv3", "node hv3 is not alive")],
)
def test_node_that_cannot_be_primary_is_refused(small, node, message):
    make_primary(small, "hv1")
    small.add_node("hyp", role="hypervisor")
    small.kill("hv3")
    with pytest.raises(InvalidRequest, match=message):
        node_primary(small.ops, NodePrimary(node=node))


def test_last_coordinator_stays_primary(small):
    make_primary(small, "hv1")
    small.add_node("hyp", role="hypervisor")
    small.kill("hv2")
    small.kill("hv3")
    with pytest.raises(InvalidRequest, match="node hv1 stays primary: no other coordinator is alive"):
        node_secondary(small.ops, NodeQuery(node="hv1"))


# --- removal ----------------------------------------------------------------------------------------


def test_node_is_removed_with_all_it_left_and_its_vms_lose_their_place(equipped):
    before = {path for path in equipped.dump() if "hv4" not in path}
    equipped.add_node("hv4")
    placed = equipped.define("placed", node="hv4")
    away = equipped.run("away", node="hv1")
    equipped.write_spec(away, home="hv4")
    equipped.report_network(equipped.ids("network")[0], "hv4")
    equipped.ops.store.commit(
        create(keys.fence("hv4"), FenceRecord(node="hv4", lease=1)),
        create(keys.fence_health("hv4"), FenceHealth(coordinator="hv4")),
    )
    equipped.kill("hv4")
    removed = node_remove(equipped.ops, NodeQuery(node="hv4"))
    assert removed.displaced == ("away", "placed")
    assert equipped.spec(placed).node is None
    assert (equipped.spec(away).node, equipped.spec(away).home) == ("hv1", None)
    # Leases of this name go on from here, should there be another node of it.
    assert [path for path in equipped.dump() if "hv4" in path] == [keys.generation("hv4").path]
    assert before <= set(equipped.dump())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda small: None, "node hv3 is alive: flush it and stop its daemon first"),
        (lambda small: (small.run(node="hv3"), small.kill("hv3")), r"node hv3 holds the claims of VMs \(web\)"),
        (lambda small: (small.claim(small.run(), "hv1", migration_to="hv3"), small.kill("hv3")), "holds the claims"),
        (lambda small: (make_primary(small, "hv3"), small.kill("hv3")), "node hv3 is the primary"),
    ],
)
def test_node_that_is_needed_is_not_removed(small, prepare, message):
    prepare(small)
    before = small.dump()
    with pytest.raises(InUse, match=message):
        node_remove(small.ops, NodeQuery(node="hv3"))
    assert small.dump() == before


def test_last_node_is_not_removed(empty):
    empty.add_node("hv1")
    empty.kill("hv1")
    with pytest.raises(InUse, match="hv1 is the last node"):
        node_remove(empty.ops, NodeQuery(node="hv1"))


def test_node_that_comes_back_in_the_last_moment_is_not_removed(small):
    small.kill("hv3")
    small.before_commit("/spec/node/hv3", lambda: small.revive("hv3"))
    with pytest.raises(InUse, match="node hv3 is alive"):
        node_remove(small.ops, NodeQuery(node="hv3"))


def test_vm_is_not_placed_on_a_node_that_is_removed_in_the_last_moment(small):
    small.kill("hv3")
    small.before_commit("/spec/vm/", lambda: node_remove(small.connect(), NodeQuery(node="hv3")))
    with pytest.raises(NotFound, match="no node named 'hv3'"):
        vm_define(small.ops, VmDefine(name="web", memory=1, node="hv3"))


def test_removal_of_a_node_hands_its_storage_to_another(equipped):
    pool, volume = equipped.ids("pool")[0], equipped.ids("volume")[0]
    owner = read(equipped.store, keys.pool_spec(pool)).value.node
    equipped.kill(owner)
    node_remove(equipped.ops, NodeQuery(node=owner))
    for key in (keys.pool_spec(pool), keys.volume_spec(volume)):
        assert read(equipped.store, key).value.node not in (owner, None)


def test_storage_that_no_other_node_can_take_care_of_gets_no_node(equipped):
    pool = equipped.ids("pool")[0]
    for name in ("hv1", "hv2", "hv3"):
        equipped.kill(name)
    equipped.add_node("hv4", capabilities=())
    node_remove(equipped.ops, NodeQuery(node="hv1"))
    assert read(equipped.store, keys.pool_spec(pool)).value.node is None


def test_guest_that_ended_for_good_stays_so_when_its_node_is_removed(small):
    vm = small.run(node="hv3")
    small.claim(vm, "")
    small.report(vm, "failed", halted=small.spec(vm).generation)
    small.kill("hv3")
    node_remove(small.ops, NodeQuery(node="hv3"))
    assert small.info(vm).status.halted == small.spec(vm).generation
