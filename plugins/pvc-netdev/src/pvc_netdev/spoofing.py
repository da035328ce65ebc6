"""Keeps guests from sending as somebody else: rules for each NIC in nftables, family bridge, table ``pvc-nics``.

A NIC is guarded by a chain of its own, which a verdict map finds by the name of its device, so that a frame costs the same
whether there are two NICs or a thousand.  Frames from devices that are not in the map pass.  Every change is one transaction
and says all about its NICs, so it may be repeated, and what a daemon before this one left is taken over.  The rules know no
connections, so they need nothing that nftables' family bridge has not on every kernel.

Source: nft(8); for what may have no address yet RFC 2131 (DHCP), RFC 4862 (duplicate address detection), RFC 5227 (ARP probes).
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Any, Final

import msgspec

from pvc_core.plugin import Completed, DriverError, run

TABLE: Final = "bridge pvc-nics"
_MAP: Final = "nics"
_DEADLINE_S: Final = 20.0
_DEVICE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z")
_MAC: Final = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z", re.IGNORECASE)
_NO_ADDRESS4: Final = str(IPv4Address(0))
_LINK_LOCAL: Final = IPv6Network("fe80::/10")
_TARGET: Final = "@th,64,128"
"""Target address of a neighbour advertisement (RFC 4861, 4.4); nft of Debian 12 has no name for it."""
_BASE: Final = (
    f"add table {TABLE}",
    f"add map {TABLE} {_MAP} {{ type ifname : verdict; }}",
    f"add chain {TABLE} prerouting {{ type filter hook prerouting priority -300; policy accept; }}",
    f"flush chain {TABLE} prerouting",
    f"add rule {TABLE} prerouting iifname vmap @{_MAP}",
)


class GuardedNic(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's NIC and what it may send as."""

    device: str
    """The tap."""
    mac: str
    addresses: tuple[str, ...] = ()
    """Its IP addresses.  For a family of which it has none: any that ``prefixes`` have."""
    prefixes: tuple[str, ...] = ()
    """Of its network.  With one of them, a family without one is not sent at all; none of either: any address."""
    denied: tuple[str, ...] = ()
    """Addresses of others: the gateway's, reservations.  Its own ``addresses`` are allowed nevertheless."""
    services: bool = True
    """Keep it from offering DHCP and from being a router (RA, redirects)."""
    mac_only: bool = False
    """Check MAC addresses only, and neither addresses nor ``services``."""


class _Listed(msgspec.Struct, frozen=True):
    nftables: list[dict[str, Any]]


def guard(nics: Iterable[GuardedNic]) -> None:
    """Guard NICs from now on, all in one transaction; those that are guarded as given.  Other NICs are not touched.

    Raises DriverError: nothing has then changed.
    """
    text = [line for nic in nics for line in rules(nic)]
    if text:
        _change([*_BASE, *text])


def unguard(device: str) -> None:
    """Let a device send what it wants; not guarded already is success."""
    if device in guarded():
        # Added before it is deleted, because somebody may have been faster.
        _change(
            [
                *_BASE,
                *_named(device),
                f"add element {TABLE} {_MAP} {{ {_element(device)} }}",
                f'delete element {TABLE} {_MAP} {{ "{device}" }}',
                f"flush chain {TABLE} {_chain(device)}",
                f"delete chain {TABLE} {_chain(device)}",
                f"delete counter {TABLE} {_counter(device)}",
            ]
        )


def guarded() -> set[str]:
    """Return the devices that are guarded, whether they exist or not."""
    # All maps of the family: unlike one map, to list them is no error where there is none.
    elements = [
        element
        for one in _listed("list", "maps", "bridge")
        if "map" in one and _is_ours(one["map"]) and one["map"]["name"] == _MAP
        for element in one["map"].get("elem", ())
    ]
    return {str(element[0]) for element in elements}


def drops(device: str) -> int:
    """Return how many frames of a device were dropped since it was guarded; 0 when it is not."""
    for one in _listed("list", "counters", "bridge"):
        if "counter" in one and _is_ours(one["counter"]) and one["counter"]["name"] == _counter(device):
            return int(one["counter"]["packets"])
    return 0


def rules(nic: GuardedNic) -> list[str]:
    """Return the commands for nft that guard a NIC: pure.  Raises DriverError for what is no device, MAC or IP address."""
    if not _DEVICE.match(nic.device):
        raise DriverError(f"{nic.device!r} is not the name of a device", retryable=False)
    if not _MAC.match(nic.mac):
        raise DriverError(f"{nic.device}: {nic.mac!r} is not a MAC address", retryable=False)
    try:
        lines = list(_rules(nic))
    except ValueError as error:
        raise DriverError(f"{nic.device} cannot be guarded: {error}", retryable=False) from error
    return [
        *_named(nic.device),
        f"flush chain {TABLE} {_chain(nic.device)}",
        *(f"add rule {TABLE} {_chain(nic.device)} {line}" for line in lines),
        f"add element {TABLE} {_MAP} {{ {_element(nic.device)} }}",
    ]


def _rules(nic: GuardedNic) -> Iterator[str]:
    drop = f'counter name "{_counter(nic.device)}" drop'
    yield f"ether saddr != {nic.mac} {drop}"
    yield f"ether type arp arp hlen != 6 {drop}"
    yield f"ether type arp arp plen != 4 {drop}"
    yield f"arp saddr ether != {nic.mac} {drop}"
    if nic.mac_only:
        return
    if nic.addresses or nic.prefixes or nic.denied or nic.services:
        # What is in a frame with a tag cannot be looked at.
        yield f"ether type {{ 8021q, 8021ad }} {drop}"
    if nic.services:
        yield f"ether type ip udp dport 68 {drop}"
        yield f"ether type ip6 udp dport 546 {drop}"
        yield f"icmpv6 type {{ nd-router-advert, nd-redirect }} {drop}"
    yield from _rules4(nic, drop)
    yield from _rules6(nic, drop)


def _rules4(nic: GuardedNic, drop: str) -> Iterator[str]:
    # Before it has an address: it asks for one, joins groups.  What has 0.0.0.0 as sender in ARP is a probe.
    yield f"ip saddr {_NO_ADDRESS4} udp sport 68 udp dport 67 accept"
    yield f"ip saddr {_NO_ADDRESS4} ip protocol igmp accept"
    yield f"ip saddr {_NO_ADDRESS4} {drop}"
    yield f"arp saddr ip {_NO_ADDRESS4} accept"
    denied = _denied(nic, 4)
    if denied:
        yield f"ip saddr {denied} {drop}"
        yield f"arp saddr ip {denied} {drop}"
    allowed = _allowed(nic, 4)
    if allowed is None:
        return
    if not allowed:
        yield f"ether type ip {drop}"
        yield f"ether type arp {drop}"
        return
    yield f"ip saddr != {_set(allowed)} {drop}"
    yield f"arp saddr ip != {_set(allowed)} {drop}"


def _rules6(nic: GuardedNic, drop: str) -> Iterator[str]:
    # Duplicate address detection and reports about groups.
    yield f"ip6 saddr :: meta l4proto != ipv6-icmp {drop}"
    denied = _networks(nic.denied, 6, nic.addresses)
    advert = "icmpv6 type nd-neighbor-advert"
    if denied:
        yield f"ip6 saddr {_set(denied)} {drop}"
        yield f"{advert} {_TARGET} {_ranges(denied)} {drop}"
    allowed = _allowed(nic, 6)
    if allowed is not None:
        local = [*allowed, _LINK_LOCAL]
        yield f"ip6 saddr != {_set([*local, ip_network('::/128')])} {drop}"
        yield f"{advert} {_TARGET} != {_ranges(local)} {drop}"


def _denied(nic: GuardedNic, version: int) -> str:
    found = _networks(nic.denied, version, nic.addresses)
    return _set(found) if found else ""


def _allowed(nic: GuardedNic, version: int) -> list[Any] | None:
    """Return the prefixes of a family that a NIC may send from; None: any."""
    own = _networks(nic.addresses, version)
    if own:
        return own
    return _networks(nic.prefixes, version) if nic.prefixes else None


def _networks(texts: Iterable[str], version: int, without: Iterable[str] = ()) -> list[Any]:
    own = {ip_address(text) for text in without}
    found: list[Any] = [ip_network(text, strict=False) for text in texts]
    kept = [one for one in found if one.version == version and not (one.num_addresses == 1 and one[0] in own)]
    return list(collapse_addresses(kept))


def _set(networks: Iterable[Any]) -> str:
    return f"{{ {', '.join(str(one) for one in networks)} }}"


def _ranges(networks: Iterable[Any]) -> str:
    """Return prefixes as ranges of numbers: what a set about raw payload is made of."""
    ends = [(f"{int(one[0]):#034x}", f"{int(one[-1]):#034x}") for one in networks]
    return f"{{ {', '.join(first if first == last else f'{first}-{last}' for first, last in ends)} }}"


def _named(device: str) -> tuple[str, str]:
    return f"add chain {TABLE} {_chain(device)}", f"add counter {TABLE} {_counter(device)}"


def _element(device: str) -> str:
    return f'"{device}" : jump {_chain(device)}'


def _chain(device: str) -> str:
    return f"nic-{device}"


def _counter(device: str) -> str:
    return f"drops-{device}"


def _is_ours(one: dict[str, Any]) -> bool:
    return f"{one.get('family')} {one.get('table')}" == TABLE


def _change(commands: Iterable[str]) -> None:
    _nft("-f", "-", stdin="\n".join([*commands, ""])).check()


def _listed(*command: str) -> list[dict[str, Any]]:
    listed = _nft("-j", *command).check()
    try:
        return msgspec.json.decode(listed.stdout, type=_Listed).nftables
    except msgspec.MsgspecError as error:
        raise DriverError(f"nft's answer to `{' '.join(command)}` is not known: {error}") from error


def _nft(*arguments: str, stdin: str = "") -> Completed:
    return run(("nft", *arguments), deadline_s=_DEADLINE_S, stdin=stdin.encode())
