"""Tells a segment where an address is: gratuitous ARP (RFC 5227, 826) and unsolicited neighbour advertisements (RFC 4861).

Every announcement is sent several times with growing pauses: a bridge's port that was made a moment ago may not forward
yet, and a frame is lost now and then.
"""

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from pvc_core.plugin import DriverError

TIMES: Final = 5
"""Announcements of an address, with pauses of 50, 100, 200 and 400 ms."""
_FIRST_PAUSE_S: Final = 0.05
_ALL_NODES: Final = IPv6Address("ff02::1")
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ARP: Final = 0x0806
_IPV6: Final = 0x86DD
_ICMPV6: Final = 58
_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x20000000
_ROUTER: Final = 0x80000000


def frames(address: str, mac: str, *, router: bool = False) -> list[bytes]:
    """Return the frames that say that an address is at a MAC address; ``router``: as a router says it (IPv6)."""
    own = bytes.fromhex(mac.replace(":", ""))
    there = ip_address(address)
    if isinstance(there, IPv4Address):
        return list(_arp(there, own))
    return [_advertisement(there, own, router=router)]


def announce(device: str, addresses: Iterable[str], mac: str, *, times: int = TIMES, router: bool = False) -> None:
    """Announce addresses (without prefix lengths) on a device of the calling thread's namespace.

    Returns after the last time: about 0.75 s with the default.  Raises DriverError when the device is gone or down.
    """
    wanted = [frame for address in addresses for frame in frames(address, mac, router=router)]
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((device, 0))
            _send(raw, wanted, times)
    except OSError as error:
        raise DriverError(f"cannot announce addresses on {device}: {error.strerror}") from error


def _send(raw: socket.socket, wanted: Sequence[bytes], times: int) -> None:
    for turn in range(times):
        for frame in wanted:
            raw.send(frame)
        if turn + 1 < times:
            time.sleep(_FIRST_PAUSE_S * 2**turn)


def _arp(address: IPv4Address, mac: bytes) -> Iterator[bytes]:
    # Some stacks heed only requests, some only replies.
    for operation, target in ((1, bytes(6)), (2, mac)):
        head = struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, operation)
        yield b"\xff" * 6 + mac + head + mac + address.packed + target + address.packed


def _advertisement(address: IPv6Address, mac: bytes, *, router: bool) -> bytes:
    flags = _OVERRIDE | (_ROUTER if router else 0)
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, flags) + address.packed + b"\x02\x01" + mac
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!I3xB", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + mac + struct.pack("!H", _IPV6) + head + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
