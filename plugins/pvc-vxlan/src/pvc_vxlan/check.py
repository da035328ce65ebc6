"""What could be wrong with a network, looked for from one node: ``pvc network check``."""

import shutil
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from msgspec import Struct

from pvc_core.model.errors import PvcError
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import Finding, NetworkNic, NotReady, run
from pvc_netdev.links import EVERYBODY, Link, Links
from pvc_netdev.sysctl import bridge_netfilter
from pvc_vxlan import names
from pvc_vxlan.evpn.state import vnis
from pvc_vxlan.evpn.watch import FABRIC, ROUTING, UPSTREAM
from pvc_vxlan.fabric import FabricMember
from pvc_vxlan.gateway.service import Gateways
from pvc_vxlan.network import VxlanNetwork
from pvc_vxlan.overlay import Underlay
from pvc_vxlan.rules import Rules

_PROGRAMS: Final = {"nft": "nftables"}
_OF_FRR: Final = {"vtysh": "frr"}
_OF_COORDINATORS: Final = {"dnsmasq": "dnsmasq-base"}
_RELOAD: Final = Path("/usr/lib/frr/frr-reload.py")
_PING_S: Final = 5.0
_HEADERS: Final = {4: 28, 6: 48}
"""Bytes of IP and ICMP around what ping(8) sends."""


class Site(Struct, frozen=True, kw_only=True):
    """What a check looks at."""

    node: str
    underlay: Underlay
    nodes: dict[str, str]
    """Underlay addresses of the nodes, by name."""
    fabric: FabricMember
    gateways: Gateways
    rules: Rules
    held: bool
    """The gateways are to be here."""
    bridge_netfilter: bool
    """Frames of guests may pass the host's firewall."""


def require_programs(*, coordinator: bool, frr: bool) -> None:
    """Raise NotReady that names the packages which are missing on this node."""
    wanted = {**_PROGRAMS, **(_OF_COORDINATORS if coordinator else {}), **(_OF_FRR if frr else {})}
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if frr and not _RELOAD.exists():
        missing.append("frr-pythontools")
    if missing:
        raise NotReady(f"these packages are missing here: apt install {' '.join(missing)}")


def findings(site: Site, spec: NetworkSpec, network: VxlanNetwork, nics: Iterable[NetworkNic]) -> list[Finding]:
    """Return what was found, good and bad; takes some seconds when nodes do not answer."""
    with Links() as links:
        bridge, tunnel = links.get(names.bridge(spec.id)), links.get(names.tunnel(spec.id))
        entries = links.forwarding(tunnel) if tunnel is not None else []
    found = list(_devices(site, spec, bridge, tunnel))
    found += [
        Finding(ok=each.ok, check=_WORDS.get(each.type, each.type.lower()), message=each.message or "well")
        for each in site.fabric.conditions
    ]
    # Who has the network has its bridge; nodes that never were reached, and those that left, are not expected.
    flooded = {entry.destination for entry in entries if entry.destination and entry.mac == EVERYBODY}
    found += list(_peers(site, network, flooded))
    found += list(_gateway(site, spec, network, {entry.mac: entry.destination for entry in entries}))
    found += list(_nics(site, nics))
    return found


_WORDS: Final = {ROUTING: "frr", FABRIC: "fabric", UPSTREAM: "upstream"}


def _devices(site: Site, spec: NetworkSpec, bridge: Link | None, tunnel: Link | None) -> Iterator[Finding]:
    for what, link in ((names.bridge(spec.id), bridge), (names.tunnel(spec.id), tunnel)):
        said = "does not exist" if link is None else "is up" if link.up else "is down"
        yield Finding(ok=link is not None and link.up, check="device", message=f"{what} {said}")
    if bridge is not None and tunnel is not None:
        joined = tunnel.master == bridge.index
        yield Finding(ok=joined, check="device", message=f"the tunnel is {'' if joined else 'not '}in the bridge")
        fits = bridge.mtu <= site.underlay.max_mtu
        said = f"{bridge.mtu}, and {site.underlay.device} carries {site.underlay.max_mtu}"
        yield Finding(ok=fits, check="mtu", message=said)
    if not site.bridge_netfilter:
        filtering = bridge_netfilter()
        said = f"frames of guests pass the host's firewall: {', '.join(filtering)}" if filtering else "off"
        yield Finding(ok=not filtering, check="bridge-netfilter", message=said)


def _peers(site: Site, network: VxlanNetwork, flooded: set[str]) -> Iterator[Finding]:
    told = flooded
    if site.fabric.evpn:
        try:
            told = _told(site, network)
        except PvcError as error:
            yield Finding(ok=False, check="evpn", message=str(error))
    for node, address in sorted(site.nodes.items()):
        if node == site.node:
            continue
        if address not in told:
            message = f"{node} ({address}) is not in the network as EVPN has it: its guests are reached by flooding, if at all"
            yield Finding(ok=False, check="evpn", message=message)
        if address not in flooded:
            yield Finding(ok=False, check="evpn", message=f"frames for all do not go to {node} ({address})")
        yield _path(site, node, address)


def _told(site: Site, network: VxlanNetwork) -> set[str]:
    """Return the ends of tunnels that FRR has from the other nodes."""
    found = [each for each in vnis(site.fabric.frr.show("show evpn vni json")) if each.vni == network.vni]
    if not found:
        raise NotReady(f"FRR does not know VNI {network.vni}")
    return set(found[0].remote)


def _path(site: Site, node: str, address: str) -> Finding:
    """Say whether packets of the underlay's full size reach a node."""
    size = site.underlay.mtu - _HEADERS[ip_address(address).version]
    argv = ["ping", "-n", "-q", "-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", str(size), address]
    try:
        answered = run(argv, deadline_s=_PING_S).returncode == 0
        small = answered or run([*argv[:-2], "0", address], deadline_s=_PING_S).returncode == 0
    except PvcError as error:
        return Finding(ok=False, check="mtu-path", message=f"{node} ({address}): {error}")
    if answered:
        return Finding(ok=True, check="mtu-path", message=f"{node} answers to packets of {site.underlay.mtu} bytes")
    said = f"answers, but not to packets of {site.underlay.mtu} bytes" if small else "does not answer"
    return Finding(ok=False, check="mtu-path", message=f"{node} ({address}) {said}")


def _gateway(site: Site, spec: NetworkSpec, network: VxlanNetwork, where: dict[str, str]) -> Iterator[Finding]:
    here = spec.id in site.gateways.present()
    if not network.has_gateway:
        yield Finding(ok=not here, check="gateway", message="none is wanted" + (", but one is here" if here else ""))
        return
    if not site.held:
        mac = names.gateway_mac(spec.id)
        sent_to = where.get(mac, "")
        node = next((node for node, address in site.nodes.items() if address == sent_to), sent_to)
        if here:
            yield Finding(ok=False, check="gateway", message="one is here, though this node is not the primary")
        well = all(condition.ok for condition in site.fabric.conditions)
        why = "has any guest spoken to it?" if well else "the fabric is not well, and it may be reached by flooding"
        said = f"reached at {node}" if sent_to else f"no node has it, as far as this one knows: {why}"
        yield Finding(ok=bool(sent_to), check="gateway", message=said)
        return
    alive = here and site.gateways.alive(spec.id)
    yield Finding(ok=here, check="gateway", message=f"{'' if here else 'not '}here, on the primary")
    yield Finding(ok=alive, check="dnsmasq", message="runs" if alive else "does not run")
    for problem in site.gateways.problems(spec.id):
        yield Finding(ok=False, check="gateway", message=problem)
    for problem in site.rules.problems(spec.id):
        yield Finding(ok=False, check="firewall", message=problem)
    try:
        leases = site.gateways.leases(spec.id)
    except PvcError as error:
        yield Finding(ok=False, check="leases", message=str(error))
    else:
        yield Finding(ok=True, check="leases", message=f"{len(leases)} leases")


def _nics(site: Site, nics: Iterable[NetworkNic]) -> Iterator[Finding]:
    here = [each for each in nics if each.node == site.node]
    yield Finding(ok=True, check="nics", message=f"{len(here)} NICs of VMs here")
