"""What a network of the plugin's section says."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

NAMES: Final = ("upstream", "cluster", "storage")
"""The networks of a node, in the order in which they are told."""


class NetworkSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One network of this node."""

    device: Annotated[
        str,
        Meta(
            max_length=15, description="Device of this node that leads to it: a NIC, bond, VLAN or bridge of the host."
        ),
    ] = ""
    mtu: Annotated[
        Annotated[int, Meta(ge=576, le=65535)] | None,
        Meta(description="MTU that the device gets, in bytes; IPv6 needs 1280. Empty: as it is."),
    ] = None
    addresses: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses of this node with the length of their prefix. 10.0.0.0/24, a prefix, means by number: the "
            "prefix's first address plus the node's number."
        ),
    ] = ()
    floating: Annotated[
        tuple[str, ...],
        Meta(description="Addresses that the primary coordinator has, inside the prefixes of addresses."),
    ] = ()
    gateways: Annotated[
        tuple[str, ...],
        Meta(
            description="Gateway of the default route, one for IPv4 and one for IPv6; used where the host has no such route."
        ),
    ] = ()
    same_as: Annotated[
        Literal["upstream", "cluster", "storage"] | None,
        Meta(
            description="This network is another one's too: its device and its addresses. Then nothing else is given."
        ),
    ] = None
