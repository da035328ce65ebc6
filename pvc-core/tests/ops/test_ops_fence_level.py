"""Fence levels: which devices a node gets, and which are refused."""

import pytest

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.fence import FenceDevice, FenceLevel
from pvc_core.model.node import PluginStatus
from pvc_core.ops.fence_level import (
    FenceLevelAdd,
    FenceLevelList,
    FenceLevelRemove,
    fence_level_add,
    fence_level_list,
    fence_level_remove,
)
from pvc_core.store import keys
from pvc_core.store.documents import read

BMC = {"address": "10.0.9.1", "password_file": "/etc/pvc/bmc"}


def add(small, driver="ipmi", parameters=BMC, **more):
    return fence_level_add(
        small.ops, FenceLevelAdd(**({"node": "hv1", "driver": driver, "parameters": parameters} | more))
    )


def levels(small, node="hv1"):
    found = fence_level_list(small.ops, FenceLevelList(node=node))[0].levels
    return [[(device.driver, device.parameters.get("port", "")) for device in level.devices] for level in found]


@pytest.fixture(autouse=True)
def drivers(small):
    plugin = PluginStatus(name="fence", state="healthy", capabilities=("fencing:ipmi", "fencing:strip"))
    for name in ("hv1", "hv2", "hv3"):
        small.report_node(name, plugins=(plugin,))


def test_a_device_becomes_a_level_of_its_own_after_the_others(small):
    first = add(small)
    second = add(small, "strip", {"port": "1"})
    assert (first.level, first.changed, second.level) == (1, True, 2)
    assert levels(small) == [[("ipmi", "")], [("strip", "1")]]
    assert read(small.store, keys.node_spec("hv1")).value.generation == 3


def test_a_device_is_added_to_a_level(small):
    add(small, "strip", {"port": "1"}, level=1)
    added = add(small, "strip", {"port": "2"}, level=1)
    assert (added.level, levels(small)) == (1, [[("strip", "1"), ("strip", "2")]])
    with pytest.raises(NotFound, match="node hv1 has no fence level 3: it has 1"):
        add(small, level=3)


@pytest.mark.parametrize("level", [None, 1])
def test_the_same_again_changes_nothing(small, level):
    add(small, level=level)
    again = add(small, level=level)
    assert (again.level, again.changed) == (1, False)
    assert again.levels == (FenceLevel(devices=(FenceDevice(driver="ipmi", parameters=BMC),)),)
    assert read(small.store, keys.node_spec("hv1")).value.generation == 2


def test_the_driver_must_work_on_a_coordinator(small):
    with pytest.raises(
        InvalidRequest, match=r"no coordinator has .* 'ipmu'; did you mean 'ipmi'.* they offer ipmi, strip"
    ):
        add(small, "ipmu")
    broken = PluginStatus(name="fence-ipmi", state="failed", error="ipmitool is not installed")
    for name in ("hv1", "hv2", "hv3"):
        small.report_node(name, plugins=(broken,))
    with pytest.raises(InvalidRequest, match="plugin fence-ipmi on hv1 is failed: ipmitool is not installed"):
        add(small)
    small.add_node("hv4", role="hypervisor", capabilities=("fencing:ipmi",))
    with pytest.raises(InvalidRequest, match="only hv4 has it: fencing is done by coordinators"):
        add(small)
    assert levels(small) == []


def test_force_sets_it_up_before_the_plugin_is_enabled(small):
    assert add(small, "later", force=True).without_driver == ("hv1", "hv2", "hv3")
    assert levels(small) == [[("later", "")]]


def test_coordinators_without_the_driver_are_named(small):
    small.report_node("hv2", plugins=())
    small.report_node("hv3", plugins=())
    small.kill("hv3")
    assert add(small).without_driver == ("hv2",)


def test_parameters_are_checked_by_the_driver(small):
    def check(device):
        assert device.driver == "ipmi"
        if "address" not in device.parameters:
            raise InvalidRequest("parameter address is missing")

    small.ops = small.ops._replace(validators={"ipmi": check}.get)
    with pytest.raises(InvalidRequest, match="parameter address is missing"):
        add(small, parameters={})
    assert add(small).changed


@pytest.mark.parametrize(
    "name", ["password", "passwd", "snmp_priv_passwd", "secret", "api_token", "ssh_key", "community"]
)
def test_a_secret_is_named_by_its_file_only(small, name):
    with pytest.raises(InvalidRequest, match=f"{name} is a secret.*{name}_file=PATH") as refused:
        add(small, parameters={name: "hunter2"}, force=True)
    assert "hunter2" not in str(refused.value)
    assert add(small, parameters={f"{name}_file": "/etc/pvc/x"}).changed


def test_the_device_of_another_node_is_not_taken_by_mistake(small):
    add(small)
    with pytest.raises(InvalidRequest, match="node hv1 has the same fence device"):
        add(small, node="hv2")
    with pytest.raises(InvalidRequest, match="node hv1 has the same fence device"):
        add(small, node="hv2", parameters={**BMC, "password_file": "/etc/pvc/hv2", "user": "other"})
    assert add(small, node="hv2", force=True).changed
    assert add(small, node="hv2", parameters={}).changed
    assert add(small, node="hv3", parameters={}).changed


def test_levels_behind_a_removed_one_move_up(small):
    for port in ("1", "2", "3"):
        add(small, "strip", {"port": port})
    fence_level_remove(small.ops, FenceLevelRemove(node="hv1", level=2))
    assert levels(small) == [[("strip", "1")], [("strip", "3")]]


def test_one_device_is_removed_from_its_level_and_the_level_with_the_last_one(small):
    add(small, "strip", {"port": "1"})
    add(small, "strip", {"port": "2"}, level=1)
    with pytest.raises(NotFound, match="level 1 of node hv1 has no device 3: it has 2"):
        fence_level_remove(small.ops, FenceLevelRemove(node="hv1", level=1, device=3))
    fence_level_remove(small.ops, FenceLevelRemove(node="hv1", level=1, device=1))
    assert levels(small) == [[("strip", "2")]]
    assert fence_level_remove(small.ops, FenceLevelRemove(node="hv1", level=1, device=1)).levels == ()
    with pytest.raises(NotFound, match="node hv1 has no fence level 1: it has none"):
        fence_level_remove(small.ops, FenceLevelRemove(node="hv1", level=1))


def test_all_nodes_are_listed_and_unknown_ones_are_errors(small):
    add(small)
    found = fence_level_list(small.ops, FenceLevelList())
    assert [(item.node, len(item.levels)) for item in found] == [("hv1", 1), ("hv2", 0), ("hv3", 0)]
    for call in (
        lambda: fence_level_list(small.ops, FenceLevelList(node="hv9")),
        lambda: add(small, node="hv9", driver="nothing"),
        lambda: fence_level_remove(small.ops, FenceLevelRemove(node="hv9", level=1)),
    ):
        with pytest.raises(NotFound, match="no node named 'hv9'"):
            call()


def test_a_change_made_meanwhile_is_kept(small):
    other = small.connect()
    strip = FenceLevelAdd(node="hv1", driver="strip", parameters={"port": "1"})
    small.before_commit("/spec/node/hv1", lambda: fence_level_add(other, strip))
    assert add(small).level == 2
    assert levels(small) == [[("strip", "1")], [("ipmi", "")]]
