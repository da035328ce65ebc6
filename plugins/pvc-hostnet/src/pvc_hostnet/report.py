"""What a node says of its networks: answer of the query ``hostnet.status``."""

from collections.abc import Iterable

import msgspec

from pvc_hostnet.faults import Fault
from pvc_hostnet.layout import Layout
from pvc_hostnet.seen import Seen, version_of
from pvc_hostnet.steps import FLOATING, OWN


class OwnAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address of the node."""

    address: str
    """As ``address/length``."""
    present: bool
    adopted: bool = False
    """The host gave it, not PVC, which therefore never removes it."""


class FloatingAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address of the primary."""

    address: str
    held: bool
    """It is on this node now."""


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway of the section."""

    address: str
    used: bool
    """The default route leads to it; else the host has another one, or none."""


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A network of the node."""

    name: str
    same_as: str = ""
    """Network whose device and addresses it has; empty: its own."""
    device: str
    exists: bool
    up: bool = False
    carrier: bool = False
    mac: str = ""
    mtu: int = 0
    """What the device has, bytes; 0: there is no device."""
    wanted_mtu: int | None = None
    addresses: tuple[OwnAddress, ...] = ()
    floating: tuple[FloatingAddress, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    problems: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All networks of a node."""

    node: str
    primary: bool
    """It is to have the floating addresses."""
    networks: tuple[NetworkStatus, ...]


def status(node: str, layout: Layout, seen: Seen, found: Iterable[Fault], *, held: bool) -> Status:
    """Return the networks as they are."""
    wrong = list(found)
    networks = []
    for network in layout.networks:
        link = seen.links.get(network.device)
        here = seen.at(network.device)
        marks = {address.address: address.protocol for address in here}
        ips = {address.address.partition("/")[0] for address in here}
        networks.append(
            NetworkStatus(
                name=network.name,
                same_as=network.same_as,
                device=network.device,
                exists=link is not None,
                up=link is not None and link.up,
                carrier=link is not None and link.carrier,
                mac=link.mac if link is not None else "",
                mtu=link.mtu if link is not None else 0,
                wanted_mtu=network.mtu,
                addresses=tuple(
                    OwnAddress(address=a, present=a in marks, adopted=a in marks and marks[a] not in (OWN, FLOATING))
                    for a in network.addresses
                ),
                floating=tuple(FloatingAddress(address=a, held=a in ips) for a in network.floating),
                gateways=tuple(
                    Gateway(address=via, used=any(route.via == via for route in seen.gateways(version_of(via))))
                    for via in network.gateways
                ),
                problems=tuple(fault.message for fault in wrong if fault.network == (network.same_as or network.name)),
            )
        )
    return Status(node=node, primary=held, networks=tuple(networks))
