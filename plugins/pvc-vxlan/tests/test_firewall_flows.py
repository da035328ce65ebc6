"""Open connections in a real kernel, when rules change and where a gateway has just come."""

import contextlib
import importlib.util
import socket
import struct
import time
from pathlib import Path

import pytest

from pvc_core.plugin import run
from pvc_netdev.namespace import entered
from pvc_vxlan.firewall import table
from pvc_vxlan.firewall.render import render

pytestmark = pytest.mark.real

_spec = importlib.util.spec_from_file_location("firewall_site", Path(__file__).with_name("firewall_site.py"))
site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site)
GUEST, OUTSIDE, NETWORK, SOON_S, heard, rule, counted = (
    site.GUEST,
    site.OUTSIDE,
    site.NETWORK,
    site.SOON_S,
    site.heard,
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
