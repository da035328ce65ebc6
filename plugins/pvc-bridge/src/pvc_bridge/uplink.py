"""The NIC of a node that a network's frames leave by: whether it is there and free, and what its MTU allows."""

from ipaddress import ip_interface
from typing import Final

from pvc_bridge.names import OWNER
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import DriverError, NotReady
from pvc_netdev.links import Link, Links

DEFAULT_MTU: Final = 1500


def find_uplink(links: Links, node: str, network: NetworkSpec, name: str) -> Link:
    """Return the NIC; raises NotReady without it, DriverError when it is none."""
    link = links.get(name)
    if link is None:
        raise NotReady(f"node {node} has no device {name}, which network {network.name} needs")
    if link.kind == "bridge" or name == "lo":
        raise DriverError(f"{name} of node {node} is no NIC: it cannot be an uplink", retryable=False)
    return link


def refuse_used(links: Links, node: str, uplink: Link, network_id: str, home: Link | None, *, filtering: bool) -> None:
    """Raise DriverError when the NIC cannot become the port of a bridge, because somebody else uses it.

    ``home`` is the bridge that it is to be in, if it is there.  What this driver made before for another ``vlan_mode`` does
    not keep it.
    """
    if uplink.master and (home is None or home.index != uplink.master):
        owner = next((link for link in links.all() if link.index == uplink.master), None)
        ours = owner is not None and OWNER.owns(owner)
        whose = OWNER.network_of(owner) if owner is not None else ""
        if not ours or (not filtering and whose not in ("", network_id)):
            name = owner.name if owner is not None else f"device {uplink.master}"
            raise DriverError(f"{uplink.name} of node {node} belongs to {name} already", retryable=ours)
    # A link-local address is nobody's way to this host: some programs give one to every NIC.
    addresses = [address for address in links.addresses(uplink) if not _is_link_local6(address)]
    if addresses:
        other = "; in vlan_mode subinterface its VLANs can be used nevertheless" if filtering else ""
        raise DriverError(
            f"{uplink.name} of node {node} has addresses ({', '.join(addresses)}), which a port of a bridge cannot use: "
            f"give the network a NIC of its own{other}",
            retryable=False,
        )


def mtu_of(node: str, network: NetworkSpec, uplink: Link | None) -> int:
    """Return the MTU that a network gets; raises DriverError when its uplink has less than it wants."""
    mtu = network.mtu or (uplink.mtu if uplink else DEFAULT_MTU)
    if uplink and mtu > uplink.mtu:
        raise DriverError(
            f"network {network.name} wants MTU {mtu}, but {uplink.name} of node {node} has {uplink.mtu}: "
            f"raise that first (ip link set {uplink.name} mtu {mtu})",
            retryable=False,
        )
    return mtu


def _is_link_local6(address: str) -> bool:
    found = ip_interface(address)
    return found.version == 6 and found.is_link_local
