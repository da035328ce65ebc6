"""Which changes make the kernel as the layout says.  Pure.

What the host has already is left as it is (an address is *adopted*); only what carries our mark is ever removed.  Each address
and route that we give carries one, in the kernel itself (IFA_PROTO, RTPROT): so no file has to remember it, and it goes where the
address goes, also with a device that is removed or a host that is restarted.  A kernel before 5.18 has no such
mark for addresses: there, an address of an older section stays until the next boot.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from pvc_hostnet.layout import HostNetwork, Layout
from pvc_hostnet.seen import Seen, version_of
from pvc_netdev.links import Address, Link

OWN: Final = 112
"""Mark of a node's own addresses and default routes; any number that nobody else uses (rtnetlink(7), rt_addrprotos)."""
FLOATING: Final = 113
"""Mark of floating addresses."""
STACKED: Final = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "macsec"})
"""Kinds of devices that stand on another one, and cannot carry longer frames than it."""
ANYWHERE: Final = {4: "0.0.0.0/0", 6: "::/0"}


class SetMtu(msgspec.Struct, frozen=True):
    """Give a device an MTU."""

    network: str
    link: Link
    mtu: int


class SwitchOn(msgspec.Struct, frozen=True):
    """Switch a device on."""

    network: str
    link: Link


class RemoveAddress(msgspec.Struct, frozen=True):
    """Take an address that we gave away."""

    address: Address
    network: str = ""


class AddAddress(msgspec.Struct, frozen=True):
    """Give a device an address."""

    network: str
    link: Link
    address: str
    """As ``address/length``."""
    floating: bool = False


class RemoveRoute(msgspec.Struct, frozen=True):
    """Remove the default route that we made."""

    version: int
    network: str = ""


class AddRoute(msgspec.Struct, frozen=True):
    """Make a default route."""

    network: str
    link: Link
    via: str


Step = SetMtu | SwitchOn | RemoveAddress | AddAddress | RemoveRoute | AddRoute


def steps(layout: Layout, seen: Seen, *, held: bool) -> list[Step]:
    """Return what to do, in this order; ``held``: this node is to have the floating addresses.

    Floating addresses that this node is not to have are left alone: they are removed when they are relinquished.  A daemon that
    starts again on the primary finds them where they were.
    """
    found: list[Step] = []
    for network in layout.own:
        link = seen.links.get(network.device)
        if link is None:
            continue
        if network.mtu not in (None, link.mtu) and mtu_refusal(network, link, seen) is None:
            found.append(SetMtu(network.name, link, network.mtu or link.mtu))
        if not link.up:
            found.append(SwitchOn(network.name, link))
    # Before anything is added: the same address may have to go to another device.
    stale = [RemoveAddress(address) for address in seen.addresses if _stale(layout, seen, address)]
    found += stale
    gone = {step.address for step in stale}
    # Own addresses first: in a prefix the first one is the source of what the host itself sends.
    for network in layout.own:
        found += _own(network, seen, gone)
    if held:
        for network in layout.own:
            found += _floating(network, seen, gone)
    return [*found, *_routes(layout, seen)]


def mtu_refusal(network: HostNetwork, link: Link, seen: Seen) -> str | None:
    """Return why a device cannot get the MTU, as far as it can be seen beforehand."""
    if network.mtu is None or link.kind not in STACKED:
        return None
    under = next((other for other in seen.all_links if other.index == link.under), None)
    if under is None or under.mtu >= network.mtu:
        return None
    return f"it stands on {under.name}, whose MTU is {under.mtu}: raise that first, in the host's own configuration"


def held_prefix(address: str) -> str:
    """Return how a device gets a floating address: alone, without a prefix.

    The node's own address has the prefix.  So the floating one is never the first of its prefix, whose removal would take
    the node's own address along.
    """
    return f"{address}/{32 if version_of(address) == 4 else 128}"


def _stale(layout: Layout, seen: Seen, address: Address) -> bool:
    """Return whether an address carries our mark and does not belong where it is."""
    ip = address.address.partition("/")[0]
    here = [network for network in layout.own if _is(seen, network, address.device)]
    if address.protocol == OWN:
        return not any(address.address in network.addresses for network in here)
    if address.protocol == FLOATING:
        return not any(ip in network.floating for network in here)
    return False


def _is(seen: Seen, network: HostNetwork, device: int) -> bool:
    link = seen.links.get(network.device)
    return link is not None and link.index == device


def _own(network: HostNetwork, seen: Seen, gone: set[Address]) -> Iterator[Step]:
    link = seen.links.get(network.device)
    if link is None:
        return
    for address in network.addresses:
        # On another device, or with another prefix: whoever gave it has to take it away.
        if not [found for found in seen.with_address(address.partition("/")[0]) if found not in gone]:
            yield AddAddress(network.name, link, address)


def _floating(network: HostNetwork, seen: Seen, gone: set[Address]) -> Iterator[Step]:
    link = seen.links.get(network.device)
    if link is None:
        return
    for address in network.floating:
        if not [found for found in seen.with_address(address) if found not in gone]:
            yield AddAddress(network.name, link, held_prefix(address), floating=True)


def _routes(layout: Layout, seen: Seen) -> Iterator[Step]:
    wanted = {version_of(via): (network, via) for network in layout.own for via in network.gateways}
    for version in (4, 6):
        network, via = wanted.get(version, (None, ""))
        link = seen.links.get(network.device) if network is not None else None
        there = seen.gateways(version)
        ours = [route for route in there if route.protocol == OWN]
        stale = [route for route in ours if link is None or (route.via, route.device) != (via, link.index)]
        if stale:
            yield RemoveRoute(version, network.name if network is not None else "")
        if network is not None and link is not None and len(there) == len(stale):
            yield AddRoute(network.name, link, via)
