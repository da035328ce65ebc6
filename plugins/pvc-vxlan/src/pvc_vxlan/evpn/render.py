"""Our part of FRR's configuration, as FRR 8.4 itself prints it.

A line that FRR prints in another form, or not at all because it is the default, would be a difference on every
comparison. All names of ours begin with ``pvc-``.

The coordinators are route reflectors (RFC 4456), and every node names only them; they take the others in by their
address, so that a node that joins or leaves changes nobody's configuration. No ``bgp cluster-id``: reflectors and
clients with the same one drop each other's routes. Graceful restart is off: FRR 8.4 has it not for EVPN, and as a
helper it keeps a dead coordinator's routes beside the living one's.

Routers outside get, of the routes that the kernel has from others than FRR, those with the metric of client networks
(``routes``): the gateway puts them there on the node where it runs, so a network that comes, goes or moves changes nothing here.
From the routers only default routes are taken, and zebra prefers the kernel's own default route (distance 0) to one of BGP
(20), so a node that has one keeps it. All else is denied in both directions. A session carries the routes of its own address
family: a next hop of the other one would often not be reachable.
"""

from hashlib import blake2s
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Final

from msgspec import Struct

from pvc_core.plugin import ConfigError
from pvc_vxlan.routes import METRIC

FABRIC: Final = "pvc-fabric"
"""Peer group of the nodes."""
UPSTREAM: Final = "pvc-upstream"
"""Peer groups of the routers outside: with 4 or 6 after it."""
CLIENTS: Final = "pvc-clients"
"""Route-map of what is announced outside."""
IMPORTS: Final = "pvc-imports"
"""Route-maps and prefix-lists of what is taken from outside: with 4 or 6 after it."""
LISTEN_LIMIT: Final = 2000
"""Nodes that a reflector takes in at most."""
_DEFAULT_ROUTES: Final = {4: "0.0.0.0/0", 6: "::/0"}
_PASSWORD_MAX: Final = 80
"""TCP_MD5SIG_MAXKEYLEN of the kernel."""
_TIMERS: Final = ("timers 1 3", "timers connect 1")
"""Keepalive, hold time and the pause between attempts to connect, in seconds."""


class Peer(Struct, frozen=True, kw_only=True):
    """A route reflector."""

    name: str
    address: str


class Router(Struct, frozen=True, kw_only=True):
    """A BGP router outside the cluster."""

    address: str
    asn: int
    password: str = ""


class Fabric(Struct, frozen=True, kw_only=True):
    """All that a node's part of the configuration depends on."""

    asn: int
    router_id: str
    """In IPv4's form, unique in the cluster: ``router_id``."""
    local: str
    """This node's address for the sessions between nodes."""
    reflectors: tuple[Peer, ...]
    """All of them; this node itself is told by its address."""
    evpn: bool = True
    """False: only sessions with routers outside."""
    is_reflector: bool = False
    listen: tuple[str, ...] = ()
    """Prefixes from which a reflector takes nodes in."""
    password: str = ""
    """Of the sessions between nodes (TCP-MD5, RFC 2385)."""
    upstream: tuple[Router, ...] = ()


def router_id(address: str) -> str:
    """Return the BGP identifier of a node: its IPv4 address, or for an IPv6 address four octets that are hashed from
    it.

    RFC 6286 asks only that it is not zero and unique in the AS. For 500 hashed ones the chance that two are equal is
    one in 30,000; then the later one's routes are ignored as a node's own, and its operator sets ``bgp router-id`` in
    FRR, which is respected.
    """
    parsed = ip_address(address)
    if parsed.version == 4:
        return str(parsed)
    number = int.from_bytes(blake2s(parsed.packed, digest_size=4).digest(), "big")
    return str(IPv4Address(number or 1))


def require_tunnel_end(address: str) -> str:
    """Return the address; raises ConfigError when FRR could not tell others of tunnels that end at it.

    zebra 8.4 reads a VXLAN device's local address as IPv4 only; for a device with an IPv6 one bgpd announces its
    router-id as the tunnel's end, so that frames go to an address nobody has.
    """
    if ip_address(address).version != 4:
        raise ConfigError(
            f"vtep: {address} is an IPv6 address, but FRR 8.4 knows ends of VXLAN tunnels with IPv4 addresses only; "
            "give an IPv4 address of this node in the underlay, or do without FRR there (control: flood, on every node)"
        )
    return address


def render(fabric: Fabric, *, ipv4_default: bool = True) -> list[str]:
    """Return the lines of our part, indented as FRR prints them.

    ``ipv4_default`` is False when the operator's part has ``no bgp default ipv4-unicast``, which changes what FRR
    prints. Raises ConfigError for a password that FRR cannot hold.
    """
    families = tuple(
        (version, [router for router in fabric.upstream if ip_address(router.address).version == version])
        for version in (4, 6)
    )
    present = [version for version, routers in families if routers]
    lines = [f"router bgp {fabric.asn}", f" bgp router-id {fabric.router_id}", " bgp graceful-restart-disable"]
    if fabric.evpn:
        lines += _fabric_group(fabric)
    for version, routers in families:
        lines += _upstream_group(version, routers)
    groups = [FABRIC] if fabric.evpn else []
    if fabric.evpn:
        lines += _fabric_peers(fabric)
    lines += _unicast(present, groups, ipv4_default=ipv4_default)
    if fabric.evpn:
        lines += [" address-family l2vpn evpn", f"  neighbor {FABRIC} activate"]
        lines += [f"  neighbor {FABRIC} route-reflector-client"] if fabric.is_reflector else []
        lines += ["  advertise-all-vni", " exit-address-family"]
    lines.append("exit")
    for version in present:
        family, name = "ip" if version == 4 else "ipv6", f"{IMPORTS}{version}"
        lines += [
            f"{family} prefix-list {name} seq 5 permit {_DEFAULT_ROUTES[version]}",
            f"route-map {name} permit 10",
            f" match {family} address prefix-list {name}",
            "exit",
        ]
    if present:
        # FRR's default is 5 seconds, so long the first networks would not be announced.
        lines.append("bgp route-map delay-timer 1")
        lines += [f"route-map {CLIENTS} permit 10", f" match metric {METRIC}", "exit"]
    return lines


def _fabric_group(fabric: Fabric) -> list[str]:
    group = f" neighbor {FABRIC}"
    return [
        f"{group} peer-group",
        f"{group} remote-as {fabric.asn}",
        *_password(FABRIC, fabric.password),
        f"{group} update-source {ip_address(fabric.local)}",
        *(f"{group} {timers}" for timers in _TIMERS),
    ]


def _fabric_peers(fabric: Fabric) -> list[str]:
    local = ip_address(fabric.local)
    lines = []
    for peer in sorted(fabric.reflectors, key=lambda peer: peer.name):
        address = ip_address(peer.address)
        if address != local:
            lines += [f" neighbor {address} peer-group {FABRIC}", f" neighbor {address} description {peer.name}"]
    if fabric.is_reflector and fabric.listen:
        lines.append(f" bgp listen limit {LISTEN_LIMIT}")
        ranges = sorted({str(ip_network(prefix, strict=False)) for prefix in fabric.listen})
        lines += [f" bgp listen range {prefix} peer-group {FABRIC}" for prefix in ranges]
    return lines


def _upstream_group(version: int, routers: list[Router]) -> list[str]:
    if not routers:
        return []
    group = f"{UPSTREAM}{version}"
    lines = [f" neighbor {group} peer-group", *(f" neighbor {group} {timers}" for timers in _TIMERS)]
    for router in routers:
        address = str(ip_address(router.address))
        lines += [f" neighbor {address} remote-as {router.asn}", f" neighbor {address} peer-group {group}"]
        lines += _password(address, router.password)
    return lines


def _password(neighbor: str, password: str) -> list[str]:
    if not password:
        return []
    if len(password) > _PASSWORD_MAX or not password.isascii() or not password.isprintable() or " " in password:
        raise ConfigError(
            f"the password of the BGP session with {neighbor} must have at most {_PASSWORD_MAX} printable ASCII "
            "characters without spaces"
        )
    return [f" neighbor {neighbor} password {password}"]


def _unicast(present: list[int], groups: list[str], *, ipv4_default: bool) -> list[str]:
    lines = []
    inactive = [*groups, *(f"{UPSTREAM}{version}" for version in present if version != 4)] if ipv4_default else []
    if inactive or 4 in present:
        lines.append(" address-family ipv4 unicast")
        if 4 in present:
            lines.append(f"  redistribute kernel route-map {CLIENTS}")
        lines += [f"  no neighbor {group} activate" for group in inactive]
        if 4 in present:
            lines += [f"  neighbor {UPSTREAM}4 activate"] if not ipv4_default else []
            lines += _filters(4)
        lines.append(" exit-address-family")
    if 6 in present:
        lines += [" address-family ipv6 unicast", f"  redistribute kernel route-map {CLIENTS}"]
        lines += [f"  neighbor {UPSTREAM}6 activate", *_filters(6), " exit-address-family"]
    return lines


def _filters(version: int) -> list[str]:
    group = f"  neighbor {UPSTREAM}{version}"
    return [f"{group} route-map {IMPORTS}{version} in", f"{group} route-map {CLIENTS} out"]
