"""Decisions about devices that the test's kernel may not have: VLANs, bonds, hardware."""

import pytest

from pvc_core.plugin import decode
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.faults import Fault, conditions, faults
from pvc_hostnet.layout import layout
from pvc_hostnet.seen import Seen
from pvc_hostnet.steps import FLOATING, OWN, AddAddress, AddRoute, RemoveAddress, RemoveRoute, SetMtu, SwitchOn, steps
from pvc_netdev.links import Address, DefaultRoute, Link

SECTION = {"device": "bond0.10", "mtu": 9000, "addresses": ["10.0.0.1/24"], "floating": ["10.0.0.9"]}


def made(**section):
    return layout(decode({"cluster": section or SECTION}, HostnetConfig, ""), "hv1")


def link(name, index, **fields):
    return Link(
        **{
            "index": index,
            "name": name,
            "kind": "",
            "alias": "",
            "mtu": 1500,
            "up": True,
            "carrier": True,
            "master": 0,
            "mac": "02:00:00:00:00:01",
            **fields,
        }
    )


def seen(*links, addresses=(), routes=()):
    return Seen(links={one.name: one for one in links}, addresses=addresses, routes=routes, all_links=links)


def wrong(wanted, found, *, held=False, refused=None, twice=None):
    return faults(wanted, found, held=held, refused=refused or {}, twice=twice or {})


@pytest.mark.parametrize("below", [1500, 9000, 9216])
def test_a_vlan_gets_no_more_than_the_device_below_it_carries(below):
    wanted, bond = made(), link("bond0", 2, kind="bond", mtu=below)
    vlan = link("bond0.10", 3, kind="vlan", under=2)
    todo = [step for step in steps(wanted, seen(vlan, bond), held=False) if isinstance(step, SetMtu)]
    assert todo == ([SetMtu("cluster", vlan, 9000)] if below >= 9000 else [])
    found = next(fault for fault in wrong(wanted, seen(vlan, bond)) if fault.reason == "WrongMtu")
    assert ("it stands on bond0, whose MTU is 1500: raise that first" in found.message) is (below < 9000)


def test_a_veth_whose_other_end_is_smaller_is_no_reason():
    wanted = made()
    one, other = link("bond0.10", 3, kind="veth", under=4), link("far", 4, kind="veth", under=3)
    assert SetMtu("cluster", one, 9000) in steps(wanted, seen(one, other), held=False)


def test_a_bridges_uplinks_must_carry_what_the_bridge_does_and_guests_need_not():
    wanted, bridge = made(), link("bond0.10", 3, kind="bridge", mtu=9000)
    ports = [link("eth0", 4, master=3), link("vnet0", 5, kind="tun", master=3), link("eth1", 6, master=3, mtu=9000)]
    found = [fault.message for fault in wrong(wanted, seen(bridge, *ports)) if fault.reason == "WrongMtu"]
    assert found == ["eth0, a port of bond0.10, has MTU 1500, not 9000"]


def test_own_addresses_come_before_floating_ones_and_removals_before_both():
    wanted = made(device="eth0", addresses=["10.0.0.1/24"], floating=["10.0.0.9"], gateways=["10.0.0.254"])
    eth0 = link("eth0", 2, up=False)
    old = Address(address="10.0.0.7/24", device=2, protocol=OWN)
    older = DefaultRoute(family=4, via="10.0.0.253", device=2, protocol=OWN)
    assert steps(wanted, seen(eth0, addresses=(old,), routes=(older,)), held=True) == [
        SwitchOn("cluster", eth0),
        RemoveAddress(old),
        AddAddress("cluster", eth0, "10.0.0.1/24"),
        AddAddress("cluster", eth0, "10.0.0.9/32", floating=True),
        RemoveRoute(4, "cluster"),
        AddRoute("cluster", eth0, "10.0.0.254"),
    ]


def test_only_what_carries_our_mark_is_removed_and_a_floating_address_only_when_nobody_gives_it():
    wanted = made(device="eth0", addresses=["10.0.0.1/24"], floating=["10.0.0.9"])
    eth0, eth1 = link("eth0", 2), link("eth1", 3)
    addresses = (
        Address(address="10.0.0.1/24", device=2),
        Address(address="10.0.0.9/32", device=2, protocol=FLOATING),
        Address(address="10.0.0.8/32", device=2, protocol=FLOATING),
        Address(address="192.0.2.1/24", device=2),
        Address(address="192.0.2.2/24", device=2, protocol=3),
        Address(address="10.0.0.9/32", device=3, protocol=FLOATING),
    )
    todo = steps(wanted, seen(eth0, eth1, addresses=addresses), held=False)
    assert todo == [RemoveAddress(addresses[2]), RemoveAddress(addresses[5])]


def test_a_former_floating_address_can_become_the_nodes_own():
    wanted, eth0 = made(device="eth0", addresses=["10.0.0.9/24"]), link("eth0", 2)
    before = Address(address="10.0.0.9/32", device=2, protocol=FLOATING)
    assert steps(wanted, seen(eth0, addresses=(before,)), held=True) == [
        RemoveAddress(before),
        AddAddress("cluster", eth0, "10.0.0.9/24"),
    ]


def test_a_gateway_that_left_the_section_goes_and_others_stay():
    wanted, eth0 = made(device="eth0", addresses=["10.0.0.1/24"]), link("eth0", 2)
    addresses = (Address(address="10.0.0.1/24", device=2),)
    ours = DefaultRoute(family=4, via="10.0.0.254", device=2, protocol=OWN)
    hosts = DefaultRoute(family=6, via="fe80::1", device=2, protocol=9)
    assert steps(wanted, seen(eth0, addresses=addresses, routes=(ours, hosts)), held=False) == [RemoveRoute(4)]


def test_nothing_is_done_when_all_is_as_it_should_be():
    wanted = made(device="eth0", addresses=["10.0.0.1/24"], gateways=["10.0.0.254"])
    right = seen(
        link("eth0", 2),
        addresses=(Address(address="10.0.0.1/24", device=2, protocol=OWN),),
        routes=(DefaultRoute(family=4, via="10.0.0.254", device=2, protocol=OWN),),
    )
    assert steps(wanted, right, held=False) == []
    assert wrong(wanted, right) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"up": False, "carrier": False}, "Down"), ({"carrier": False}, "NoCarrier"), ({}, "AddressMissing")],
)
def test_the_worst_comes_first(fields, reason):
    wanted = made(device="eth0", addresses=["10.0.0.1/24"], gateways=["10.0.0.254"])
    found = wrong(wanted, seen(link("eth0", 2, **fields)))
    assert found[0].reason == reason
    assert found[-1] == Fault(
        "cluster", "GatewayMissing", "there is no default route for IPv4, 10.0.0.254 should be its gateway"
    )


def test_a_refusal_is_told_with_what_it_left_wrong_or_by_itself():
    wanted = made(device="eth0", addresses=["10.0.0.1/24"])
    assert wrong(wanted, seen(link("eth0", 2)), refused={"cluster": "no"}) == [
        Fault("cluster", "AddressMissing", "eth0 lacks 10.0.0.1/24 (no)")
    ]
    right = seen(link("eth0", 2), addresses=(Address(address="10.0.0.1/24", device=2),))
    assert wrong(wanted, right, refused={"cluster": "no"}) == [Fault("cluster", "Refused", "no")]


@pytest.mark.parametrize("held", [True, False])
def test_a_duplicate_of_a_floating_address_matters_to_who_holds_it(held):
    wanted = made(device="eth0", addresses=["10.0.0.1/24"], floating=["10.0.0.9"])
    addresses = (Address(address="10.0.0.1/24", device=2), Address(address="10.0.0.9/32", device=2))
    found = wrong(
        wanted, seen(link("eth0", 2), addresses=addresses), held=held, twice={"10.0.0.9": "02:00:00:00:00:02"}
    )
    assert [fault.reason for fault in found] == (["DuplicateAddress"] if held else [])


def test_a_network_that_is_another_one_has_its_condition():
    wanted = layout(decode({"cluster": SECTION, "storage": {"same_as": "cluster"}}, HostnetConfig, ""), "hv1")
    found = conditions(wanted, [Fault("cluster", "Down", "x is off"), Fault("cluster", "WrongMtu", "y")])
    assert [(c.type, c.ok, c.reason, c.message) for c in found] == [
        ("Network/cluster", False, "Down", "network cluster: x is off; y"),
        ("Network/storage", False, "Down", "network storage: x is off; y"),
    ]
    assert all(condition.ok for condition in conditions(wanted, []))
