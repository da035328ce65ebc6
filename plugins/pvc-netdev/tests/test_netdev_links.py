"""Links, addresses, routes and forwarding entries on the real kernel."""

import errno
import socket
import subprocess

import pytest
from pyroute2 import IPRoute, NetlinkError

from pvc_core.plugin import DriverError, Unsupported
from pvc_core.testkit.waiting import eventually
from pvc_netdev import links as links_module
from pvc_netdev.links import Link, Links

pytestmark = pytest.mark.real

MAC = "02:00:00:00:00:01"
PEER_MAC = "02:00:00:00:00:02"
STATIC, OURS = 4, 77


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def bridge(*words):
    return subprocess.run(["bridge", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def cable(links):
    """Two ends a and b, both up; returns a."""
    links.add_veth("a", "b", mac=MAC, peer_mac=PEER_MAC)
    for name in "ab":
        links.set(links.get(name), "switching on", state="up")
    return links.get("a")


# --- devices -----------------------------------------------------------------------------------------


def test_devices_are_found_by_name_and_listed(links, cable):
    assert {link.name for link in links.all()} == {"lo", "a", "b"}
    assert links.get("nothing") is None
    lo = links.get("lo")
    assert (lo.index, lo.kind, lo.up, lo.mtu) == (1, "", True, 65536)
    a, b = links.get("a"), links.get("b")
    assert (a.kind, a.mac, a.up, a.carrier, a.mtu, a.alias, a.master) == ("veth", MAC, True, True, 1500, "", 0)
    assert (b.mac, a.under, b.under) == (PEER_MAC, b.index, a.index)


def test_attributes_are_changed(links, cable):
    links.set(cable, "the alias", ifalias="pvc-test:net:role")
    links.set(cable, "setting MTU 1400", mtu=1400)
    links.set(links.get("b"), "switching off", state="down")
    eventually(lambda: not links.get("a").carrier, "the carrier is gone")
    assert not links.get("b").up
    # Kernels before 6.2 name no device that is up.
    links.set(cable, "switching off", state="down")
    links.set(cable, "naming", ifname="c")
    found = links.get("c")
    assert (found.index, found.alias, found.mtu) == (cable.index, "pvc-test:net:role", 1400)


def test_devices_are_removed_again_and_again(links, cable):
    links.delete(cable)
    links.delete(cable)
    assert {link.name for link in links.all()} == {"lo"}


def test_change_of_a_device_that_is_gone_names_what_was_tried(links, cable):
    links.delete(cable)
    with pytest.raises(DriverError, match=r"^setting MTU 1400 of a: the kernel refused it: No such device$"):
        links.set(cable, "setting MTU 1400", mtu=1400)


def test_errors_of_the_kernel_tell_whether_to_try_again(links, cable):
    with pytest.raises(DriverError, match="setting MTU 1 of a") as caught:
        links.set(cable, "setting MTU 1", mtu=1)
    assert not caught.value.retryable
    with pytest.raises(DriverError, match=r"making bridge a: .*File exists") as caught:
        links.add_bridge("a")
    assert caught.value.retryable


def test_bridge_forwards_at_once_and_has_ports(links, cable):
    links.add_bridge("br")
    found = links.get("br")
    assert (found.kind, found.up) == ("bridge", False)
    assert links.ports(found) == []
    links.set(cable, "putting into br", master=found.index)
    assert [port.name for port in links.ports(found)] == ["a"]
    shown = ip("-d", "link", "show", "br")
    for part in ("stp_state 0", "forward_delay 0", "mcast_snooping 0"):
        assert part in shown


def test_vxlan_over_ipv4_and_ipv6(links):
    links.add_vxlan("vx4", 100, local="127.0.0.1", port=4789, mtu=1450)
    links.add_vxlan("vx6", 16777215, local="::1", port=4790, mtu=1430)
    four, six = links.get("vx4"), links.get("vx6")
    assert (four.kind, four.vni, four.local, four.mtu) == ("vxlan", 100, "127.0.0.1", 1450)
    assert (six.kind, six.vni, six.local, six.mtu) == ("vxlan", 16777215, "::1", 1430)
    for name, port in (("vx4", 4789), ("vx6", 4790)):
        shown = ip("-d", "link", "show", name)
        assert "nolearning" in shown
        assert f"dstport {port}" in shown


def test_cable_into_another_namespace(links, make_namespace):
    other = make_namespace()
    links.add_veth("near", "far", peer_namespace=other, mac=MAC, peer_mac=PEER_MAC)
    assert links.get("near").mac == MAC
    # An index of the other namespace would name some device of this one.
    assert links.get("near").under == 0
    assert links.get("far") is None
    with Links(other) as there:
        assert (there.get("far").mac, there.get("far").under) == (PEER_MAC, 0)
        assert there.get("near") is None


def test_cable_into_no_namespace_is_not_made(links):
    with pytest.raises(DriverError, match="there is no network namespace nd-none"):
        links.add_veth("near", "far", peer_namespace="nd-none")
    assert links.get("near") is None


def test_socket_in_no_namespace_is_refused():
    with pytest.raises(DriverError, match="there is no network namespace nd-none"):
        Links("nd-none")


def test_socket_belongs_to_its_namespace_and_the_thread_stays(links, make_namespace):
    links.add_bridge("here")
    with Links(make_namespace()) as other:
        assert other.get("here") is None
        assert links.get("here")
        with Links() as again:
            assert again.get("here")


# --- what this kernel may not have -------------------------------------------------------------------


def has_vlans(links, cable):
    with IPRoute() as raw:
        try:
            raw.link("add", ifname="probe", kind="vlan", link=cable.index, vlan_id=4000)
        except NetlinkError as error:
            return error.code != errno.EOPNOTSUPP
        raw.link("del", ifname="probe")
        return True


def test_vlans_are_made_or_unsupported(links, cable):
    if has_vlans(links, cable):
        links.add_vlan("a.5", cable, 5)
        assert (links.get("a.5").vlan, links.get("a.5").under) == (5, cable.index)
        return
    with pytest.raises(Unsupported, match=r"^making VLAN 5 on a: ") as caught:
        links.add_vlan("a.5", cable, 5)
    assert not caught.value.retryable
    assert links.get("a.5") is None


def test_ports_filter_vlans_or_it_is_unsupported(links, cable):
    links.add_bridge("plain")
    if links.get("plain").filters is None:
        with pytest.raises(Unsupported, match=r"^making bridge filtering: "):
            links.add_bridge("filtering", vlan_filtering=True)
        assert links.get("filtering") is None
        links.set(cable, "putting into plain", master=links.get("plain").index)
        assert links.port_vlans(cable) == set()
        with pytest.raises(Unsupported, match="letting VLAN 5 pass a: "):
            links.add_port_vlan(cable, 5)
        return
    links.add_bridge("filtering", vlan_filtering=True)
    assert (links.get("plain").filters, links.get("filtering").filters) == (False, True)
    links.set(cable, "putting into filtering", master=links.get("filtering").index)
    assert links.port_vlan_tags(cable) == {}
    links.add_port_vlan(cable, 5, untagged=True)
    links.add_port_vlan(cable, 6)
    links.add_port_vlans(cable, 7, 9)
    links.add_port_vlans(cable, 11, 11)
    assert links.port_vlan_tags(cable) == {5: False, 6: True, 7: True, 8: True, 9: True, 11: True}
    assert links.port_vlans(cable) == {5, 6, 7, 8, 9, 11}
    links.remove_port_vlan(cable, 5)
    links.remove_port_vlan(cable, 5)
    links.remove_port_vlans(cable, 8, 11)
    assert links.port_vlan_tags(cable) == {6: True, 7: True}
    links.add_port_vlans(cable, 1, 4094)
    assert links.port_vlans(cable) == set(range(1, 4095))


# --- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.1/24", "2001:db8::1/64", "fe80::1234/64", "169.254.0.1/32"])
def test_addresses_are_given_and_taken_again_and_again(links, cable, address):
    assert links.addresses(cable) == []
    assert links.add_address(cable, address)
    assert not links.add_address(cable, address)
    assert links.addresses(cable) == [address]
    assert links.addresses(links.get("b")) == []
    assert links.remove_address(cable, address)
    assert not links.remove_address(cable, address)
    assert links.addresses(cable) == []


def test_ipv6_address_can_be_used_at_once(links, cable):
    links.add_address(cable, "2001:db8::1/64")
    assert "tentative" not in ip("-6", "address", "show", "dev", "a", "to", "2001:db8::/64")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind(("2001:db8::1", 0))


def test_link_local_address_that_the_kernel_made_is_not_told(links, cable):
    assert "fe80::" in eventually(lambda: ip("-6", "address", "show", "dev", "a"), "it has one")
    assert links.addresses(cable) == []
    links.add_address(cable, "fe80::1/64")
    assert links.addresses(cable) == ["fe80::1/64"]


def test_all_devices_addresses_say_who_gave_them(links, cable):
    links.add_address(cable, "192.0.2.1/24", protocol=OURS)
    links.add_address(links.get("b"), "2001:db8::1/64")
    found = {each.address: (each.device, each.protocol) for each in links.assigned()}
    assert found["192.0.2.1/24"] == (cable.index, OURS)
    assert found["2001:db8::1/64"] == (links.get("b").index, 0)


def test_address_on_a_device_that_is_gone_names_both(links, cable):
    links.delete(cable)
    with pytest.raises(DriverError, match=r"giving a the address 192\.0\.2\.1/24: .*No such device"):
        links.add_address(cable, "192.0.2.1/24")


# --- routes ------------------------------------------------------------------------------------------

GATEWAYS = [
    ("198.51.100.0/24", "169.254.0.1", "169.254.0.2"),
    ("0.0.0.0/0", "169.254.0.1", "169.254.0.2"),
    ("2001:db8:1::/48", "fe80::1", "fe80::2"),
    ("::/0", "fe80::1", "fe80::2"),
]


@pytest.mark.parametrize(("destination", "first", "second"), GATEWAYS)
def test_routes_are_made_replaced_and_removed(links, cable, destination, first, second):
    links.add_address(cable, "192.0.2.1/24")
    family = "-6" if ":" in destination else "-4"
    for gateway in (first, second, second):
        links.set_route(destination, cable, via=gateway, protocol=OURS)
        assert links.routes(protocol=OURS) == [destination]
        (line,) = [line for line in ip(family, "route").splitlines() if f"proto {OURS}" in line]
        assert f"via {gateway} dev a" in line
    links.remove_route(destination, protocol=OURS)
    links.remove_route(destination, protocol=OURS)
    assert links.routes(protocol=OURS) == []


def test_routes_of_others_are_neither_told_nor_removed(links, cable):
    links.add_address(cable, "192.0.2.1/24")
    links.set_route("198.51.100.0/24", cable, via="192.0.2.2", protocol=STATIC)
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "table", "7", "proto", str(OURS))
    assert links.routes(protocol=OURS) == []
    links.remove_route("198.51.100.0/24", protocol=OURS)
    links.remove_route("203.0.113.0/24", protocol=OURS)
    assert links.routes(protocol=STATIC) == ["198.51.100.0/24"]
    assert ip("route", "show", "table", "7")


def test_default_routes_say_who_made_them(links, cable):
    assert links.default_routes() == []
    links.add_address(cable, "192.0.2.1/24")
    links.set_route("0.0.0.0/0", cable, via="192.0.2.2", protocol=OURS)
    links.set_route("::/0", cable, via="fe80::2", protocol=STATIC)
    found = [(each.family, each.via, each.device, each.protocol) for each in links.default_routes()]
    assert found == [(4, "192.0.2.2", cable.index, OURS), (6, "fe80::2", cable.index, STATIC)]


def test_route_by_a_device_that_is_down_is_an_error(links, cable):
    links.set(cable, "switching off", state="down")
    with pytest.raises(DriverError, match=r"routing 198\.51\.100\.0/24 by a: "):
        links.set_route("198.51.100.0/24", cable, via="169.254.0.1", protocol=OURS)


# --- forwarding --------------------------------------------------------------------------------------


@pytest.fixture
def tunnel(links):
    """A VXLAN device that is a port of a bridge."""
    links.add_bridge("br")
    links.add_vxlan("vx", 100, local="127.0.0.1", port=4789, mtu=1450)
    links.set(links.get("vx"), "putting into br", master=links.get("br").index, state="up")
    links.set(links.get("br"), "switching on", state="up")
    return links.get("vx")


def test_attributes_of_ports_are_changed(links, tunnel):
    links.set_port(tunnel, "switching learning off", learning=0, neigh_suppress=1, isolated=1)
    shown = bridge("-d", "link", "show", "dev", "vx")
    for part in ("learning off", "neigh_suppress on", "isolated on"):
        assert part in shown
    links.set_port(tunnel, "switching suppression off", neigh_suppress=0)
    assert "neigh_suppress off" in bridge("-d", "link", "show", "dev", "vx")


def test_device_that_is_no_port_has_no_port_attributes(links, cable):
    with pytest.raises(DriverError, match="switching learning off of a: "):
        links.set_port(cable, "switching learning off", learning=0)


def test_forwarding_entries_are_told_and_removed(links, tunnel):
    mac, flood = "02:00:00:00:00:09", "00:00:00:00:00:00"
    bridge("fdb", "append", flood, "dev", "vx", "dst", "127.0.0.2")
    bridge("fdb", "append", mac, "dev", "vx", "dst", "127.0.0.2")
    bridge("fdb", "add", mac, "dev", "vx", "master", "extern_learn")

    def entries():
        return {(entry.mac, entry.own): entry for entry in links.forwarding(tunnel)}

    found = entries()
    assert set(found) == {(flood, True), (mac, True), (mac, False), (tunnel.mac, False)}
    assert found[flood, True].destination == found[mac, True].destination == "127.0.0.2"
    assert (found[mac, False].external, found[mac, False].permanent) == (True, False)
    assert (found[tunnel.mac, False].external, found[tunnel.mac, False].permanent) == (False, True)
    assert {entry.device for entry in found.values()} == {tunnel.index}
    assert {entry.device for entry in links.all_forwarding()} > {tunnel.index}
    for _ in range(2):
        links.remove_forwarding(tunnel, mac, own=True)
    assert (mac, True) not in entries()
    assert (mac, False) in entries()
    for _ in range(2):
        links.remove_forwarding(tunnel, mac, own=False)
    assert set(entries()) == {(flood, True), (tunnel.mac, False)}


# --- listings ----------------------------------------------------------------------------------------


class Listing:
    """Messages of a listing, the first ``changes`` times with the kernel's mark that things changed meanwhile."""

    def __init__(self, changes):
        self.changes = changes
        self.times = 0

    def __call__(self):
        self.times += 1
        return [{"header": {"flags": 0x12 if self.times <= self.changes else 0x02}}]


def test_listing_during_which_things_changed_is_made_again():
    listing = Listing(changes=3)
    assert len(links_module._listed("devices", listing)) == 1
    assert listing.times == 4


def test_listing_that_never_is_whole_is_an_error():
    with pytest.raises(DriverError, match="listing devices: they changed each of the 5 times"):
        links_module._listed("devices", Listing(changes=99))


def test_many_devices_are_listed_whole(links):
    for number in range(300):
        links.add_veth(f"a{number}", f"b{number}")
    assert len(links.all()) == 601


def test_link_is_a_value(links):
    assert links.get("lo") == links.get("lo")
    assert isinstance(links.get("lo"), Link)
