"""The network driver ``bridge``.

A bridge is ours when its alias says so: ``pvc-bridge:<network id>:<uplink>``.  It is made under another name, gets
its alias, and then its own name; so whatever has a network's name and no such alias is somebody else's, also
after a daemon died in between.

A migrated guest needs no announcement from here: QEMU sends it by itself (``announce-self``: RARP frames from
every NIC, or gratuitous ARP by the guest's own virtio driver) when the guest goes on.
"""

import os
from typing import Final

from pvc_bridge.config import BridgeConfig
from pvc_bridge.parameters import PARAMETERS, uplink_of
from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_core.plugin import (
    Context,
    DriverError,
    Finding,
    NetworkCapabilities,
    NetworkDriver,
    NetworkState,
    NicSource,
    NotReady,
    ObjectBusy,
    ObjectMissing,
)
from pvc_netdev.links import Link, Links
from pvc_netdev.sysctl import bridge_netfilter, no_bridge_netfilter, no_ipv6

_OURS: Final = "pvc-bridge"
_DEFAULT_MTU: Final = 1500
_CAP_NET_ADMIN: Final = 1 << 12


def bridge_name(network_id: str) -> str:
    """Return the name of a network's bridge: the same on every node, 15 characters."""
    return f"pvcbr{network_id.replace('-', '')[:10]}"


class BridgeDriver(NetworkDriver):
    """A bridge per network.  Holds no state: may be used from any thread."""

    def __init__(self, context: Context, config: BridgeConfig) -> None:
        self._node: Final = context.node.name
        self._log: Final = context.log
        self._config: Final = config

    def network_capabilities(self) -> NetworkCapabilities:
        return NetworkCapabilities(parameters=PARAMETERS)

    def network_preflight(self) -> bool:
        with open("/proc/thread-self/status", encoding="ascii") as status:  # noqa: PTH123  (procfs, not a file)
            effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
        if not effective & _CAP_NET_ADMIN:
            raise NotReady(f"the daemon (user {os.geteuid()}) may not make network devices: it needs CAP_NET_ADMIN")
        with Links() as links:
            links.all()
        return True

    # --- networks -----------------------------------------------------------------------------------

    def network_ensure(self, network: NetworkSpec) -> NetworkState:
        uplink = self._uplink_name(network)
        if not self._config.bridge_netfilter:
            no_bridge_netfilter()
        with Links() as links:
            port = self._uplink(links, network, uplink) if uplink else None
            mtu = network.mtu or (port.mtu if port else _DEFAULT_MTU)
            if port and mtu > port.mtu:
                raise DriverError(
                    f"network {network.name} wants MTU {mtu}, but {port.name} of node {self._node} has {port.mtu}: "
                    f"raise that first (ip link set {port.name} mtu {mtu})",
                    retryable=False,
                )
            bridge = self._bridge(links, network) or self._make(links, network)
            self._discard_unfinished(links, network.id)
            self._release_others(links, bridge, uplink)
            if bridge.alias != _alias(network.id, uplink):
                links.set(bridge, "the alias", ifalias=_alias(network.id, uplink))
            if bridge.mtu != mtu:
                self._set_mtu(links, bridge, mtu, uplink)
            if port and port.master != bridge.index:
                links.set(port, f"putting into {bridge.name}", master=bridge.index)
            if port and not port.up:
                links.set(port, "switching on", state="up")
            if not bridge.up:
                no_ipv6(bridge.name)
                links.set(bridge, "switching on", state="up")
        return NetworkState(device=bridge.name, mtu=mtu)

    def network_remove(self, network: NetworkSpec) -> bool:
        with Links() as links:
            self._discard_unfinished(links, network.id)
            bridge = links.get(bridge_name(network.id))
            if bridge is None or _network_of(bridge) != network.id:
                return True
            uplink = _uplink_in(bridge)
            guests = [port.name for port in links.ports(bridge) if port.name != uplink]
            if guests:
                raise ObjectBusy(
                    f"bridge {bridge.name} of network {network.name} still has NICs of guests: {', '.join(guests)}"
                )
            links.delete(bridge)
            self._log.info("bridge-removed network=%s bridge=%s", network.id, bridge.name)
        return True

    def network_list(self) -> list[str]:
        with Links() as links:
            return sorted({found for link in links.all() if (found := _network_of(link))})

    def network_check(self, network: NetworkSpec) -> list[Finding]:
        uplink = self._uplink_name(network)
        with Links() as links:
            bridge = self._bridge(links, network)
            if bridge is None:
                name = bridge_name(network.id)
                return [Finding(ok=False, check="bridge", message=f"{name} does not exist on node {self._node}")]
            findings = [
                Finding(ok=bridge.up, check="bridge", message=f"{bridge.name} is {'up' if bridge.up else 'down'}"),
                _check_uplink(bridge, links.get(uplink) if uplink else None, uplink),
            ]
        filtering = [] if self._config.bridge_netfilter else bridge_netfilter()
        said = f"frames of guests pass the host's firewall: {', '.join(filtering)}" if filtering else "off"
        return [*findings, Finding(ok=not filtering, check="bridge-netfilter", message=said)]

    # --- NICs ---------------------------------------------------------------------------------------

    def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
        del vm, incoming  # libvirt makes the tap and puts it into the bridge, on the target of a migration too
        if nic.parameters:
            raise DriverError(
                f"NIC {nic.mac}: driver bridge has no NIC parameter {min(nic.parameters)!r}", retryable=False
            )
        with Links() as links:
            bridge = self._bridge(links, network)
        if bridge is None:
            raise ObjectMissing(f"network {network.name} does not exist on node {self._node} yet")
        mtu = "" if bridge.mtu == _DEFAULT_MTU else f"<mtu size='{bridge.mtu}'/>"
        return NicSource(type="bridge", inner_xml=f"<source bridge='{bridge.name}'/>{mtu}")

    def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        del network, nic, vm  # the tap ends with the guest
        return True

    # --- parts --------------------------------------------------------------------------------------

    def _bridge(self, links: Links, network: NetworkSpec) -> Link | None:
        """Return the network's bridge; raise DriverError when something else has its name."""
        found = links.get(bridge_name(network.id))
        if found is not None and (found.kind != "bridge" or _network_of(found) != network.id):
            what = f"a {found.kind or 'NIC'}" + (f" with alias {found.alias!r}" if found.alias else "")
            raise DriverError(
                f"node {self._node} has a device {found.name}, {what}, that is not ours: rename or remove it",
                retryable=False,
            )
        return found

    def _make(self, links: Links, network: NetworkSpec) -> Link:
        self._discard_unfinished(links, network.id)
        links.add_bridge(_unfinished(network.id))
        made = links.get(_unfinished(network.id))
        if made is None:
            raise DriverError(f"the bridge of network {network.name} vanished while it was made")
        links.set(made, "the alias", ifalias=_alias(network.id, ""))
        links.set(made, "naming", ifname=bridge_name(network.id))
        found = self._bridge(links, network)
        if found is None:
            raise DriverError(f"the bridge of network {network.name} vanished while it was made")
        self._log.info("bridge-made network=%s bridge=%s", network.id, found.name)
        return found

    def _discard_unfinished(self, links: Links, network_id: str) -> None:
        left = links.get(_unfinished(network_id))
        if left is not None and left.kind == "bridge":
            links.delete(left)

    def _uplink_name(self, network: NetworkSpec) -> str:
        """Return the NIC that the network names, or this node's; empty: the network has none here."""
        named = uplink_of(network)
        return self._config.device if named is None else named

    def _uplink(self, links: Links, network: NetworkSpec, name: str) -> Link:
        """Return the NIC to put into the bridge; raise DriverError unless it is there and free."""
        link = links.get(name)
        if link is None:
            raise NotReady(f"node {self._node} has no device {name}, which network {network.name} needs")
        if link.kind == "bridge" or name == "lo":
            raise DriverError(f"{name} of node {self._node} is no NIC: it cannot be an uplink", retryable=False)
        bridge = links.get(bridge_name(network.id))
        if link.master and (bridge is None or link.master != bridge.index):
            owner = next((other.name for other in links.all() if other.index == link.master), f"device {link.master}")
            raise DriverError(f"{name} of node {self._node} belongs to {owner} already", retryable=False)
        addresses = links.addresses(link)
        if addresses:
            raise DriverError(
                f"{name} of node {self._node} has addresses ({', '.join(addresses)}), which a port of a bridge cannot "
                "use: give the network a NIC of its own",
                retryable=False,
            )
        return link

    def _release_others(self, links: Links, bridge: Link, uplink: str) -> None:
        """Take out the NIC that was the uplink before."""
        before = _uplink_in(bridge)
        if not before or before == uplink:
            return
        old = links.get(before)
        if old is not None and old.master == bridge.index:
            links.set(old, f"taking out of {bridge.name}", master=0)

    def _set_mtu(self, links: Links, bridge: Link, mtu: int, uplink: str) -> None:
        links.set(bridge, f"setting MTU {mtu}", mtu=mtu)
        for port in links.ports(bridge):
            if port.name != uplink and port.mtu != mtu:
                links.set(port, f"setting MTU {mtu}", mtu=mtu)


def _alias(network_id: str, uplink: str) -> str:
    return f"{_OURS}:{network_id}:{uplink}"


def _network_of(link: Link) -> str:
    parts = link.alias.split(":")
    return parts[1] if link.kind == "bridge" and len(parts) == 3 and parts[0] == _OURS else ""


def _uplink_in(bridge: Link) -> str:
    return bridge.alias.rpartition(":")[2]


def _unfinished(network_id: str) -> str:
    return f"pvcnw{network_id.replace('-', '')[:10]}"


def _check_uplink(bridge: Link, port: Link | None, name: str) -> Finding:
    if not name:
        return Finding(ok=True, check="uplink", message="none: guests reach only those on the same node")
    if port is None:
        return Finding(ok=False, check="uplink", message=f"{name} does not exist")
    if port.master != bridge.index:
        return Finding(ok=False, check="uplink", message=f"{name} is not in {bridge.name}")
    return Finding(ok=port.carrier, check="uplink", message=f"{name} has {'a' if port.carrier else 'no'} carrier")
