"""The name server of a network's gateway, asked by a real resolver."""

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.xfr
import dns.zone
import pytest

from pvc_vxlan.network import Reservation, VxlanNetwork

pytestmark = pytest.mark.real

MAC = "52:54:00:00:00:01"
OTHER_MAC = "52:54:00:00:00:02"
WEB = Reservation(mac=MAC, address="10.101.0.50", address6="fd00:101::50", name="web1")


def both(**more) -> VxlanNetwork:
    return VxlanNetwork(
        vni=100, ipv4="10.101.0.0/24", dhcp4=("10.101.0.100-10.101.0.199",), ipv6="fd00:101::/64", domain="lan.example",
        **more,
    )  # fmt: skip


def asked(where, name: str, kind: str, server: str = "10.101.0.1") -> list[str]:
    with where.inside():
        query = dns.message.make_query(name, kind)
        answer = dns.query.udp(query, server, timeout=3)
    return [str(item) for found in answer.answer for item in found if found.rdtype == query.question[0].rdtype]


def reverse(where, address: str) -> list[str]:
    return asked(where, str(dns.reversename.from_address(address)), "PTR")


@pytest.fixture
def guest(gateway_site):
    def make(node, network, mac=MAC, address="10.101.0.9/24"):
        made = gateway_site.guest(node, network, mac)
        made.ip("addr", "add", address, "dev", "eth0")
        made.ip("route", "add", "default", "via", "10.101.0.1")
        return made

    return make


def test_names_of_guests_forward_and_reverse(gateway_site, gateway_node, gateway_support, guest):
    network = gateway_site.network()
    # A VM whose guest never asks for its address has its name nevertheless.
    silent = gateway_support.nic(network, OTHER_MAC, "10.101.0.60", "fd00:101::60", vm="db1")
    gateway_node.ensure(network, both(reservations=(WEB,)), [silent])
    looking = guest(gateway_node, network, "52:54:00:00:00:03")
    assert asked(looking, "web1.lan.example", "A") == ["10.101.0.50"]
    assert asked(looking, "web1.lan.example", "AAAA", "fd00:101::1" if looking.slaac("fd00:101::") else "") == [
        "fd00:101::50"
    ]
    assert asked(looking, "db1.lan.example", "A") == ["10.101.0.60"]
    assert reverse(looking, "10.101.0.60") == ["db1.lan.example."]
    assert reverse(looking, "fd00:101::60") == ["db1.lan.example."]
    assert asked(looking, "ns.lan.example", "A") == ["10.101.0.1"]
    assert asked(looking, "nobody.lan.example", "A") == []


def test_guest_that_leases_an_address_gets_a_name_for_it(gateway_site, gateway_node, gateway_support):
    network = gateway_site.network()
    vm = gateway_support.nic(network, OTHER_MAC, vm="app7")
    gateway_node.ensure(network, both(reservations=(WEB,)), [vm])
    named, posing, known = (gateway_site.guest(gateway_node, network, f"52:54:00:00:00:0{n}") for n in (3, 4, 2))
    address = named.dhcp4(hostname="laptop")["ip"]
    assert asked(named, "laptop.lan.example", "A") == [address]
    assert reverse(named, address) == ["laptop.lan.example."]
    # It says that it is somebody who has an address of its own.
    posing.dhcp4(hostname="web1")
    assert asked(named, "web1.lan.example", "A") == ["10.101.0.50"]
    posing.dhcp4(hostname="wpad")
    assert asked(named, "wpad.lan.example", "A") == []
    address = known.dhcp4(hostname="whatever")["ip"]
    assert asked(named, "app7.lan.example", "A") == [address]


def test_other_names_are_asked_for_outside_with_the_gateways_own_address(gateway_site, gateway_node, guest):
    network = gateway_site.network()
    outside = gateway_site.outside
    log = gateway_site.directory / "asked"
    gateway_site.start(
        outside, "dnsmasq", "-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--log-queries",
        f"--log-facility={log}", "--address=/example.net/192.0.2.7",
        f"--pid-file={gateway_site.directory / 'outside.pid'}", f"--listen-address={gateway_node.outside4}",
        f"--listen-address={gateway_node.outside6}", "--bind-interfaces",
    )  # fmt: skip
    gateway_node.route_here("10.101.0.0/24")
    gateway_node.route_here("fd00:101::/64")
    for server, source in ((gateway_node.outside4, "10.101.0.1"), (gateway_node.outside6, "fd00:101::1")):
        gateway_node.ensure(network, both(dns_servers=(server,)))
        looking = guest(gateway_node, network, f"52:54:00:00:01:0{len(source)}"[:17], f"10.101.0.{len(source)}/24")

        def answered(looking=looking):
            try:
                return asked(looking, "www.example.net", "A")
            except dns.exception.Timeout:
                return []

        assert gateway_site.until(answered, f"an answer by {server}") == ["192.0.2.7"]
        assert f"from {source}" in log.read_text()


def transferred(where, zone: str, server: str) -> dict[str, set[str]]:
    with where.inside():
        found = dns.zone.Zone(zone, relativize=False)
        try:
            dns.query.inbound_xfr(server, found, timeout=3, lifetime=3)
        except (EOFError, OSError, dns.exception.DNSException):
            return {}
    return {str(name): {dns.rdatatype.to_text(s.rdtype) for s in node.rdatasets} for name, node in found.nodes.items()}


def test_zone_is_transferred_to_peers_only(gateway_site, gateway_node, guest):
    network = gateway_site.network()
    gateway_node.route_here("10.101.0.0/24")
    outside = gateway_site.outside
    gateway_node.ensure(network, both(reservations=(WEB,)))
    inside = guest(gateway_node, network)
    # Nobody is named: nobody may.
    assert transferred(outside, "lan.example", "10.101.0.1") == {}
    assert transferred(inside, "lan.example", "10.101.0.1") == {}
    gateway_node.ensure(network, both(reservations=(WEB,), transfer_peers=(gateway_node.outside4,)))
    got = transferred(outside, "lan.example", "10.101.0.1")
    assert got["web1.lan.example."] == {"A", "AAAA"}
    assert {"SOA", "NS"} <= got["lan.example."]
    assert got["ns.lan.example."] == {"A", "AAAA"}
    assert transferred(inside, "lan.example", "10.101.0.1") == {}


def test_outside_gets_the_zones_with_authority_and_nothing_else(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.route_here("10.101.0.0/24")
    gateway_node.ensure(network, both(reservations=(WEB,), dns_servers=(gateway_node.outside4,)))
    outside = gateway_site.outside
    assert asked(outside, "web1.lan.example", "A") == ["10.101.0.50"]
    assert reverse(outside, "10.101.0.50") == ["web1.lan.example."]
    assert asked(outside, "lan.example", "NS") == ["ns.lan.example."]
    assert asked(outside, "0.101.10.in-addr.arpa", "NS") == ["ns.lan.example."]
    with outside.inside():
        known = dns.query.udp(dns.message.make_query("web1.lan.example", "A"), "10.101.0.1", timeout=3)
        other = dns.query.udp(dns.message.make_query("www.example.net", "A"), "10.101.0.1", timeout=3)
        with pytest.raises(EOFError):
            dns.query.tcp(dns.message.make_query("www.example.net", "A"), "10.101.0.1", timeout=3)
    assert known.flags & dns.flags.AA
    assert other.rcode() == dns.rcode.REFUSED
