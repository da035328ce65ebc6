"""VLANs by a bridge per uplink that filters them; a cable (veth) joins each network's own bridge to it.

The cable's outer end is an access port of the network's VLAN, or passes several with their tags; the uplink passes exactly the
VLANs of the cables.  Frames without a tag on the uplink have a number of their own inside (``untagged_vlan``).  What the kernel
has is the only record: a filtering bridge without cables is removed, which gives its uplink back.
"""

import threading
from collections.abc import Iterable
from typing import Final

from pvc_bridge.names import INNER, OUTER, OWNER, filter_name, inner_name, outer_name
from pvc_bridge.parameters import VLAN_MAX, BridgeNetwork
from pvc_core.plugin import DriverError, Unsupported
from pvc_netdev.links import Link, Links
from pvc_netdev.ownership import discard_interim, interim
from pvc_netdev.sysctl import no_ipv6

_SHARED: Final = threading.Lock()
"""Networks are worked on at the same time; the filtering bridge is of several."""

Vlans = dict[int, bool]
"""VLANs of a port, and whether their frames have a tag there."""


def port_vlans(wanted: BridgeNetwork, untagged_vlan: int) -> Vlans:
    """Return the VLANs of the outer end of a network's cable.  Raises DriverError when it wants the untagged one by number."""
    ranges = [(wanted.vlan, wanted.vlan)] if wanted.vlan else wanted.trunk
    if any(first <= untagged_vlan <= last for first, last in ranges):
        raise DriverError(
            f"VLAN {untagged_vlan} is the number of frames without a tag on this node: choose another VLAN, or another "
            "untagged_vlan in section plugins.bridge of pvcnoded.yml",
            retryable=False,
        )
    if wanted.everything:
        return {vlan: vlan != untagged_vlan for vlan in range(1, VLAN_MAX + 1)}
    if wanted.trunk:
        return {vlan: True for first, last in wanted.trunk for vlan in range(first, last + 1)}
    return {wanted.vlan or untagged_vlan: False}


def uplink_vlans(ports: Iterable[Vlans], untagged_vlan: int) -> Vlans:
    """Return the VLANs of an uplink whose filtering bridge has these ports."""
    return {vlan: vlan != untagged_vlan for port in ports for vlan in port}


def ensure_port(links: Links, network_id: str, vlans: Vlans, uplink: Link, mtu: int, untagged_vlan: int) -> Link:
    """Return the inner end of the network's cable, with its outer end joined to the uplink.

    Raises Unsupported when the kernel's bridges do not filter VLANs; DriverError when another network has one of the VLANs.
    """
    with _SHARED:
        inner, outer = _ends(links, network_id)
        bridge = _ensure_bridge(links, uplink)
        if inner and outer and _is_settled(links, outer, bridge, vlans, uplink, mtu, untagged_vlan):
            return inner
        _refuse_taken(links, network_id, bridge, vlans)
        if inner is None or outer is None:
            inner, outer = _make_cable(links, network_id)
        for end in (inner, outer):
            if end.mtu != mtu:
                links.set(end, f"setting MTU {mtu}", mtu=mtu)
        if outer.master != bridge.index:
            links.set(outer, f"putting into {bridge.name}", master=bridge.index)
        set_vlans(links, outer, vlans)
        if uplink.master != bridge.index:
            links.set(uplink, f"putting into {bridge.name}", master=bridge.index)
        for link in (bridge, outer):
            if not link.up:
                no_ipv6(link.name)
                links.set(link, "switching on", state="up")
        _tidy(links, untagged_vlan)
    return inner


def remove_port(links: Links, network_id: str, untagged_vlan: int) -> None:
    """Remove the network's cable, and filtering bridges that have none."""
    with _SHARED:
        _remove_cable(links, network_id)
        _tidy(links, untagged_vlan)


def has_port(links: Links, network_id: str) -> bool:
    """Return whether there is a part of the network's cable."""
    names = (inner_name(network_id), outer_name(network_id))
    return any(links.get(each) for name in names for each in (name, interim(name)))


def set_vlans(links: Links, port: Link, wanted: Vlans) -> None:
    """Give a port of a filtering bridge exactly these VLANs."""
    found = links.port_vlan_tags(port)
    for first, last in ranges_of(found.keys() - wanted.keys()):
        links.remove_port_vlans(port, first, last)
    changed = {vlan for vlan, tagged in wanted.items() if found.get(vlan) is not tagged}
    for first, last in ranges_of(vlan for vlan in changed if wanted[vlan]):
        links.add_port_vlans(port, first, last)
    for vlan in changed:
        if not wanted[vlan]:
            links.add_port_vlan(port, vlan, untagged=True)


def ranges_of(vlans: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges first-last."""
    found: list[tuple[int, int]] = []
    for vlan in sorted(vlans):
        if found and found[-1][1] == vlan - 1:
            found[-1] = (found[-1][0], vlan)
        else:
            found.append((vlan, vlan))
    return found


def _is_settled(
    links: Links, outer: Link, bridge: Link, vlans: Vlans, uplink: Link, mtu: int, untagged_vlan: int
) -> bool:
    """Return whether there is nothing to do; it asks for no listing of devices, of which a node may have a thousand."""
    return (
        bridge.up
        and outer.up
        and outer.mtu == mtu
        and outer.master == uplink.master == bridge.index
        and links.port_vlan_tags(outer) == vlans
        and uplink_vlans([vlans], untagged_vlan).items() <= links.port_vlan_tags(uplink).items()
    )


def _ensure_bridge(links: Links, uplink: Link) -> Link:
    name = filter_name(uplink.name)
    found = OWNER.mine(links.get(name), "", "bridge")
    if found is not None:
        return found
    try:
        return OWNER.make(
            links, name, OWNER.alias("", uplink.name), lambda made: links.add_bridge(made, vlan_filtering=True)
        )
    except Unsupported as error:
        raise Unsupported(
            "this node's kernel has no bridges that filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING): set vlan_mode: "
            "subinterface in section plugins.bridge of pvcnoded.yml"
        ) from error


def _refuse_taken(links: Links, network_id: str, bridge: Link, vlans: Vlans) -> None:
    """Raise DriverError when another network is the access port of one of these VLANs, and this one would be too."""
    mine = {vlan for vlan, tagged in vlans.items() if not tagged}
    for port in links.ports(bridge):
        other = OWNER.network_of(port)
        if other and other != network_id:
            theirs = {vlan for vlan, tagged in links.port_vlan_tags(port).items() if not tagged}
            if taken := mine & theirs:
                raise DriverError(f"VLAN {min(taken)} of {OWNER.role_of(bridge)} is that of network {other} already")


def _ends(links: Links, network_id: str) -> tuple[Link | None, Link | None]:
    """Return the ends of the network's cable; half of one is as none."""
    inner = OWNER.mine(links.get(inner_name(network_id)), network_id, "veth")
    outer = OWNER.mine(links.get(outer_name(network_id)), network_id, "veth")
    if inner is None or outer is None or inner.under != outer.index:
        return None, None
    return inner, outer


def _make_cable(links: Links, network_id: str) -> tuple[Link, Link]:
    _remove_cable(links, network_id)
    inner_made, outer_made = inner_name(network_id), outer_name(network_id)
    inner = OWNER.make(
        links, inner_made, OWNER.alias(network_id, INNER), lambda made: links.add_veth(made, interim(outer_made))
    )
    outer = links.get(interim(outer_made))
    if outer is None:
        raise DriverError(f"the cable {inner_made} vanished while it was made")
    links.set(outer, "the alias", ifalias=OWNER.alias(network_id, OUTER))
    links.set(outer, f"naming {outer_made}", ifname=outer_made)
    found = links.get(outer_made)
    if found is None:
        raise DriverError(f"the cable {inner_made} vanished while it was made")
    return inner, found


def _remove_cable(links: Links, network_id: str) -> None:
    """Remove the network's cable, also an unfinished one: with one end goes the other."""
    for name in (inner_name(network_id), outer_name(network_id)):
        discard_interim(links, name)
        found = links.get(name)
        if found is not None and OWNER.network_of(found) == network_id:
            links.delete(found)


def _tidy(links: Links, untagged_vlan: int) -> None:
    """Let the uplinks pass what their cables want, and remove filtering bridges without cables."""
    there = links.all()
    for bridge in there:
        if bridge.kind != "bridge" or not OWNER.owns(bridge) or OWNER.network_of(bridge):
            continue
        ports = [link for link in there if link.master == bridge.index]
        cables = [port for port in ports if OWNER.network_of(port)]
        if not cables:
            links.delete(bridge)
            continue
        for uplink in ports:
            if uplink.name == OWNER.role_of(bridge):
                wanted = uplink_vlans((links.port_vlan_tags(cable) for cable in cables), untagged_vlan)
                set_vlans(links, uplink, wanted)
