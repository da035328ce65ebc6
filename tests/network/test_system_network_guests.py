"""Guests of managed networks on different nodes: addresses, names, reachability."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(240)]


def test_guests_get_leases_by_range_and_by_reservation(lab):
    assert lab.fixed.address == "10.101.0.22"
    assert lab.reserved.address == "10.101.0.33"
    assert 100 <= int(lab.ranged.address.rpartition(".")[2]) <= 199
    listed = lab.eventually("all leases are on record", lambda: (found := lab.dhcp("red")).keys() >= {
        lab.ranged.mac, lab.fixed.mac, lab.reserved.mac} and found)  # fmt: skip
    ranged, fixed, reserved = (listed[guest.mac] for guest in (lab.ranged, lab.fixed, lab.reserved))
    assert (ranged["vm"], ranged["reserved"], ranged["leased"]) == ("ranged", False, True)
    assert (fixed["vm"], fixed["leased"], fixed["addresses"]) == ("fixed", True, ["10.101.0.22"])
    assert (reserved["vm"], reserved["reserved"], reserved["leased"]) == ("reserved", True, True)
    assert (reserved["addresses"], reserved["name"]) == (["10.101.0.33"], "pearl")
    assert lab.bluish.mac in lab.dhcp("blue")
    assert lab.bluish.mac not in listed


def test_guests_on_different_nodes_reach_each_other(lab):
    assert {lab.ranged.node, lab.fixed.node, lab.reserved.node} == set(lab.sandbox.nodes())
    for address in (lab.fixed.address, lab.reserved.address, "fd00:101::22", lab.reserved.address6):
        lab.ranged.will_reach(address)
    lab.reserved.will_reach(lab.ranged.address6)


def test_guests_resolve_each_others_names(lab):
    for name, address in (("fixed", "10.101.0.22"), ("pearl", "10.101.0.33"), ("ranged", lab.ranged.address)):
        assert address in lab.fixed.resolve(f"{name}.red.pvc.internal", "a")
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        assert f"{name}.red.pvc.internal" in lab.reserved.resolve(reverse, "ptr")
    assert "fd00:101::22" in lab.ranged.resolve("fixed.red.pvc.internal", "aaaa")
    # The domain is also what a short name is completed with.
    assert lab.ranged.run("ping -c 1 -w 10 pearl").status == 0


def test_a_guest_has_a_name_for_the_address_that_it_made_itself(lab):
    own = lab.ranged.address6
    lab.eventually("its name has it", lambda: own in lab.fixed.resolve("ranged.red.pvc.internal", "aaaa"), within_s=90)


def test_a_network_does_not_answer_for_names_of_another(lab):
    said = lab.bluish.run("nslookup -type=a fixed.red.pvc.internal")
    assert "10.101.0.22" not in said.text
