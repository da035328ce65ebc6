"""Bonds and VLANs below a node's networks, in a kernel that has them (``test_hostnet_stacked_uml.py``)."""

import subprocess

import pytest

pytestmark = pytest.mark.real

V4, V6 = "10.0.0.254", "fd00:1::fe"
CLUSTER = {
    "device": "bond0.10",
    "mtu": 9000,
    "addresses": ["10.0.0.0/24", "fd00:1::/64"],
    "floating": [f"{V4}/24", f"{V6}/64"],
    "gateways": ["10.0.0.9"],
}
OWN = ["10.0.0.7/24", "fd00:1::7/64"]
HELD = sorted([*OWN, f"{V4}/32", f"{V6}/128"])


@pytest.fixture
def stacked(node):
    """A node with VLAN 10 on a bond of eth0 and eth1, as its host's configuration makes it: all of it off, MTU 1500."""
    node.add("bond0", "bond", bond_mode=1, bond_miimon=50)
    for device in ("eth0", "eth1"):
        node.set(device, mtu=9000)
        node.set(device, master=node.link("bond0")["index"])
    node.set("bond0", mtu=1500, state="up")
    node.add("bond0.10", "vlan", link="bond0", vlan_id=10)
    return node


@pytest.fixture
def neighbour(segment):
    made = segment.host("client9", "eth0")
    made.set("eth0", state="up")
    made.add("eth0.10", "vlan", link="eth0", vlan_id=10)
    made.set("eth0.10", state="up")
    made.give("10.0.0.9/24", "eth0.10")
    made.give("fd00:1::9/64", "eth0.10")
    return made


def condition(node, hooks):
    with node.inside():
        return next(c for c in hooks.health_checks() if c.type == "Network/cluster")


def answers(host, address):
    with host.inside():
        return subprocess.run(["ping", "-n", "-c1", "-W1", address], capture_output=True, check=False).returncode == 0


def test_a_vlan_waits_for_the_mtu_of_the_bond_below_it(stacked, wait_for):
    hooks = stacked.start(cluster=CLUSTER)
    assert stacked.addresses("bond0.10") == OWN
    found = condition(stacked, hooks)
    assert found.reason == "WrongMtu"
    assert "bond0.10 has MTU 1500, not 9000: it stands on bond0, whose MTU is 1500: raise that first" in found.message
    stacked.set("bond0", mtu=9000)
    wait_for(lambda: condition(stacked, hooks).ok)
    assert stacked.link("bond0.10").get_attr("IFLA_MTU") == 9000


def test_what_was_given_is_known_again_in_this_kernel(stacked):
    stacked.set("bond0.10", state="up")
    stacked.give("192.0.2.1/24", "bond0.10")
    stacked.start(cluster=CLUSTER).node_stopping("node7")
    assert stacked.gateways() == ["10.0.0.9"]
    stacked.start()
    assert (stacked.addresses("bond0.10"), stacked.gateways()) == (["192.0.2.1/24"], [])


def test_floating_addresses_on_a_vlan_survive_the_loss_of_a_nic(stacked, segment, neighbour, wait_for):
    hooks = stacked.start(cluster=CLUSTER)
    with stacked.inside():
        (service,) = hooks.role_services()
        service.acquire(1)
    assert stacked.addresses("bond0.10") == HELD
    for address in (V4, V6):
        wait_for(lambda address=address: answers(neighbour, address))
        assert neighbour.neighbour(address, "eth0.10") == stacked.mac("bond0.10")
    segment.port(stacked, "eth0", up=False)
    for address in (V4, V6):
        wait_for(lambda address=address: answers(neighbour, address))
    assert stacked.addresses("bond0.10") == HELD
    with stacked.inside():
        service.relinquish()
    assert stacked.addresses("bond0.10") == OWN


def test_a_bond_that_is_switched_off_is_switched_on(stacked, wait_for):
    hooks = stacked.start(cluster=CLUSTER | {"mtu": 1500})
    assert condition(stacked, hooks).reason in ("", "NoCarrier")
    wait_for(lambda: condition(stacked, hooks).ok)
