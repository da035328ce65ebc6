"""Bridges and tunnels on the real kernel; nodes without FRR, over IPv4 and IPv6."""

import logging
import uuid

import pytest

from pvc_core.plugin import DriverError, NotReady, ObjectBusy
from pvc_netdev import sysctl
from pvc_netdev.links import EVERYBODY, Links
from pvc_netdev.namespace import entered
from pvc_vxlan import names
from pvc_vxlan.network import VxlanNetwork
from pvc_vxlan.overlay import Overlay, find_underlay

pytestmark = pytest.mark.real

ADDRESSES = {4: "10.77.0.{}", 6: "fd77::{}"}
LENGTH = {4: 24, 6: 64}


class Wire:
    """Nodes on one segment, and guests plugged into their bridges."""

    def __init__(self, support):
        self._support = support
        self.site = support.Site()
        self.id = str(uuid.uuid4())
        self.switch = support.Namespace(self.site, "switch")
        self.nodes = {}
        with Links(self.switch.name) as links:
            links.add_bridge("sw")
            links.set(links.get("sw"), "up", state="up", mtu=1500)

    def node(self, number: int, version: int, mtu: int = 1500):
        made = self.nodes[number] = self._support.Namespace(self.site, f"n{number}")
        with Links(self.switch.name) as switch, Links(made.name) as links:
            switch.add_veth(f"port{number}", "eth0", peer_namespace=made.name)
            switch.set(switch.get(f"port{number}"), "up", master=switch.get("sw").index, state="up", mtu=mtu)
            links.set(links.get("eth0"), "up", state="up", mtu=mtu)
            links.add_address(links.get("eth0"), f"{ADDRESSES[version].format(number)}/{LENGTH[version]}")
        return made

    def guest(self, node: int, number: int):
        """Plug a guest into a node; one of this number at another node has the same addresses."""
        made = self._support.Namespace(self.site, f"g{number}-{node}")
        mac = f"02:00:00:00:00:{number:02x}"
        host = self.nodes[node]
        with Links(host.name) as links, Links(made.name) as inside:
            links.add_veth(f"tap{number}", "eth0", peer_namespace=made.name, peer_mac=mac)
            bridge = links.get(names.bridge(self.id))
            links.set(links.get(f"tap{number}"), "up", master=bridge.index, state="up", mtu=bridge.mtu)
            inside.set(inside.get("eth0"), "up", state="up", mtu=bridge.mtu)
            inside.add_address(inside.get("eth0"), f"10.1.0.{number}/24")
        return made

    def ensure(self, number: int, version: int, *others: int, vni: int = 7, mtu=None, evpn=False, **parameters) -> int:
        with entered(self.nodes[number].name):
            with Links() as links:
                underlay = find_underlay(links, ADDRESSES[version].format(number), f"n{number}")
            there = frozenset(ADDRESSES[version].format(other) for other in others)
            network = VxlanNetwork(vni=vni, **parameters)
            return self.overlay().ensure(self.id, "lan", network, mtu=mtu, underlay=underlay, others=there, evpn=evpn)

    def overlay(self) -> Overlay:
        """Return what a daemon that has just begun has."""
        return Overlay("n", 4789, logging.getLogger("pvc_vxlan"))

    def link(self, number: int, name: str):
        with Links(self.nodes[number].name) as links:
            return links.get(name)

    def bridge(self, number: int):
        return self.link(number, names.bridge(self.id))

    def tunnel(self, number: int):
        return self.link(number, names.tunnel(self.id))

    def floods_to(self, number: int) -> set[str]:
        with Links(self.nodes[number].name) as links:
            entries = links.forwarding(links.get(names.tunnel(self.id)))
        return {entry.destination for entry in entries if entry.mac == EVERYBODY}


@pytest.fixture
def wire(gateway_support):
    made = Wire(gateway_support)
    yield made
    made.site.close()


@pytest.mark.parametrize(("version", "mtu"), [(4, 1450), (6, 1430)])
def test_guests_on_different_nodes_reach_each_other_in_whole_packets(wire, version, mtu):
    for number in (1, 2, 3):
        wire.node(number, version)
    for number in (1, 2, 3):
        assert wire.ensure(number, version, *({1, 2, 3} - {number})) == mtu
    first, _, third = (wire.guest(number, number) for number in (1, 2, 3))
    assert first.pings("10.1.0.2")
    assert first.pings("10.1.0.3")
    assert third.pings("10.1.0.2")
    whole = ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(mtu - 28), "10.1.0.2"]
    assert "time=" in first.run(*whole)
    # A guest that moved is found again by what it sends.
    with Links(wire.nodes[2].name) as links:
        links.set(links.get("tap2"), "down", state="down")
    moved = wire.guest(3, 2)
    assert moved.pings("10.1.0.1")
    assert first.pings("10.1.0.2")


def test_nodes_that_come_and_go_are_flooded_to_and_no_more(wire):
    wire.node(1, 4)
    wire.ensure(1, 4, 2, 3)
    assert wire.floods_to(1) == {"10.77.0.2", "10.77.0.3"}
    before = wire.tunnel(1)
    wire.ensure(1, 4, 3, 4)
    assert wire.floods_to(1) == {"10.77.0.3", "10.77.0.4"}
    assert wire.tunnel(1) == before


def test_with_evpn_nothing_is_learned_and_what_it_tells_stays(wire):
    node = wire.node(1, 4)
    with entered(node.name):
        overlay = wire.overlay()
    wire.overlay = lambda: overlay
    wire.ensure(1, 4, 2, evpn=True)
    # Somebody else's end of the network, of whom EVPN told.
    node.run("bridge", "fdb", "append", EVERYBODY, "dev", names.tunnel(wire.id), "dst", "10.77.0.9", "self")
    wire.ensure(1, 4, 2, 3, evpn=True)
    assert wire.floods_to(1) == {"10.77.0.2", "10.77.0.3", "10.77.0.9"}
    wire.ensure(1, 4, 3, evpn=True)
    assert wire.floods_to(1) == {"10.77.0.3", "10.77.0.9"}
    text = node.run("ip", "-d", "link", "show", names.tunnel(wire.id))
    assert "nolearning" in text
    assert "neigh_suppress off" in text
    wire.ensure(1, 4, 3, evpn=True, neighbor_suppression=True)
    assert "neigh_suppress on" in node.run("ip", "-d", "link", "show", names.tunnel(wire.id))


def test_the_host_stays_out_of_its_guests_network(wire):
    node = wire.node(1, 4)
    wire.ensure(1, 4)
    with entered(node.name):
        for name in (names.bridge(wire.id), names.tunnel(wire.id)):
            assert sysctl.read(f"ipv6/conf/{name}/disable_ipv6") == "1"
            assert sysctl.read(f"ipv4/conf/{name}/arp_ignore") == "8"


def test_a_live_network_is_changed_in_place(wire):
    wire.node(1, 4)
    wire.ensure(1, 4)
    wire.guest(1, 5)
    bridge, tunnel = wire.bridge(1), wire.tunnel(1)
    assert wire.ensure(1, 4, mtu=1300) == 1300
    assert (wire.bridge(1).mtu, wire.tunnel(1).mtu, wire.link(1, "tap5").mtu) == (1300, 1300, 1300)
    assert wire.tunnel(1).index == tunnel.index
    wire.ensure(1, 4, vni=8, mtu=1300)
    assert (wire.tunnel(1).vni, wire.tunnel(1).master) == (8, bridge.index)
    assert wire.bridge(1).index == bridge.index
    assert wire.link(1, "tap5").master == bridge.index


@pytest.mark.parametrize("evpn", [True, False])
def test_another_way_to_tell_nodes_of_guests_makes_the_tunnel_anew(wire, evpn):
    node = wire.node(1, 4)
    wire.ensure(1, 4, 2, evpn=not evpn)
    bridge = wire.bridge(1)
    wire.ensure(1, 4, 2, evpn=evpn)
    assert ("nolearning" in node.run("ip", "-d", "link", "show", names.tunnel(wire.id))) is evpn
    assert (wire.tunnel(1).master, wire.floods_to(1)) == (bridge.index, {"10.77.0.2"})


def test_another_address_of_the_node_makes_the_tunnel_anew(wire):
    node = wire.node(1, 4)
    wire.ensure(1, 4, 2)
    with Links(node.name) as links:
        links.remove_address(links.get("eth0"), "10.77.0.1/24")
        links.add_address(links.get("eth0"), "10.77.0.7/24")
    with entered(node.name):
        with Links() as links:
            underlay = find_underlay(links, "10.77.0.7", "n1")
        there = frozenset(["10.77.0.2"])
        wire.overlay().ensure(
            wire.id, "lan", VxlanNetwork(vni=7), mtu=None, underlay=underlay, others=there, evpn=False
        )
    assert wire.tunnel(1).local == "10.77.0.7"
    assert wire.floods_to(1) == {"10.77.0.2"}


def test_what_a_tunnel_cannot_carry_is_refused_with_the_figures(wire):
    wire.node(1, 4)
    with pytest.raises(DriverError, match="carry at most 1450: raise the MTU of eth0") as refused:
        wire.ensure(1, 4, mtu=1451)
    assert not refused.value.retryable
    assert wire.bridge(1) is None


def test_a_node_without_its_underlay_address_is_told(wire):
    node = wire.node(1, 4)
    with (
        entered(node.name),
        Links() as links,
        pytest.raises(NotReady, match=r"no device with the underlay address 10\.9"),
    ):
        find_underlay(links, "10.9.9.9", "n1")


def test_guests_keep_a_network_and_removal_leaves_nothing_of_ours(wire):
    node = wire.node(1, 4)
    wire.ensure(1, 4)
    wire.guest(1, 5)
    with entered(node.name):
        with pytest.raises(ObjectBusy, match="tap5"):
            wire.overlay().remove(wire.id)
        with Links() as links:
            links.delete(links.get("tap5"))
        wire.overlay().remove(wire.id)
        wire.overlay().remove(wire.id)
        assert wire.overlay().networks() == []
        with Links() as links:
            assert {link.name for link in links.all()} == {"lo", "eth0"}


def test_what_a_killed_daemon_left_is_taken_up(wire, monkeypatch):
    node = wire.node(1, 4)
    for step in range(1, 12):
        calls = iter(range(step))

        def die(links, link, what, calls=calls, real=Links.set, **attributes):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return real(links, link, what, **attributes)

        with monkeypatch.context() as patched:
            patched.setattr(Links, "set", die)
            try:
                wire.ensure(1, 4)
            except KeyboardInterrupt:
                killed = True
            else:
                killed = False
        wire.ensure(1, 4)
        assert wire.tunnel(1).master == wire.bridge(1).index
        assert wire.bridge(1).up
        assert wire.tunnel(1).up
        with entered(node.name):
            wire.overlay().remove(wire.id)
            with Links() as links:
                assert {link.name for link in links.all()} == {"lo", "eth0"}
        if not killed:
            break
    else:
        raise AssertionError("it never came to the end")
