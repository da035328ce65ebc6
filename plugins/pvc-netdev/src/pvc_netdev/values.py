"""What the kernel has, as values, and how they are read from its messages (pyroute2)."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

_IFF_UP: Final = 1
_IFF_LOWER_UP: Final = 0x10000
_IFA_F_DADFAILED: Final = 0x08
_NUD_PERMANENT: Final = 0x80
_NTF_EXT_LEARNED: Final = 0x10
_NTF_SELF: Final = 0x02
_VLAN_UNTAGGED: Final = 4
_KINDS_WITH_DATA: Final = ("bridge", "vlan", "vxlan")


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


def link_of(message: Any) -> Link:
    """Return the device of a message of RTM_GETLINK."""
    # What is nested is decoded when it is looked at: only where it is needed.
    info = message.get_attr("IFLA_LINKINFO")
    kind = _attribute(info, "IFLA_INFO_KIND") or ""
    data = _attribute(info, "IFLA_INFO_DATA") if kind in _KINDS_WITH_DATA else None
    is_port = _attribute(info, "IFLA_INFO_SLAVE_KIND") == "bridge"
    port = _attribute(info, "IFLA_INFO_SLAVE_DATA") if is_port else None

    def of_kind(name: str) -> Any:
        return _attribute(data, name)

    def of_port(name: str) -> bool | None:
        value = _attribute(port, name)
        return None if value is None else bool(value)

    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        alias=message.get_attr("IFLA_IFALIAS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message["flags"] & _IFF_LOWER_UP),
        master=message.get_attr("IFLA_MASTER") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        # Of a device in another namespace the index says nothing here.
        under=(message.get_attr("IFLA_LINK") or 0) if message.get_attr("IFLA_LINK_NETNSID") is None else 0,
        vlan=of_kind("IFLA_VLAN_ID") or 0,
        vni=of_kind("IFLA_VXLAN_ID") or 0,
        local=of_kind("IFLA_VXLAN_LOCAL") or of_kind("IFLA_VXLAN_LOCAL6") or "",
        filters=_filters(of_kind),
        learning=of_port("IFLA_BRPORT_LEARNING"),
        neigh_suppress=of_port("IFLA_BRPORT_NEIGH_SUPPRESS"),
    )


def _attribute(nested: Any, name: str) -> Any:
    """Return an attribute of what is nested in a message; None without it, or where pyroute2 could not decode it."""
    return nested.get_attr(name) if hasattr(nested, "get_attr") else None


def _filters(of_kind: Callable[[str], Any]) -> bool | None:
    # The setting alone is there in kernels too that cannot.
    if of_kind("IFLA_BR_VLAN_DEFAULT_PVID") is None:
        return None
    return bool(of_kind("IFLA_BR_VLAN_FILTERING"))


def address_of(message: Any) -> Address:
    """Return the address of a message of RTM_GETADDR."""
    # Of a point-to-point link IFA_ADDRESS is the other end's.
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return Address(
        address=f"{address}/{message['prefixlen']}",
        device=message["index"],
        protocol=message.get_attr("IFA_PROTO") or 0,
        duplicate=bool((message.get_attr("IFA_FLAGS") or message["flags"]) & _IFA_F_DADFAILED),
    )


def entry_of(message: Any) -> ForwardingEntry:
    """Return the entry of a message of RTM_GETNEIGH, family AF_BRIDGE."""
    return ForwardingEntry(
        mac=message.get_attr("NDA_LLADDR"),
        device=message["ifindex"],
        destination=message.get_attr("NDA_DST") or "",
        permanent=bool(message["state"] & _NUD_PERMANENT),
        external=bool(message["flags"] & _NTF_EXT_LEARNED),
        own=bool(message["flags"] & _NTF_SELF),
    )


def vlan_tags_of(messages: Iterable[Any]) -> dict[int, bool]:
    """Return the VLANs of a port's messages of RTM_GETVLAN, and whether their frames have a tag there."""
    found: dict[int, bool] = {}
    for message in messages:
        for entry in message.get_attrs("BRIDGE_VLANDB_ENTRY"):
            info = entry.get_attr("BRIDGE_VLANDB_ENTRY_INFO")
            last = entry.get_attr("BRIDGE_VLANDB_ENTRY_RANGE") or info["vid"]
            found |= dict.fromkeys(range(info["vid"], last + 1), not info["flags"] & _VLAN_UNTAGGED)
    return found
