"""What ``network_check`` finds: the parts of a network on this node, compared with what is wanted."""

from collections.abc import Iterator

from pvc_bridge.filtering import Vlans, ranges_of, uplink_vlans
from pvc_bridge.names import OWNER, filter_name, inner_name, outer_name, vlan_name
from pvc_bridge.subinterface import is_of
from pvc_core.plugin import Finding
from pvc_netdev.links import Link, Links


def check_bridge(bridge: Link) -> Finding:
    """The bridge is up."""
    return Finding(ok=bridge.up, check="bridge", message=f"{bridge.name} is {'up' if bridge.up else 'down'}")


def check_uplink(links: Links, port_of: str, name: str) -> Finding:
    """The NIC ``name`` has a carrier, and is in the bridge ``port_of``, if in any."""
    if not name:
        return Finding(ok=True, check="uplink", message="none: guests reach only those on the same node")
    uplink = links.get(name)
    if uplink is None:
        return Finding(ok=False, check="uplink", message=f"{name} does not exist")
    bridge = links.get(port_of) if port_of else None
    if port_of and (bridge is None or uplink.master != bridge.index):
        return Finding(ok=False, check="uplink", message=f"{name} is not in {port_of}")
    return Finding(ok=uplink.carrier, check="uplink", message=f"{name} has {'a' if uplink.carrier else 'no'} carrier")


def check_tags(bridge: Link, *, everything: bool) -> Finding:
    """The bridge with the NIC itself in it lets frames with tags pass, or not, as wanted."""
    if bridge.filters is None:
        said = "all frames" if everything else "frames with tags pass too: this kernel's bridges do not filter VLANs"
        return Finding(ok=True, check="vlan", message=said)
    ok = bridge.filters is not everything
    passes = "frames without a tag alone" if bridge.filters else "all frames"
    return Finding(ok=ok, check="vlan", message=passes if ok else f"{passes} pass {bridge.name}, which is not wanted")


def check_subinterface(links: Links, network_id: str, vlan: int, uplink_name: str, bridge: Link) -> Finding:
    """The VLAN device is of this VLAN and uplink, up, and in the network's bridge."""
    name = vlan_name(network_id)
    device, uplink = links.get(name), links.get(uplink_name)
    if device is None or uplink is None:
        wrong = f"{name} does not exist"
    elif not is_of(device, vlan, uplink):
        wrong = f"{name} is VLAN {device.vlan} of device {device.under}, not VLAN {vlan} of {uplink.name}"
    elif device.master != bridge.index:
        wrong = f"{name} is not in {bridge.name}"
    elif not device.up:
        wrong = f"{name} is down"
    else:
        return Finding(ok=True, check="vlan", message=f"{name} is VLAN {vlan} of {uplink.name}")
    return Finding(ok=False, check="vlan", message=wrong)


def check_filtering(
    links: Links, network_id: str, wanted: Vlans, uplink_name: str, bridge: Link, untagged_vlan: int
) -> Finding:
    """The cable joins the network's bridge to the filtering one, and it and the uplink pass the VLANs."""
    outer, uplink = links.get(outer_name(network_id)), links.get(uplink_name)
    wrong = "; ".join(_wrong_parts(links, network_id, filter_name(uplink_name), bridge))
    if not wrong and outer and uplink:
        of_uplink = links.port_vlan_tags(uplink)
        missing = uplink_vlans([wanted], untagged_vlan).items() - of_uplink.items()
        if links.port_vlan_tags(outer) != wanted:
            wrong = f"{outer.name} passes VLANs {_text(links.port_vlan_tags(outer))}, not {_text(wanted)}"
        elif missing:
            wrong = f"{uplink.name} does not pass VLANs {_text(dict(missing))}"
    return Finding(ok=not wrong, check="vlan", message=wrong or f"VLANs {_text(wanted)} of {uplink_name}")


def check_mtu(links: Links, network_id: str, bridge: Link, wanted: int | None, uplink_name: str) -> Finding:
    """The bridge and all its ports have the network's MTU, and the uplink has no less."""
    uplink = links.get(uplink_name) if uplink_name else None
    mtu = wanted or (uplink.mtu if uplink else bridge.mtu)
    wrong = [
        f"{link.name} has {link.mtu}"
        for link in (bridge, *links.ports(bridge), links.get(outer_name(network_id)))
        if link is not None and link.name != uplink_name and link.mtu != mtu
    ]
    if uplink and uplink.mtu < mtu:
        wrong.append(f"{uplink.name} has {uplink.mtu}")
    said = f"{mtu} is wanted, but {', '.join(wrong)}" if wrong else f"{mtu}"
    return Finding(ok=not wrong, check="mtu", message=said)


def check_bridge_netfilter(settings: list[str]) -> Finding:
    """Frames between guests do not pass the host's firewall."""
    said = f"frames of guests pass the host's firewall: {', '.join(settings)}" if settings else "off"
    return Finding(ok=not settings, check="bridge-netfilter", message=said)


def _wrong_parts(links: Links, network_id: str, filtering: str, bridge: Link) -> Iterator[str]:
    other = links.get(filtering)
    if other is None:
        yield f"{filtering} does not exist"
        return
    if not other.up:
        yield f"{filtering} is down"
    for name, master in ((inner_name(network_id), bridge), (outer_name(network_id), other)):
        end = links.get(name)
        if end is None or OWNER.network_of(end) != network_id:
            yield f"{name} does not exist"
        elif end.master != master.index:
            yield f"{name} is not in {master.name}"
        elif not end.up:
            yield f"{name} is down"


def _text(vlans: Vlans) -> str:
    untagged = sorted(vlan for vlan, tagged in vlans.items() if not tagged)
    tagged = ranges_of(vlan for vlan, tagged in vlans.items() if tagged)
    parts = [f"{first}" if first == last else f"{first}-{last}" for first, last in tagged]
    return ", ".join([*parts, *(f"{vlan} without tags" for vlan in untagged)]) or "none"
