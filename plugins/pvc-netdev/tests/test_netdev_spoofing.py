"""NICs that are guarded: honest frames pass a real bridge, all others do not."""

import contextlib
import socket
import struct
import uuid

import pytest
from msgspec.structs import replace
from pyroute2 import IPRoute

from pvc_core.plugin import DriverError, run
from pvc_core.testkit.waiting import eventually
from pvc_netdev import spoofing
from pvc_netdev.announce import frames
from pvc_netdev.links import Links
from pvc_netdev.namespace import NAMED, create, entered, remove
from pvc_netdev.spoofing import GuardedNic, drops, guard, guarded, rules, unguard
from pvc_netdev.sysctl import no_bridge_netfilter

MACS = {"tap1": "02:00:00:00:00:01", "tap2": "02:00:00:00:00:02", "tap3": "02:00:00:00:00:03"}
PREFIXES = ("10.5.0.0/24", "fd00:5::/64")
GATEWAY = ("10.5.0.1", "fd00:5::1", "fe80::1")
NIC = GuardedNic(device="tap1", mac=MACS["tap1"], prefixes=PREFIXES, denied=(*GATEWAY, "10.5.0.20"))
ALL = "ff:ff:ff:ff:ff:ff"
real = pytest.mark.real


class Switch:
    """A node with a bridge and ports tap1 ... tap3; whoever is plugged in there sends whole frames."""

    def __init__(self, held):
        self.node = f"sp{uuid.uuid4().hex[:8]}"
        create(self.node)
        held.callback(remove, self.node)
        self.far = f"{self.node}-f"
        create(self.far)
        held.callback(remove, self.far)
        self.sockets = {}
        with Links(self.node) as links:
            links.add_bridge("br0")
            links.set(links.get("br0"), "state", state="up")
            for name, mac in MACS.items():
                links.add_veth(name, name, peer_namespace=self.far, peer_mac=mac)
                links.set(links.get(name), "state", master=links.get("br0").index, state="up")
        for name in MACS:
            with Links(self.far) as links:
                links.set(links.get(name), "state", state="up")
            with entered(self.far):
                made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            held.callback(made.close)
            made.bind((name, 3))
            made.setblocking(False)
            self.sockets[name] = made
        held.enter_context(entered(self.node))
        no_bridge_netfilter()
        for name in MACS:
            eventually(lambda name=name: self._forwards(name), f"{name} forwards", within_s=5)

    def _forwards(self, name):
        other = "tap2" if name == "tap1" else "tap1"
        return self.passes(frame(MACS[name], 0x88B5, b"ready"), name, other)

    def passes(self, sent, via="tap1", to="tap2"):
        """Whether a frame that comes in at one port goes out at another: before or after a frame that surely does."""
        receiver = self.sockets[to]
        # The kernel takes a tag off before a socket sees the frame.
        looked_for = sent[:12] + sent[16:] if sent[12:14] == b"\x81\0" else sent
        self._received(receiver)
        self.sockets[via].send(sent.ljust(60, b"\0"))
        last = frame(MACS[via], 0x88B5, uuid.uuid4().bytes)
        self.sockets[via].send(last)
        seen = []

        def ended():
            seen.extend(self._received(receiver))
            return any(one.startswith(last) for one in seen)

        with contextlib.suppress(AssertionError):
            eventually(ended, "the last frame", within_s=0.5)
        return any(one.startswith(looked_for) for one in seen)

    def _received(self, receiver):
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(receiver.recv(2000))
        return found


@pytest.fixture
def switch():
    with contextlib.ExitStack() as held:
        yield Switch(held)


def frame(source, kind, payload, target=ALL):
    return bytes.fromhex((target + source).replace(":", "")) + struct.pack("!H", kind) + payload


def ip4(source, payload=b"", protocol=17, mac=MACS["tap1"], target="255.255.255.255"):
    head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(payload), 0, 64, protocol, 0)
    return frame(mac, 0x0800, head + socket.inet_aton(source) + socket.inet_aton(target) + payload)


def ip6(source, payload=b"", protocol=17, mac=MACS["tap1"], target="ff02::1"):
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    return frame(mac, 0x86DD, head + addresses + payload)


def udp(source, target):
    return struct.pack("!HHHH", source, target, 8 + 8, 0) + b"datagram"


def icmp6(type, body=bytes(28)):
    return struct.pack("!BBH", type, 0, 0) + body


def arp(address, mac=MACS["tap1"], sender=MACS["tap1"]):
    hardware = bytes.fromhex(sender.replace(":", ""))
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + hardware + socket.inet_aton(address) + bytes(6) + bytes(4)
    return frame(mac, 0x0806, body)


def nd(source, body):
    return ip6(source, body, protocol=58)


def solicited(target):
    return icmp6(136, bytes(4) + socket.inet_pton(socket.AF_INET6, target))


DATA = udp(1000, 2000)
HONEST = {
    "IPv4": ip4("10.5.0.10", DATA),
    "DHCP discover": ip4("0.0.0.0", udp(68, 67)),
    "DHCP renewal": ip4("10.5.0.10", udp(68, 67), target="10.5.0.1"),
    "IGMP": ip4("0.0.0.0", bytes(8), protocol=2),
    "ARP": arp("10.5.0.10"),
    "ARP probe": arp("0.0.0.0"),
    "IPv6": ip6("fd00:5::10", DATA),
    "link-local IPv6": ip6("fe80::10", DATA),
    "DHCPv6 solicit": ip6("fe80::10", udp(546, 547)),
    "DAD": nd("::", icmp6(135)),
    "MLD": nd("::", icmp6(143)),
    "router solicitation": nd("fe80::10", icmp6(133)),
    "neighbour advertisement": nd("fd00:5::10", solicited("fd00:5::10")),
    "link-local neighbour advertisement": nd("fe80::10", solicited("fe80::10")),
    "announcement": frames("fd00:5::10", MACS["tap1"])[0],
    "other protocol": frame(MACS["tap1"], 0x88B6, b"x"),
    "RARP after a migration": frame(MACS["tap1"], 0x8035, bytes(28)),
}
FALSE = {
    "MAC": ip4("10.5.0.10", DATA, mac=MACS["tap2"]),
    "MAC of another protocol": frame(MACS["tap2"], 0x88B6, b"x"),
    "IPv4 of another network": ip4("10.6.0.10", DATA),
    "IPv4 of the gateway": ip4("10.5.0.1", DATA),
    "IPv4 reserved for another": ip4("10.5.0.20", DATA),
    "no IPv4": ip4("0.0.0.0", DATA),
    "ARP of the gateway": arp("10.5.0.1"),
    "ARP reserved for another": arp("10.5.0.20"),
    "ARP of another network": arp("10.6.0.10"),
    "ARP sender's MAC": arp("10.5.0.10", sender=MACS["tap2"]),
    "ARP frame's MAC": arp("10.5.0.10", mac=MACS["tap2"]),
    "ARP with long addresses": frame(MACS["tap1"], 0x0806, struct.pack("!HHBBH", 1, 0x0800, 8, 4, 1) + bytes(40)),
    "DHCP offer": ip4("10.5.0.10", udp(67, 68)),
    "DHCPv6 reply": ip6("fe80::10", udp(547, 546)),
    "router advertisement": nd("fe80::10", icmp6(134)),
    "redirect": nd("fe80::10", icmp6(137)),
    "router advertisement behind an extension header": ip6(
        "fe80::10", bytes([58, 0, 1, 4, 0, 0, 0, 0]) + icmp6(134), 0
    ),
    "IPv6 of another network": ip6("fd00:6::10", DATA),
    "IPv6 of the gateway": ip6("fd00:5::1", DATA),
    "link-local IPv6 of the gateway": ip6("fe80::1", DATA),
    "no IPv6": ip6("::", DATA),
    "neighbour advertisement of the gateway": nd("fd00:5::10", solicited("fd00:5::1")),
    "neighbour advertisement of the gateway's link-local": nd("fe80::10", solicited("fe80::1")),
    "neighbour advertisement of another network": nd("fe80::10", solicited("fd00:6::1")),
    "frame with a tag": frame(MACS["tap1"], 0x8100, struct.pack("!HH", 5, 0x0800) + ip4("10.6.0.10", DATA)[14:]),
}


@real
def test_honest_frames_pass_and_false_ones_do_not(switch):
    everything = {**HONEST, **FALSE}
    assert [name for name, sent in everything.items() if not switch.passes(sent)] == []
    guard([NIC])
    assert [name for name, sent in HONEST.items() if not switch.passes(sent)] == []
    assert drops("tap1") == 0
    assert [name for name, sent in FALSE.items() if switch.passes(sent)] == []
    assert drops("tap1") == len(FALSE)


@real
def test_a_nic_with_addresses_has_no_others(switch):
    guard([replace(NIC, addresses=("10.5.0.20", "fd00:5::20"))])
    assert switch.passes(ip4("10.5.0.20", DATA))
    assert switch.passes(arp("10.5.0.20"))
    assert switch.passes(ip6("fd00:5::20", DATA))
    assert switch.passes(nd("fe80::10", solicited("fd00:5::20")))
    for sent in (ip4("10.5.0.10", DATA), arp("10.5.0.10"), ip6("fd00:5::10", DATA)):
        assert not switch.passes(sent)
    assert not switch.passes(nd("fd00:5::20", solicited("fd00:5::10")))
    guard([replace(NIC, addresses=("10.5.0.20",))])
    assert not switch.passes(ip4("10.5.0.10", DATA))
    assert switch.passes(ip6("fd00:5::10", DATA))


@real
def test_a_family_that_the_network_has_not_is_not_sent(switch):
    guard([replace(NIC, prefixes=("fd00:5::/64",), denied=())])
    assert not switch.passes(ip4("10.5.0.10", DATA))
    assert not switch.passes(arp("10.5.0.10"))
    assert switch.passes(ip6("fd00:5::10", DATA))
    guard([replace(NIC, prefixes=("10.5.0.0/24",), denied=())])
    assert switch.passes(ip4("10.5.0.10", DATA))
    assert not switch.passes(ip6("fd00:5::10", DATA))
    assert switch.passes(ip6("fe80::10", DATA))


@real
def test_without_prefixes_any_address_but_those_of_others(switch):
    guard([replace(NIC, prefixes=())])
    assert switch.passes(ip4("192.0.2.1", DATA))
    assert switch.passes(ip6("2001:db8::1", DATA))
    assert switch.passes(nd("2001:db8::1", solicited("2001:db8::1")))
    assert not switch.passes(ip4("10.5.0.1", DATA))
    assert not switch.passes(ip6("fd00:5::1", DATA))


@real
def test_only_mac_addresses_are_checked_when_asked_for(switch):
    guard([replace(NIC, mac_only=True)])
    passing = [name for name, sent in FALSE.items() if switch.passes(sent)]
    assert [name for name in FALSE if name not in passing] == [
        "MAC",
        "MAC of another protocol",
        "ARP sender's MAC",
        "ARP frame's MAC",
        "ARP with long addresses",
    ]


@real
def test_nics_do_not_disturb_each_other(switch):
    second = GuardedNic(device="tap2", mac=MACS["tap2"], prefixes=PREFIXES)
    guard([NIC])
    assert not switch.passes(arp("10.5.0.1"))
    guard([second])
    assert guarded() == {"tap1", "tap2"}
    assert drops("tap1") == 1
    assert not switch.passes(arp("10.5.0.1"))
    assert switch.passes(arp("10.5.0.1", mac=MACS["tap2"], sender=MACS["tap2"]), "tap2", "tap3")
    assert not switch.passes(arp("10.5.0.1"), "tap2", "tap3")
    assert switch.passes(arp("10.5.0.1", mac=MACS["tap3"], sender=MACS["tap3"]), "tap3", "tap2")
    unguard("tap2")
    assert guarded() == {"tap1"}
    assert (drops("tap1"), drops("tap2")) == (2, 0)
    assert switch.passes(arp("10.5.0.1"), "tap2", "tap3")
    assert not switch.passes(arp("10.5.0.1"))


@real
def test_guarding_again_changes_only_what_is_new(switch):
    assert guarded() == set()
    unguard("tap1")
    guard([])
    assert drops("tap1") == 0
    guard([NIC])
    assert not switch.passes(ip4("10.6.0.1", DATA))
    guard([NIC])
    assert drops("tap1") == 1
    guard([replace(NIC, prefixes=("10.6.0.0/24",))])
    assert switch.passes(ip4("10.6.0.1", DATA))
    assert not switch.passes(ip4("10.5.0.10", DATA))
    assert drops("tap1") == 2
    unguard("tap1")
    unguard("tap1")
    assert switch.passes(ip4("10.5.0.1", DATA))
    assert "tap1" not in run(("nft", "list", "ruleset"), deadline_s=5).check().stdout


@real
def test_a_change_that_is_refused_changes_nothing(switch, monkeypatch):
    guard([NIC])
    monkeypatch.setattr(spoofing, "_rules", lambda _nic: iter(["accept", "nonsense"]))
    with pytest.raises(DriverError, match="nonsense"):
        guard([NIC, replace(NIC, device="tap2")])
    assert guarded() == {"tap1"}
    assert not switch.passes(ip4("10.6.0.1", DATA))


@real
def test_other_tables_stay(switch):
    run(("nft", "add table bridge theirs; add map bridge theirs nics { type ifname : verdict; }"), deadline_s=5).check()
    run(("nft", 'add element bridge theirs nics { "tap9" : drop }'), deadline_s=5).check()
    guard([NIC])
    assert guarded() == {"tap1"}
    unguard("tap1")
    assert "tap9" in run(("nft", "list", "table", "bridge", "theirs"), deadline_s=5).check().stdout


@real
def test_many_nics_are_guarded_in_one_transaction(switch):
    many = [replace(NIC, device=f"vnet{number}") for number in range(300)]
    guard([*many, NIC])
    assert len(guarded()) == 301
    assert switch.passes(HONEST["IPv4"])
    assert not switch.passes(FALSE["IPv4 of the gateway"])


@real
def test_a_guarded_client_gets_an_address_by_dhcp(switch, tmp_path):
    guard([NIC])
    lease = tmp_path / "lease"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && echo "$ip" > {lease}\nexit 0\n')
    script.chmod(0o755)
    server = f"{switch.node}-s"
    create(server)
    try:
        with entered(switch.far), IPRoute() as links:
            index = links.link_lookup(ifname="tap3")[0]
            with (NAMED / server).open("rb") as there:
                links.link("set", index=index, net_ns_fd=there.fileno())
        with Links(server) as links:
            links.add_address(links.get("tap3"), "10.5.0.1/24")
            links.set(links.get("tap3"), "state", state="up")
        arguments = ("--dhcp-range=10.5.0.50,10.5.0.60", "--no-ping", "--port=0", "--interface=tap3", "--user=root")
        files = (f"--dhcp-leasefile={tmp_path}/leases", f"--pid-file={tmp_path}/pid", "--conf-file=/dev/null")
        with entered(server):
            run(("dnsmasq", *arguments, *files), deadline_s=10).check()
        try:
            with entered(switch.far):
                client = ("udhcpc", "-i", "tap1", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", str(script))
                run(client, deadline_s=15).check()
        finally:
            run(("kill", (tmp_path / "pid").read_text().strip()), deadline_s=5).check()
    finally:
        remove(server)
    assert lease.read_text().startswith("10.5.0.")
    assert drops("tap1") == 0


@pytest.mark.parametrize(
    "wrong",
    [{"device": "a b"}, {"device": 'x"'}, {"mac": "x"}, {"addresses": ("10.0.0.0/8",)}, {"prefixes": ("ten",)}],
)
def test_what_cannot_be_is_told(wrong):
    with pytest.raises(DriverError) as caught:
        rules(replace(NIC, **wrong))
    assert not caught.value.retryable


def test_denied_prefixes_may_overlap():
    text = "\n".join(rules(replace(NIC, denied=("10.5.0.0/28", "10.5.0.1"), addresses=("10.5.0.20",))))
    assert "ip saddr { 10.5.0.0/28 }" in text
