"""What FRR knows, from its ``show ... json``: sessions, tunnels and MAC addresses.

FRR promises no schema; what is absent has a default, and what is new is not looked at.
"""

from typing import TypeVar

import msgspec
from msgspec import Struct, field

from pvc_core.plugin import DriverError

T = TypeVar("T")


class Session(Struct, frozen=True, kw_only=True):
    """A BGP session in one address family."""

    family: str
    """l2VpnEvpn, ipv4Unicast or ipv6Unicast."""
    peer: str
    asn: int
    state: str
    """Established, Active, Idle, ..."""
    since_s: float
    """Seconds for which it has been established, or down; 0: never was up."""
    established: int
    """How often it came up."""
    received: int
    """Prefixes taken from the peer."""
    dynamic: bool
    """The peer is one whom a reflector took in by its address."""
    description: str = ""

    @property
    def up(self) -> bool:
        """Whether routes can be exchanged."""
        return self.state == "Established"


class Vni(Struct, frozen=True, kw_only=True):
    """A VXLAN network that zebra found on this node."""

    vni: int
    device: str
    remote: tuple[str, ...]
    """Ends of tunnels on other nodes, to which frames for all are copied."""
    macs: int


class Mac(Struct, frozen=True, kw_only=True):
    """A MAC address that zebra knows."""

    vni: int
    mac: str
    local: bool
    where: str
    """Of a local one the port, of a remote one the end of the tunnel."""
    local_sequence: int
    remote_sequence: int
    """MAC mobility (RFC 7432, 15): the higher one wins."""
    duplicate: bool


class _Peer(Struct, rename="camel"):
    remote_as: int = 0
    state: str = ""
    peer_uptime_msec: int = 0
    connections_established: int = 0
    pfx_rcd: int = 0
    dynamic_peer: bool = False
    desc: str = ""


class _Summary(Struct):
    peers: dict[str, _Peer] = {}


class _Families(Struct, rename="camel"):
    l2_vpn_evpn: _Summary = field(default_factory=_Summary)
    ipv4_unicast: _Summary = field(default_factory=_Summary)
    ipv6_unicast: _Summary = field(default_factory=_Summary)


class _Vni(Struct, rename="camel"):
    type: str = "L2"
    vxlan_if: str = ""
    remote_vteps: list[str] = []
    num_macs: int = 0


class _Mac(Struct, rename="camel"):
    type: str = ""
    intf: str = ""
    remote_vtep: str = ""
    local_sequence: int = 0
    remote_sequence: int = 0
    is_duplicate: bool = False


class _Macs(Struct):
    macs: dict[str, _Mac] = field(default_factory=dict)


def sessions(answer: str) -> list[Session]:
    """Return the sessions in the answer to ``show bgp summary json``; none while FRR has no ``router bgp``."""
    families = _decode(answer, _Families, "show bgp summary")
    return [
        Session(
            family=family, peer=peer, asn=of.remote_as, state=of.state, since_s=of.peer_uptime_msec / 1000,
            established=of.connections_established, received=of.pfx_rcd, dynamic=of.dynamic_peer, description=of.desc,
        )
        for family, summary in (
            ("l2VpnEvpn", families.l2_vpn_evpn),
            ("ipv4Unicast", families.ipv4_unicast),
            ("ipv6Unicast", families.ipv6_unicast),
        )
        for peer, of in summary.peers.items()
    ]  # fmt: skip


def vnis(answer: str) -> list[Vni]:
    """Return the networks in the answer to ``show evpn vni json``."""
    return [
        Vni(vni=int(number), device=of.vxlan_if, remote=tuple(sorted(of.remote_vteps)), macs=of.num_macs)
        for number, of in _decode(answer, dict[str, _Vni], "show evpn vni").items()
        if of.type == "L2"
    ]


def macs(answer: str) -> list[Mac]:
    """Return the MAC addresses in the answer to ``show evpn mac vni all json``."""
    return [
        Mac(
            vni=int(number), mac=mac, local=of.type == "local", where=of.intf if of.type == "local" else of.remote_vtep,
            local_sequence=of.local_sequence, remote_sequence=of.remote_sequence, duplicate=of.is_duplicate,
        )
        for number, network in _decode(answer, dict[str, _Macs], "show evpn mac").items()
        for mac, of in network.macs.items()
    ]  # fmt: skip


def _decode(answer: str, kind: type[T], what: str) -> T:
    # FRR says "% ..." instead of JSON while it has no BGP instance.
    start = answer.find("{")
    try:
        return msgspec.json.decode(answer[start:] if start >= 0 else "{}", type=kind)
    except msgspec.DecodeError as error:
        raise DriverError(f"FRR's answer to '{what} json' is not understood: {error}") from error
