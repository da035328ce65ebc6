"""Asking for a node's power: who carries it out, and what is refused."""

import pytest

from pvc_core.model.errors import InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.fence import FenceStage
from pvc_core.model.node import PluginStatus
from pvc_core.ops.fence_power import FencePower, FenceTest, fence_power, fence_test
from pvc_core.store import keys
from pvc_core.store.documents import read


def offer(small, name, *drivers):
    plugin = PluginStatus(name="fence", state="healthy", capabilities=tuple(f"fencing:{d}" for d in drivers))
    small.report_node(name, plugins=(plugin,))


@pytest.fixture
def fenced(small):
    for name in ("hv1", "hv2", "hv3"):
        offer(small, name, "ipmi", "strip")
        small.set_levels(name, ["ipmi"], ["strip", "strip"])
    small.set_primary("hv2")
    return small


def ask(small, node="hv3", **more):
    return fence_test(small.ops, FenceTest(node=node, **more))


def power(small, action="off", node="hv3", **more):
    return fence_power(small.ops, FencePower(node=node, action=action, **more))


def test_the_primary_asks_all_devices(fenced):
    task = ask(fenced)
    assert (task.kind, task.node, task.subject) == ("fence.power", "hv2", "node hv3")
    assert task.arguments == {"node": "hv3", "action": "status", "force": False}
    assert read(fenced.store, keys.task(task.id)).value == task
    assert task.time_limit_s >= 3 * 80


def test_another_coordinator_asks_for_the_primary_itself(fenced):
    assert ask(fenced, "hv2").node == "hv1"


def test_one_whose_drivers_work_is_preferred(fenced):
    offer(fenced, "hv2", "strip")
    assert ask(fenced).node == "hv1"
    offer(fenced, "hv1")
    assert ask(fenced).node == "hv2"


def test_the_one_that_is_asked_for_does_it(fenced):
    assert ask(fenced, coordinator="hv1").node == "hv1"
    with pytest.raises(NoNodeFits, match="node hv3 cannot reach the fence devices of hv3: it is the node itself"):
        ask(fenced, coordinator="hv3")
    with pytest.raises(NotFound, match="no node named 'hv9'"):
        ask(fenced, coordinator="hv9")


def test_without_anybody_who_can_do_it_the_reasons_are_told(fenced):
    fenced.kill("hv1")
    offer(fenced, "hv2")
    fenced.add_node("hv4", role="hypervisor", capabilities=("fencing:ipmi", "fencing:strip"))
    with pytest.raises(NoNodeFits) as refused:
        ask(fenced)
    assert refused.value.reasons == {
        "hv1": "its lease is gone",
        "hv2": "it has no working fence driver ipmi or strip",
        "hv3": "it is the node itself",
        "hv4": "it is no coordinator",
    }


@pytest.mark.parametrize("call", [ask, power])
def test_a_node_without_levels_has_no_power_to_switch(fenced, call):
    fenced.set_levels("hv3")
    with pytest.raises(InvalidRequest, match="node hv3 has no fence levels: add one with 'pvc fence level add hv3'"):
        call(fenced)
    with pytest.raises(NotFound, match="no node named 'hv9'"):
        call(fenced, node="hv9")


@pytest.mark.parametrize("action", ["off", "cycle"])
def test_the_power_of_a_node_at_work_is_cut_with_force_only(fenced, action):
    before = fenced.dump()
    with pytest.raises(InUse, match="node hv3 has its lease, so it is at work"):
        power(fenced, action)
    assert fenced.dump() == before
    assert power(fenced, action, force=True).arguments == {"node": "hv3", "action": action, "force": True}


def test_a_node_that_is_lost_or_stopped_is_switched_off_and_any_is_switched_on(fenced):
    assert power(fenced, "on").arguments["action"] == "on"
    fenced.kill("hv3")
    assert power(fenced, "off").arguments == {"node": "hv3", "action": "off", "force": False}
    assert power(fenced, "cycle").time_limit_s > power(fenced, "off").time_limit_s


@pytest.mark.parametrize("action", ["off", "on", "cycle"])
def test_while_the_node_is_being_fenced_its_power_is_left_to_that(fenced, action):
    fenced.kill("hv3")
    fenced.record("hv3", stage=FenceStage.FENCING)
    with pytest.raises(InUse, match="node hv3 is being fenced now"):
        power(fenced, action)
    assert power(fenced, action, force=True).arguments["force"] is True
    fenced.record("hv3", stage=FenceStage.RECOVERED)
    assert power(fenced, action).arguments["force"] is False


@pytest.mark.parametrize(
    "meanwhile",
    [lambda s: s.revive("hv3"), lambda s: s.record("hv3", stage=FenceStage.FENCING)],
    ids=["back", "fencing"],
)
def test_what_happens_meanwhile_is_seen(fenced, meanwhile):
    fenced.kill("hv3")
    fenced.before_commit(keys.TASK, lambda: meanwhile(fenced))
    with pytest.raises(InUse):
        power(fenced)
    assert fenced.store.children(keys.TASK) == []
