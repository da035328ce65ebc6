"""What the kernel has, as values, and how they are read from its messages.

Source: ``linux/if_link.h``, ``linux/if_addr.h``, ``linux/neighbour.h``, ``linux/rtnetlink.h``.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pvc_netdev.netlink import Message, number, parse, text

LINK_HEAD: Final = struct.Struct("=BxHiII")
"""Family, type, index, flags, what changes."""
ADDRESS_HEAD: Final = struct.Struct("=BBBBi")
"""Family, length of the prefix, flags, scope, device."""
ENTRY_HEAD: Final = struct.Struct("=BxxxiHBB")
"""Family, device, state, flags, type."""
ROUTE_HEAD: Final = struct.Struct("=BBBBBBBBI")
"""Family, lengths of the destination and of the source, TOS, table, protocol, scope, type, flags."""
_IFF_UP: Final = 1
_IFF_LOWER_UP: Final = 0x10000
_IFA_F_DADFAILED: Final = 0x08
_NUD_PERMANENT: Final = 0x80
_NTF_EXT_LEARNED: Final = 0x10
_NTF_SELF: Final = 0x02
_VLAN_UNTAGGED: Final = 4
_RTN_UNICAST: Final = 1


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device."""

    index: int
    name: str
    kind: str
    """Such as bridge, veth, tun; empty: hardware."""
    alias: str
    mtu: int
    up: bool
    carrier: bool
    master: int
    """Index of the bridge it is a port of; 0: none."""
    mac: str
    under: int = 0
    """Index of the device that it stands on (VLAN), or of its other end (veth); 0: none, or in another namespace."""
    vlan: int = 0
    """Of a VLAN device its number."""
    vni: int = 0
    """Of a VXLAN device its VNI."""
    local: str = ""
    """Of a VXLAN device its address in the underlay."""
    filters: bool | None = None
    """Of a bridge whether it filters VLANs; None: the kernel has none that can."""
    learning: bool | None = None
    """Of a bridge's port; None: it is none."""
    neigh_suppress: bool | None = None
    """Of a bridge's port: the bridge answers ARP and ND in place of who is behind it."""


class ForwardingEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a bridge's or VXLAN device's forwarding database."""

    mac: str
    device: int
    """Index of the device it belongs to."""
    destination: str = ""
    """Of a VXLAN device's own entry: the address of the remote end."""
    permanent: bool = False
    external: bool = False
    """Learned by a routing daemon (NTF_EXT_LEARNED), not from frames."""
    own: bool = False
    """In the device's own table (``self``), not in its bridge's."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a device has."""

    address: str
    """As ``address/length``."""
    device: int
    """Index of the device."""
    protocol: int = 0
    """Who gave it (IFA_PROTO, Linux 5.18): a number that the giver chose; 0: it said nothing."""
    duplicate: bool = False
    """IPv6: the kernel found it on another machine, and does not use it."""


class DefaultRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A default route of the main table."""

    family: int
    """4 or 6."""
    via: str = ""
    """Its gateway; empty: none, or several."""
    device: int = 0
    """Index of the device; 0: several."""
    protocol: int = 0
    """Who made it: RTPROT_*, ``linux/rtnetlink.h``."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route of the main table."""

    destination: str
    """As ``address/length``."""
    via: str = ""
    """Its gateway; empty: none, or several."""
    device: int = 0
    """Index of the device; 0: several."""
    metric: int = 0
    protocol: int = 0
    unicast: bool = True


def link_of(message: Message) -> Link:
    """Return the device of a message of RTM_NEWLINK."""
    _, _, index, flags, _ = LINK_HEAD.unpack(message.head)
    found = message.attributes
    info = parse(found.get(18, b""))
    kind, data = text(info.get(1)), parse(info.get(2, b""))
    port = parse(info.get(5, b"")) if text(info.get(4)) == "bridge" else {}
    vxlan = kind == "vxlan"
    return Link(
        index=index,
        name=text(found.get(3)),
        kind=kind,
        alias=text(found.get(20)),
        mtu=number(found.get(4)),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        master=number(found.get(10)),
        mac=found.get(1, b"").hex(":"),
        # Of a device in another namespace the index says nothing here.
        under=number(found.get(5)) if 37 not in found else 0,
        vlan=number(data.get(1)) if kind == "vlan" else 0,
        vni=number(data.get(1)) if vxlan else 0,
        local=_ip(data.get(4) or data.get(17)) if vxlan else "",
        # The setting alone is there in kernels too that cannot.
        filters=bool(number(data.get(7))) if kind == "bridge" and 39 in data else None,
        learning=bool(number(port[8])) if 8 in port else None,
        neigh_suppress=bool(number(port[32])) if 32 in port else None,
    )


def address_of(message: Message) -> Address:
    """Return the address of a message of RTM_NEWADDR."""
    _, length, flags, _, index = ADDRESS_HEAD.unpack(message.head)
    found = message.attributes
    return Address(
        # Of a point-to-point link the first one is the other end's.
        address=f"{_ip(found.get(2) or found.get(1))}/{length}",
        device=index,
        protocol=number(found.get(11)),
        duplicate=bool((number(found.get(8)) or flags) & _IFA_F_DADFAILED),
    )


def entry_of(message: Message) -> ForwardingEntry:
    """Return the entry of a message of RTM_NEWNEIGH, family AF_BRIDGE."""
    _, index, state, flags, _ = ENTRY_HEAD.unpack(message.head)
    return ForwardingEntry(
        mac=message.attributes.get(2, b"").hex(":"),
        device=index,
        destination=_ip(message.attributes.get(1)),
        permanent=bool(state & _NUD_PERMANENT),
        external=bool(flags & _NTF_EXT_LEARNED),
        own=bool(flags & _NTF_SELF),
    )


def route_of(message: Message) -> Route:
    """Return the route of a message of RTM_NEWROUTE."""
    family, length, _, _, _, protocol, _, kind, _ = ROUTE_HEAD.unpack(message.head)
    found = message.attributes
    anywhere = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104  (no address to listen on)
    return Route(
        destination=f"{_ip(found.get(1)) or anywhere}/{length}",
        via=_ip(found.get(5)),
        device=number(found.get(4)),
        metric=number(found.get(6)),
        protocol=protocol,
        unicast=kind == _RTN_UNICAST,
    )


def _ip(value: bytes | None) -> str:
    if not value:
        return ""
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def vlan_tags_of(messages: Iterable[Any]) -> dict[int, bool]:
    """Return the VLANs of a port's messages of RTM_GETVLAN, and whether their frames have a tag there."""
    found: dict[int, bool] = {}
    for message in messages:
        for entry in message.get_attrs("BRIDGE_VLANDB_ENTRY"):
            info = entry.get_attr("BRIDGE_VLANDB_ENTRY_INFO")
            last = entry.get_attr("BRIDGE_VLANDB_ENTRY_RANGE") or info["vid"]
            found |= dict.fromkeys(range(info["vid"], last + 1), not info["flags"] & _VLAN_UNTAGGED)
    return found
