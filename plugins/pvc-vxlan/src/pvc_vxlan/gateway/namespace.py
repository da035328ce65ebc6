"""A gateway's network namespace: its place in the network's bridge, its way outside by the host, its addresses.

In three steps, so that nothing reaches it before its firewall is there, and nobody is told of it before it works::

    Plumbing() -> firewall -> address() -> DHCP and DNS -> appear()

The guests' side is a port of the network's bridge with one MAC address per network, so it moves between nodes as a guest does.
The other cable leads to the host: next hops on it are 169.254.0.1 and .2, fe80::1 and ::2, the same for every network.  They
have link scope, so that nobody takes them for the source of a packet that goes further.  Each step makes what is missing,
changes what is different and leaves what is right, so it also ends what a killed daemon began.
"""

import contextlib
import threading
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, Final, Self

from pvc_core.plugin import DriverError, NotReady
from pvc_netdev import namespace, sysctl
from pvc_netdev.announce import announce
from pvc_netdev.links import Link, Links
from pvc_netdev.namespace import entered
from pvc_vxlan import names
from pvc_vxlan.gateway.kernel import delete_group, give_link_address
from pvc_vxlan.network import VxlanNetwork
from pvc_vxlan.routes import METRIC, PROTOCOL

GROUP: Final = 0x707663
"""Of the host's devices of gateways (ip-link(8), ``group``): they can be removed together."""
_TIMES: Final = 7
"""Announcements, over 3.2 s: the kernel may take a second to let a new port of a bridge forward (``net/core/link_watch.c``)."""
_INTERFACE_MAC: Final = 0
_NO_ADDRESS: Final = 1
"""Of ``addr_gen_mode``: whether a device makes its own link-local address."""


class Plumbing:
    """A gateway's namespace and cables, for the steps of one ``ensure``: made if they are not there, nothing passes yet.

    Raises NotReady when the network's bridge is not there.
    """

    def __init__(self, network_id: str, mtu: int) -> None:
        self._id: Final = network_id
        self._there: Final = names.gateway_namespace(network_id)
        namespace.create(self._there)
        with contextlib.ExitStack() as opened:
            self._host: Final = opened.enter_context(Links())
            self._inside: Final = opened.enter_context(Links(self._there))
            self._port, self._guest_side, self._uplink, self._host_side = self._prepare(mtu)
            self._opened: Final = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def address(self, network: VxlanNetwork) -> None:
        """Give it its addresses and its ways, and take those away that it had before; guests can reach it now."""
        wanted = _addresses(network)
        prefixes = {interface.network for interface in wanted}
        had = [ip_interface(text) for text in self._inside.addresses(self._guest_side)]
        for old in had:
            if old in wanted:
                continue
            if old.network not in prefixes:
                self._host.remove_route(str(old.network), protocol=PROTOCOL)
            # Before the new one: with the first address of a prefix the kernel removes the others too.
            self._inside.remove_address(self._guest_side, str(old))
        for new in wanted:
            if new not in had:
                self._inside.add_address(self._guest_side, str(new))
        _up(self._inside, self._guest_side)
        if network.interface4:
            if not _has(self._host, self._uplink, names.HOST_ADDRESS4):
                give_link_address(self._uplink, names.HOST_ADDRESS4)
            if not _has(self._inside, self._host_side, names.NAMESPACE_ADDRESS4):
                give_link_address(self._host_side, names.NAMESPACE_ADDRESS4, self._there)
            self._inside.set_route("0.0.0.0/0", self._host_side, via=names.HOST_ADDRESS4, protocol=PROTOCOL)
        if network.interface6:
            for links, link, address in (
                (self._host, self._uplink, names.HOST_ADDRESS6),
                (self._inside, self._host_side, names.NAMESPACE_ADDRESS6),
            ):
                if not _has(links, link, address):
                    links.add_address(link, f"{address}/64")
            self._inside.set_route("::/0", self._host_side, via=names.HOST_ADDRESS6, protocol=PROTOCOL)

    def appear(self, network: VxlanNetwork) -> None:
        """Announce new addresses to the network, then send what is for it there; the last announcements come later."""
        wanted = _addresses(network)
        # What was announced is written on the device that it was announced by, so that it is done again with another one.
        told = f"{names.OWNER}:{self._id}:announced:{','.join(str(interface.ip) for interface in wanted)}"
        if self._guest_side.alias != told:
            _announce(self._id, wanted)
        for interface in wanted:
            via = names.NAMESPACE_ADDRESS4 if interface.version == 4 else names.NAMESPACE_ADDRESS6
            self._host.set_route(str(interface.network), self._uplink, via=via, protocol=PROTOCOL, metric=METRIC)
        if self._guest_side.alias != told:
            self._inside.set(self._guest_side, "the alias", ifalias=told)

    def _prepare(self, mtu: int) -> tuple[Link, Link, Link, Link]:
        host, inside, network_id = self._host, self._inside, self._id
        bridge = host.get(names.bridge(network_id))
        if bridge is None:
            raise NotReady(f"there is no bridge {names.bridge(network_id)} yet, which the gateway is to be a port of")
        _up(inside, _need(inside, "lo"))
        mac = names.gateway_mac(network_id)
        port, guest_side = _cable(host, inside, network_id, names.gateway_port(network_id), names.GUEST_SIDE, mac, mtu)
        uplink, host_side = _cable(host, inside, network_id, names.gateway_uplink(network_id), names.HOST_SIDE, "", mtu)
        for links, link in ((inside, guest_side), (inside, host_side)):
            if link.mtu != mtu:
                links.set(link, f"setting MTU {mtu}", mtu=mtu)
        sysctl.no_ipv6(port.name)
        _set_host_side(host, port, network_id, "gateway-port", mtu, bridge)
        _up(host, port)
        _settings(self._there, uplink.name)
        _set_host_side(host, uplink, network_id, "gateway-uplink", mtu)
        _up(host, uplink)
        _up(inside, host_side)
        return port, guest_side, uplink, host_side


def disconnect(network_id: str) -> None:
    """Remove the cables, and with them the routes: nobody reaches it any more."""
    with Links() as host:
        for name in (names.gateway_port(network_id), names.gateway_uplink(network_id)):
            link = host.get(name)
            if link is not None and _is_ours(link, network_id):
                host.delete(link)


def disconnect_all() -> None:
    """Remove the cables of all gateways at once."""
    delete_group(GROUP)


def remove(network_id: str) -> None:
    """Remove the namespace; whoever runs in it must have ended before, or the kernel keeps it."""
    namespace.remove(names.gateway_namespace(network_id))


def present() -> list[str]:
    """Return the ids of the networks that have a gateway's namespace with a cable to this host, in whatever state."""
    return [network_id for network_id in namespaces() if is_here(network_id)]


def namespaces() -> list[str]:
    """Return the ids of the networks that have a gateway's namespace; on a machine with several nodes, of any of them."""
    return [name.removeprefix(names.GATEWAY_PREFIX) for name in namespace.names(names.GATEWAY_PREFIX)]


def is_here(network_id: str) -> bool:
    """Return whether there is a gateway's namespace of this network with a cable to this host."""
    if not namespace.exists(names.gateway_namespace(network_id)):
        return False
    with Links() as host:
        ends = [host.get(name) for name in (names.gateway_port(network_id), names.gateway_uplink(network_id))]
    return any(end is not None and _is_ours(end, network_id) for end in ends)


def _has(links: Links, link: Link, address: str) -> bool:
    return any(text.partition("/")[0] == address for text in links.addresses(link))


def _addresses(network: VxlanNetwork) -> list[IPv4Interface | IPv6Interface]:
    return [interface for interface in (network.interface4, network.interface6) if interface]


def _cable(
    host: Links, inside: Links, network_id: str, outer_name: str, inner_name: str, mac: str, mtu: int
) -> tuple[Link, Link]:
    """Return both ends of a cable, made if it is not whole: one end left means that the other's namespace was removed."""
    outer, inner = host.get(outer_name), inside.get(inner_name)
    if outer is not None and not _is_ours(outer, network_id):
        raise DriverError(
            f"there is a device {outer_name}, a {outer.kind or 'NIC'} with alias {outer.alias!r}, that is not this "
            "gateway's: rename or remove it",
            retryable=False,
        )
    if outer is None or inner is None:
        for links, left in ((host, outer), (inside, inner)):
            if left is not None:
                links.delete(left)
        host.add_veth(outer_name, inner_name, peer_namespace=names.gateway_namespace(network_id), peer_mac=mac, mtu=mtu)
        outer, inner = _need(host, outer_name), _need(inside, inner_name)
    if mac and inner.mac != mac:
        inside.set(inner, f"setting MAC address {mac}", address=mac)
    return outer, inner


def _settings(there: str, uplink: str) -> None:
    """Set what the kernel does with packets, on the host and in the namespace."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        sysctl.write(name, "1")
    _next_hop(uplink)
    with entered(there):
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            sysctl.write(name, "1")
        _next_hop(names.HOST_SIDE)
        for setting, value in (
            # Its link-local address comes from its MAC address: guests, whose default route it is, keep it after a move.
            ("ipv6/conf/{}/addr_gen_mode", _INTERFACE_MAC),
            ("ipv6/conf/{}/accept_dad", 0),
            ("ipv6/conf/{}/accept_ra", 0),
            ("ipv6/conf/{}/accept_redirects", 0),
            ("ipv4/conf/{}/accept_redirects", 0),
            ("ipv4/conf/{}/send_redirects", 0),
            ("ipv4/conf/{}/arp_ignore", 1),
            # A guest sends outside only with addresses of its network.
            ("ipv4/conf/{}/rp_filter", 1),
        ):
            sysctl.write(setting.format(names.GUEST_SIDE), str(value))


def _next_hop(device: str) -> None:
    """Set up an end of the cable between host and namespace."""
    for setting, value in (
        ("ipv6/conf/{}/addr_gen_mode", _NO_ADDRESS),
        ("ipv6/conf/{}/accept_dad", 0),
        ("ipv6/conf/{}/accept_ra", 0),
        ("ipv6/conf/{}/accept_redirects", 0),
        ("ipv4/conf/{}/accept_redirects", 0),
        ("ipv4/conf/{}/send_redirects", 0),
        # Only for its own address, which every such cable of the host has.
        ("ipv4/conf/{}/arp_ignore", 1),
        # Loose: the way to the other end's address is there once for each network.  It prevails over a strict "all".
        ("ipv4/conf/{}/rp_filter", 2),
    ):
        sysctl.write(setting.format(device), str(value))


def _announce(network_id: str, wanted: list[IPv4Interface | IPv6Interface]) -> None:
    there, mac = names.gateway_namespace(network_id), names.gateway_mac(network_id)
    addresses = [str(interface.ip) for interface in wanted]
    with entered(there):
        announce(names.GUEST_SIDE, addresses, mac, times=1, router=True)

    def again() -> None:
        try:
            with entered(there):
                announce(names.GUEST_SIDE, addresses, mac, times=_TIMES, router=True)
        except DriverError:
            return  # the gateway was given away meanwhile; whoever has it now announces it

    threading.Thread(target=again, name=f"announce-{network_id[:8]}", daemon=True).start()


def _is_ours(link: Link, network_id: str) -> bool:
    # Without an alias: made by a daemon that was killed before it gave one.
    return link.kind == "veth" and (not link.alias or link.alias.startswith(f"{names.OWNER}:{network_id}:"))


def _set_host_side(links: Links, link: Link, network_id: str, what: str, mtu: int, bridge: Link | None = None) -> None:
    """Set all of a cable's end on the host that is not as it should be, at once: each request is told to everybody who listens."""
    alias = f"{names.OWNER}:{network_id}:{what}"
    wanted: dict[str, Any] = {}
    if link.mtu != mtu:
        wanted["mtu"] = mtu
    if link.alias != alias:
        wanted |= {"ifalias": alias, "group": GROUP}
    if bridge is not None and link.master != bridge.index:
        wanted["master"] = bridge.index
    if wanted:
        links.set(link, f"setting {', '.join(wanted)}", **wanted)


def _up(links: Links, link: Link) -> None:
    if not link.up:
        links.set(link, "switching on", state="up")


def _need(links: Links, name: str) -> Link:
    link = links.get(name)
    if link is None:
        raise DriverError(f"device {name} of the gateway is not there: it was removed meanwhile")
    return link
