"""What the daemons ask for: evacuation, return, autostart, places for VMs that wait."""

import pytest

from pvc_core.ops.evacuate import BATCH, apply_evacuation, apply_return, autostart_for, place_waiting
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_modify import VmModify, VmPatch, vm_modify
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.store import keys
from pvc_core.store.api import Check


def place(small, vm):
    spec = small.spec(vm)
    return spec.node, spec.home


# --- evacuation -------------------------------------------------------------------------------------


def test_all_running_vms_get_another_place_and_remember_home(small):
    vms = {name: small.run(name, memory="1G", node="hv1") for name in "abcd"}
    small.set_node("hv1", scheduling="drain")
    placed = apply_evacuation(small.ops, "hv1")
    assert sorted(placed.moves.values()) == ["hv2", "hv2", "hv3", "hv3"]
    assert not placed.stuck
    for vm in vms.values():
        assert place(small, vm) == (placed.moves[vm], "hv1")


def test_stopped_vms_and_those_that_ended_for_good_stay_placed(small):
    stopped = small.define("stopped", node="hv1")
    ended = small.run("ended", node="hv1")
    small.claim(ended, "")
    small.report(ended, "failed", halted=small.spec(ended).generation)
    deleting = small.run("deleting", node="hv1")
    vm_remove(small.ops, VmRemove(vm="deleting", force=True))
    elsewhere = small.run("elsewhere", node="hv2")
    assert apply_evacuation(small.ops, "hv1").moves == {}
    assert [place(small, vm) for vm in (stopped, ended, deleting, elsewhere)] == [
        ("hv1", None),
        ("hv1", None),
        ("hv1", None),
        ("hv2", None),
    ]


def test_vm_that_was_away_keeps_its_first_home_and_is_at_home_when_it_gets_there(small):
    one, two = small.run("one", node="hv1"), small.run("two", node="hv1")
    small.write_spec(one, home="hv3")
    small.write_spec(two, home="hv2")
    small.set_node("hv2", scheduling="drain")
    placed = apply_evacuation(small.ops, "hv1")
    assert placed.moves == {one: "hv3", two: "hv3"}
    assert place(small, one) == ("hv3", None)
    assert place(small, two) == ("hv3", "hv2")


def test_vms_that_fit_nowhere_are_left_alone_with_reasons(small):
    large = small.run("large", memory="8G", node="hv1")
    small.run("x", memory="1G", node="hv2")
    small.set_node("hv3", maintenance=True)
    placed = apply_evacuation(small.ops, "hv1")
    assert placed.moves == {}
    assert placed.stuck == {
        large: {
            "hv1": "it is being flushed",
            "hv2": "8 GiB wanted, 7 GiB of 8 GiB left",
            "hv3": "it is in maintenance",
        }
    }
    assert place(small, large) == ("hv1", None)


def test_evacuation_called_again_does_what_is_left(small):
    large = small.run("large", memory="6G", node="hv1")
    small_one = small.run("small", memory="1G", node="hv1")
    other = small.run("other", memory="4G", node="hv2")
    small.set_node("hv3", scheduling="drain")
    assert apply_evacuation(small.ops, "hv1").moves == {small_one: "hv2"}
    generation = small.spec(small_one).generation
    small.report_stopped(other)
    small.write_spec(other, power="stopped")
    assert apply_evacuation(small.ops, "hv1").moves == {large: "hv2"}
    assert small.spec(small_one).generation == generation


def test_disks_go_only_where_their_driver_works(equipped):
    equipped.report_node("hv2", plugins=())
    vm = equipped.run(node="hv1", disks=(DiskDefinition(pool="ssd", volume="web"),))
    assert apply_evacuation(equipped.ops, "hv1").moves == {vm: "hv3"}


def test_more_vms_than_one_transaction_holds(empty):
    for name in ("hv1", "hv2"):
        empty.add_node(name, memory=1 << 20)
    count = 2 * BATCH + 3
    for number in range(count):
        empty.run(f"v{number}", node="hv1")
    commits = []
    empty.tree.fault = lambda moment, _, ops: commits.append(len(ops)) if moment == "before" else None
    assert len(apply_evacuation(empty.ops, "hv1").moves) == count
    assert len(commits) == 3


def test_vm_that_changes_meanwhile_is_left_for_the_next_call_and_the_others_move(small):
    one, two = small.run("one", node="hv1"), small.run("two", node="hv1")
    change = VmModify(vm="one", patch=VmPatch(description="x"))
    small.before_commit("/spec/vm/", lambda: vm_modify(small.connect(), change))
    assert apply_evacuation(small.ops, "hv1").moves == {two: "hv3"}
    assert place(small, one) == ("hv1", None)
    assert place(small, two)[1] == "hv1"
    small.tree.fault = None
    assert set(apply_evacuation(small.ops, "hv1").moves) == {one}


def test_nothing_is_written_when_the_guard_does_not_hold(small):
    small.run(node="hv1")
    before = small.dump()
    assert apply_evacuation(small.ops, "hv1", (Check("/pvc/v1/primary", 99),)).moves == {}
    assert small.dump() == before


# --- return -----------------------------------------------------------------------------------------


def test_vms_come_home_as_far_as_they_fit(small):
    large, little = small.run("large", memory="6G", node="hv2"), small.run("little", memory="1G", node="hv3")
    stopped = small.define("stopped", memory="8G", node="hv3")
    for vm in (large, little, stopped):
        small.write_spec(vm, home="hv1")
    small.run("guest", memory="4G", node="hv1")
    placed = apply_return(small.ops, "hv1")
    assert placed.moves == {little: "hv1", stopped: "hv1"}
    assert placed.stuck[large]["hv1"] == "6 GiB wanted, 4 GiB of 8 GiB left"
    assert place(small, little) == ("hv1", None)
    assert place(small, large) == ("hv2", "hv1")
    assert apply_return(small.ops, "hv1").moves == {}


def test_vm_that_waits_comes_home_too(small):
    vm = small.run(node="hv1")
    small.report_stopped(vm)
    small.write_spec(vm, node=None, home="hv1")
    assert apply_return(small.ops, "hv1").moves == {vm: "hv1"}


def test_nobody_returns_to_a_node_that_takes_none(small):
    vm = small.run(node="hv2")
    small.write_spec(vm, home="hv1")
    small.set_node("hv1", scheduling="drain")
    assert apply_return(small.ops, "hv1").stuck[vm]["hv1"] == "it is flushed"


# --- autostart --------------------------------------------------------------------------------------


def test_autostart_starts_stopped_vms_of_this_node_only(small):
    wanted = small.define("wanted", node="hv1", autostart=True)
    others = [
        small.define("manual", node="hv1"),
        small.define("elsewhere", node="hv2", autostart=True),
        small.define("disabled", node="hv1", autostart=True),
    ]
    small.write_spec(others[2], power="disabled")
    assert autostart_for(small.ops, "hv1") == [wanted]
    assert small.spec(wanted).power == "running"
    assert all(small.spec(vm).power != "running" for vm in others)
    assert autostart_for(small.ops, "hv1") == []


# --- waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "home"),
    [
        (lambda small, vm: small.write_spec(vm, node=None, home="hv1"), "hv1"),
        (lambda small, vm: small.write_spec(vm, node="gone"), None),
        (lambda small, vm: small.set_node("hv1", scheduling="drain"), "hv1"),
        (lambda small, vm: small.set_node("hv1", maintenance=True), "hv1"),
        (lambda small, vm: small.kill("hv1"), "hv1"),
    ],
    ids=["no node", "node removed", "drained", "maintenance", "not alive"],
)
def test_vm_without_a_place_gets_one_and_keeps_its_home(small, trouble, home):
    small.run("other", memory="4G", node="hv3")
    small.run("another", memory="2G", node="hv1")
    vm = small.define(node="hv1")
    small.write_spec(vm, power="running")
    assert place_waiting(small.ops).moves == {}
    trouble(small, vm)
    assert place_waiting(small.ops).moves == {vm: "hv2"}
    assert place(small, vm) == ("hv2", home)
    assert place_waiting(small.ops).moves == {}


def test_vm_that_does_not_fit_beside_those_that_run_goes_elsewhere(small):
    vm = small.define(node="hv1")
    small.run("fat", memory="8G", node="hv1")
    small.write_spec(vm, power="running")
    assert place_waiting(small.ops).moves == {vm: "hv2"}


def test_many_waiting_vms_do_not_run_to_one_node(small):
    vms = [small.define(f"v{number}", memory="2G") for number in range(9)]
    for vm in vms:
        small.write_spec(vm, power="running")
    assert sorted(place_waiting(small.ops).moves.values()) == ["hv1"] * 3 + ["hv2"] * 3 + ["hv3"] * 3


def test_waiting_vm_without_room_is_stuck_with_reasons(small):
    vm = small.define(memory="8G")
    small.write_spec(vm, power="running")
    for name in ("hv1", "hv2", "hv3"):
        small.run(name, memory="1G", node=name)
    assert place_waiting(small.ops).stuck == {
        vm: dict.fromkeys(("hv1", "hv2", "hv3"), "8 GiB wanted, 7 GiB of 8 GiB left")
    }


def test_vm_with_a_claim_is_never_placed_anew(small):
    vm = small.run(node="hv1")
    small.kill("hv1")
    assert place_waiting(small.ops).moves == {}
    small.claim(vm, "")
    assert place_waiting(small.ops).moves == {vm: "hv2"}


def test_claim_taken_in_the_last_moment_keeps_a_waiting_vm_where_it_is(small):
    vm = small.define(node="hv1")
    small.write_spec(vm, power="running")
    small.set_node("hv1", scheduling="drain")
    small.before_commit("/spec/vm/", lambda: small.claim(vm, "hv1"))
    assert place_waiting(small.ops).moves == {}


def test_guest_that_ended_for_good_is_not_placed_anew(small):
    vm = small.run(node="hv1")
    small.claim(vm, "")
    small.report(vm, "stopped", halted=small.spec(vm).generation)
    small.kill("hv1")
    assert place_waiting(small.ops).moves == {}


def test_removal_that_no_node_finishes_is_finished(small):
    vm = small.run(node="hv1")
    vm_remove(small.ops, VmRemove(vm="web", force=True))
    small.claim(vm, "")
    place_waiting(small.ops)
    assert small.ids("vm") == [vm]
    small.kill("hv1")
    place_waiting(small.ops)
    assert small.ids("vm") == []
    assert small.store.children(keys.CLAIM) == []
