"""Managed networks that are changed while guests use them, refused, removed, broken and mended."""

import json

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(300)]


def links(lab, node):
    return {each["ifname"]: each for each in json.loads(lab.node(node, "ip", "-j", "-d", "link"))}


def device(lab, kind, network="red"):
    """Return the name of a network's device on every node: ``pvcxb`` its bridge, ``pvcxt`` its tunnel."""
    return kind + lab.id(network).replace("-", "")[:9]


@pytest.fixture
def changed(lab):
    """Give the function that changes network ``red``; what it changed is as before in the end."""
    before = {"dhcp4": "10.101.0.100-10.101.0.199"}
    other = {}

    def change(**given):
        lab.pvc("network", "modify", "red", *(w for name, value in given.items() for w in ("-p", f"{name}={value}")))
        other.update(given)
        for name in given:
            if other[name] == before.get(name, ""):
                del other[name]

    yield change
    if other:
        change(**{name: before.get(name, "") for name in other})


def ask_again(guest):
    """Have a guest forget its lease and ask for another; return the address that it gets."""
    before = len(guest.leases())
    guest.run("ip -4 addr flush dev eth0; killall udhcpc")
    guest.eventually(f"{guest.name} has a lease", lambda: len(guest.leases()) > before)
    return guest.address


def test_a_new_range_of_dhcp_holds_for_the_next_lease(lab, changed):
    old = lab.ranged.address
    process = lab.dnsmasq(lab.primary(), "red")
    changed(dhcp4="10.101.0.210-10.101.0.219")
    lab.eventually("dnsmasq has it", lambda: lab.dnsmasq(lab.primary(), "red") not in ("", process))
    assert lab.ranged.address == old
    lab.fixed.will_reach(old)
    new = ask_again(lab.ranged)
    assert 210 <= int(new.rpartition(".")[2]) <= 219
    lab.fixed.will_reach(new)
    lab.eventually("the name follows", lambda: new in lab.fixed.resolve("ranged.red.pvc.internal", "a"))
    changed(dhcp4="10.101.0.100-10.101.0.199")
    assert 100 <= int(ask_again(lab.ranged).rpartition(".")[2]) <= 199


def test_a_new_domain_is_answered_for(lab, changed):
    changed(domain="guests.example")
    lab.eventually("names are in it", lambda: "10.101.0.33" in lab.fixed.resolve("pearl.guests.example", "a"))
    assert "10.101.0.33" not in lab.fixed.resolve("pearl.red.pvc.internal", "a")


def test_a_new_address_of_the_gateway_is_in_place_of_the_old_one(lab, changed):
    from pvc_sandbox.router import INTERNET

    changed(gateway4="10.101.0.254")
    lab.reserved.will_reach("10.101.0.254")
    assert not lab.reserved.reaches("10.101.0.1")
    lab.reserved.run("ip route replace default via 10.101.0.254")
    lab.reserved.will_reach(INTERNET)
    changed(gateway4="")
    lab.reserved.run("ip route replace default via 10.101.0.1")
    lab.reserved.will_reach(INTERNET)


def test_a_new_mtu_is_that_of_all_devices(lab):
    def mtus():
        names = [device(lab, "pvcxb"), device(lab, "pvcxt")]
        names += [f"pvc{guest.mac.replace(':', '')}" for guest in (lab.ranged, lab.fixed, lab.reserved)]
        found = [links(lab, node) for node in lab.sandbox.nodes()]
        return {there[name]["mtu"] for there in found for name in names if name in there}

    before = mtus()
    assert len(before) == 1
    lab.pvc("network", "modify", "red", "--mtu", "1400")
    try:
        assert mtus() == {1400}
        lab.ranged.will_reach(lab.fixed.address)
        ask_again(lab.ranged)
        assert "mtu 1400" in lab.ranged.run("ip link show dev eth0").text
    finally:
        lab.pvc("network", "modify", "red", "--mtu", "auto")
    assert mtus() == before
    ask_again(lab.ranged)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "vni=1001", "-p", "ipv4=10.109.0.0/24"], "VNI 1001 is network red's"),
        (["-p", "vni=1009", "-p", "ipv4=10.101.0.128/25"], "overlaps 10.101.0.0/24 of network red"),
        (["-p", "vni=1009", "-p", "ipv6=fd00:101::/64"], "overlaps fd00:101::/64 of network red"),
    ],
)
def test_a_network_that_is_in_anothers_way_is_refused(lab, words, said):
    status, told = lab.cluster.refused("network", "add", "odd", "-d", "vxlan", *words)
    assert status in (1, 2)
    assert said in told
    assert {row["name"] for row in lab.pvc.json("network", "list")} == {"red", "blue"}


def test_an_mtu_above_that_of_the_underlay_is_told(lab):
    try:
        _, told = lab.cluster.refused("network", "modify", "red", "--mtu", "1500")
        assert "1450" in told + lab.problems("red")
    finally:
        lab.pvc("network", "modify", "red", "--mtu", "auto")
    lab.eventually("it is over", lambda: "1450" not in lab.problems("red"))
    lab.ranged.will_reach(lab.fixed.address)


def test_a_network_of_guests_is_not_removed(lab):
    status, told = lab.cluster.refused("network", "remove", "red", "--yes")
    assert (status, "ranged" in told) == (1, True)
    lab.ranged.will_reach(lab.fixed.address)


def test_a_removed_network_leaves_nothing_on_any_node(lab):
    lab.pvc("network", "add", "green", "-d", "vxlan", "-p", "vni=1003", "-p", "ipv4=10.103.0.0/24",
            "-p", "ipv6=fd00:103::/64", "-p", "dhcp4=10.103.0.100-10.103.0.199", "-p", "masquerade=true")  # fmt: skip
    id_ = lab.id("green")
    short = id_.replace("-", "")[:9]

    kinds = {
        "devices": ["ip", "-d", "link"],
        "namespaces": ["ip", "netns", "list"],
        "routes": ["ip", "route", "show", "table", "all"],
        "IPv6 routes": ["ip", "-6", "route", "show", "table", "all"],
        "rules": ["nft", "list", "ruleset"],
        "processes": ["ps", "axww", "-o", "args"],
        "files": ["find", "/run/pvc"],
    }

    def left(node):
        """Return what kinds of things a node has of it."""
        marks = (id_, short, "10.103.0.", "fd00:103:")
        return {kind for kind, argv in kinds.items() if any(mark in lab.node(node, *argv) for mark in marks)}

    primary = lab.primary()
    lab.eventually("all of it is there", lambda: left(primary) == kinds.keys())
    assert all("devices" in left(node) for node in lab.sandbox.nodes())
    lab.pvc("network", "remove", "green", "--yes")
    for node in lab.sandbox.nodes():
        lab.eventually(f"nothing is left on {node}", lambda node=node: left(node) == set())
    assert {row["name"] for row in lab.pvc.json("network", "list")} == {"red", "blue"}


def test_a_tunnel_that_was_taken_out_of_its_bridge_is_named_and_put_back(lab):
    node, tunnel = lab.fixed.node, device(lab, "pvcxt")
    lab.is_well()
    lab.node(node, "ip", "link", "set", tunnel, "nomaster")
    found = [each for each in lab.checked("red") if each["node"] == node]
    assert any("not in the bridge" in str(each) for each in found), found
    lab.eventually("it is put back", lambda: links(lab, node)[tunnel].get("master") == device(lab, "pvcxb"))
    lab.ranged.will_reach(lab.fixed.address)
    lab.is_well()


def test_a_dnsmasq_that_was_killed_is_started_again_and_told(lab):
    primary = lab.primary()
    process = lab.dnsmasq(primary, "red")
    lab.node(primary, "kill", "-9", process)
    lab.eventually("another runs", lambda: lab.dnsmasq(primary, "red") not in ("", process))
    lab.eventually("it is told", lambda: "dnsmasq died" in lab.problems("red"))
    assert "dnsmasq died" in str(lab.checked("red"))
    assert "10.101.0.33" in lab.fixed.resolve("pearl.red.pvc.internal", "a")
    lab.is_well()
