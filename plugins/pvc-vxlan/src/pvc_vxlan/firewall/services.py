"""What a gateway itself is spoken to about, and from which addresses: rules of its table that no operator writes.  Pure."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from pvc_vxlan.names import GUEST_SIDE, HOST_SIDE
from pvc_vxlan.network import VxlanNetwork

_SPOOFED: Final = 'counter name "spoofed" drop'


def sources(network: VxlanNetwork) -> Iterator[str]:
    """Yield the rules about source addresses: guests have those of the network, and nobody outside has one.

    They say nothing about networks that do not check (``spoof_check``): their guests may be routers.
    """
    if not network.spoof_check:
        return
    here4, here6 = network.interface4, network.interface6
    # Without an address yet: DHCP (RFC 2131), duplicate address detection (RFC 4862).
    allowed4 = [str(IPv4Address(0)), *([str(here4.network)] if here4 else [])]
    allowed6 = ["::", "fe80::/10", *([str(here6.network)] if here6 else [])]
    guests, host = f'iifname "{GUEST_SIDE}"', f'iifname "{HOST_SIDE}"'
    yield f"{guests} ip saddr != {{ {', '.join(allowed4)} }} {_SPOOFED}"
    yield f"{guests} ip6 saddr != {{ {', '.join(allowed6)} }} {_SPOOFED}"
    if here4:
        yield f"{guests} ip saddr {here4.ip} {_SPOOFED}"
        yield f"{host} ip saddr {here4.network} {_SPOOFED}"
    if here6:
        yield f"{guests} ip6 saddr {here6.ip} {_SPOOFED}"
        yield f"{host} ip6 saddr {here6.network} {_SPOOFED}"


def accepted(network: VxlanNetwork) -> Iterator[str]:
    """Yield the rules about packets to the gateway itself; what none of them accepts is dropped."""
    yield 'iifname "lo" accept'
    # Neighbours are found (RFC 4861) before there is a connection.
    yield "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
    yield "ct state established ct direction reply accept"
    yield "meta l4proto { icmp, ipv6-icmp } ct state related accept"
    yield "icmp type echo-request accept"
    yield "icmpv6 type echo-request accept"
    guests, host = f'iifname "{GUEST_SIDE}"', f'iifname "{HOST_SIDE}"'
    yield f"{guests} icmpv6 type {{ nd-router-solicit, mld-listener-report, mld2-listener-report, mld-listener-done }} accept"
    yield f"{guests} meta nfproto ipv4 udp dport 67 accept"
    yield f"{guests} meta nfproto ipv6 udp dport 547 accept"
    if network.dns:
        yield f"{guests} meta l4proto {{ tcp, udp }} th dport 53 accept"
        # Not by connection: a peer that is one no more is refused at once.
        for kind, peers in _by_family(network.transfer_peers):
            yield f"{host} {kind} saddr {{ {', '.join(peers)} }} meta l4proto {{ tcp, udp }} th dport 53 accept"


def _by_family(addresses: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for kind in ("ip", "ip6"):
        found = sorted({address for address in addresses if (":" in address) == (kind == "ip6")})
        if found:
            yield kind, found
