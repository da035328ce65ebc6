"""A managed network as its operator wants it: ``NetworkSpec.parameters``, typed.  Values only; ``parameters`` checks them."""

from ipaddress import IPv4Interface, IPv6Interface
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

VNI_MAX: Final = (1 << 24) - 1
DEFAULT_ORDER: Final = 100
"""Order of a rule that was given none."""

Direction = Literal["in", "out"]
"""``in``: to the network's guests from outside the network; ``out``: from its guests to outside."""
Action = Literal["accept", "drop", "reject"]
Protocol = Literal["any", "tcp", "udp", "sctp", "icmp", "icmpv6", "esp", "gre"]


class Reservation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The addresses that one MAC address always gets."""

    mac: str
    address: str = ""
    """IPv4; empty: any of the range."""
    address6: str = ""
    """IPv6; empty: any of the range."""
    name: str = ""
    """Host name in the network's domain; empty: what the guest says, or its VM's name."""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule of the network's firewall.  All that it names must match; the first rule that matches decides."""

    id: str
    """Short and unique in its network: by it the rule is removed, and its counters are found."""
    direction: Direction
    order: Annotated[int, Meta(ge=1, le=9999)] = DEFAULT_ORDER
    """Lower ones come first; equal ones in the order in which they are in the list."""
    action: Action = "accept"
    protocol: Protocol = "any"
    source: tuple[str, ...] = ()
    """Prefixes, IPv4 or IPv6."""
    destination: tuple[str, ...] = ()
    source_ports: tuple[str, ...] = ()
    """Ports ``22`` or ranges ``8000-8100``; with tcp, udp, sctp."""
    ports: tuple[str, ...] = ()
    """Destination ports."""
    comment: str = ""
    raw: str = ""
    """A whole rule in the language of nft(8), instead of all but id, direction, order and comment."""


class VxlanNetwork(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of a network of driver ``vxlan``."""

    vni: Annotated[int, Meta(ge=1, le=VNI_MAX)]
    ipv4: str = ""
    """Prefix of its IPv4 addresses; empty: none."""
    gateway4: str = ""
    """Address of its gateway; empty: the first of the prefix."""
    ipv6: str = ""
    gateway6: str = ""
    gateway: bool = True
    """With a prefix: the primary coordinator is its gateway.  false: a network of its own, without DHCP and DNS."""
    dhcp4: tuple[str, ...] = ()
    """Ranges ``first-last`` of addresses that DHCP gives to guests without a reservation."""
    dhcp6: tuple[str, ...] = ()
    slaac: bool = True
    """With an IPv6 prefix of /64: guests may make addresses for themselves."""
    lease_s: Annotated[int, Meta(ge=120, le=31536000)] = 3600
    domain: str = ""
    """Of the names of its guests; empty: ``<name of the network>.<domain of the plugin's section>``."""
    dns: bool = True
    """Its gateway answers for the names of its guests, and asks ``dns_servers`` for others."""
    dns_servers: tuple[str, ...] = ()
    """Whom its gateway asks; empty: those of the node's section.  Without ``dns``: whom DHCP tells guests to ask."""
    ntp_servers: tuple[str, ...] = ()
    boot_file: str = ""
    """What DHCP tells guests to boot from the network."""
    boot_server: str = ""
    """Address of the TFTP server that has it."""
    transfer_peers: tuple[str, ...] = ()
    """Addresses that may transfer the network's zone of names (AXFR)."""
    masquerade: bool = False
    """Its guests reach outside under the address of the coordinator that is the gateway (IPv4)."""
    spoof_check: bool = True
    """A NIC may only send with its own MAC address and with IP addresses that are its own."""
    neighbor_suppression: bool = False
    """The nodes answer ARP and ND in place of guests elsewhere, which keeps gratuitous announcements from them too."""
    reservations: tuple[Reservation, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def has_gateway(self) -> bool:
        """Whether the primary is its gateway."""
        return self.gateway and bool(self.ipv4 or self.ipv6)

    @property
    def makes_addresses(self) -> bool:
        """Whether its guests make IPv6 addresses for themselves (SLAAC, RFC 4862)."""
        face = self.interface6
        return self.slaac and face is not None and face.network.prefixlen == 64

    @property
    def interface4(self) -> IPv4Interface | None:
        """The gateway's IPv4 address with the prefix length; None: the network has no gateway for IPv4."""
        if not self.gateway or not self.ipv4:
            return None
        prefix = IPv4Interface(self.ipv4).network
        return IPv4Interface(f"{self.gateway4 or prefix[1]}/{prefix.prefixlen}")

    @property
    def interface6(self) -> IPv6Interface | None:
        """The gateway's IPv6 address with the prefix length; None: the network has no gateway for IPv6."""
        if not self.gateway or not self.ipv6:
            return None
        prefix = IPv6Interface(self.ipv6).network
        return IPv6Interface(f"{self.gateway6 or prefix[1]}/{prefix.prefixlen}")


def typed(parameters: dict[str, Any]) -> VxlanNetwork:
    """Return parameters as this type; raises msgspec.ValidationError with the path of what is wrong."""
    # A list of one is written without a comma on the command line.
    lists = {name: [value] for name, value in parameters.items() if name in _LISTS and isinstance(value, str)}
    return msgspec.convert({**parameters, **lists}, VxlanNetwork)


_LISTS: Final = frozenset({"dhcp4", "dhcp6", "dns_servers", "ntp_servers", "transfer_peers"})


def by_order(rules: tuple[Rule, ...], direction: Direction) -> list[Rule]:
    """Return the rules of one direction in the order in which they are tried."""
    return sorted((rule for rule in rules if rule.direction == direction), key=lambda rule: rule.order)
