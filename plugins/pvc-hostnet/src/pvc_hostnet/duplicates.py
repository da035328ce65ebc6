"""Asks a segment whether another machine has an address too: ARP probes (RFC 5227) and DAD solicitations (RFC 4862).

Who has it answers; a question of this kind changes nobody's tables.  Answers from this host's own devices are none: two of
them in one segment answer for each other.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import msgspec

from pvc_core.plugin import DriverError

WAIT_S: Final = 0.3
"""Time for answers; a host on the same segment answers within milliseconds."""
_ARP: Final = 0x0806
_IPV6: Final = 0x86DD
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
_ICMP6_FILTER: Final = 1
"""``linux/icmpv6.h``: a bit for each type that is not to be heard."""
_TARGET_ADDRESS: Final = 2
"""Option of an advertisement: the sender's MAC address."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that a device has, or is about to have."""

    device: str
    mac: str
    addresses: tuple[str, ...]


def others(questions: Iterable[Question], own_macs: Collection[str], *, wait_s: float = WAIT_S) -> dict[str, str]:
    """Return address -> MAC address of another machine that has it.  Raises DriverError when nothing can be sent or heard."""
    wanted = {ip_address(address): address for question in questions for address in question.addresses}
    found: dict[str, str] = {}
    with contextlib.ExitStack() as held:
        sockets: dict[socket.socket, int] = {}
        for question in questions:
            try:
                sockets |= _ask(question, held)
            except OSError as error:
                raise DriverError(
                    f"cannot look for duplicate addresses on {question.device}: {error.strerror}"
                ) from error
        for address, mac in _answers(sockets, wait_s):
            if address in wanted and mac not in own_macs:
                found[wanted[address]] = mac
    return found


def _ask(question: Question, held: contextlib.ExitStack) -> Mapping[socket.socket, int]:
    """Send the questions of a device; return the sockets on which answers come, by the version of IP."""
    sockets = {}
    mac = bytes.fromhex(question.mac.replace(":", ""))
    raw = held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)))
    raw.bind((question.device, _ARP))
    sockets[raw] = 4
    addresses = [ip_address(address) for address in question.addresses]
    if any(address.version == 6 for address in addresses):
        heard = held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, question.device.encode() + b"\0")
        blocked = [0xFFFFFFFF] * 8
        blocked[_ADVERTISEMENT // 32] &= ~(1 << _ADVERTISEMENT % 32)
        heard.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("8I", *blocked))
        sockets[heard] = 6
    for address in addresses:
        raw.send(_probe(address, mac) if isinstance(address, IPv4Address) else _solicitation(address, mac))
    return sockets


def _answers(sockets: Mapping[socket.socket, int], wait_s: float) -> Iterator[tuple[IPv4Address | IPv6Address, str]]:
    until = time.monotonic() + wait_s
    while (left := until - time.monotonic()) > 0:
        for ready in select.select(list(sockets), [], [], left)[0]:
            frame = ready.recv(2048)
            answer = _of_arp(frame) if sockets[ready] == 4 else _of_advertisement(frame)
            if answer is not None:
                yield answer


def _probe(address: IPv4Address, mac: bytes) -> bytes:
    head = struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, 1)
    return b"\xff" * 6 + mac + head + mac + bytes(4) + bytes(6) + address.packed


def _solicitation(address: IPv6Address, mac: bytes) -> bytes:
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:]
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed
    pseudo = bytes(16) + group + struct.pack("!I3xB", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + bytes(16) + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", _IPV6) + head + body


def _of_arp(frame: bytes) -> tuple[IPv4Address, str] | None:
    """Return sender's address and MAC; a probe of somebody who only asks has no address."""
    if len(frame) < 42 or frame[14:20] != struct.pack("!HHBB", 1, 0x0800, 6, 4):
        return None
    return IPv4Address(frame[28:32]), frame[22:28].hex(":")


def _of_advertisement(body: bytes) -> tuple[IPv6Address, str] | None:
    options = body[24:]
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_ADDRESS:
            return IPv6Address(body[8:24]), options[2:8].hex(":")
        options = options[options[1] * 8 :]
    return None


def _checksum(data: bytes) -> int:
    total = sum(int(word) for word in struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
