"""Announcements, as another machine on the segment gets them."""

import itertools
import socket
import struct
import subprocess
import threading
import time
from ipaddress import IPv6Address

import pytest

from pvc_core.plugin import DriverError
from pvc_core.testkit.waiting import eventually
from pvc_netdev import namespace
from pvc_netdev.announce import TIMES, announce, frames
from pvc_netdev.links import Links

MAC = "02:00:00:00:00:01"
RAW = bytes.fromhex(MAC.replace(":", ""))
ETH_P_ALL = 3


@pytest.fixture
def segment(links, make_namespace):
    """This machine has ``near``; returns the namespace of the one that has ``far``."""
    other = make_namespace()
    links.add_veth("near", "far", peer_namespace=other, mac=MAC)
    links.set(links.get("near"), "switching on", state="up")
    with Links(other) as there:
        there.set(there.get("far"), "switching on", state="up")
    return other


class Listener:
    """Every frame that comes to a device of a namespace, and when."""

    def __init__(self, name, device):
        with namespace.entered(name):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, 0))
        self._socket.settimeout(5)
        self.heard = []

    def hear(self, count, ours):
        """Wait for so many of our frames."""
        while len(self.heard) < count:
            frame = self._socket.recv(2048)
            if ours(frame):
                self.heard.append((time.monotonic(), frame))
        return [frame for _, frame in self.heard]

    def close(self):
        self._socket.close()


@pytest.fixture
def listener(segment):
    made = Listener(segment, "far")
    yield made
    made.close()


def is_arp(frame):
    return frame[12:14] == b"\x08\x06"


def is_advertisement(frame):
    return frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136


def checksum_of(frame):
    """Return the ones' complement sum of an ICMPv6 frame with its pseudo header, which is 0xffff when the checksum is right."""
    payload = frame[54:]
    data = frame[22:54] + struct.pack("!I3xB", len(payload), 58) + payload
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.real
def test_ipv4_address_is_announced_as_request_and_as_reply(listener):
    announce("near", ["192.0.2.7"], MAC, times=1)
    request, reply = listener.hear(2, is_arp)
    for frame, operation in ((request, 1), (reply, 2)):
        assert (frame[:6], frame[6:12]) == (b"\xff" * 6, RAW)
        assert struct.unpack("!HHBBH", frame[14:22]) == (1, 0x0800, 6, 4, operation)
        assert (frame[22:28], frame[28:32], frame[38:42]) == (RAW, bytes([192, 0, 2, 7]), bytes([192, 0, 2, 7]))
    assert (request[32:38], reply[32:38]) == (bytes(6), RAW)


@pytest.mark.real
@pytest.mark.parametrize(("router", "flags"), [(False, 0x20), (True, 0xA0)])
def test_ipv6_address_is_announced_to_all_nodes(listener, router, flags):
    announce("near", ["2001:db8::7"], MAC, times=1, router=router)
    (frame,) = listener.hear(1, is_advertisement)
    assert (frame[:6], frame[6:12]) == (bytes.fromhex("333300000001"), RAW)
    version, length, following, hops = struct.unpack("!IHBB", frame[14:22])
    assert (version >> 28, length, following, hops) == (6, 32, 58, 255)
    assert IPv6Address(frame[22:38]) == IPv6Address("2001:db8::7")
    assert IPv6Address(frame[38:54]) == IPv6Address("ff02::1")
    assert (frame[54], frame[55], frame[58]) == (136, 0, flags)
    assert IPv6Address(frame[62:78]) == IPv6Address("2001:db8::7")
    assert frame[78:80] == b"\x02\x01"
    assert frame[80:86] == RAW
    assert checksum_of(frame) == 0xFFFF


@pytest.mark.real
def test_announcements_are_repeated_with_growing_pauses(listener):
    began = time.monotonic()
    sender = threading.Thread(target=announce_here, args=("near", ["192.0.2.7", "192.0.2.8"]))
    # A thread is in the namespace of the one that started it.
    sender.start()
    listener.hear(TIMES * 4, is_arp)
    sender.join()
    assert 0.75 <= time.monotonic() - began < 5
    turns = [when for when, _ in listener.heard[::4]]
    pauses = [later - earlier for earlier, later in itertools.pairwise(turns)]
    assert [pause >= least * 0.8 for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.4), strict=True)] == [True] * 4


def announce_here(device, addresses):
    announce(device, addresses, MAC)


@pytest.mark.real
@pytest.mark.parametrize(("address", "own"), [("192.0.2.7", "192.0.2.1/24"), ("2001:db8::7", "2001:db8::1/64")])
def test_neighbours_send_to_the_new_mac_at_once(segment, links, address, own):
    """The kernel of the other machine believes it: its entry for the address changes."""
    stale = "02:00:00:00:00:99"
    with namespace.entered(segment), Links() as there:
        there.add_address(there.get("far"), own)
        subprocess.run(["ip", "neigh", "replace", address, "lladdr", stale, "dev", "far", "nud", "stale"], check=True)
    announce("near", [address], MAC, times=2)

    def entry():
        with namespace.entered(segment):
            shown = subprocess.run(["ip", "neigh", "show", address], check=True, capture_output=True, text=True)
            return shown.stdout

    eventually(lambda: MAC in entry(), "the neighbour knows the new MAC address", within_s=5)


@pytest.mark.real
def test_device_that_is_gone_or_down_is_told(segment, links):
    with pytest.raises(DriverError, match="cannot announce addresses on nothing: No such device"):
        announce("nothing", ["192.0.2.7"], MAC)
    links.set(links.get("near"), "switching off", state="down")
    with pytest.raises(DriverError, match="cannot announce addresses on near: Network is down"):
        announce("near", ["192.0.2.7"], MAC)


def test_wrong_addresses_are_refused():
    with pytest.raises(ValueError, match="does not appear to be"):
        frames("192.0.2.300", MAC)
