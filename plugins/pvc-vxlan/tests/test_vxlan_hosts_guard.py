"""Guests of managed networks reach what is outside, and not the nodes."""

import socket

import pytest

from pvc_core.plugin import run
from pvc_vxlan.hosts_guard import HostsGuard
from pvc_vxlan.network import VxlanNetwork

pytestmark = pytest.mark.real

PORT = 7372
NETWORK = VxlanNetwork(vni=100, ipv4="10.101.0.0/24", ipv6="fd00:101::/64")


@pytest.fixture
def lab(gateway_site):
    node = gateway_site.node()
    network = gateway_site.network()
    node.ensure(network, NETWORK)
    for prefix in (NETWORK.ipv4, NETWORK.ipv6):
        node.route_here(prefix)
    guest = gateway_site.guest(node, network)
    guest.ip("addr", "add", "10.101.0.9/24", "dev", "eth0")
    guest.ip("addr", "add", "fd00:101::9/64", "dev", "eth0", "nodad")
    guest.ip("route", "add", "default", "via", "10.101.0.1")
    guest.ip("route", "replace", "default", "via", "fd00:101::1")
    # A host of the nodes' own network, and a router outside, are both beyond the node here.
    gateway_site.outside.ip("addr", "add", "203.0.113.1/32", "dev", "lo")
    gateway_site.outside.ip("addr", "add", "2001:db8:99::1/128", "dev", "lo")
    node.ip("route", "add", "203.0.113.1/32", "via", node.outside4)
    node.ip("route", "add", "2001:db8:99::1/128", "via", node.outside6)
    assert guest.pings("203.0.113.1")
    assert guest.pings("2001:db8:99::1")
    listeners = [listen(where, family) for where in (node, gateway_site.outside) for family in FAMILIES]
    yield node, guest, HostsGuard(run)
    for listener in listeners:
        listener.close()


FAMILIES = (socket.AF_INET, socket.AF_INET6)


def listen(where, family: int) -> socket.socket:
    with where.inside():
        made = socket.create_server(("", PORT), family=family)
    made.listen()
    return made


def connects(where, address: str) -> bool:
    with where.inside():
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with client:
        client.settimeout(0.7)
        return client.connect_ex((address, PORT)) == 0


def ensure(node, guard, *arguments, **more) -> bool:
    with node.inside():
        return guard.ensure(*arguments, **more)


def test_a_guest_reaches_outside_but_not_the_node_nor_the_others(lab):
    node, guest, guard = lab
    own = ("198.51.101.1", "2001:db8:1::1")
    others, internet = (node.outside4, node.outside6), ("203.0.113.1", "2001:db8:99::1")
    assert all(connects(guest, address) for address in (*own, *others, *internet))
    assert ensure(node, guard, ("198.51.101.0/24", "2001:db8:1::/64"), ())
    assert not any(connects(guest, address) for address in (*own, *others))
    assert all(connects(guest, address) for address in internet)
    assert guest.pings(own[0])
    assert guest.pings(own[1])
    # Nobody else is kept from the node.
    assert connects(node.site.outside, own[0])


def test_connections_to_guests_and_their_answers_pass(lab):
    node, guest, guard = lab
    ensure(node, guard, ("198.51.101.0/24",), ())
    with listen(guest, socket.AF_INET):
        assert connects(node.site.outside, "10.101.0.9")
        assert connects(node, "10.101.0.9")


def test_name_servers_that_gateways_ask_are_reached(lab):
    node, guest, guard = lab
    ensure(node, guard, ("198.51.101.0/24",), ("198.51.101.1", "2001:db8:1::1"))
    with node.inside():
        server = socket.socket(type=socket.SOCK_DGRAM)
    with guest.inside():
        client = socket.socket(type=socket.SOCK_DGRAM)
    with server, client:
        server.bind(("198.51.101.1", 53))
        server.settimeout(2)
        client.sendto(b"question", ("198.51.101.1", 53))
        assert server.recv(100) == b"question"
    assert not connects(guest, "198.51.101.1")


def test_the_table_is_changed_only_when_it_must_be_and_is_found_missing(lab):
    node, guest, guard = lab
    prefixes = ("198.51.101.0/24",)
    assert ensure(node, guard, prefixes, ())
    assert not ensure(node, guard, prefixes, (), look=True)
    node.run("nft", "delete", "table", "inet", "pvc-hosts")
    assert not ensure(node, guard, prefixes, ())
    assert ensure(node, guard, prefixes, (), look=True)
    assert not connects(guest, "198.51.101.1")
    assert ensure(node, guard, ("10.9.0.0/16",), ())
    assert connects(guest, node.outside4)
