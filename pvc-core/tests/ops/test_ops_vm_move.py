"""Moving VMs."""

import pytest

from pvc_core.model.errors import InvalidRequest, NoNodeFits, NotFound
from pvc_core.ops.vm_move import VmMigrate, VmMove, VmUnmigrate, vm_migrate, vm_move, vm_unmigrate
from pvc_core.ops.vm_power import VmStop, vm_stop


def move(small, node=None, **more):
    return vm_move(small.ops, VmMove(vm="web", node=node, **more))


def migrate(small, node=None, **more):
    return vm_migrate(small.ops, VmMigrate(vm="web", node=node, **more))


def unmigrate(small, **more):
    return vm_unmigrate(small.ops, VmUnmigrate(vm="web", **more))


def test_move_chooses_another_node_and_says_by_which_selector(small):
    small.run("other", memory="2G")
    id_ = small.run(selector="vms")
    moved = move(small)
    assert (moved.source, moved.target, moved.chosen_by) == ("hv2", "hv3", "vms")
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv3", None)


def test_move_to_a_named_node_with_a_method(small):
    id_ = small.run()
    moved = move(small, "hv3", method="live")
    assert (moved.source, moved.target, moved.chosen_by) == ("hv1", "hv3", "")
    assert small.spec(id_).move_method == "live"
    move(small, "hv2")
    assert small.spec(id_).move_method is None


@pytest.mark.parametrize(
    ("node", "error", "message"),
    [
        ("hv1", InvalidRequest, "VM 'web' is on node hv1 already"),
        ("hv9", NotFound, "no node named 'hv9'"),
        ("hv2", NoNodeFits, "node hv2 cannot take VM 'web': it is flushed"),
        ("hv3", NoNodeFits, "node hv3 cannot take VM 'web': 4 GiB wanted, 2 GiB of 8 GiB left"),
    ],
)
def test_move_to_a_node_that_cannot_take_it_is_refused_with_the_reason(small, node, error, message):
    small.run(memory="4G")
    small.run("full", memory="6G", node="hv3")
    small.set_node("hv2", scheduling="drain")
    before = small.dump()
    for act in (move, migrate):
        with pytest.raises(error, match=message):
            act(small, node)
    assert small.dump() == before


def test_move_without_any_other_node_that_fits_is_refused(small):
    small.run(memory="4G")
    small.set_node("hv2", scheduling="drain")
    small.set_node("hv3", maintenance=True)
    with pytest.raises(NoNodeFits) as caught:
        move(small)
    assert caught.value.reasons == {"hv1": "it is there now", "hv2": "it is flushed", "hv3": "it is in maintenance"}


def test_stopped_vm_is_only_placed(small):
    id_ = small.define(memory="8G", node="hv1")
    small.run("full", memory="6G", node="hv3")
    assert move(small, "hv3").target == "hv3"
    assert small.spec(id_).power == "stopped"


def test_stopped_vm_is_not_placed_outside_its_node_limit(small):
    small.define(node_limit=("hv1", "hv2"))
    with pytest.raises(InvalidRequest, match=r"node hv3 is not in the node limit of VM 'web' \(hv1, hv2\)"):
        move(small, "hv3")


def test_migrate_remembers_home_and_unmigrate_brings_it_back(small):
    id_ = small.run()
    migrate(small, "hv2")
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv2", "hv1")
    moved = unmigrate(small, method="shutdown")
    assert (moved.source, moved.target) == ("hv2", "hv1")
    assert (small.spec(id_).home, small.spec(id_).move_method) == (None, "shutdown")


def test_second_migration_needs_force_and_keeps_the_first_home(small):
    id_ = small.run()
    migrate(small, "hv2")
    with pytest.raises(InvalidRequest, match="VM 'web' is away from its home hv1 already"):
        migrate(small, "hv3")
    migrate(small, "hv3", force=True)
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv3", "hv1")
    migrate(small, "hv1", force=True)
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv1", None)


def test_move_of_a_migrated_vm_makes_its_place_its_home(small):
    id_ = small.run()
    migrate(small, "hv2")
    moved = move(small, "hv2")
    assert (moved.source, moved.target) == ("hv2", "hv2")
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv2", None)
    with pytest.raises(InvalidRequest, match="VM 'web' is at home on node hv2"):
        unmigrate(small)


def test_unmigrate_to_a_home_that_cannot_take_it_is_refused(small):
    small.run()
    migrate(small, "hv2")
    small.report_running(small.define("x"), "hv3")
    small.kill("hv1")
    with pytest.raises(NoNodeFits, match="node hv1 cannot take VM 'web': its lease is gone"):
        unmigrate(small)


def test_vm_without_a_node_has_no_home_to_leave(small):
    small.define()
    with pytest.raises(InvalidRequest, match="VM 'web' has no node yet"):
        migrate(small)
    with pytest.raises(InvalidRequest, match=r"VM 'web' is at home$"):
        unmigrate(small)
    assert move(small).target == "hv1"


def test_vm_on_its_way_counts_on_both_nodes(small):
    id_ = small.run(memory="5G")
    move(small, "hv2")
    small.claim(id_, "hv1", migration_to="hv2")
    small.define("other", memory="4G")
    with pytest.raises(NoNodeFits) as caught:
        vm_move(small.ops, VmMove(vm=small.run("third", memory="4G", node="hv3"), node="hv2"))
    assert caught.value.reasons == {"hv2": "4 GiB wanted, 3 GiB of 8 GiB left"}
    small.claim(id_, "hv2")
    assert vm_move(small.ops, VmMove(vm="third", node="hv1")).target == "hv1"


def test_move_leaves_a_guest_that_ended_for_good_as_it_is(small):
    id_ = small.run()
    small.claim(id_, "")
    small.report(id_, "stopped", halted=small.spec(id_).generation, reason="the guest shut itself down")
    move(small, "hv2")
    spec, status = small.spec(id_), small.info(id_).status
    assert status.halted == status.observed_generation == spec.generation
    assert small.info(id_).view.state == "stopped"


def test_stopped_vm_stays_stopped_when_moved_by_choice(small):
    id_ = small.run()
    vm_stop(small.ops, VmStop(vm="web"))
    small.report_stopped(id_)
    assert move(small).vm.power == "stopped"
