"""What the kernel has of a node's networks, read at one moment."""

from ipaddress import ip_interface

import msgspec

from pvc_hostnet.layout import Layout
from pvc_netdev.links import Address, DefaultRoute, Link, Links


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Devices, addresses and default routes of the host."""

    links: dict[str, Link]
    """The devices of the layout, by name, as far as they exist."""
    addresses: tuple[Address, ...]
    """Of all devices."""
    routes: tuple[DefaultRoute, ...]
    all_links: tuple[Link, ...] = ()
    """Every device of the host; empty: they were not needed."""

    def with_address(self, address: str) -> list[Address]:
        """Return where an address is, whatever the length of its prefix."""
        return [found for found in self.addresses if found.address.partition("/")[0] == address]

    def at(self, device: str) -> list[Address]:
        """Return the addresses of a device of the layout."""
        link = self.links.get(device)
        return [] if link is None else [found for found in self.addresses if found.device == link.index]

    def gateways(self, version: int) -> list[DefaultRoute]:
        """Return the default routes of IPv4 or IPv6."""
        return [route for route in self.routes if route.family == version]

    def name_of(self, index: int) -> str:
        """Return a device's name, for people."""
        links = (*self.links.values(), *self.all_links)
        return next((link.name for link in links if link.index == index), f"device {index}")


def read(links: Links, layout: Layout, *, whole: bool = False) -> Seen:
    """Look at the kernel; ``whole``: at all devices, which takes a second on a host with thousands of them.

    They are looked at in any case where an MTU is not as it should be, or a device has ports: what is wrong may depend on another
    device.
    """
    found = {}
    for network in layout.own:
        link = links.get(network.device)
        if link is not None:
            found[network.device] = link
    there = [(network, found[network.device]) for network in layout.own if network.device in found]
    needed = whole or any(network.mtu not in (None, link.mtu) or link.kind == "bridge" for network, link in there)
    return Seen(
        links=found,
        addresses=tuple(links.assigned()),
        routes=tuple(links.default_routes()),
        all_links=tuple(links.all()) if needed else (),
    )


def version_of(address: str) -> int:
    """Return 4 or 6."""
    return ip_interface(address).version
