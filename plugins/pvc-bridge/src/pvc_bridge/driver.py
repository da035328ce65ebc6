"""The network driver ``bridge``.

Each network has a bridge on every node, with the guests' NICs and one port that leads outside: a NIC of the node, a VLAN device
on one (``subinterface``), or a cable to a bridge that filters VLANs (``filtering``).  Devices of ours say so in their aliases
(``names``, ``pvc_netdev.ownership``); nothing else records what is there.

A migrated guest needs no announcement from here: QEMU sends it by itself (``announce-self``: RARP frames from
every NIC, or gratuitous ARP by the guest's own virtio driver) when the guest goes on.
"""

import os
from typing import Final

from pvc_bridge import check, filtering, subinterface
from pvc_bridge.config import BridgeConfig
from pvc_bridge.names import OWNER, bridge_name, filter_name, tap_name
from pvc_bridge.parameters import PARAMETERS, BridgeNetwork, parsed
from pvc_bridge.uplink import DEFAULT_MTU, find_uplink, mtu_of, refuse_used
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
from pvc_netdev.ownership import discard_interim
from pvc_netdev.sysctl import bridge_netfilter, no_bridge_netfilter, no_ipv6

_CAP_NET_ADMIN: Final = 1 << 12


class BridgeDriver(NetworkDriver):
    """A bridge per network.  What there is, the kernel knows: may be used from any thread."""

    def __init__(self, context: Context, config: BridgeConfig) -> None:
        self._node: Final = context.node.name
        self._log: Final = context.log
        self._config: Final = config
        self._swept = False
        """Filtering bridges that a daemon before left were looked for."""

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
        wanted = parsed(network)
        name = self._uplink_name(network, wanted)
        if not self._config.bridge_netfilter:
            no_bridge_netfilter()
        with Links() as links:
            bridge = self._bridge(links, network.id)
            uplink = find_uplink(links, self._node, network, name) if name else None
            mtu = mtu_of(self._node, network, uplink)
            port = self._port(links, network, wanted, uplink, mtu) if uplink else None
            bridge = bridge or self._make(links, network)
            self._drop_other_ports(links, network.id, bridge, port)
            alias = OWNER.alias(network.id, port.name if port and not OWNER.owns(port) else "")
            if bridge.alias != alias:
                links.set(bridge, "the alias", ifalias=alias)
            self._keep_tags_out(links, bridge, port, wanted)
            self._set_mtu(links, bridge, port, mtu)
            if port and port.master != bridge.index:
                links.set(port, f"putting into {bridge.name}", master=bridge.index)
            for link in (uplink, port):
                if link and not link.up:
                    if OWNER.owns(link):
                        no_ipv6(link.name)
                    links.set(link, "switching on", state="up")
            if not bridge.up:
                no_ipv6(bridge.name)
                links.set(bridge, "switching on", state="up")
        return NetworkState(device=bridge.name, mtu=mtu)

    def network_remove(self, network: NetworkSpec) -> bool:
        with Links() as links:
            discard_interim(links, bridge_name(network.id))
            bridge = links.get(bridge_name(network.id))
            if bridge is not None and OWNER.network_of(bridge) == network.id:
                guests = self._guests(links, network.id, bridge)
                if guests:
                    raise ObjectBusy(
                        f"bridge {bridge.name} of network {network.name} still has NICs of guests: {', '.join(guests)}"
                    )
            # The bridge goes last: until then the network is listed, and is removed again after a daemon died here.
            subinterface.remove_port(links, network.id)
            self._leave_filtering(links, network.id)
            if bridge is not None and OWNER.network_of(bridge) == network.id:
                links.delete(bridge)
                self._log.info("bridge-removed network=%s bridge=%s", network.id, bridge.name)
        return True

    def network_list(self) -> list[str]:
        with Links() as links:
            return OWNER.networks(links)

    def network_check(self, network: NetworkSpec) -> list[Finding]:
        wanted = parsed(network)
        name = self._uplink_name(network, wanted)
        filters = bool(name) and self._filters
        with Links() as links:
            bridge = self._bridge(links, network.id)
            if bridge is None:
                missing = bridge_name(network.id)
                return [Finding(ok=False, check="bridge", message=f"{missing} does not exist on node {self._node}")]
            port_of = filter_name(name) if filters else "" if wanted.vlan else bridge.name
            findings = [check.check_bridge(bridge), check.check_uplink(links, port_of, name)]
            untagged = self._config.untagged_vlan
            if filters:
                vlans = filtering.port_vlans(wanted, untagged)
                findings.append(check.check_filtering(links, network.id, vlans, name, bridge, untagged))
            elif wanted.vlan:
                findings.append(check.check_subinterface(links, network.id, wanted.vlan, name, bridge))
            elif name:
                findings.append(check.check_tags(bridge, everything=wanted.everything))
            findings.append(check.check_mtu(links, network.id, bridge, network.mtu, name))
        settings = [] if self._config.bridge_netfilter else bridge_netfilter()
        return [*findings, check.check_bridge_netfilter(settings)]

    # --- NICs ---------------------------------------------------------------------------------------

    def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
        del vm, incoming  # libvirt makes the tap and puts it into the bridge, on the target of a migration too
        if nic.parameters:
            raise DriverError(
                f"NIC {nic.mac}: driver bridge has no NIC parameter {min(nic.parameters)!r}", retryable=False
            )
        with Links() as links:
            bridge = self._bridge(links, network.id)
        if bridge is None:
            raise ObjectMissing(f"network {network.name} does not exist on node {self._node} yet")
        mtu = "" if bridge.mtu == DEFAULT_MTU else f"<mtu size='{bridge.mtu}'/>"
        return NicSource(
            type="bridge", inner_xml=f"<source bridge='{bridge.name}'/><target dev='{tap_name(nic.mac)}'/>{mtu}"
        )

    def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        del network, nic, vm  # the tap ends with the guest
        return True

    # --- parts --------------------------------------------------------------------------------------

    @property
    def _filters(self) -> bool:
        return self._config.vlan_mode == "filtering"

    def _uplink_name(self, network: NetworkSpec, wanted: BridgeNetwork) -> str:
        """Return the NIC that the network names, or this node's; empty: the network has none here."""
        name = self._config.device if wanted.device is None else wanted.device
        if not name and (wanted.vlan or wanted.everything or wanted.trunk):
            raise DriverError(
                f"network {network.name} names no device, and node {self._node} has none for such networks: set device in "
                "section plugins.bridge of pvcnoded.yml",
                retryable=False,
            )
        if wanted.trunk and not self._filters:
            raise DriverError(
                f"network {network.name}: a trunk of some VLANs needs vlan_mode: filtering in section plugins.bridge of "
                f"pvcnoded.yml on node {self._node}; trunk=true, all frames of the device, does not",
                retryable=False,
            )
        return name

    def _bridge(self, links: Links, network_id: str) -> Link | None:
        """Return the network's bridge; raise DriverError when something else has its name."""
        return OWNER.mine(links.get(bridge_name(network_id)), network_id, "bridge")

    def _make(self, links: Links, network: NetworkSpec) -> Link:
        made = OWNER.make(links, bridge_name(network.id), OWNER.alias(network.id, ""), links.add_bridge)
        self._log.info("bridge-made network=%s bridge=%s", network.id, made.name)
        return made

    def _port(self, links: Links, network: NetworkSpec, wanted: BridgeNetwork, uplink: Link, mtu: int) -> Link:
        """Return the device that leads outside, made if it has to be."""
        if self._filters:
            untagged = self._config.untagged_vlan
            vlans = filtering.port_vlans(wanted, untagged)
            home = links.get(filter_name(uplink.name))
            refuse_used(links, self._node, uplink, network.id, home, filtering=True)
            return filtering.ensure_port(links, network.id, vlans, uplink, mtu, untagged)
        if wanted.vlan:
            return subinterface.ensure_port(links, network.id, wanted.vlan, uplink)
        refuse_used(links, self._node, uplink, network.id, links.get(bridge_name(network.id)), filtering=False)
        return uplink

    def _drop_other_ports(self, links: Links, network_id: str, bridge: Link, port: Link | None) -> None:
        """Take out the NIC that was in the bridge before, and remove what an earlier way to the outside was made of."""
        discard_interim(links, bridge.name)
        before = links.get(OWNER.role_of(bridge)) if OWNER.role_of(bridge) else None
        if before is not None and before.master == bridge.index and (port is None or before.index != port.index):
            links.set(before, f"taking out of {bridge.name}", master=0)
        kind = port.kind if port and OWNER.owns(port) else ""
        if kind != "vlan":
            subinterface.remove_port(links, network_id)
        if kind != "veth":
            self._leave_filtering(links, network_id)

    def _leave_filtering(self, links: Links, network_id: str) -> None:
        """Remove the network's cable, if it has one, and once in this daemon's life what one before may have left."""
        if not self._swept or filtering.has_port(links, network_id):
            self._swept = False
            filtering.remove_port(links, network_id, self._config.untagged_vlan)
            self._swept = True

    def _keep_tags_out(self, links: Links, bridge: Link, port: Link | None, wanted: BridgeNetwork) -> None:
        """Let only frames without a tag pass a bridge with a NIC of the node in it, unless all are wanted.

        Else its guests could send into any VLAN of the NIC's cable.  Where the kernel cannot, they can.
        """
        filters = port is not None and not OWNER.owns(port) and not wanted.everything
        if bridge.filters is not None and bridge.filters is not filters:
            what = "keeping frames with tags out" if filters else "letting frames with tags pass"
            links.set(bridge, what, kind="bridge", br_vlan_filtering=int(filters))

    def _guests(self, links: Links, network_id: str, bridge: Link) -> list[str]:
        uplink = OWNER.role_of(bridge)
        ports = links.ports(bridge)
        return [port.name for port in ports if port.name != uplink and OWNER.network_of(port) != network_id]

    def _set_mtu(self, links: Links, bridge: Link, port: Link | None, mtu: int) -> None:
        if port and OWNER.owns(port) and port.mtu != mtu:
            links.set(port, f"setting MTU {mtu}", mtu=mtu)
        if bridge.mtu != mtu:
            links.set(bridge, f"setting MTU {mtu}", mtu=mtu)
            for guest in links.ports(bridge):
                if guest.mtu != mtu and (port is None or guest.index != port.index):
                    links.set(guest, f"setting MTU {mtu}", mtu=mtu)
