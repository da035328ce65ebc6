"""Nodes with gateways and guests that lose their power or their cable outside."""

import re

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(400)]

CLIENTS = ("10.101.0.0/24", "fd00:101::/64", "10.102.0.0/24", "fd00:102::/64")


@pytest.fixture
def victim(lab):
    """The node of guest ``ranged``, which is also the primary; all is as before in the end."""
    node = lab.ranged.node
    lab.take_over(node)
    lab.learned_from(node, *CLIENTS)
    yield node
    lab.sandbox.bmc(node).mend()
    lab.sandbox.power_on(node)
    lab.cluster.bring_into_service(node)
    lab.ranged.to(node)


def gateway_mac(guest):
    """Return the MAC address of the gateway, as a guest knows it."""
    guest.will_reach("10.101.0.1")
    return re.search(r"lladdr (\S+)", guest.run("ip neigh show 10.101.0.1").text)[1]


def misled(lab, mac, owner):
    """Return the nodes whose tunnel of network red sends frames for a MAC address elsewhere than to its owner."""
    tunnel = "pvcxt" + lab.id("red").replace("-", "")[:9]
    right = lab.layout.cluster_address(lab.layout.node_number(owner))
    found = {}
    for node in lab.sandbox.nodes():
        entries = lab.node(node, "bridge", "fdb", "show", "dev", tunnel)
        wrong = {to for to in re.findall(rf"^{mac} .*dst (\S+)", entries, re.MULTILINE) if to != right or node == owner}
        if wrong:
            found[node] = wrong
    return found


def test_after_a_power_cut_of_the_primary_guest_gateway_and_floating_addresses_are_elsewhere(lab, victim):
    from pvc_core.store import keys
    from pvc_core.store.documents import read
    from pvc_sandbox.router import INTERNET, INTERNET6

    guest, other = lab.ranged, lab.reserved
    address, leases = guest.address, lab.dhcp("red")
    other.will_reach(address)
    losses = read(lab.cluster.store, keys.fence(victim))
    with other.pinging(INTERNET) as outside, other.pinging(address) as inside:
        lab.sandbox.power_cut(victim)
        lab.eventually("another primary", lambda: lab.cluster.primary() not in (None, victim), within_s=120)
        primary = lab.primary()
        lab.eventually("the gateways are there", lambda: lab.gateways(primary) == {lab.id("red"), lab.id("blue")})
        outside.go_on()
        lab.eventually("the VM runs elsewhere", lambda: guest.node not in ("", victim), within_s=120)
        inside.go_on()
    print(f"power of {victim} cut, {primary} is the primary: {outside.told}; guest anew on {guest.node}: {inside.told}")
    lost = read(lab.cluster.store, keys.fence(victim))
    assert lost is not None
    assert losses is None or lost.value.lease != losses.value.lease
    assert guest.address == address
    assert lab.dhcp("red")[guest.mac]["addresses"][0] == leases[guest.mac]["addresses"][0]
    guest.will_reach(INTERNET6)
    lab.learned_from(primary, *CLIENTS)
    for floating in lab.floating:
        lab.eventually(f"{floating} answers", lambda floating=floating: lab.outside_reaches(floating))
    lab.sandbox.power_on(victim)
    lab.cluster.bring_into_service(victim)
    for each in (lab.fixed, lab.reserved):
        each.will_reach(address)
    assert lab.gateways(victim) == set()
    lab.learned_from(primary, *CLIENTS)
    for mac, owner in ((guest.mac, guest.node), (gateway_mac(other), primary)):
        lab.eventually(f"all nodes send to {owner}", lambda mac=mac, owner=owner: not misled(lab, mac, owner))
    lab.is_well("red")
    lab.is_well("blue")


@pytest.fixture
def cut(lab):
    """Give the function that pulls a node's cable outside; it is put back in the end, and routes and role are as before."""
    from pvc_sandbox.links import UPSTREAM

    primary, pulled = lab.primary(), []

    def cut(node):
        lab.sandbox.cut_link(node, only=[UPSTREAM])
        pulled.append(node)

    yield cut
    for node in pulled:
        lab.sandbox.heal_link(node)
        lab.eventually(f"{node} has its sessions again", lambda node=node: lab.condition(node, "Upstream").get("ok"))
    lab.take_over(primary)
    lab.learned_from(primary, *CLIENTS)


def test_a_cut_cable_outside_of_another_coordinator_is_told_and_harms_nobody(lab, cut):
    from pvc_sandbox.router import INTERNET

    primary = lab.primary()
    node = lab.others(primary)[0]
    with lab.bluish.pinging(INTERNET) as pings:
        cut(node)
        told = lab.eventually("it is told", lambda: not (c := lab.condition(node, "Upstream"))["ok"] and c)
        pings.go_on()
    assert lab.router.address in told["message"]
    assert pings.gap <= 1
    assert lab.condition(node, "Fabric")["ok"]
    assert lab.primary() == primary
    lab.learned_from(primary, *CLIENTS)


def test_a_cut_cable_outside_of_the_primary_is_told_and_the_role_can_be_given_to_another(lab, cut):
    from pvc_sandbox.router import INTERNET

    primary = lab.primary()
    lab.ranged.will_reach(INTERNET)
    cut(primary)
    told = lab.eventually("it is told", lambda: not (c := lab.condition(primary, "Upstream"))["ok"] and c)
    assert lab.router.address in told["message"]
    assert "upstream" in str(lab.checked("red"))
    lab.eventually("the router knows no way", lambda: not any(lab.next_hops(each) for each in CLIENTS))
    # Within the cluster all goes on, with the gateway's services.
    lab.ranged.will_reach(lab.reserved.address)
    assert "10.101.0.33" in lab.ranged.resolve("pearl.red.pvc.internal", "a")
    other = lab.others(primary)[0]
    lab.take_over(other)
    lab.learned_from(other, *CLIENTS)
    lab.ranged.will_reach(INTERNET)
