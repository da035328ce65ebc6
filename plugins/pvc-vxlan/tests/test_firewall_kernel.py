"""The firewall in a real kernel: a guest, a gateway and somebody outside, each in a namespace, and what reaches whom."""

import contextlib
import errno
import os
import select
import socket
import struct
import time
import uuid
from pathlib import Path

import pytest
from msgspec.structs import replace
from pyroute2 import IPRoute

from pvc_core.plugin import run
from pvc_core.testkit.waiting import eventually
from pvc_netdev.links import Links
from pvc_netdev.namespace import create, entered, remove
from pvc_vxlan.firewall import table
from pvc_vxlan.firewall.render import render
from pvc_vxlan.firewall.validate import check_rules
from pvc_vxlan.network import Rule, VxlanNetwork

pytestmark = pytest.mark.real

NETWORK = VxlanNetwork(vni=77, ipv4="10.77.0.0/24", ipv6="fd00:77::/64")
GUEST = {4: "10.77.0.10", 6: "fd00:77::10"}
GATEWAY = {4: "10.77.0.1", 6: "fd00:77::1"}
OUTSIDE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
OTHER = {4: "198.51.100.200", 6: "2001:db8:9::200"}
UPLINK = {4: "198.51.100.1", 6: "2001:db8:9::1"}
SOON_S = 0.3
"""What is not there by then was dropped."""


class Lab:
    """guest eth0 - net0 gateway up0 - eth0 outside."""

    def __init__(self):
        self.network = NETWORK
        self.held = contextlib.ExitStack()
        """Namespaces."""
        self.opened = contextlib.ExitStack()
        """What one test makes."""

    def set_up(self):
        mark = uuid.uuid4().hex[:6]
        self.guest, self.gateway, self.outside = (f"fw{mark}-{name}" for name in ("guest", "gw", "out"))
        for name in (self.guest, self.gateway, self.outside):
            create(name)
            self.held.callback(remove, name)
            with entered(name):
                # Without a pause for duplicate address detection before a link-local address may ask for neighbours.
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        self._cable(self.guest, "net0", GUEST, GATEWAY)
        self._cable(self.outside, "up0", OUTSIDE, UPLINK)
        with Links(self.outside) as links:
            for version in (4, 6):
                links.add_address(links.get("eth0"), f"{OTHER[version]}/{24 if version == 4 else 64}", deprecated=True)
        with entered(self.gateway):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for name in (self.guest, self.gateway, self.outside):
            eventually(lambda name=name: self._settled(name), f"IPv6 works in {name}", within_s=5)

    def _cable(self, far, near_device, far_addresses, near_addresses):
        with Links(self.gateway) as links:
            links.add_veth(near_device, "eth0", peer_namespace=far)
        for name, device, addresses in ((self.gateway, near_device, near_addresses), (far, "eth0", far_addresses)):
            with Links(name) as links:
                link = links.get(device)
                for version in (4, 6):
                    links.add_address(link, f"{addresses[version]}/{24 if version == 4 else 64}")
                links.set(link, "state", state="up")
                links.set(links.get("lo"), "state", state="up")
        with entered(far), IPRoute() as routes:
            for via in near_addresses.values():
                routes.route(
                    "add", dst="default", gateway=via, family=socket.AF_INET6 if ":" in via else socket.AF_INET
                )

    def _settled(self, name):
        """The kernel takes up to a second to tell IPv6 that a link is up."""
        with entered(name), IPRoute() as addresses:
            local = [a for a in addresses.get_addr(family=socket.AF_INET6) if a["scope"] == 253]
        return len(local) == (2 if name == self.gateway else 1)

    def begin(self):
        self.network = NETWORK
        with entered(self.gateway):
            run(("nft", "flush", "ruleset"), deadline_s=5).check()

    def end(self):
        self.opened.close()
        with Links(self.gateway) as links:
            links.set(links.get("up0"), "mtu", mtu=1500)
        with entered(self.guest):
            for family in ("-4", "-6"):
                run(("ip", family, "route", "flush", "cache"), deadline_s=5).check()

    def rules(self, *rules, **fields):
        self.network = replace(self.network, rules=rules, **fields)
        check_rules("lab", rules)
        table.ensure(self.gateway, self.network)

    def unbound(self, where, version, kind):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with entered(where):
            made = socket.socket(family, kind)
        self.keep(made)
        made.settimeout(SOON_S)
        return made

    def keep(self, made):
        """Close it after the test: at once, so that nothing of it is sent again in the next one."""
        self.opened.callback(made.close)
        if made.type == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def listen(self, where, port, version=4, kind=socket.SOCK_STREAM):
        made = self.unbound(where, version, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    def connect(self, where, address, port, source=""):
        """Return the connection, or the name of the error: ``timeout``, ``ECONNREFUSED``, ``EHOSTUNREACH``."""
        made = self.unbound(where, 6 if ":" in address else 4, socket.SOCK_STREAM)
        if source:
            made.bind((source, 0))
        try:
            made.connect((address, port))
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode[error.errno]
        return made

    def reached(self, where, address, port, source=""):
        return isinstance(self.connect(where, address, port, source), socket.socket)

    def sent(self, where, receiver, address, port):
        """Whether a datagram comes to a socket."""
        sender = self.unbound(where, 6 if ":" in address else 4, socket.SOCK_DGRAM)
        text = os.urandom(8)
        sender.sendto(text, (address, port))
        try:
            return receiver.recv(100) == text
        except TimeoutError:
            return False

    def pinged(self, where, address, *options):
        with entered(where):
            return run(("ping", "-n", "-c1", "-W", str(SOON_S), *options, address), deadline_s=5).returncode == 0

    def stream(self, client, address, port, listener):
        """Return both ends of a new connection."""
        begun = self.connect(client, address, port)
        assert isinstance(begun, socket.socket), begun
        taken, _ = listener.accept()
        self.keep(taken)
        taken.settimeout(SOON_S)
        return begun, taken


def heard(sender, receiver, within_s=SOON_S):
    """Whether what one end says comes to the other."""
    with contextlib.suppress(OSError):
        while select.select([receiver], [], [], 0)[0] and receiver.recv(1000):
            pass
    text = os.urandom(8)
    try:
        sender.send(text)
        receiver.settimeout(within_s)
        return receiver.recv(100).endswith(text)
    except OSError:
        return False


@pytest.fixture(scope="module")
def site():
    """The namespaces, for all tests of the module: a link takes a second to be up for IPv6."""
    made = Lab()
    with made.held:
        made.set_up()
        yield made


@pytest.fixture
def lab(site):
    site.begin()
    yield site
    site.end()


def rule(id, direction="in", **fields):
    return Rule(id=id, direction=direction, **fields)


def counted(lab, id):
    return table.counters(lab.gateway)[id][0]


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


@pytest.mark.parametrize("raw", [False, True])
def test_a_connection_in_ends_with_its_rule_and_others_live_on(lab, raw):
    listeners = {port: lab.listen(lab.guest, port) for port in (80, 443)}
    if raw:
        rules = {port: rule(f"p{port}", raw=f"tcp dport {port} accept") for port in listeners}
    else:
        rules = {port: rule(f"p{port}", protocol="tcp", ports=(str(port),)) for port in listeners}
    lab.rules(*rules.values())
    client, server = lab.stream(lab.outside, GUEST[4], 80, listeners[80])
    client2, server2 = lab.stream(lab.outside, GUEST[4], 443, listeners[443])
    out_listener = lab.listen(lab.outside, 9000)
    guest, outside = lab.stream(lab.guest, OUTSIDE[4], 9000, out_listener)
    assert heard(client, server)
    assert heard(server, client)
    lab.rules(rules[443])
    # The answers of a server, and the data of a download, are the first to come after the change.
    assert heard(server2, client2)
    assert heard(outside, guest)
    assert heard(client2, server2)
    assert heard(guest, outside)
    if raw:
        assert not heard(client, server)
        assert not heard(server, client)
    else:
        assert not heard(server, client)
        assert not heard(client, server)
    assert heard(server2, client2)


@pytest.mark.parametrize("first", ["guest", "outside"])
def test_a_connection_out_ends_by_a_rule_against_it(lab, first):
    listeners = {port: lab.listen(lab.outside, port) for port in (25, 80)}
    lab.rules()
    mail, server = lab.stream(lab.guest, OUTSIDE[4], 25, listeners[25])
    web, web_server = lab.stream(lab.guest, OUTSIDE[4], 80, listeners[80])
    lab.rules(rule("mail", "out", action="drop", protocol="tcp", ports=("25",)))
    ends = [(mail, server), (server, mail)]
    for sender, receiver in ends if first == "guest" else reversed(ends):
        assert not heard(sender, receiver)
    assert heard(web_server, web)
    assert heard(web, web_server)
    assert counted(lab, "mail") >= 2


def test_a_rejecting_rule_resets_an_open_connection(lab):
    listener = lab.listen(lab.outside, 25)
    lab.rules()
    mail, _ = lab.stream(lab.guest, OUTSIDE[4], 25, listener)
    lab.rules(rule("mail", "out", action="reject", protocol="tcp", ports=("25",)))
    mail.send(b"x")
    with pytest.raises(ConnectionResetError):
        mail.recv(10)


def test_a_stream_of_datagrams_is_cut_though_only_the_other_end_sends(lab):
    lab.rules()
    server = lab.listen(lab.outside, 700, 4, socket.SOCK_DGRAM)
    client = lab.unbound(lab.guest, 4, socket.SOCK_DGRAM)
    client.sendto(b"begin", (OUTSIDE[4], 700))
    _, address = server.recvfrom(100)
    server.sendto(b"1", address)
    assert client.recv(10) == b"1"
    lab.rules(rule("u", "out", action="drop", protocol="udp"))
    server.sendto(b"2", address)
    with pytest.raises(TimeoutError):
        client.recv(10)
    lab.rules()
    server.sendto(b"3", address)
    assert client.recv(10) == b"3"


def test_an_open_connection_goes_on_where_the_gateway_has_just_come(lab):
    listener = lab.listen(lab.guest, 80)
    client, server = lab.stream(lab.outside, GUEST[4], 80, listener)
    # Until now no chain of the namespace has tracked anything.
    lab.rules(rule("web", protocol="tcp", ports=("80",)))
    assert heard(client, server)
    assert heard(server, client)


@pytest.fixture(params=["no rules", "structured", "raw"])
def download(request, lab):
    """A connection from a guest to outside, in which only the server speaks, as it is when the gateway has just come."""
    listener = lab.listen(lab.outside, 8000)
    client, server = lab.stream(lab.guest, OUTSIDE[4], 8000, listener)
    allowed = {
        "no rules": (),
        "structured": (
            rule("get", "out", protocol="tcp", ports=("8000",), source=("10.77.0.0/24",)),
            rule("no", "out", action="drop"),
        ),
        "raw": (rule("get", "out", raw="tcp dport 8000 accept"), rule("no", "out", action="drop")),
    }[request.param]
    lab.rules(*allowed)
    return client, server, allowed


def test_a_download_goes_on_where_the_gateway_has_just_come(lab, download):
    client, server, allowed = download
    assert heard(server, client)
    assert heard(client, server)
    lab.rules(*allowed, rule("other", "out", action="drop", protocol="udp"))
    assert heard(server, client)
    assert heard(client, server)


@pytest.mark.parametrize("first", ["guest", "outside"])
def test_an_adopted_connection_ends_by_a_rule_against_it(lab, download, first):
    client, server, allowed = download
    assert heard(server, client)
    lab.rules(rule("against", "out", order=1, action="drop", protocol="tcp", ports=("8000",)), *allowed)
    ends = [(client, server), (server, client)]
    for sender, receiver in ends if first == "guest" else reversed(ends):
        assert not heard(sender, receiver)


def test_what_the_rules_refuse_is_not_adopted(lab):
    listener = lab.listen(lab.outside, 25)
    client, server = lab.stream(lab.guest, OUTSIDE[4], 25, listener)
    lab.rules(rule("mail", "out", action="drop", protocol="tcp", ports=("25",)))
    assert not heard(server, client)
    assert counted(lab, "mail") >= 1


def test_connections_are_adopted_for_a_while_only(lab):
    listener = lab.listen(lab.outside, 8000)
    client, server = lab.stream(lab.guest, OUTSIDE[4], 8000, listener)
    table.apply(lab.gateway, render(NETWORK, adopt_until=int(time.time()) - 1))
    assert not heard(server, client)
    table.apply(lab.gateway, render(NETWORK))
    assert not heard(server, client)
    assert heard(client, server)


def test_nobody_begins_a_connection_by_being_adopted(lab):
    lab.listen(lab.guest, 22)
    lab.rules()

    def send(flags):
        ports = struct.pack("!HH", port, 22)
        head = ports + struct.pack("!IIBBHHH", 1000, 2000, 5 << 4, flags, 1000, 0, 0)
        pseudo = socket.inet_aton(OUTSIDE[4]) + socket.inet_aton(GUEST[4]) + struct.pack("!HH", 6, len(head))
        total = sum(struct.unpack(f"!{len(pseudo + head) // 2}H", pseudo + head))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        raw.sendto(head[:16] + struct.pack("!H", checksum) + head[18:], (GUEST[4], 0))

    def answers():
        """Flags of the guest's answers."""
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                packet = raw.recv(1000)
                if packet[20:22] == struct.pack("!H", 22):
                    found.append(packet[33])
        return found

    with entered(lab.outside):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    lab.opened.callback(raw.close)
    raw.settimeout(SOON_S)
    syn, rst, ack = 2, 4, 16
    port = 4444
    send(ack)
    assert answers() == [rst]
    # Somebody who is so fast that the guest's answer, which ends the connection for the gateway too, comes too late.
    with entered(lab.guest):
        quiet = "table ip t { chain o { type filter hook output priority 0; tcp flags & rst == rst drop; }; }"
        run(("nft", quiet), deadline_s=5).check()
        lab.opened.callback(run, ("ip", "netns", "exec", lab.guest, "nft", "delete table ip t"), deadline_s=5)
    lab.rules(rule("new", "out", action="drop", protocol="esp"))
    port = 4445
    send(ack)
    send(syn)
    assert answers() == []


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
