"""A network's part of the overlay on a node: its bridge, and the VXLAN device that joins it to those of other nodes.

Nothing is learned from frames that come through the tunnel: EVPN tells which MAC address is behind which node.  Frames for all, and
for those unknown, go to all nodes of the cluster, so that guests reach each other also while EVPN tells nothing.  Neighbour suppression is off unless the network wants it, because the kernel then
keeps gratuitous ARP from the tunnel too (Linux 5.10 to 6.18), by which moved addresses are found.
"""

import logging
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Final

from msgspec import Struct

from pvc_core.plugin import DriverError, NotReady, ObjectBusy
from pvc_netdev import sysctl
from pvc_netdev.links import EVERYBODY, Link, Links
from pvc_netdev.ownership import Owner, discard_interim
from pvc_vxlan import names
from pvc_vxlan.network import VxlanNetwork

_OWNER: Final = Owner(names.OWNER)
_OVERHEAD: Final = {4: 50, 6: 70}
"""Bytes of VXLAN, UDP, IP and Ethernet around a guest's packet, by the underlay's version of IP (RFC 7348, section 5)."""
_ARP_NOT_FOR_OTHERS: Final = "8"
"""arp_ignore: answer for no address at all; see ip-sysctl.rst of the kernel."""


class Underlay(Struct, frozen=True, kw_only=True):
    """What the tunnels of a node stand on."""

    address: str
    device: str
    mtu: int
    prefix: str
    """That the kernel has with the address."""
    prefixes: tuple[str, ...] = ()
    """Of all addresses that the device has."""

    @property
    def max_mtu(self) -> int:
        """Return the largest packet that a guest's network can carry."""
        return self.mtu - _OVERHEAD[ip_address(self.address).version]


def find_underlay(links: Links, address: str, node: str) -> Underlay:
    """Return the device that has this node's underlay address; raises NotReady when none has."""
    wanted = ip_address(address)
    given = links.assigned()
    found = next((each for each in given if ip_interface(each.address).ip == wanted), None)
    link = links.at(found.device) if found is not None else None
    if found is not None and link is not None:
        return Underlay(
            address=address,
            device=link.name,
            mtu=link.mtu,
            prefix=str(ip_interface(found.address).network),
            prefixes=tuple(
                sorted({str(ip_interface(each.address).network) for each in given if each.device == link.index})
            ),
        )
    raise NotReady(f"node {node} has no device with the underlay address {address}: give it to one, or set vtep")


class Overlay:
    """Makes and removes a network's bridge and tunnel.  Different networks may be worked on at the same time."""

    def __init__(self, node: str, port: int, log: logging.Logger) -> None:
        self._node: Final = node
        self._port: Final = port
        self._log: Final = log
        self._flooded: Final[dict[str, tuple[int, frozenset[str]]]] = {}
        """Tunnel -> its index, and to whom this daemon has it flood."""

    def ensure(
        self,
        network_id: str,
        name: str,
        network: VxlanNetwork,
        *,
        mtu: int | None,
        underlay: Underlay,
        others: frozenset[str],
        evpn: bool = True,
    ) -> int:
        """Make both exist as specified, changing live ones in place; return the MTU.  Raises DriverError.

        ``others``: underlay addresses of the other nodes, to which the tunnel floods.  Without ``evpn`` it also learns from
        what comes back, as nobody tells it who is where.
        """
        wanted = mtu or underlay.max_mtu
        if wanted > underlay.max_mtu:
            raise DriverError(
                f"network {name} wants MTU {wanted}, but the tunnels of node {self._node} carry at most {underlay.max_mtu}: "
                f"raise the MTU of {underlay.device} (now {underlay.mtu}) on every node first",
                retryable=False,
            )
        with Links() as links:
            bridge = self._bridge(links, network_id, wanted)
            tunnel = self._tunnel(links, network_id, network.vni, wanted, underlay, evpn=evpn)
            if tunnel.mtu != wanted:
                links.set(tunnel, f"setting MTU {wanted}", mtu=wanted)
            if bridge.mtu != wanted:
                # Ports first: should this be cut off, the bridge says that it is not done.
                for port in links.ports(bridge):
                    if port.mtu != wanted:
                        links.set(port, f"setting MTU {wanted}", mtu=wanted)
                links.set(bridge, f"setting MTU {wanted}", mtu=wanted)
            if tunnel.master != bridge.index:
                links.set(tunnel, f"putting into {bridge.name}", master=bridge.index)
            suppression = network.neighbor_suppression
            if (tunnel.master, tunnel.learning, tunnel.neigh_suppress) != (bridge.index, not evpn, suppression):
                # Said again it would be told to zebra.
                links.set_port(tunnel, "settings of a port", learning=not evpn, neigh_suppress=int(suppression))
            self._flood(links, tunnel, others, evpn=evpn)
            self._keep_out(bridge, tunnel)
            for device in (tunnel, bridge):
                if not device.up:
                    links.set(device, "switching on", state="up")
        return wanted

    def remove(self, network_id: str) -> None:
        """Remove what is ours of it; raises ObjectBusy while NICs of guests are in it."""
        with Links() as links:
            for name in (names.bridge(network_id), names.tunnel(network_id)):
                discard_interim(links, name)
            bridge = _ours(links.get(names.bridge(network_id)), network_id)
            tunnel = _ours(links.get(names.tunnel(network_id)), network_id)
            if bridge is not None:
                own = {names.tunnel(network_id), names.gateway_port(network_id)}
                guests = [port.name for port in links.ports(bridge) if port.name not in own]
                if guests:
                    raise ObjectBusy(f"bridge {bridge.name} still has NICs of guests: {', '.join(guests)}")
            for device in (tunnel, bridge):
                if device is not None:
                    links.delete(device)
                    self._log.info("device-removed network=%s device=%s", network_id, device.name)

    def networks(self) -> list[str]:
        """Return the ids of the networks that have something here."""
        with Links() as links:
            return _OWNER.networks(links)

    def tunnels(self) -> dict[int, str]:
        """Return the tunnels that this daemon has looked after, by index."""
        return {index: name for name, (index, _) in self._flooded.copy().items()}

    def bridge(self, network_id: str) -> Link | None:
        """Return the network's bridge, None when there is none of ours."""
        with Links() as links:
            return _ours(links.get(names.bridge(network_id)), network_id)

    # --- parts --------------------------------------------------------------------------------------

    def _bridge(self, links: Links, network_id: str, mtu: int) -> Link:
        name = names.bridge(network_id)
        found = _OWNER.mine(links.get(name), network_id, "bridge")
        return found or self._made(links, network_id, name, "bridge", lambda new: links.add_bridge(new, mtu=mtu))

    def _tunnel(self, links: Links, network_id: str, vni: int, mtu: int, underlay: Underlay, *, evpn: bool) -> Link:
        name = names.tunnel(network_id)
        found = _OWNER.mine(links.get(name), network_id, "vxlan")
        role = f"{'evpn' if evpn else 'flood'}-{self._port}"
        same = found is not None and (found.vni, found.local) == (vni, underlay.address)
        if found is not None and same and _OWNER.role_of(found) == role:
            return found
        # What a VXLAN device is made of cannot be changed: the new one replaces it.
        if found is not None and found.vni == vni:
            # The kernel has one device of a VNI and port.
            links.delete(found)
        return self._made(
            links,
            network_id,
            name,
            role,
            lambda new: links.add_vxlan(new, vni, local=underlay.address, port=self._port, mtu=mtu, learning=not evpn),
        )

    def _made(self, links: Links, network_id: str, name: str, role: str, add: Callable[[str], None]) -> Link:
        made = _OWNER.make(links, name, _OWNER.alias(network_id, role), add)
        self._log.info("device-made network=%s device=%s", network_id, name)
        return made

    def _flood(self, links: Links, tunnel: Link, others: frozenset[str], *, evpn: bool) -> None:
        """Have a tunnel's list of ends be whole; what EVPN has put there beside the cluster's nodes stays."""
        index, before = self._flooded.get(tunnel.name, (0, frozenset[str]()))
        if (index, before) == (tunnel.index, others):
            return  # what is taken from it is put back at once: ``flooding``
        if not evpn:
            # All that is there is of daemons of ours, also of those before this one.
            before |= {entry.destination for entry in links.forwarding(tunnel) if entry.own and entry.mac == EVERYBODY}
        for address in sorted(others):
            links.add_flood(tunnel, address)
        for address in sorted(before - others):
            links.remove_flood(tunnel, address)
        self._flooded[tunnel.name] = tunnel.index, others

    def _keep_out(self, bridge: Link, tunnel: Link) -> None:
        """Keep the host itself out of its guests' network: it only carries their frames."""
        for device in (bridge, tunnel):
            sysctl.no_ipv6(device.name)
            sysctl.write(f"ipv4/conf/{device.name}/arp_ignore", _ARP_NOT_FOR_OTHERS)


def _ours(link: Link | None, network_id: str) -> Link | None:
    return link if link is not None and _OWNER.network_of(link) == network_id else None
