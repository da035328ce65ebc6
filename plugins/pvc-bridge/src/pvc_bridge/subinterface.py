"""A VLAN as an 802.1Q device on the uplink, which is the port of the network's bridge.

The kernel gives a frame with a tag to the VLAN's device before a bridge sees it, so the uplink itself can be the port of an
untagged network at the same time.
"""

from pvc_bridge.names import OWNER, VLAN, vlan_name
from pvc_core.plugin import DriverError, Unsupported
from pvc_netdev.links import Link, Links
from pvc_netdev.ownership import discard_interim


def ensure_port(links: Links, network_id: str, vlan: int, uplink: Link) -> Link:
    """Return the device of the network's VLAN, made when it is not there or is of another VLAN.

    Raises Unsupported when the kernel has no 802.1Q; DriverError when the VLAN of this uplink has another device.
    """
    name = vlan_name(network_id)
    found = OWNER.mine(links.get(name), network_id, "vlan")
    if found is not None and is_of(found, vlan, uplink):
        return found
    discard_interim(links, name)
    for link in links.all():
        if is_of(link, vlan, uplink):
            owner = OWNER.network_of(link)
            whose = f"network {owner} has it" if owner else "it is not ours: remove it, or choose another VLAN"
            raise DriverError(
                f"VLAN {vlan} of {uplink.name} is device {link.name} already; {whose}", retryable=bool(owner)
            )
    try:
        return OWNER.make(links, name, OWNER.alias(network_id, VLAN), lambda made: links.add_vlan(made, uplink, vlan))
    except Unsupported as error:
        raise Unsupported(
            f"this node's kernel has no 802.1Q, so it cannot make VLAN {vlan} on {uplink.name}: load its module "
            "(modprobe 8021q), or set vlan_mode: filtering in section plugins.bridge of pvcnoded.yml"
        ) from error


def is_of(link: Link, vlan: int, uplink: Link) -> bool:
    """Return whether a device is this VLAN's on this uplink."""
    return link.kind == "vlan" and (link.vlan, link.under) == (vlan, uplink.index)


def remove_port(links: Links, network_id: str) -> None:
    """Remove the network's VLAN device; there is none is success."""
    name = vlan_name(network_id)
    discard_interim(links, name)
    found = links.get(name)
    if found is not None and OWNER.network_of(found) == network_id:
        links.delete(found)
