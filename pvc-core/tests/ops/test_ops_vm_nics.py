"""NICs of VMs: what is written, what is refused, and what needs a restart."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, InUse, InvalidRequest, NotFound
from pvc_core.model.vm import NicLimits
from pvc_core.ops.message import decode_request
from pvc_core.ops.network import NetworkQuery, network_remove
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_modify import VmModify, VmPatch, vm_modify
from pvc_core.ops.vm_nic_definition import NicDefinition, NicLimitsDefinition
from pvc_core.ops.vm_nics import VmNicAdd, VmNicModify, VmNicRemove, vm_nic_add, vm_nic_modify, vm_nic_remove
from pvc_core.ops.vm_power import VmStop, vm_stop
from pvc_core.ops.vm_views import VmQuery, vm_dump
from pvc_core.store import keys

A, B, C = (f"52:54:00:00:00:0{number}" for number in (1, 2, 3))
LAN, DMZ = NicDefinition(network="lan", mac=A), NicDefinition(network="dmz", mac=B)


@pytest.fixture
def two(equipped):
    """Networks lan and dmz."""
    equipped.network("dmz")
    return equipped


def add(cluster, nic=DMZ, **more):
    return vm_nic_add(cluster.ops, VmNicAdd(vm="web", nic=nic, **more))


def remove(cluster, **named):
    return vm_nic_remove(cluster.ops, VmNicRemove(vm="web", **(named or {"network": "dmz"})))


def modify(cluster, **changes):
    return vm_nic_modify(cluster.ops, VmNicModify(vm="web", **({"network": "dmz"} | changes)))


def marks(cluster, vm):
    """Return the VM's networks, with a minus those whose NIC is to be taken away."""
    return ["-" * nic.removing + nic.network for nic in cluster.spec(vm).nics]


def owner(cluster, mac):
    node = cluster.store.get(keys.name("mac", mac))
    return node.value.decode() if node is not None else None


def test_a_nic_is_given_to_and_asked_from_a_running_guest(two):
    id_ = two.run(nics=(LAN,))
    added = add(two, restart=True)
    assert (added.restart_needed, added.restarting, added.reasons) == (False, False, ())
    assert owner(two, B) == id_
    removed = remove(two)
    assert not removed.restart_needed
    assert marks(two, id_) == ["lan", "-dmz"]
    before = two.dump()
    assert owner(two, B) == id_
    with pytest.raises(AlreadyExists, match=f"MAC address {B} belongs to VM 'web'"):
        two.define("thief", nics=(DMZ,))
    with pytest.raises(InUse, match="web"):
        network_remove(two.ops, NetworkQuery(network="dmz"))
    with pytest.raises(NotFound, match=f"VM 'web' has no NIC dmz; it has {A} in lan"):
        remove(two)
    assert two.dump() == before
    assert [nic.network for nic in vm_dump(two.ops, VmQuery(vm="web")).nics] == ["lan"]


def test_a_removal_is_taken_back_as_it_was_and_in_its_place(two):
    limited = replace(LAN, limits=NicLimitsDefinition(in_average=5), queues=1)
    id_ = two.run(nics=(limited, DMZ))
    before = two.spec(id_).nics
    remove(two, mac=A)
    assert marks(two, id_) == ["-lan", "dmz"]
    assert not add(two, LAN).restart_needed
    assert sorted(two.spec(id_).nics, key=lambda nic: nic.mac) == list(before)
    remove(two, mac=A)
    vm_modify(two.ops, VmModify(vm="web", patch=VmPatch(nics=(LAN, DMZ))))
    assert two.spec(id_).nics == before


def test_nothing_is_left_of_a_removal_once_nobody_runs_the_vm(two):
    id_ = two.run(nics=(LAN, DMZ))
    remove(two)
    vm_stop(two.ops, VmStop(vm="web"))
    two.report_stopped(id_)
    vm_modify(two.ops, VmModify(vm="web", patch=VmPatch(description="new")))
    assert marks(two, id_) == ["lan"]
    assert owner(two, B) is None
    network_remove(two.ops, NetworkQuery(network="dmz"))


def test_a_removed_nic_is_not_freed_when_the_vm_starts_in_the_last_moment(two):
    id_ = two.run(nics=(LAN, DMZ))
    vm_stop(two.ops, VmStop(vm="web"))
    two.report_stopped(id_)

    def start_first():
        two.tree.fault = None
        two.claim(id_, "hv1")

    two.before_commit("/mac/", start_first)
    remove(two)
    assert marks(two, id_) == ["lan", "-dmz"]
    assert owner(two, B) == id_


def test_a_nic_keeps_its_network_while_the_guest_runs(two):
    id_ = two.run(nics=(LAN,))
    with pytest.raises(InUse, match=f"uses NIC {A} in network lan, which keeps its network while it runs: add another"):
        vm_modify(two.ops, VmModify(vm="web", patch=VmPatch(nics=(replace(LAN, network="dmz"),))))
    remove(two, network="lan")
    with pytest.raises(InUse, match="which keeps its network"):
        add(two, replace(LAN, network="dmz"))
    vm_stop(two.ops, VmStop(vm="web"))
    two.report_stopped(id_)
    add(two, replace(LAN, network="dmz"))
    assert marks(two, id_) == ["dmz"]


def test_what_changes_at_once_and_what_at_the_next_start(two):
    id_ = two.run(nics=(LAN, DMZ), vcpus=4)
    now = modify(
        two, link_up=False, limits={"in_average": "1M", "out_average": 5}, addresses=("10.0.0.1", "2001:DB8::0")
    )
    assert (now.restart_needed, now.reasons) == (False, ())
    nic = two.spec(id_).nics[1]
    assert (nic.link_up, nic.limits) == (False, NicLimits(in_average=1024, out_average=5))
    assert nic.addresses == ("10.0.0.1", "2001:db8::")
    later = modify(two, queues=4, parameters={"vf": "1"})
    assert later.reasons == (f"NIC {B} in network dmz has other settings: queues, parameters",)
    assert modify(two, queues=1, parameters={"vf": ""}).reasons == ()
    assert two.spec(id_).nics[1].limits == nic.limits


def test_another_mac_address_makes_another_nic(two):
    id_ = two.run(nics=(DMZ,))
    changed = modify(two, new_mac=C, addresses=("10.0.0.1",))
    assert not changed.restart_needed
    assert {nic.mac: nic.removing for nic in two.spec(id_).nics} == {B: True, C: False}
    assert owner(two, B) == owner(two, C) == id_
    vm_stop(two.ops, VmStop(vm="web"))
    two.report_stopped(id_)
    vm_nic_modify(two.ops, VmNicModify(vm="web", network="dmz", new_mac=A))
    assert [owner(two, mac) for mac in (A, B, C)] == [id_, None, None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "say what to change of the NIC"),
        ({"network": "lna", "link_up": True}, "VM 'web' has no NIC lna; did you mean 'lan'?"),
        ({"limits": {"in_avrage": 1}}, "a NIC has no limit 'in_avrage'; did you mean 'in_average'"),
        ({"limits": {"in_peak": 5}}, "limit in_peak needs a limit in_average"),
        ({"limits": {"out_burst": 5}}, "limit out_burst needs a limit out_average"),
        ({"limits": {"in_average": 5, "in_peak": 4}}, "limit in_peak is 4, less than in_average, which is 5"),
        ({"limits": {"in_average": "fast"}}, "limit in_average 'fast' is not a size"),
        ({"limits": {"in_average": -1}}, "Expected `int` >= 0"),
        ({"queues": 3}, f"NIC {B} in network dmz has 3 queues, more than the VM has vCPUs (2)"),
        ({"queues": 2, "model": "e1000"}, "only virtio has more than one queue"),
        ({"addresses": ("10.0.0.1/24",)}, "'10.0.0.1/24' is not an IP address; write it without a prefix length"),
        ({"addresses": ("224.0.0.1",)}, "224.0.0.1 is an address that no NIC can have"),
        ({"addresses": ("10.0.0.1", "10.0.0.1")}, "address 10.0.0.1 is given twice"),
        ({"new_mac": "01:00:00:00:00:01"}, "is a multicast address"),
        ({"new_mac": A}, f"MAC address {A} is given twice"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(two, changes, said):
    two.run(nics=(LAN, DMZ), vcpus=2)
    before = two.dump()
    with pytest.raises((InvalidRequest, NotFound)) as error:
        modify(two, **changes)
    assert said in str(error.value)
    assert two.dump() == before


def test_an_address_is_that_of_one_nic_of_a_network(two):
    id_ = two.define(nics=(replace(LAN, addresses=("10.0.0.1",)), replace(DMZ, addresses=("10.0.0.1",))))
    with pytest.raises(InvalidRequest, match=f"NIC {C} in network lan has address 10.0.0.1, which is that of NIC {A}"):
        add(two, NicDefinition(network="lan", mac=C, addresses=("10.0.0.1",)))
    assert len(two.spec(id_).nics) == 2


def test_fewer_vcpus_than_queues_are_refused(two):
    two.define(nics=(replace(LAN, queues=4),), vcpus=4)
    with pytest.raises(InvalidRequest, match="4 queues, more than the VM has vCPUs"):
        vm_modify(two.ops, VmModify(vm="web", patch=VmPatch(vcpus=2)))


def test_a_dumped_definition_makes_the_same_nics(two):
    nic = replace(DMZ, queues=2, limits=NicLimitsDefinition(out_average=7), addresses=("10.0.0.9",), link_up=False)
    id_ = two.define(nics=(nic,), vcpus=2)
    definition = vm_dump(two.ops, VmQuery(vm="web"))
    assert definition.nics == (nic,)
    assert vm_modify(two.ops, VmModify(vm="web", definition=definition)).changes == ()
    assert two.spec(id_).nics[0].queues == 2


def test_nobody_writes_the_mark_of_a_removal_by_hand():
    with pytest.raises(InvalidRequest, match="removing"):
        decode_request(VmDefine, {"name": "web", "memory": 64, "nics": [{"network": "lan", "removing": True}]})
