"""The overlay between nodes with real FRR: who reaches whom, what survives, and what is mended."""

import signal
import time

import pytest

from pvc_core.testkit.waiting import eventually
from pvc_netdev.announce import announce
from pvc_netdev.links import Links
from pvc_netdev.namespace import entered
from pvc_vxlan.evpn.stale import judge, repair, suspects
from pvc_vxlan.evpn.watch import CUT_OFF, FABRIC, ROUTING

pytestmark = pytest.mark.real


def test_guests_of_four_nodes_with_two_reflectors_reach_each_other(evpn_nodes):
    nodes = evpn_nodes.network(1001, 1, 2, 3, 4)
    guests = [evpn_nodes.guest(node, 1001, 10 + node.number) for node in nodes]
    for guest in guests[1:]:
        guest.reaches(guests[0].address)
    # Both are clients: what they know of each other was reflected.
    guests[2].reaches(guests[3].address)
    eventually(lambda: nodes[2].sends_to(1001, guests[3].mac) == nodes[3].vtep, "the far guest's MAC address is known")
    assert nodes[3].sends_to(1001, guests[3].mac) == guests[3].port


def test_networks_are_apart(evpn_nodes):
    evpn_nodes.network(1001, 3, 4)
    evpn_nodes.network(1002, 3, 4)
    first, second = evpn_nodes.nodes[2], evpn_nodes.nodes[3]
    here = evpn_nodes.guest(first, 1001, 11)
    evpn_nodes.guest(second, 1002, 12)
    evpn_nodes.guest(second, 1001, 13)
    here.reaches("192.168.50.13")
    assert not here.ping("192.168.50.12")


def test_applying_again_finds_nothing_to_change(evpn_nodes):
    for node in evpn_nodes.nodes[:4]:
        assert not node.frr.differs(node.fabric(), node.running())
        assert not node.frr.apply(node.fabric())
        assert node.frr.version().startswith("8.")
        assert [c.type for c in node.watch.tend(node.fabric()).conditions if c.ok] == [ROUTING, FABRIC]


def test_a_node_that_joins_changes_nobodys_configuration(evpn_nodes):
    old, new = evpn_nodes.nodes[:4], evpn_nodes.nodes[4]
    evpn_nodes.network(1001, 3, 4)
    guest = evpn_nodes.guest(old[2], 1001, 13)
    before = [node.running() for node in old]
    up = [node.sessions() for node in old]
    new.start()
    new.add_vni(1001)
    evpn_nodes.guest(new, 1001, 15).reaches(guest.address)
    assert [node.running() for node in old] == before
    for known, node in zip(up, old, strict=True):
        assert known.items() <= node.sessions().items()
    new.daemons.stop()


def test_an_address_that_moved_is_reached_at_its_new_node(evpn_nodes):
    nodes = evpn_nodes.network(1001, 2, 3, 4)
    mac = "52:54:00:00:00:99"
    old = evpn_nodes.guest(nodes[0], 1001, 20, mac=mac)
    watching = evpn_nodes.guest(nodes[2], 1001, 14)
    watching.reaches("192.168.50.20")
    eventually(lambda: nodes[2].sends_to(1001, mac) == nodes[0].vtep, "its MAC address is known at its old node")
    new = evpn_nodes.guest(nodes[1], 1001, 20, mac=mac)
    with entered(new.name):
        announce("eth0", ["192.168.50.20"], mac, times=2)
    old.plug(up=False)
    eventually(lambda: nodes[2].sends_to(1001, mac) == nodes[1].vtep, "the move is known")
    watching.reaches("192.168.50.20", within_s=3)
    assert nodes[2].mac(1001, mac).remote_sequence > 0


def test_bgpd_that_was_killed_is_noticed_and_its_guests_are_back(evpn_nodes):
    reflector, node = evpn_nodes.network(1001, 1, 4)
    guest, other = evpn_nodes.guest(node, 1001, 14), evpn_nodes.guest(reflector, 1001, 11)
    guest.reaches(other.address)
    node.daemons.kill("bgpd")
    assert node.frr.view().problem == "not running: bgpd"
    start = time.monotonic()
    report = node.watch.tend(node.fabric())
    assert report.done[0] == "started it (not running: bgpd)"
    assert node.condition(report, ROUTING).ok
    assert node.condition(report, FABRIC).reason in ("", CUT_OFF)
    eventually(lambda: node.mac(1001, other.mac), "the other node's MAC addresses are known")
    guest.reaches(other.address)
    assert time.monotonic() - start < 12
    assert all(c.ok for c in node.watch.tend(node.fabric()).conditions)


def test_a_node_that_lost_frr_and_its_file_gets_its_configuration_again(evpn_nodes):
    node = evpn_nodes.nodes[3]
    node.daemons.kill("bgpd", "zebra")
    (node.daemons.directory / "frr.conf").write_text("")
    assert not node.frr.view().daemons
    report = node.watch.tend(node.fabric())
    assert report.done == ("started it (not running: bgpd, zebra)", "gave it the cluster's configuration again")
    eventually(lambda: len(node.sessions()) == 2, "sessions with both reflectors")
    assert all(c.ok for c in node.watch.tend(node.fabric()).conditions)


def test_a_daemon_that_hangs_is_told_and_restarted_after_watchfrrs_time(evpn_nodes):
    node = evpn_nodes.nodes[3]
    node.daemons.signal("bgpd", signal.SIGSTOP)
    first = node.watch.tend(node.fabric())
    assert node.condition(first, ROUTING).reason == "NotAnswering"
    assert first.done == ()
    report = eventually(lambda: (r := node.watch.tend(node.fabric())).done and r, "it is restarted")
    assert report.done[0].startswith("restarted it (")
    eventually(lambda: len(node.sessions()) == 2, "sessions with both reflectors")


def test_frr_without_bgpd_enabled_is_told_and_not_restarted_for_ever(evpn_nodes):
    node = evpn_nodes.nodes[3]
    (node.daemons.directory / "daemons").write_text("bgpd=no\n")
    node.daemons.kill("bgpd")
    report = node.watch.tend(node.fabric())
    assert report.done == ()
    assert f"write bgpd=yes in {node.daemons.directory}/daemons" in node.condition(report, ROUTING).message
    (node.daemons.directory / "daemons").unlink()
    assert node.watch.tend(node.fabric()).done
    eventually(lambda: len(node.sessions()) == 2, "sessions with both reflectors")


def test_lines_of_ours_that_somebody_removed_come_back(evpn_nodes):
    node = evpn_nodes.nodes[3]
    up = node.sessions()
    node.daemons.vtysh("configure", "router bgp 65000", "address-family l2vpn evpn", "no advertise-all-vni")
    report = node.watch.tend(node.fabric())
    assert report.done == ("gave it the cluster's configuration again",)
    assert node.condition(report, ROUTING).ok
    assert node.sessions() == up


def test_a_reflector_that_is_gone_is_told(evpn_nodes):
    reflector, node = evpn_nodes.nodes[1], evpn_nodes.nodes[3]
    reflector.daemons.kill("bgpd")
    condition = eventually(
        lambda: (c := node.condition(node.watch.tend(node.fabric()), FABRIC)).reason and c, "its session is down"
    )
    assert condition.reason == "Degraded"
    assert condition.message == "no BGP session with the route reflector n2"
    reflector.watch.tend(reflector.fabric())
    eventually(lambda: node.condition(node.watch.tend(node.fabric()), FABRIC).ok, "its session is up again")


def test_a_stale_entry_is_found_and_its_removal_restores_traffic(evpn_nodes):
    owner, wrong, here = evpn_nodes.network(1001, 2, 3, 4)
    guest, watching = evpn_nodes.guest(owner, 1001, 12), evpn_nodes.guest(here, 1001, 14)
    watching.reaches(guest.address)
    eventually(lambda: here.sends_to(1001, guest.mac) == owner.vtep, "the guest's MAC address is known")
    with Links(here.namespace) as links:
        device = links.get("vx1001")
        # As zebra leaves it when it ignored the owner's announcement.
        links.remove_forwarding(device, guest.mac, own=True)
        evpn_nodes.point(here, device.name, guest.mac, wrong.vtep)
        assert not watching.ping(guest.address)
        owners = {guest.mac: owner.vtep, watching.mac: here.vtep}
        found = suspects(device.name, links.forwarding(device), owners, local=here.vtep)
        certain, before = judge({}, found, now=100.0)
        assert not certain
        found = suspects(device.name, links.forwarding(device), owners, local=here.vtep)
        certain, _ = judge(before, found, now=106.0)
        assert [(s.mac, s.sent_to, s.owner, s.here) for s in certain] == [(guest.mac, wrong.vtep, owner.vtep, False)]
        repair(links, certain[0])
        watching.reaches(guest.address, within_s=2)
        assert not suspects(device.name, links.forwarding(device), owners, local=here.vtep)


def test_a_stale_entry_for_a_guest_of_this_node_leaves_the_bridge_too(evpn_nodes):
    here, wrong = evpn_nodes.network(1001, 3, 4)
    guest, neighbor = evpn_nodes.guest(here, 1001, 13), evpn_nodes.guest(here, 1001, 23)
    neighbor.reaches(guest.address)
    with Links(here.namespace) as links:
        device = links.get("vx1001")
        evpn_nodes.point(here, device.name, guest.mac, wrong.vtep, bridge=True)
        owners = {guest.mac: here.vtep, neighbor.mac: here.vtep}
        (found,) = suspects(device.name, links.forwarding(device), owners, local=here.vtep)
        assert found.here
        repair(links, found)
        assert guest.mac not in [entry.mac for entry in links.forwarding(device)]
    neighbor.reaches(guest.address, within_s=2)


def test_sessions_over_ipv6_with_a_password_carry_tunnels_over_ipv4(evpn_make):
    site = evpn_make(4, version=6, password="between-nodes")
    nodes = site.network(1001, 3, 4)
    assert set(nodes[0].sessions()) == {"fd77::1", "fd77::2"}
    guests = [site.guest(node, 1001, 10 + node.number) for node in nodes]
    guests[0].reaches(guests[1].address)
    assert not nodes[0].frr.apply(nodes[0].fabric())


def test_a_node_with_another_password_gets_no_session(evpn_make):
    site = evpn_make(2, password="between-nodes")
    eventually(site.nodes[1].sessions, "a session with the right password")
    site.nodes[1].frr.apply(site.nodes[1].fabric(password="guessed"))
    eventually(lambda: not site.nodes[1].sessions(), "no session with another one")
    site.nodes[1].frr.apply(site.nodes[1].fabric())
    eventually(site.nodes[1].sessions, "a session with the right password again")
