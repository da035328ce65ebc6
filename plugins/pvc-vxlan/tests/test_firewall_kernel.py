"""The firewall in a real kernel: what reaches whom."""

import contextlib
import errno
import importlib.util
import select
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvc_core.plugin import run
from pvc_core.testkit.waiting import eventually
from pvc_netdev.links import Links
from pvc_netdev.namespace import create, entered, remove
from pvc_vxlan.firewall import table
from pvc_vxlan.firewall.render import render
from pvc_vxlan.network import VxlanNetwork

pytestmark = pytest.mark.real

_spec = importlib.util.spec_from_file_location("firewall_site", Path(__file__).with_name("firewall_site.py"))
site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site)
GUEST, GATEWAY, OUTSIDE, OTHER, UPLINK, rule, counted = (
    site.GUEST,
    site.GATEWAY,
    site.OUTSIDE,
    site.OTHER,
    site.UPLINK,
    site.rule,
    site.counted,
)


@pytest.fixture(scope="module")
def namespaces():
    with site.built() as made:
        yield made


@pytest.fixture
def lab(namespaces):
    namespaces.begin()
    yield namespaces
    namespaces.end()


@pytest.mark.parametrize("version", [4, 6])
def test_guests_reach_outside_and_nobody_reaches_them(lab, version):
    lab.listen(lab.outside, 80, version)
    lab.listen(lab.guest, 80, version)
    assert lab.reached(lab.outside, GUEST[version], 80)
    lab.rules()
    assert lab.reached(lab.guest, OUTSIDE[version], 80)
    assert lab.connect(lab.outside, GUEST[version], 80) == "timeout"
    assert lab.pinged(lab.guest, OUTSIDE[version])
    assert not lab.pinged(lab.outside, GUEST[version])
    assert counted(lab, "*in") >= 2
    assert counted(lab, "*out") >= 2


@pytest.mark.parametrize("version", [4, 6])
def test_a_rule_lets_in_what_it_names_and_nothing_else(lab, version):
    for port in (22, 80, 8050, 8200):
        lab.listen(lab.guest, port, version)
    length = 32 if version == 4 else 128
    lab.rules(rule("web", protocol="tcp", ports=("80", "8000-8100"), source=(f"{OUTSIDE[version]}/{length}",)))
    allowed = [port for port in (22, 80, 8050, 8200) if lab.reached(lab.outside, GUEST[version], port)]
    assert allowed == [80, 8050]
    assert not lab.reached(lab.outside, GUEST[version], 80, source=OTHER[version])
    assert counted(lab, "web") == 2
    lab.rules(rule("web", protocol="tcp", ports=("80",), destination=(OTHER[version],)))
    assert not lab.reached(lab.outside, GUEST[version], 80)


def test_source_ports_are_matched(lab):
    lab.listen(lab.guest, 53)
    lab.rules(rule("x", protocol="tcp", source_ports=("5000-5010", "5005-5020")))
    for port, expected in ((5015, True), (5030, False)):
        caller = lab.unbound(lab.outside, 4, socket.SOCK_STREAM)
        caller.bind(("", port))
        with contextlib.suppress(TimeoutError):
            caller.connect((GUEST[4], 53))
        assert bool(select.select([], [caller], [], 0)[1]) is expected


@pytest.mark.parametrize("version", [4, 6])
def test_udp_and_icmp_rules(lab, version):
    receiver = lab.listen(lab.guest, 500, version, socket.SOCK_DGRAM)
    other = lab.listen(lab.guest, 501, version, socket.SOCK_DGRAM)
    lab.rules(
        rule("u", protocol="udp", ports=("500",)),
        rule("p4", protocol="icmp"),
    )
    assert lab.sent(lab.outside, receiver, GUEST[version], 500)
    assert not lab.sent(lab.outside, other, GUEST[version], 501)
    assert lab.pinged(lab.outside, GUEST[version]) is (version == 4)
    lab.rules(rule("p6", protocol="icmpv6"))
    assert lab.pinged(lab.outside, GUEST[version]) is (version == 6)


@pytest.mark.parametrize("version", [4, 6])
def test_a_rejected_connection_is_told_so(lab, version):
    lab.listen(lab.outside, 25, version)
    lab.rules(
        rule("smtp", "out", action="reject", protocol="tcp", ports=("25",)),
        rule("all", "out", action="reject"),
    )
    assert lab.connect(lab.guest, OUTSIDE[version], 25) == "ECONNREFUSED"
    assert lab.connect(lab.guest, OUTSIDE[version], 26) == "ECONNREFUSED"
    sender = lab.unbound(lab.guest, version, socket.SOCK_DGRAM)
    sender.connect((OUTSIDE[version], 99))
    sender.send(b"x")
    with pytest.raises(OSError) as caught:
        sender.recv(10)
    assert errno.errorcode[caught.value.errno] in ("EHOSTUNREACH", "EACCES")
    assert counted(lab, "smtp") == 1
    assert counted(lab, "all") == 2


def test_the_first_rule_that_matches_decides(lab):
    lab.listen(lab.guest, 80)
    no = rule("no", action="drop", protocol="tcp", ports=("80",))
    lab.rules(rule("yes", order=20), replace(no, order=10))
    assert not lab.reached(lab.outside, GUEST[4], 80)
    lab.rules(rule("yes", order=20), replace(no, order=30))
    assert lab.reached(lab.outside, GUEST[4], 80)
    lab.rules(rule("all", source=("0.0.0.0/0",)))
    assert lab.reached(lab.outside, GUEST[4], 80)


def test_raw_rules_decide_and_count_like_others(lab):
    lab.listen(lab.guest, 80)
    lab.listen(lab.guest, 22)
    lab.listen(lab.guest, 23)
    lab.rules(
        rule("a", raw="tcp dport { 80, 81 } accept"),
        rule("b", raw="tcp dport 23 reject with tcp reset"),
        rule("c", raw='log prefix "x, y"'),
    )
    begun = lab.connect(lab.outside, GUEST[4], 80)
    assert isinstance(begun, socket.socket)
    assert lab.connect(lab.outside, GUEST[4], 22) == "timeout"
    assert lab.connect(lab.outside, GUEST[4], 23) == "ECONNREFUSED"
    assert counted(lab, "a") == 1
    assert counted(lab, "b") == 1
    assert counted(lab, "c") >= 1


def test_a_bad_raw_rule_is_refused_by_its_id_and_changes_nothing(lab):
    lab.listen(lab.guest, 80)
    good = rule("good", protocol="tcp", ports=("80",))
    lab.rules(good)
    assert lab.reached(lab.outside, GUEST[4], 80)
    for bad in (
        "tcp dprot 80 accept",
        "tcp dport 99999 accept",
        "ip saddr fd00::1 accept",
        "redirect to :80",
        "masquerade",
    ):
        rules = (
            rule("good", protocol="tcp", ports=("81",)),
            rule("first", raw="tcp dport 5 accept"),
            rule("bad", raw=bad),
        )
        network = replace(lab.network, rules=rules)
        with pytest.raises(table.RuleRefused, match="rule bad is refused") as caught:
            table.check(lab.gateway, render(network))
        assert caught.value.rule == "bad"
        with pytest.raises(table.RuleRefused, match="rule bad"):
            table.ensure(lab.gateway, network)
        assert not caught.value.retryable
    assert lab.reached(lab.outside, GUEST[4], 80)
    assert counted(lab, "good") == 2
    assert table.ensure(lab.gateway, table.without(network, "bad"))
    assert not lab.reached(lab.outside, GUEST[4], 80)


def test_counters_go_on_when_other_rules_change(lab):
    lab.listen(lab.guest, 80)
    web = rule("web", protocol="tcp", ports=("80",))
    assert not table.present(lab.gateway)
    assert table.counters(lab.gateway) == {}
    lab.rules(web)
    assert table.present(lab.gateway)
    assert lab.reached(lab.outside, GUEST[4], 80)
    before = table.counters(lab.gateway)["web"]
    assert not table.ensure(lab.gateway, lab.network)
    assert not table.ensure(lab.gateway, replace(lab.network, rules=(replace(web, comment="the site"),)))
    lab.rules(web, rule("other", "out", action="drop", protocol="tcp", ports=("1",)))
    assert table.counters(lab.gateway)["web"] == before
    assert lab.reached(lab.outside, GUEST[4], 80)
    assert counted(lab, "web") == 2
    assert counted(lab, "other") == 0
    lab.rules()
    assert "web" not in table.counters(lab.gateway)


@pytest.mark.parametrize("version", [4, 6])
def test_foreign_source_addresses_are_dropped(lab, version):
    receiver = lab.listen(lab.outside, 700, version, socket.SOCK_DGRAM)
    foreign = "10.99.0.1" if version == 4 else "fd00:99::1"
    with Links(lab.guest) as links:
        links.add_address(links.get("lo"), f"{foreign}/{32 if version == 4 else 128}", deprecated=True)
    lab.rules()
    sender = lab.unbound(lab.guest, version, socket.SOCK_DGRAM)
    sender.bind((foreign, 0))
    sender.sendto(b"x", (OUTSIDE[version], 700))
    with pytest.raises(TimeoutError):
        receiver.recv(10)
    assert counted(lab, "*spoofed") == 1
    lab.rules(spoof_check=False)
    sender.sendto(b"y", (OUTSIDE[version], 700))
    assert receiver.recv(10) == b"y"


@pytest.mark.parametrize("version", [4, 6])
def test_a_gateway_is_spoken_to_about_its_services_only(lab, version):
    for port in (53, 22):
        lab.listen(lab.gateway, port, version)
    dhcp = lab.listen(lab.gateway, 67 if version == 4 else 547, version, socket.SOCK_DGRAM)
    ntp = lab.listen(lab.gateway, 123, version, socket.SOCK_DGRAM)
    lab.rules(transfer_peers=(OTHER[4], OTHER[6]))
    assert lab.pinged(lab.guest, GATEWAY[version])
    assert lab.reached(lab.guest, GATEWAY[version], 53)
    assert not lab.reached(lab.guest, GATEWAY[version], 22)
    assert lab.sent(lab.guest, dhcp, GATEWAY[version], 67 if version == 4 else 547)
    assert not lab.sent(lab.guest, ntp, GATEWAY[version], 123)
    assert lab.pinged(lab.outside, UPLINK[version])
    assert lab.reached(lab.outside, GATEWAY[version], 53, source=OTHER[version])
    assert not lab.reached(lab.outside, GATEWAY[version], 53, source=OUTSIDE[version])
    assert not lab.sent(lab.outside, dhcp, UPLINK[version], 67 if version == 4 else 547)
    # The gateway's own questions are answered.
    server = lab.listen(lab.outside, 5300, version, socket.SOCK_DGRAM)
    asking = lab.unbound(lab.gateway, version, socket.SOCK_DGRAM)
    asking.sendto(b"?", (OUTSIDE[version], 5300))
    _, address = server.recvfrom(10)
    server.sendto(b"!", address)
    assert asking.recv(10) == b"!"
    lab.rules(dns=False)
    assert not lab.reached(lab.guest, GATEWAY[version], 53)


@pytest.mark.parametrize("version", [4, 6])
def test_packets_that_are_too_big_are_told_back(lab, version):
    with Links(lab.gateway) as links:
        links.set(links.get("up0"), "mtu", mtu=1300)
    lab.rules()
    too_big = ("-M", "do", "-s", "1400")
    assert not lab.pinged(lab.guest, OUTSIDE[version], *too_big)

    def learned():
        with entered(lab.guest):
            return "mtu 1300" in run(("ip", "route", "get", OUTSIDE[version]), deadline_s=5).stdout

    eventually(learned, "the guest knows the smaller MTU", within_s=3)
    listener = lab.listen(lab.outside, 80, version)
    begun, _ = lab.stream(lab.guest, OUTSIDE[version], 80, listener)
    assert begun.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1300


def test_segments_fit_though_nobody_learned_a_smaller_mtu(lab):
    with Links(lab.gateway) as links:
        links.set(links.get("up0"), "mtu", mtu=1300)
    listener = lab.listen(lab.outside, 80)
    lab.rules()
    _, taken = lab.stream(lab.guest, OUTSIDE[4], 80, listener)
    assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1260


def test_networks_tables_do_not_touch_each_other(lab):
    other = f"{lab.guest}-2"
    create(other)
    try:
        table.ensure(other, VxlanNetwork(vni=2, ipv4="10.2.0.0/24", rules=(rule("theirs"),)))
        lab.rules(rule("ours"))
        with pytest.raises(table.RuleRefused):
            table.ensure(lab.gateway, replace(lab.network, rules=(rule("bad", raw="nonsense accept"),)))
        assert "theirs" in table.counters(other)
        assert "ours" in table.counters(lab.gateway)
    finally:
        remove(other)
