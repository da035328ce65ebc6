"""Guests of managed networks that are moved live, and guests that pretend to be others."""

import re

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(300)]


@pytest.fixture
def home(lab):
    """Bring guest ``ranged`` back in the end."""
    node = lab.ranged.node
    yield node
    lab.ranged.to(node)


def neighbor(guest, address):
    """Return the MAC address by which a guest reaches an address, as it knows it now."""
    guest.will_reach(address)
    found = re.search(r"lladdr (\S+)", guest.run(f"ip neigh show {address}").text)
    return found[1] if found else ""


def pretends(liar, address):
    """Have a guest say that an address is its own, as one does that has just got it."""
    liar.run(f"ip addr add {address}/32 dev eth0; arping -U -c 2 -I eth0 -s {address} {address} >/dev/null")
    liar.run(f"ip addr del {address}/32 dev eth0")


def dropped(lab, guest):
    """Return how many frames of a guest's NIC its node has not let pass."""
    listed = lab.node(guest.node, "nft", "list", "counters", "bridge")
    device = f"pvc{guest.mac.replace(':', '')}"
    found = re.search(rf"counter \S*{device}\S* \{{\s*packets (\d+)", listed)
    return int(found[1]) if found else 0


def test_a_guest_that_is_moved_live_is_reached_again(lab, home):
    guest, other, target = lab.ranged, lab.reserved, lab.others(lab.ranged.node, lab.reserved.node)[0]
    address = guest.address
    with other.pinging(address) as pings, lab.fixed.pinging(address) as near:
        lab.pvc("vm", "move", guest.name, "--node", target)
        assert guest.node == target
        pings.go_on()
        near.go_on()
        lab.pvc("vm", "move", guest.name, "--node", home)
        pings.go_on()
        near.go_on()
    print(f"moved to {target} and back: from another node {pings.told}; from the target {near.told}")
    assert guest.address == address
    assert "seq=" in guest.run("ping -c 2 -W 2 10.101.0.1").text


def test_a_guest_that_pretends_to_be_another_is_not_heard_before_nor_after_a_move(lab, home):
    liar, witness = lab.ranged, lab.fixed
    gateway = neighbor(witness, "10.101.0.1")
    assert neighbor(witness, "10.101.0.33") == lab.reserved.mac
    for node in (home, lab.others(home)[0]):
        liar.to(node)
        for address, owner in (("10.101.0.33", lab.reserved.mac), ("10.101.0.1", gateway)):
            before = dropped(lab, liar)
            pretends(liar, address)
            assert neighbor(witness, address) == owner
            assert dropped(lab, liar) > before


def test_a_guest_may_pretend_where_the_network_does_not_check(lab):
    """What the other test sees is not seen for another reason."""
    liar, witness = lab.ranged, lab.fixed
    assert neighbor(witness, "10.101.0.33") == lab.reserved.mac
    lab.pvc("network", "modify", "red", "-p", "spoof_check=false")
    try:
        liar.run("ip addr add 10.101.0.33/32 dev eth0; arping -U -c 2 -I eth0 -s 10.101.0.33 10.101.0.33 >/dev/null")
        lab.eventually("the witness believes it", lambda: neighbor(witness, "10.101.0.33") == liar.mac)
    finally:
        lab.pvc("network", "modify", "red", "-p", "spoof_check=")
        liar.run("ip addr del 10.101.0.33/32 dev eth0")
    lab.reserved.run("arping -U -c 2 -I eth0 -s 10.101.0.33 10.101.0.33 >/dev/null")
    assert neighbor(witness, "10.101.0.33") == lab.reserved.mac
