"""Starting, stopping, restarting and disabling VMs."""

import pytest

from pvc_core.model.errors import Conflict, InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.ops.vm_power import VmDisable, VmStart, VmStop, vm_disable, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery

WEB = VmQuery(vm="web")


def start(small, node=None, vm="web"):
    return vm_start(small.ops, VmStart(vm=vm, node=node))


def test_start_chooses_a_node_and_asks_for_power(small):
    small.run("big", memory="4G")
    small.define()
    view = start(small)
    assert (view.power, view.node, view.generation) == ("running", "hv2", 2)


def test_start_by_id(small):
    id_ = small.define()
    assert start(small, vm=id_).id == id_


def test_start_keeps_the_node_it_is_placed_on(small):
    small.run("big", memory="4G")
    small.define(node="hv1")
    assert start(small).node == "hv1"


def test_start_goes_elsewhere_when_its_node_cannot_take_it_and_remembers_home(small):
    id_ = small.define(node="hv1")
    small.set_node("hv1", scheduling="drain")
    assert start(small).node == "hv2"
    assert small.spec(id_).home == "hv1"


def test_start_at_home_forgets_home(small):
    id_ = small.define(node="hv1")
    small.set_node("hv1", scheduling="drain")
    start(small)
    vm_stop(small.ops, VmStop(vm="web"))
    small.set_node("hv1", scheduling="ready")
    start(small, "hv1")
    assert (small.spec(id_).node, small.spec(id_).home) == ("hv1", None)


def test_start_on_a_named_node_is_taken_or_refused(small):
    small.define()
    with pytest.raises(NotFound, match="no node named 'hv4'"):
        start(small, "hv4")
    small.kill("hv3")
    with pytest.raises(NoNodeFits, match="node hv3 cannot take VM 'web': its lease is gone"):
        start(small, "hv3")
    assert start(small, "hv2").node == "hv2"


def test_running_vm_is_left_alone(small):
    id_ = small.run()
    generation = small.spec(id_).generation
    assert start(small).state == "running"
    assert start(small, "hv1").state == "running"
    assert small.spec(id_).generation == generation
    with pytest.raises(InvalidRequest, match="VM 'web' runs on node hv1 already; move it"):
        start(small, "hv2")


def test_vm_that_waits_because_its_node_was_flushed_is_placed_anew(small):
    id_ = small.define()
    start(small)
    small.set_node("hv1", scheduling="drain")
    assert start(small).node == "hv2"
    assert small.spec(id_).home == "hv1"


def test_start_that_fits_nowhere_says_why_per_node_and_changes_nothing(small):
    small.run("a", memory="5G")
    small.run("b", memory="5G")
    small.set_node("hv3", scheduling="drain")
    small.define(memory="4G")
    before = small.dump()
    with pytest.raises(NoNodeFits) as caught:
        start(small)
    assert caught.value.reasons == {
        "hv1": "4 GiB wanted, 3 GiB of 8 GiB left",
        "hv2": "4 GiB wanted, 3 GiB of 8 GiB left",
        "hv3": "it is flushed",
    }
    assert small.dump() == before


def test_started_vms_are_counted_before_their_nodes_report_them(small):
    for number in range(6):
        small.define(f"v{number}", memory="4G")
    nodes = [start(small, vm=f"v{number}").node for number in range(6)]
    assert sorted(nodes) == ["hv1", "hv1", "hv2", "hv2", "hv3", "hv3"]
    small.define("more", memory="1G")
    with pytest.raises(NoNodeFits):
        start(small, vm="more")


def test_start_while_it_shuts_down_prefers_the_node_it_is_on(small):
    id_ = small.run()
    vm_shutdown(small.ops, WEB)
    view = start(small)
    assert (view.node, view.power) == ("hv1", "running")
    assert small.spec(id_).generation == 4


def test_guest_that_ended_for_good_is_started_again_by_a_new_generation(small):
    id_ = small.run()
    small.claim(id_, "")
    small.report(id_, "failed", halted=small.spec(id_).generation, reason="gave up")
    generation = small.spec(id_).generation
    assert start(small).node == "hv1"
    assert small.spec(id_).generation == generation + 1


def test_shutdown_and_stop_ask_in_different_ways(small):
    id_ = small.run()
    assert vm_shutdown(small.ops, WEB).power == "stopped"
    assert not small.spec(id_).stop_forced
    vm_stop(small.ops, VmStop(vm="web"))
    assert small.spec(id_).stop_forced
    generation = small.spec(id_).generation
    vm_stop(small.ops, VmStop(vm="web"))
    vm_shutdown(small.ops, WEB)
    assert small.spec(id_).generation == generation


def test_start_after_forced_stop_is_not_forced_any_more(small):
    id_ = small.run()
    vm_stop(small.ops, VmStop(vm="web"))
    start(small)
    assert not small.spec(id_).stop_forced


def test_stop_of_a_stopped_vm_changes_nothing(small):
    small.define()
    before = small.dump()
    vm_stop(small.ops, VmStop(vm="web"))
    vm_shutdown(small.ops, WEB)
    assert small.dump() == before


def test_restart_raises_the_request_and_needs_a_vm_that_should_run(small):
    id_ = small.define()
    with pytest.raises(InvalidRequest, match="VM 'web' is stopped; start it"):
        vm_restart(small.ops, WEB)
    start(small)
    vm_restart(small.ops, WEB)
    vm_restart(small.ops, WEB)
    assert small.spec(id_).restart_request == 2


def test_disable_needs_force_while_the_guest_runs(small):
    small.run()
    with pytest.raises(InUse, match="VM 'web' runs on node hv1: shut it down first, or disable it with force"):
        vm_disable(small.ops, VmDisable(vm="web"))
    assert vm_disable(small.ops, VmDisable(vm="web", force=True)).power == "disabled"


def test_disabled_vm_stays_disabled_until_it_is_started(small):
    small.define()
    assert vm_disable(small.ops, VmDisable(vm="web")).state == "disabled"
    assert vm_stop(small.ops, VmStop(vm="web")).power == "disabled"
    assert start(small).power == "running"


def test_unknown_vm_is_named_with_the_nearest(small):
    small.define("web1")
    for call in (lambda: start(small, vm="wbe1"), lambda: vm_stop(small.ops, VmStop(vm="wbe1"))):
        with pytest.raises(NotFound, match="no VM named 'wbe1'; did you mean 'web1'"):
            call()
    with pytest.raises(NotFound, match="no VM named 'a/b'"):
        start(small, vm="a/b")
    with pytest.raises(NotFound, match="no VM named ''"):
        start(small, vm="")


def test_vm_that_is_being_removed_takes_no_orders(small):
    small.run()
    vm_remove(small.ops, VmRemove(vm="web", force=True))
    with pytest.raises(Conflict, match="VM 'web' is being removed"):
        start(small)
