"""The kernel's links, addresses, routes and forwarding entries, through netlink (pyroute2).

pyroute2 decodes all of each message: a listing of 1,000 devices takes it some 0.2 s.  So what is done for each of many networks asks
for single things, and a listing of some has the kernel choose (``_SOME``; since Linux 4.20).

Source: the kernel's rtnetlink(7); fdb and bridge port attributes: ``linux/if_link.h``, ``linux/neighbour.h``.
"""

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from types import TracebackType
from typing import Any, Final, Self

from pyroute2 import IPRoute, NetlinkError

from pvc_core.plugin import DriverError, Unsupported
from pvc_netdev.namespace import entered, opened
from pvc_netdev.values import (
    Address,
    DefaultRoute,
    ForwardingEntry,
    Link,
    address_of,
    entry_of,
    link_of,
    vlan_tags_of,
)

__all__ = ["EVERYBODY", "Address", "DefaultRoute", "ForwardingEntry", "Link", "Links"]

EVERYBODY: Final = "00:00:00:00:00:00"
"""In the entries of a VXLAN device that say where frames for all are copied to."""

_IFAPROT_KERNEL_LL: Final = 3
"""The link-local address that a device gets by itself (linux/if_addr.h; since 5.18)."""
_IFA_F_NODAD: Final = 0x02
_RTNH_F_ONLINK: Final = 4
_MAIN_TABLE: Final = 254
_FOR_EVER: Final = 0xFFFFFFFF
"""Lifetime of an address that does not end."""
_NUD_PERMANENT: Final = 0x80
_NTF_SELF: Final = 0x02
_NTF_MASTER: Final = 0x04
_NLM_F_DUMP_INTR: Final = 0x10
"""Things changed while they were listed, so some may be missing."""
_LISTINGS: Final = 5
_SOME: Final[dict[str, Any]] = {"dump_filter": None}
"""With it pyroute2 sends the kernel what is asked for; without, it lists everything and chooses itself."""
_VLAN_PVID: Final = 2
_VLAN_UNTAGGED: Final = 4
_RTN_UNICAST: Final = 1
_RTM_F_FIB_MATCH: Final = 0x2000
"""The answer is the route itself, not what becomes of a packet."""
_METRIC6: Final = 1024
"""The kernel's own metric of IPv6 routes."""


class Links:
    """A netlink socket, in the network namespace of the calling thread or in a named one; opened for one call of a hook.

    Errors of the kernel are DriverError, Unsupported where it cannot do it at all.
    """

    def __init__(self, namespace: str = "") -> None:
        # ``IPRoute(netns=...)`` would fork, which a process with threads should not do.
        with entered(namespace) if namespace else contextlib.nullcontext():
            self._socket: Final = IPRoute(strict_check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def all(self) -> list[Link]:
        """Return all devices."""
        return [link_of(message) for message in _listed("devices", self._socket.get_links)]

    def aliases(self) -> dict[str, str]:
        """Return the aliases of all devices that have one, by name; it takes a third of the time of ``all``."""
        found = _listed("devices", self._socket.get_links)
        return {
            message.get_attr("IFLA_IFNAME"): alias for message in found if (alias := message.get_attr("IFLA_IFALIAS"))
        }

    def get(self, name: str) -> Link | None:
        """Return a device, or None."""
        return self._link(f"looking for {name}", ifname=name)

    def at(self, index: int) -> Link | None:
        """Return the device of an index, or None."""
        return self._link(f"looking for device {index}", index=index)

    def _link(self, what: str, **which: Any) -> Link | None:
        with _doing(what):
            try:
                return link_of(self._socket.link("get", **which)[0])
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise

    def ports(self, bridge: Link) -> list[Link]:
        """Return the ports of a bridge."""
        found = _listed(f"the ports of {bridge.name}", lambda: self._socket.link("dump", master=bridge.index, **_SOME))
        return [link_of(message) for message in found]

    def addresses(self, link: Link) -> list[str]:
        """Return the addresses somebody gave a device, as ``address/length``: all but the link-local one it made itself."""
        found = _listed(f"the addresses of {link.name}", lambda: self._socket.addr("dump", index=link.index, **_SOME))
        return [address_of(message).address for message in found if _is_given(message)]

    def assigned(self) -> list[Address]:
        """Return the addresses of all devices but those that a NIC gets by itself."""
        return [address_of(message) for message in _listed("addresses", self._socket.get_addr) if _is_given(message)]

    def add_address(self, link: Link, address: str, *, protocol: int = 0, deprecated: bool = False) -> bool:
        """Give a device an address (``address/length``); return whether it is new.  IPv6 is not probed for duplicates.

        ``protocol`` says who gave it, where the kernel has IFA_PROTO; ``deprecated``: an IPv6 address that the kernel chooses
        for no new connection of this host (RFC 4862, 5.5.4).
        """
        wanted = ip_interface(address)
        arguments: dict[str, Any] = {"address": str(wanted.ip), "prefixlen": wanted.network.prefixlen}
        if protocol:
            arguments["proto"] = protocol
        if deprecated and wanted.version == 6:
            arguments |= {"preferred_lft": 0, "valid_lft": _FOR_EVER}
        if wanted.version == 6:
            arguments["flags"] = _IFA_F_NODAD
        with _doing(f"giving {link.name} the address {wanted}"):
            return _unless(errno.EEXIST, lambda: self._socket.addr("add", index=link.index, **arguments))

    def remove_address(self, link: Link, address: str) -> bool:
        """Take an address (``address/length``) from a device; return whether it was there."""
        wanted = ip_interface(address)
        arguments = {"address": str(wanted.ip), "prefixlen": wanted.network.prefixlen}
        with _doing(f"taking the address {wanted} from {link.name}"):
            return _unless(errno.EADDRNOTAVAIL, lambda: self._socket.addr("del", index=link.index, **arguments))

    def routes(self, *, protocol: int) -> list[str]:
        """Return the destinations of the routes of the main table that carry this protocol number."""
        found = []
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  (none to listen on)
            routes = self._routes(family, proto=protocol)
            found += [f"{route.get_attr('RTA_DST') or anywhere}/{route['dst_len']}" for route in routes]
        return found

    def default_routes(self) -> list[DefaultRoute]:
        """Return the default routes of the main table, whoever made them."""
        found = []
        for number, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            for route in self._routes(family):
                if route["dst_len"] == 0 and route["type"] == _RTN_UNICAST:
                    via, device = route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")
                    found.append(
                        DefaultRoute(family=number, via=via or "", device=device or 0, protocol=route["proto"])
                    )
        return found

    def _routes(self, family: int, **only: Any) -> list[Any]:
        return _listed("routes", lambda: self._socket.route("dump", family=family, table=_MAIN_TABLE, **only, **_SOME))

    def set_route(self, destination: str, link: Link, *, via: str, protocol: int, metric: int = 0) -> None:
        """Send a prefix through ``via``, which is reached directly by the device, replacing another route to it.

        ``metric``: the kernel prefers lower ones, and keeps one route for each; 0 is its own default.
        """
        network = ip_network(destination)
        family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
        own = metric or (_METRIC6 if network.version == 6 else 0)
        with _doing(f"routing {network} by {link.name}"):
            # Said again it would be told to every routing daemon.
            if self._route_to(str(network[1]), family) == (network.prefixlen, link.index, via, own, protocol):
                return
            more = {"priority": metric} if metric else {}
            self._socket.route(
                "replace", dst=str(network), gateway=via, oif=link.index, flags=_RTNH_F_ONLINK, proto=protocol,
                family=family, **more,
            )  # fmt: skip

    def _route_to(self, address: str, family: int) -> tuple[int, int, str, int, int] | None:
        """Return prefix length, device, gateway, metric and protocol of the route that an address has; None: it has none."""
        try:
            found = self._socket.route("get", dst=address, family=family, flags=_RTM_F_FIB_MATCH)[0]
        except NetlinkError as error:
            if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None  # none, or one that lets nothing through
            raise
        device, via = found.get_attr("RTA_OIF") or 0, found.get_attr("RTA_GATEWAY") or ""
        return found["dst_len"], device, via, found.get_attr("RTA_PRIORITY") or 0, found["proto"]

    def remove_route(self, destination: str, *, protocol: int) -> None:
        """Remove the route of the main table to a prefix with this protocol number; gone already is success."""
        network = ip_network(destination)
        family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
        with _doing(f"removing the route to {network}"):
            _unless(errno.ESRCH, lambda: self._socket.route("del", dst=str(network), proto=protocol, family=family))

    def add_bridge(self, name: str, *, vlan_filtering: bool = False, mtu: int = 0) -> None:
        """Make a bridge that forwards at once and learns; VLAN filtering is left alone: not every kernel has it.

        ``mtu`` 0: the kernel's own.
        """
        more = {"br_vlan_filtering": 1, "br_vlan_default_pvid": 0} if vlan_filtering else {}
        if mtu:
            more["mtu"] = mtu
        with _doing(f"making bridge {name}"):
            self._socket.link(
                "add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0, **more
            )  # fmt: skip

    def add_vlan(self, name: str, under: Link, vlan: int) -> None:
        """Make the device of a VLAN on another device.  Raises Unsupported when the kernel has no 802.1Q."""
        with _doing(f"making VLAN {vlan} on {under.name}"):
            self._socket.link("add", ifname=name, kind="vlan", link=under.index, vlan_id=vlan)

    def add_vxlan(self, name: str, vni: int, *, local: str, port: int, mtu: int, learning: bool = False) -> None:
        """Make a VXLAN device; without ``learning`` only routing daemons tell it who is where."""
        end = {"vxlan_local6": local} if ":" in local else {"vxlan_local": local}
        with _doing(f"making VXLAN {vni}"):
            self._socket.link(
                "add", ifname=name, kind="vxlan", vxlan_id=vni, vxlan_port=port, vxlan_learning=learning, mtu=mtu, **end
            )

    def add_veth(
        self, name: str, peer: str, *, peer_namespace: str = "", mac: str = "", peer_mac: str = "", mtu: int = 0
    ) -> None:
        """Make a cable between two devices, the other end possibly in a named namespace; ``mtu`` 0: the kernel's own."""
        both: dict[str, Any] = {"mtu": mtu} if mtu else {}
        other: dict[str, Any] = {"ifname": peer, **both}
        if peer_mac:
            other["address"] = peer_mac
        with _doing(f"making the cable {name}"), contextlib.ExitStack() as held:
            if peer_namespace:
                other["net_ns_fd"] = held.enter_context(opened(peer_namespace)).fileno()
            address = {"address": mac} if mac else {}
            self._socket.link("add", ifname=name, kind="veth", peer=other, **address, **both)

    def set_port(self, link: Link, what: str, **attributes: Any) -> None:
        """Change attributes of a bridge's port: ``learning``, ``neigh_suppress``, ``isolated``, ...; ``what`` as in ``set``."""
        with _doing(f"{what} of {link.name}"):
            self._socket.brport("set", index=link.index, **attributes)

    def port_vlans(self, link: Link) -> set[int]:
        """Return the VLANs of a port of a bridge that filters them."""
        return set(self.port_vlan_tags(link))

    def port_vlan_tags(self, link: Link) -> dict[int, bool]:
        """Return the VLANs of a port of a bridge that filters them, and whether their frames have a tag there.

        A device that is no such port has none.  Needs Linux 5.6 (RTM_GETVLAN), without which a host has to list all ports.
        """
        with _doing(f"listing the VLANs of {link.name}"):
            try:
                found = list(self._socket.vlandb("dump", ifindex=link.index))
            except NetlinkError as error:
                if error.code in (errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP):
                    return {}
                raise
        return vlan_tags_of(message for message in found if message["ifindex"] == link.index)

    def add_port_vlan(self, link: Link, vlan: int, *, untagged: bool = False) -> None:
        """Let a VLAN pass a port of a bridge that filters them; ``untagged``: it is the one of frames without a tag."""
        info: dict[str, Any] = {"vid": vlan}
        if untagged:
            info["flags"] = _VLAN_PVID | _VLAN_UNTAGGED
        with _doing(f"letting VLAN {vlan} pass {link.name}"):
            self._socket.vlan_filter("add", index=link.index, vlan_info=info)

    def add_port_vlans(self, link: Link, first: int, last: int) -> None:
        """Let all VLANs of a range, with tags, pass a port of a bridge that filters them."""
        if first == last:
            return self.add_port_vlan(link, first)
        with _doing(f"letting VLANs {first}-{last} pass {link.name}"):
            self._socket.vlan_filter("add", index=link.index, vlan_info={"vid": f"{first}-{last}"})
        return None

    def remove_port_vlan(self, link: Link, vlan: int) -> None:
        """Let a VLAN pass a port no more; it did not is success."""
        self.remove_port_vlans(link, vlan, vlan)

    def remove_port_vlans(self, link: Link, first: int, last: int) -> None:
        """Let the VLANs of a range pass a port no more; they did not is success."""
        vlans = f"{first}" if first == last else f"{first}-{last}"
        with _doing(f"keeping VLAN {vlans} from {link.name}"):
            _unless(errno.ENOENT, lambda: self._socket.vlan_filter("del", index=link.index, vlan_info={"vid": vlans}))

    def forwarding(self, link: Link) -> list[ForwardingEntry]:
        """Return the forwarding entries of a port, those of its bridge and those of its own."""
        found = _listed(f"the entries of {link.name}", lambda: self._socket.fdb("dump", ifindex=link.index, **_SOME))
        return [entry_of(message) for message in found]

    def all_forwarding(self) -> list[ForwardingEntry]:
        """Return the forwarding entries of all ports."""
        return [entry_of(message) for message in _listed("forwarding entries", lambda: self._socket.fdb("dump"))]

    def add_flood(self, link: Link, destination: str) -> None:
        """Have a VXLAN device copy frames for all, and for those unknown, to the tunnel's end at this address too."""
        with _doing(f"flooding {link.name} to {destination}"):
            _unless(
                errno.EEXIST,
                lambda: self._socket.fdb(
                    "append",
                    ifindex=link.index,
                    lladdr=EVERYBODY,
                    dst=destination,
                    flags=_NTF_SELF,
                    state=_NUD_PERMANENT,
                ),
            )

    def remove_flood(self, link: Link, destination: str) -> None:
        """Have it copy them there no more; it did not is success."""
        with _doing(f"flooding {link.name} to {destination} no more"):
            _unless(
                errno.ENOENT,
                lambda: self._socket.fdb("del", ifindex=link.index, lladdr=EVERYBODY, dst=destination, flags=_NTF_SELF),
            )

    def remove_forwarding(self, link: Link, mac: str, *, own: bool) -> None:
        """Remove an entry of a port, from its bridge's table or from its ``own``; gone already is success."""
        flags = _NTF_SELF if own else _NTF_MASTER
        with _doing(f"forgetting {mac} on {link.name}"):
            _unless(errno.ENOENT, lambda: self._socket.fdb("del", ifindex=link.index, lladdr=mac, flags=flags))

    def set(self, link: Link, what: str, **attributes: Any) -> None:
        """Change attributes of a device; ``what`` tells it in an error."""
        with _doing(f"{what} of {link.name}"):
            self._socket.link("set", index=link.index, **attributes)

    def delete(self, link: Link) -> None:
        """Remove a device; gone already is success."""
        with _doing(f"removing {link.name}"):
            try:
                self._socket.link("del", index=link.index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        said = f"{what}: the kernel refused it: {error.args[-1]}"
        if error.code in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            raise Unsupported(said) from error
        retryable = error.code not in (errno.EINVAL, errno.EPERM, errno.ERANGE)
        raise DriverError(said, retryable=retryable) from error


def _listed(what: str, call: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return what a listing of the kernel has, listed again when something changed meanwhile."""
    with _doing(f"listing {what}"):
        for _ in range(_LISTINGS):
            found = list(call())
            if not any(message["header"]["flags"] & _NLM_F_DUMP_INTR for message in found):
                return found
    raise DriverError(f"listing {what}: they changed each of the {_LISTINGS} times that they were listed")


def _is_given(message: Any) -> bool:
    return bool(message.get_attr("IFA_PROTO") != _IFAPROT_KERNEL_LL)


def _unless(code: int, call: Callable[[], Any]) -> bool:
    """Make a call; return False when the kernel refused it with this code, because it is so already."""
    try:
        call()
    except NetlinkError as error:
        if error.code == code:
            return False
        raise
    return True
