"""Our part of FRR's configuration, how it is merged with the operator's, and what FRR's answers mean, without FRR."""

import pytest
from msgspec.structs import replace

from pvc_core.plugin import ConfigError, DriverError
from pvc_netdev.links import ForwardingEntry
from pvc_vxlan.evpn import text
from pvc_vxlan.evpn.frr import View
from pvc_vxlan.evpn.render import Fabric, Peer, Router, render, require_tunnel_end, router_id
from pvc_vxlan.evpn.stale import judge, suspects
from pvc_vxlan.evpn.state import macs, sessions, vnis
from pvc_vxlan.evpn.watch import CUT_OFF, DEGRADED, FABRIC, ROUTING, health
from pvc_vxlan.routes import METRIC

REFLECTORS = (Peer(name="n1", address="10.0.0.1"), Peer(name="n2", address="10.0.0.2"))
NODE = Fabric(asn=65000, router_id="10.0.0.9", local="10.0.0.9", reflectors=REFLECTORS)
OUTSIDE = (Router(address="203.0.113.1", asn=65100), Router(address="2001:db8::1", asn=65100))


def test_a_node_names_the_reflectors_and_nobody_else():
    assert render(NODE) == [
        "router bgp 65000",
        " bgp router-id 10.0.0.9",
        " bgp graceful-restart-disable",
        " neighbor pvc-fabric peer-group",
        " neighbor pvc-fabric remote-as 65000",
        " neighbor pvc-fabric update-source 10.0.0.9",
        " neighbor pvc-fabric timers 1 3",
        " neighbor pvc-fabric timers connect 1",
        " neighbor 10.0.0.1 peer-group pvc-fabric",
        " neighbor 10.0.0.1 description n1",
        " neighbor 10.0.0.2 peer-group pvc-fabric",
        " neighbor 10.0.0.2 description n2",
        " address-family ipv4 unicast",
        "  no neighbor pvc-fabric activate",
        " exit-address-family",
        " address-family l2vpn evpn",
        "  neighbor pvc-fabric activate",
        "  advertise-all-vni",
        " exit-address-family",
        "exit",
    ]


def test_a_reflector_takes_nodes_in_and_does_not_name_itself():
    lines = render(replace(NODE, local="10.0.0.1", is_reflector=True, listen=("10.0.0.7/24",)))
    assert " bgp listen range 10.0.0.0/24 peer-group pvc-fabric" in lines
    assert "  neighbor pvc-fabric route-reflector-client" in lines
    assert not any("10.0.0.1 peer-group" in line for line in lines)
    assert " neighbor 10.0.0.2 peer-group pvc-fabric" in lines
    assert not any("cluster-id" in line for line in lines)


def test_client_networks_are_announced_and_default_routes_taken_and_nothing_else():
    lines = render(replace(NODE, upstream=OUTSIDE))
    assert [line for line in lines if "prefix-list" in line and "match" not in line] == [
        "ip prefix-list pvc-imports4 seq 5 permit 0.0.0.0/0",
        "ipv6 prefix-list pvc-imports6 seq 5 permit ::/0",
    ]
    place = lines.index("route-map pvc-clients permit 10")
    assert lines[place + 1] == f" match metric {METRIC}"
    assert lines.count("  redistribute kernel route-map pvc-clients") == 2
    for group, version in (("pvc-upstream4", 4), ("pvc-upstream6", 6)):
        assert f"  neighbor {group} route-map pvc-imports{version} in" in lines
        assert f"  neighbor {group} route-map pvc-clients out" in lines


@pytest.mark.parametrize("password", ["two words", "x" * 81, "ä", "tab\t"])
def test_a_password_that_frr_cannot_hold_is_refused_without_showing_it(password):
    with pytest.raises(ConfigError, match="at most 80 printable ASCII") as caught:
        render(replace(NODE, password=password))
    assert password not in str(caught.value)


def test_a_router_id_is_the_ipv4_address_or_stable_and_distinct():
    assert router_id("10.0.0.9") == "10.0.0.9"
    assert router_id("fd00::1") == router_id("fd00:0::1") != router_id("fd00::2")
    assert len({router_id(f"fd00::{number:x}") for number in range(1, 501)}) == 500


def test_an_ipv6_end_of_tunnels_is_refused():
    assert require_tunnel_end("10.0.0.1") == "10.0.0.1"
    with pytest.raises(ConfigError, match="fd00::1 is an IPv6 address"):
        require_tunnel_end("fd00::1")


RUNNING = """
frr version 8.4.4
hostname pvc-node1
!
router bgp 65000
 bgp router-id 10.0.0.9
 neighbor pvc-fabric peer-group
 neighbor pvc-fabric remote-as 65000
 neighbor 10.0.0.1 peer-group pvc-fabric
 neighbor 10.0.0.1 description n1
 neighbor 10.0.0.1 bfd
 neighbor 192.0.2.1 remote-as 65010
 !
 address-family ipv4 unicast
  network 198.51.100.0/24
  neighbor 192.0.2.1 route-map pvc-clients-of-mine in
 exit-address-family
 !
 address-family l2vpn evpn
  neighbor pvc-fabric activate
  advertise-all-vni
 exit-address-family
exit
!
ip prefix-list pvc-imports4 seq 5 permit 0.0.0.0/0
route-map pvc-clients permit 10
 match metric 7250
exit
!
end
"""


def operators(remembered=()):
    return text.split(text.parse(RUNNING), remembered)


def test_a_configuration_is_read_and_written_the_same():
    tree = text.parse(RUNNING)
    assert text.parse("\n".join(text.dump(tree))) == tree
    assert ("router bgp 65000", "address-family l2vpn evpn", "advertise-all-vni") in set(text.paths(tree))


def test_the_operators_part_is_what_is_not_ours_by_name_or_memory():
    bgp = "router bgp 65000"
    remembered = [(bgp,), (bgp, "bgp router-id 10.0.0.9"), (bgp, "address-family l2vpn evpn"),
                  (bgp, "address-family l2vpn evpn", "advertise-all-vni")]  # fmt: skip
    theirs, _ = operators(remembered)
    assert text.dump(theirs) == [
        "frr version 8.4.4",
        "hostname pvc-node1",
        "router bgp 65000",
        " neighbor 10.0.0.1 bfd",
        " neighbor 192.0.2.1 remote-as 65010",
        " address-family ipv4 unicast",
        "  network 198.51.100.0/24",
        "  neighbor 192.0.2.1 route-map pvc-clients-of-mine in",
        " exit-address-family",
        "exit",
    ]


def test_what_the_operator_added_to_our_neighbor_goes_with_it():
    theirs, left = operators()
    with_it = text.merge(theirs, text.parse("\n".join(render(NODE))), left)
    assert ("router bgp 65000", "neighbor 10.0.0.1 bfd") in set(text.paths(with_it))
    alone = replace(NODE, reflectors=REFLECTORS[1:])
    without = text.merge(theirs, text.parse("\n".join(render(alone))), left)
    assert not [path for path in text.paths(without) if "10.0.0.1" in path[-1]]


def test_what_can_be_said_once_is_the_operators():
    theirs = text.parse("router bgp 65000\n bgp router-id 1.1.1.1\n bgp graceful-restart\nexit")
    merged = set(text.paths(text.merge(theirs, text.parse("\n".join(render(NODE))), [])))
    assert ("router bgp 65000", "bgp router-id 1.1.1.1") in merged
    assert ("router bgp 65000", "bgp router-id 10.0.0.9") not in merged
    assert ("router bgp 65000", "bgp graceful-restart-disable") not in merged


def test_a_neighbor_that_both_name_with_different_as_is_told():
    theirs = text.parse("router bgp 65000\n neighbor 203.0.113.1 remote-as 65101\nexit")
    with pytest.raises(DriverError, match=r"neighbor 203\.0\.113\.1 remote-as 65101.*AS 65100"):
        text.merge(theirs, text.parse("\n".join(render(replace(NODE, upstream=OUTSIDE)))), [])


def test_frrs_answers_are_read_with_what_is_absent_and_what_is_new():
    (session,) = sessions(
        '{"l2VpnEvpn": {"peers": {"10.0.0.1": {"state": "Active", "new": 1}}}, "x": 3, "totalPeers": []}'
    )
    assert (session.peer, session.up, session.established) == ("10.0.0.1", False, 0)
    assert sessions("% No BGP process is configured\n") == []
    assert sessions("{}") == []
    assert vnis('{"7": {"vxlanIf": "vx7"}, "9": {"type": "L3"}}')[0].remote == ()
    (mac,) = macs(
        '{"7": {"macs": {"52:54:00:00:00:01": {"type": "remote", "remoteVtep": "10.0.0.2"}}}, "8": {"numMacs": 0}}'
    )
    assert (mac.vni, mac.local, mac.where, mac.remote_sequence) == (7, False, "10.0.0.2", 0)
    with pytest.raises(DriverError, match="show evpn vni json"):
        vnis('{"7":')


def view(**states: str) -> View:
    peers = ",".join(f'"10.0.0.{name[1:]}": {{"state": "{state}"}}' for name, state in states.items())
    return View(
        daemons=frozenset({"zebra", "bgpd"}),
        summary=f'{{"l2VpnEvpn": {{"peers": {{{peers}}}}}}}',
        running="frr version 8",
    )


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({"n1": "Established", "n2": "Established"}, ""),
        ({"n1": "Established", "n2": "Active"}, DEGRADED),
        ({"n1": "Idle", "n2": "Active"}, CUT_OFF),
        ({}, CUT_OFF),
    ],
)
def test_a_node_without_any_reflector_is_cut_off(states, reason):
    found = {c.type: c for c in health(view(**states), NODE, differs=False)}
    assert found[ROUTING].ok
    assert (found[FABRIC].ok, found[FABRIC].reason) == (not reason, reason)


def test_the_only_reflector_has_nobody_to_miss():
    alone = replace(NODE, local="10.0.0.1", reflectors=REFLECTORS[:1], is_reflector=True)
    assert all(c.ok for c in health(view(), alone, differs=False))


A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def entry(mac: str, to: str, *, own: bool = True) -> ForwardingEntry:
    return ForwardingEntry(mac=mac, device=5, destination=to, own=own, external=True)


def test_only_an_entry_of_a_recorded_address_to_another_node_is_suspect():
    entries = [
        entry("52:54:00:00:00:01", A),
        entry("52:54:00:00:00:02", A),
        entry("52:54:00:00:00:03", A),
        entry("00:00:00:00:00:00", A),
        entry("52:54:00:00:00:02", "", own=False),
    ]
    owners = {"52:54:00:00:00:01": A, "52:54:00:00:00:02".upper(): B, "00:00:00:00:00:00": B}
    (found,) = suspects("vx7", entries, owners, local=C)
    assert (found.mac, found.sent_to, found.owner, found.here) == ("52:54:00:00:00:02", A, B, False)


def test_a_suspect_is_certain_only_when_it_was_so_all_the_time():
    (one,) = suspects("vx7", [entry("52:54:00:00:00:02", A)], {"52:54:00:00:00:02": B}, local=C)
    (other,) = suspects("vx7", [entry("52:54:00:00:00:02", A)], {"52:54:00:00:00:02": C}, local=C)
    certain, before = judge({}, [one], now=0, apart_s=5)
    assert not certain
    certain, before = judge(before, [one], now=4.9, apart_s=5)
    assert not certain
    # Seen right in between, or wrong in another way: the time begins again.
    assert judge(judge(before, [], now=5)[1], [one], now=6, apart_s=5)[0] == []
    assert judge(before, [other], now=6, apart_s=5)[0] == []
    assert judge(before, [one], now=5, apart_s=5)[0] == [one]
