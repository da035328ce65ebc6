"""FRR's configuration is the operator's and ours at once: each keeps their own lines."""

import pytest

from pvc_core.plugin import DriverError, NotReady
from pvc_core.testkit.waiting import eventually
from pvc_vxlan.evpn.render import Peer, Router
from pvc_vxlan.evpn.watch import ROUTING

pytestmark = pytest.mark.real

OPERATORS = (
    " neighbor 192.0.2.9 remote-as 65000",
    " neighbor 192.0.2.9 description another rack",
    " neighbor 192.0.2.10 remote-as 65099",
    "  network 198.51.100.0/24",
    "  neighbor 192.0.2.10 route-map theirs in",
    "ip prefix-list theirs seq 5 permit 198.51.100.0/24",
    "route-map theirs permit 10",
    " match ip address prefix-list theirs",
)


def type_operators_lines(node) -> None:
    node.daemons.vtysh(
        "configure",
        "ip prefix-list theirs seq 5 permit 198.51.100.0/24",
        "route-map theirs permit 10",
        "match ip address prefix-list theirs",
        "exit",
        "router bgp 65000",
        "neighbor 192.0.2.9 remote-as 65000",
        "neighbor 192.0.2.9 description another rack",
        "neighbor 192.0.2.10 remote-as 65099",
        "address-family ipv4 unicast",
        "network 198.51.100.0/24",
        "neighbor 192.0.2.10 route-map theirs in",
    )


def lines(node) -> list[str]:
    return node.running().splitlines()


def settled(node, count: int = 2) -> dict[str, int]:
    """Wait for its sessions, and return how often each came up."""
    return eventually(lambda: len(up := node.sessions()) == count and up, f"{count} sessions")


def ours(node) -> list[str]:
    return [line for line in lines(node) if "pvc-" in line or "advertise-all-vni" in line]


def test_the_operators_lines_survive_ours_their_changes_and_their_removal(evpn_make):
    node = evpn_make(1).nodes[0]
    node.frr.apply(None)
    assert not ours(node)
    type_operators_lines(node)
    operators = lines(node)
    assert set(OPERATORS) <= set(operators)
    upstream = (Router(address="10.77.0.254", asn=65100),)
    for changes in (
        {"upstream": upstream},
        {"upstream": (*upstream, Router(address="fd77::fe", asn=65100))},
        {"password": "x"},
    ):
        assert node.frr.apply(node.fabric(**changes))
        assert set(OPERATORS) <= set(lines(node))
        assert not node.frr.differs(node.fabric(**changes), node.running())
        assert not node.frr.apply(node.fabric(**changes))
    assert "upstream" not in node.running()
    assert node.frr.apply(None)
    assert lines(node) == operators
    saved = (node.daemons.directory / "frr.conf").read_text()
    assert set(OPERATORS) <= set(saved.splitlines())


def test_what_the_operator_types_at_run_time_stays_and_what_they_remove_is_gone(evpn_nodes):
    node = evpn_nodes.nodes[2]
    node.daemons.vtysh("configure", "router bgp 65000", "neighbor 192.0.2.9 remote-as 65000")
    node.daemons.vtysh("configure", "router bgp 65000", "neighbor 10.77.0.1 bfd")
    added = {" neighbor 192.0.2.9 remote-as 65000", " neighbor 10.77.0.1 bfd"}
    assert not node.frr.differs(node.fabric(), node.running())
    changed = node.fabric(listen=("10.77.0.0/24",), is_reflector=True)
    assert node.frr.apply(changed)
    assert added <= set(lines(node))
    node.daemons.vtysh("configure", "router bgp 65000", "no neighbor 192.0.2.9")
    node.daemons.vtysh("configure", "router bgp 65000", "no neighbor 10.77.0.1 bfd")
    assert node.frr.apply(node.fabric())
    assert not added & set(lines(node))


def test_a_node_that_forgot_what_it_wrote_tells_its_lines_by_their_names(evpn_nodes):
    node = evpn_nodes.nodes[2]
    more = (*evpn_nodes.reflectors, Peer(name="old", address="10.77.0.99"))
    upstream = (Router(address="10.77.0.254", asn=65100, password="x"),)
    assert node.frr.apply(node.fabric(reflectors=more, upstream=upstream))
    (evpn_nodes.directory / "state3" / "frr.json").unlink()
    up = settled(node)
    assert node.frr.apply(node.fabric())
    for gone in ("10.77.0.99", "10.77.0.254", "pvc-upstream", "pvc-clients"):
        assert gone not in node.running()
    assert node.sessions() == up


def test_a_change_that_was_interrupted_leaves_nothing_behind(evpn_nodes):
    node = evpn_nodes.nodes[3]
    before, up = lines(node), settled(node)

    def run(argv, **how):
        done = node.daemons.run(argv, **how)
        if "--reload" in argv:
            raise DriverError("the node's daemon ends here")
        return done

    upstream = (Router(address="10.77.0.254", asn=65100),)
    with pytest.raises(DriverError, match="ends here"):
        node.make_frr(run).apply(node.fabric(upstream=upstream))
    assert "bgp route-map delay-timer 1" in lines(node)
    # The next daemon has no such router in its configuration any more.
    assert node.make_frr(node.daemons.run).apply(node.fabric())
    assert lines(node) == before
    assert node.sessions() == up


def test_an_edit_of_the_file_is_taken_with_our_next_change(evpn_nodes):
    node = evpn_nodes.nodes[2]
    file = node.daemons.directory / "frr.conf"
    file.write_text(file.read_text() + "ip prefix-list edited seq 5 permit 10.9.0.0/16\n")
    assert node.frr.apply(node.fabric(password=""))
    assert "ip prefix-list edited seq 5 permit 10.9.0.0/16" in lines(node)
    file.write_text(file.read_text().replace("ip prefix-list edited seq 5 permit 10.9.0.0/16\n", ""))
    assert node.frr.apply(node.fabric())
    assert "edited" not in node.running()


def test_a_bad_line_of_the_operators_refuses_all_and_changes_nothing(evpn_nodes):
    node = evpn_nodes.nodes[2]
    file = node.daemons.directory / "frr.conf"
    before, up, good = node.running(), settled(node), file.read_text()
    file.write_text(good + "router ospff\n ospf router-id 1.2.3.4\n")
    edited = file.read_text()
    with pytest.raises(DriverError, match=r"nothing was changed: line \d+.*router ospff") as caught:
        node.frr.apply(node.fabric(is_reflector=True, listen=("10.77.0.0/24",)))
    assert not caught.value.retryable
    assert node.running() == before
    assert node.sessions() == up
    assert file.read_text() == edited
    file.write_text(good)
    assert not node.frr.apply(node.fabric())


def test_what_frr_refuses_only_when_it_is_told_is_put_back(evpn_nodes):
    node = evpn_nodes.nodes[2]
    before, up = node.running(), settled(node)
    # Fits the grammar; bgpd refuses an address of its own as a neighbor.
    wrong = (*evpn_nodes.reflectors, Peer(name="self", address="fd77::3"))
    file = node.daemons.directory / "frr.conf"
    file.write_text(file.read_text() + "ip prefix-list edited seq 5 permit 10.9.0.0/16\n")
    with pytest.raises(DriverError, match="was put back as it was") as caught:
        node.frr.apply(node.fabric(reflectors=wrong))
    kept = evpn_nodes.directory / "state3" / "frr.edited"
    assert f"is kept in {kept}" in str(caught.value)
    assert "prefix-list edited" in kept.read_text()
    assert node.running() == before
    assert node.sessions() == up


def test_another_as_of_the_operators_is_told_not_overwritten(evpn_make):
    node = evpn_make(1, started=0).nodes[0]
    node.daemons.start()
    node.daemons.vtysh("configure", "router bgp 65001")
    before = node.running()
    with pytest.raises(DriverError, match=r"the operator's 'router bgp 65001'.*cluster's AS is 65000"):
        node.frr.apply(node.fabric())
    assert node.running() == before
    assert node.frr.apply(node.fabric(asn=65001))
    assert node.frr.apply(None)


def test_the_operators_router_id_is_respected(evpn_nodes):
    node = evpn_nodes.nodes[2]
    node.daemons.vtysh("configure", "router bgp 65000", "bgp router-id 192.0.2.33")
    report = node.watch.tend(node.fabric())
    assert report.done == ()
    assert " bgp router-id 192.0.2.33" in lines(node)
    node.daemons.vtysh("configure", "router bgp 65000", "no bgp router-id")
    assert node.watch.tend(node.fabric()).done
    assert " bgp router-id 10.77.0.3" in lines(node)
    settled(node)


def test_an_upstream_change_does_not_touch_the_sessions_of_the_fabric(evpn_nodes):
    node = evpn_nodes.nodes[0]
    up = settled(node, 3)
    routers = (Router(address="10.77.0.254", asn=65100), Router(address="fd77::fe", asn=65100, password="secret"))
    for upstream in (routers, routers[:1], (Router(address="10.77.0.254", asn=65101),), ()):
        assert node.frr.apply(node.fabric(upstream=upstream))
        assert node.sessions() == up


def test_nothing_is_saved_while_an_enabled_daemon_is_away(evpn_nodes):
    node = evpn_nodes.nodes[2]
    daemons = node.daemons.directory / "daemons"
    daemons.write_text("bgpd=yes\nospfd=yes\nripd=no\n")
    with pytest.raises(NotReady, match="ospfd do not run"):
        node.frr.apply(node.fabric(is_reflector=True, listen=("10.77.0.0/24",)))
    daemons.unlink()
    assert not node.frr.apply(node.fabric())


def test_ours_is_printed_the_same_under_the_other_defaults_of_frr(evpn_make):
    node = evpn_make(1, started=0).nodes[0]
    (node.daemons.directory / "frr.conf").write_text("frr defaults datacenter\n")
    for name in ("zebra", "bgpd"):
        (node.daemons.directory / f"{name}.conf").write_text("frr defaults datacenter\n")
    node.daemons.start()
    fabric = node.fabric(
        upstream=(Router(address="10.77.0.254", asn=65100), Router(address="fd77::fe", asn=65100)), password="secret"
    )
    assert node.frr.apply(fabric)
    assert "frr defaults datacenter" in lines(node)
    assert not node.frr.apply(fabric)


def test_a_bgpd_that_came_back_empty_has_the_operators_lines_again(evpn_nodes):
    node = evpn_nodes.nodes[2]
    node.daemons.vtysh("configure", "router bgp 65000", "neighbor 192.0.2.9 remote-as 65000")
    node.daemons.vtysh("write")
    node.daemons.kill("bgpd")
    node.daemons.start(load=False)
    assert "router bgp" not in node.running()
    report = node.watch.tend(node.fabric())
    assert report.done == ("gave it the cluster's configuration again",)
    assert " neighbor 192.0.2.9 remote-as 65000" in lines(node)
    node.daemons.vtysh("configure", "router bgp 65000", "no neighbor 192.0.2.9")


def test_an_as_that_contradicts_the_operators_is_a_condition(evpn_make):
    node = evpn_make(1, started=0).nodes[0]
    node.daemons.start()
    node.daemons.vtysh("configure", "router bgp 65001")
    condition = node.condition(node.watch.tend(node.fabric()), ROUTING)
    assert (condition.ok, condition.reason) == (False, "Refused")
    assert "router bgp 65001" in condition.message
