"""Networks."""

import pytest

from pvc_core.model.base import Condition
from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NotFound
from pvc_core.model.node import PluginStatus
from pvc_core.ops.network import (
    NetworkAdd,
    NetworkList,
    NetworkModify,
    NetworkQuery,
    network_add,
    network_forget,
    network_info,
    network_list,
    network_modify,
    network_remove,
)
from pvc_core.ops.vm_definition import NicDefinition
from pvc_core.ops.vm_modify import VmModify, VmPatch, VmRename, vm_modify, vm_rename
from pvc_core.ops.vm_remove import VmRemove, vm_forget, vm_remove
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.store import keys

LAN = NetworkQuery(network="lan")


def add(small, **more):
    return network_add(small.ops, NetworkAdd(**({"name": "lan", "driver": "bridge"} | more)))


def modify(small, **more):
    return network_modify(small.ops, NetworkModify(network="lan", **more))


def test_added_network_is_there_by_name_and_id(small):
    view = add(small, description="office", mtu=9000, parameters={"vlan": 5})
    assert (view.generation, view.mtu, view.parameters, view.nodes, view.nodes_ready) == (1, 9000, {"vlan": 5}, 3, 0)
    assert network_info(small.ops, NetworkQuery(network=view.id)).view == view


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"name": "a b"}, InvalidRequest, "network name 'a b' is not a valid name"),
        ({"driver": "brigde"}, InvalidRequest, "no node has a working network driver 'brigde'; did you mean 'bridge'"),
        ({"driver": "dir"}, InvalidRequest, "no node has a working network driver 'dir'; nodes offer bridge"),
        ({"mtu": 10}, InvalidRequest, "MTU 10 is out of range"),
        ({"parameters": {"vlan": "five"}}, InvalidRequest, "parameter vlan must be a number"),
        ({"name": "dmz"}, AlreadyExists, "there is a network named 'dmz' already"),
    ],
)
def test_bad_network_is_refused_and_nothing_is_changed(small, request_, error, message):
    add(small, name="dmz")
    before = small.dump()
    with pytest.raises(error, match=message):
        add(small, **request_)
    assert small.dump() == before


def test_broken_check_of_a_plugin_lets_nothing_through(small):
    def crash(_):
        raise KeyError("vlan")

    ops = small.ops._replace(validators=lambda _: crash)
    with pytest.raises(InvalidRequest, match=r"the check of driver 'bridge' failed \(KeyError: 'vlan'\)"):
        network_add(ops, NetworkAdd(name="lan", driver="bridge"))


def test_modify_sets_and_removes_parameters(small):
    add(small, parameters={"vlan": 5, "device": "eth0"})
    view = modify(small, parameters={"vlan": 6, "device": None}, mtu=1400, description="x")
    assert (view.parameters, view.mtu, view.description, view.generation) == ({"vlan": 6}, 1400, "x", 2)
    assert modify(small, mtu=None).mtu is None
    assert modify(small).generation == 3
    with pytest.raises(InvalidRequest, match="'lan' has no parameter 'vlna'; did you mean 'vlan'"):
        modify(small, parameters={"vlna": None})
    with pytest.raises(InvalidRequest, match="must be a number"):
        modify(small, parameters={"vlan": "x"})


def test_used_network_is_not_removed_and_the_users_are_named(small):
    add(small)
    for name in ("web", "db"):
        small.define(name, nics=(NicDefinition(network="lan"),))
    before = small.dump()
    with pytest.raises(InUse, match=r"network 'lan' is used by VMs \(db, web\)"):
        network_remove(small.ops, LAN)
    assert small.dump() == before
    assert network_info(small.ops, LAN).vms == ("db", "web")
    assert network_list(small.ops, NetworkList())[0].vms == 2


def test_removed_network_is_used_and_changed_no_more_but_removed_again(small):
    add(small)
    assert network_remove(small.ops, LAN).deleting
    assert network_remove(small.ops, LAN).deleting
    with pytest.raises(Conflict, match="network 'lan' is being removed"):
        modify(small, mtu=1400)
    with pytest.raises(Conflict, match="network 'lan' is being removed"):
        small.define(nics=(NicDefinition(network="lan"),))


def test_network_is_forgotten_when_no_node_alive_has_it(small):
    before = small.dump()
    network = add(small).id
    small.report_network(network, "hv1")
    small.report_network(network, "hv2")
    assert not network_forget(small.ops, network)
    network_remove(small.ops, LAN)
    assert not network_forget(small.ops, network)
    small.kill("hv1")
    small.kill("hv2")
    assert network_forget(small.ops, network)
    small.revive("hv1")
    small.revive("hv2")
    assert set(small.dump()) == set(before)
    assert network_forget(small.ops, network)
    with pytest.raises(NotFound, match="no network named 'lan'"):
        network_info(small.ops, LAN)


def test_list_says_where_it_is_ready_and_what_is_wrong(small):
    network = add(small).id
    add(small, name="dmz")
    small.report_network(network, "hv1")
    small.report_network(
        network, "hv2", device="", conditions=(Condition(type="Ready", ok=False, message="eth1 is down"),)
    )
    small.report_network(network, "hv3", observed_generation=0)
    small.report_node("hv3", plugins=())
    dmz, lan = network_list(small.ops, NetworkList())
    assert (lan.name, lan.nodes, lan.nodes_ready, lan.problems) == ("lan", 2, 1, ("hv2: eth1 is down",))
    assert (dmz.name, dmz.nodes_ready) == ("dmz", 0)
    small.kill("hv1")
    assert network_info(small.ops, LAN).view.nodes_ready == 0
    assert [view.name for view in network_list(small.ops, NetworkList(name="^d"))] == ["dmz"]


def test_change_of_what_was_read_before_another_changed_it_is_refused(small):
    add(small)
    modify(small, description="first", generation=1)
    with pytest.raises(Conflict, match="it has generation 2, not 1"):
        modify(small, description="second", generation=1)
    assert network_info(small.ops, LAN).view.description == "first"


def test_structured_parameters_come_back_as_they_were_given(small):
    rules = [{"id": "a", "ports": ["22", "80"]}, {"id": "b", "ports": []}]
    assert add(small, parameters={"rules": rules}).parameters == {"rules": rules}


def test_check_that_wants_to_sees_the_other_networks_of_the_driver(small):
    seen = []

    def check(spec, others):
        seen.append((spec.name, sorted(other.name for other in others)))
        if any(other.parameters == spec.parameters for other in others):
            raise InvalidRequest(f"{spec.parameters} is taken")

    ops = small.ops._replace(validators={"bridge": check}.get)
    network_add(ops, NetworkAdd(name="lan", driver="bridge", parameters={"vni": 1}))
    network_add(ops, NetworkAdd(name="dmz", driver="bridge", parameters={"vni": 2}))
    with pytest.raises(InvalidRequest, match="is taken"):
        network_modify(ops, NetworkModify(network="lan", parameters={"vni": 2}))
    assert seen == [("lan", []), ("dmz", ["lan"]), ("lan", ["dmz"])]


def test_two_networks_made_at_the_same_moment_see_each_other(small):
    others = small.connect()

    def check(spec, there):
        if any(other.parameters == spec.parameters for other in there):
            raise InvalidRequest("taken")

    def check_slowly(spec, there):
        check(spec, there)
        if not there:
            network_add(
                others._replace(validators={"bridge": check}.get),
                NetworkAdd(name="dmz", driver="bridge", parameters={"vni": 1}),
            )

    with pytest.raises(InvalidRequest, match="taken"):
        network_add(
            small.ops._replace(validators={"bridge": check_slowly}.get),
            NetworkAdd(name="lan", driver="bridge", parameters={"vni": 1}),
        )
    assert [view.name for view in network_list(small.ops, NetworkList())] == ["dmz"]


def test_mtu_that_a_living_node_cannot_carry_is_refused(small):
    limited = PluginStatus(name="t", state="healthy", capabilities=("network:bridge",), max_mtu={"bridge": 1450})
    small.report_node("hv2", plugins=(limited,))
    with pytest.raises(InvalidRequest, match="driver bridge on node hv2 carries at most 1450 bytes"):
        add(small, mtu=1451)
    add(small, mtu=1450)
    small.kill("hv2")
    assert modify(small, mtu=9000).mtu == 9000


def test_address_of_a_nic_is_the_nics_alone_in_its_network(small):
    add(small)
    add(small, name="dmz")
    small.define("web", nics=(NicDefinition(network="lan", addresses=("10.0.0.5",)),))
    with pytest.raises(AlreadyExists, match=r"address 10.0.0.5 in network lan belongs to VM 'web'"):
        small.define("db", nics=(NicDefinition(network="lan", addresses=("10.0.0.5",)),))
    small.define("db", nics=(NicDefinition(network="dmz", addresses=("10.0.0.5",)),))


def test_nic_that_its_network_does_not_allow_is_refused(small):
    def check(network, nic):
        raise InvalidRequest(f"network {network.name}: {nic.model} is not for it")

    add(small)
    small.ops = small.ops._replace(nic_validators={"bridge": check}.get)
    before = small.dump()
    with pytest.raises(InvalidRequest, match="network lan: virtio is not for it"):
        small.define("web", nics=(NicDefinition(network="lan"),))
    assert small.dump() == before


def test_nodes_look_at_a_network_whose_nics_have_changed(small):
    lan = add(small).id
    heard = []
    small.store.watch(keys.REF, heard.append)
    vm = small.define("web", nics=(NicDefinition(network="lan"),))
    assert ("network", lan) in {keys.parse(path) for path in heard}
    heard.clear()
    nic = vm_info(small.ops, VmQuery(vm="web")).spec.nics[0]
    patch = VmPatch(nics=(NicDefinition(network="lan", mac=nic.mac, addresses=("10.0.0.5",)),))
    vm_modify(small.ops, VmModify(vm="web", patch=patch))
    assert f"{keys.ref('network', lan)}/{vm}" in heard
    heard.clear()
    vm_modify(small.ops, VmModify(vm="web", patch=VmPatch(description="x")))
    assert heard == []


def test_addresses_of_a_removed_vm_are_free(small):
    add(small)
    before = small.dump()
    vm = small.define("web", nics=(NicDefinition(network="lan", addresses=("10.0.0.5",)),))
    vm_remove(small.ops, VmRemove(vm="web", force=True))
    assert vm_forget(small.ops, vm)
    assert set(small.dump()) == set(before)


def test_nodes_look_at_the_networks_of_a_renamed_vm(small):
    lan = add(small).id
    vm = small.define("web", nics=(NicDefinition(network="lan"),))
    heard = []
    small.store.watch(keys.REF, heard.append)
    vm_rename(small.ops, VmRename(vm="web", name="www"))
    assert heard == [f"{keys.ref('network', lan)}/{vm}"]
