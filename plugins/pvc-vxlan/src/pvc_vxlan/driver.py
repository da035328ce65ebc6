"""The network driver ``vxlan``: puts the parts together; each says in its own module what it does.

On every node: the overlay (``overlay``), the fabric (``fabric``, ``evpn``), the guards of the NICs (``guards``).  On the primary:
the gateways (``gateway``) with their firewalls (``firewall``).
"""

import os
import threading
import time
from typing import Any, Final

import msgspec

from pvc_core.model.base import Condition
from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_core.plugin import (
    Context,
    Finding,
    NetworkCapabilities,
    NetworkDriver,
    NetworkNic,
    NetworkState,
    NicSource,
    NotReady,
    ObjectMissing,
    Query,
    RoleService,
    hookimpl,
)
from pvc_netdev import sysctl
from pvc_netdev.links import Links
from pvc_vxlan import check, names
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.evpn.render import require_tunnel_end
from pvc_vxlan.fabric import FabricMember
from pvc_vxlan.firewall import table
from pvc_vxlan.firewall.render import render
from pvc_vxlan.flooding import Flooding
from pvc_vxlan.gateway.leases import as_rows
from pvc_vxlan.gateway.service import Gateways
from pvc_vxlan.guards import Guards, device_of
from pvc_vxlan.hosts_guard import HostsGuard
from pvc_vxlan.network import VxlanNetwork, typed
from pvc_vxlan.overlay import Overlay, Underlay, find_underlay
from pvc_vxlan.parameters import NIC_PARAMETERS, PARAMETERS, network_of
from pvc_vxlan.repeated import Repeated
from pvc_vxlan.role import GatewayRole
from pvc_vxlan.rules import Rules
from pvc_vxlan.whereabouts import Whereabouts

_DEFAULT_MTU: Final = 1500
_UNDERLAY_S: Final = 5.0
"""For so long what was seen of the underlay is taken for true."""
_FABRIC_S: Final = 2.0
_GATEWAYS_S: Final = 1.0
_TABLES_S: Final = 5.0
_CAP_NET_ADMIN: Final = 1 << 12


class VxlanDriver(NetworkDriver):
    """Managed networks on this node.  May be used from any thread."""

    def __init__(self, context: Context, config: VxlanConfig) -> None:
        self._context: Final = context
        self._config: Final = config
        self._address: Final = config.vtep or context.node.address
        self._overlay: Final = Overlay(context.node.name, config.port, context.log)
        self._fabric: Final = FabricMember(context, config)
        self._guards: Final = Guards(context.node.name)
        self._rules: Final = Rules(context.log)
        self._gateways: Final = Gateways(context, config, self._rules.apply)
        self._whereabouts: Final = Whereabouts(context)
        self._role: Final = GatewayRole(
            begin=self._look_again, end=self._gateways.remove_all, end_one=self._gateways.remove
        )
        self._hosts: Final = HostsGuard(context.run)
        self._hosts_lock: Final = threading.Lock()
        self._asked: Final[dict[str, tuple[str, ...]]] = {}
        """Network whose gateway is here -> the name servers that it asks."""
        self._lock: Final = threading.Lock()
        self._seen: tuple[float, Underlay] | None = None
        self._peers: frozenset[str] = frozenset()
        """Underlay addresses of the other nodes, as they were last seen."""
        self._flooding: Final = Flooding(lambda: self._peers, context.log)
        log = context.log
        self._repeated: Final = (
            Repeated("vxlan-fabric", _FABRIC_S, self._tend_fabric, log),
            Repeated("vxlan-gateways", _GATEWAYS_S, self._tend_gateways, log),
            Repeated("vxlan-tables", _TABLES_S, self._tend_tables, log),
        )

    # --- the driver's life --------------------------------------------------------------------------

    def network_capabilities(self) -> NetworkCapabilities:
        return NetworkCapabilities(
            gateway=True, max_mtu=self._underlay().max_mtu, parameters=PARAMETERS, nic_parameters=NIC_PARAMETERS
        )

    def network_preflight(self) -> bool:
        with open("/proc/thread-self/status", encoding="ascii") as status:  # noqa: PTH123  (procfs, not a file)
            effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
        if not effective & _CAP_NET_ADMIN:
            raise NotReady(f"the daemon (user {os.geteuid()}) may not make network devices: it needs CAP_NET_ADMIN")
        if self._fabric.evpn:
            require_tunnel_end(self._address)
        self._underlay()
        coordinator = self._context.node.role == "coordinator"
        check.require_programs(coordinator=coordinator, frr=self._fabric.needs_frr)
        return True

    def network_close(self) -> bool:
        for each in self._repeated:
            each.stop()
        self._flooding.stop()
        return True

    @hookimpl
    def node_starting(self, node: str) -> None:
        """Look after FRR from now on: guests of this node are cut off without it, whether the state store answers or not."""
        del node
        self._flooding.start()
        for each in self._repeated:
            each.start()

    @hookimpl
    def role_services(self) -> list[RoleService]:
        return [self._role]

    @hookimpl
    def health_checks(self) -> list[Condition]:
        return list(self._fabric.conditions)

    @hookimpl
    def queries(self) -> dict[str, Query]:
        return {"vxlan.leases": self._leases, "vxlan.counters": self._counters, "vxlan.check-rules": self._check_rules}

    # --- networks -----------------------------------------------------------------------------------

    def network_ensure(self, network: NetworkSpec) -> NetworkState:
        wanted = network_of(network)
        underlay = self._underlay()
        if not self._config.bridge_netfilter:
            sysctl.no_bridge_netfilter()
        mtu = self._overlay.ensure(
            network.id,
            network.name,
            wanted,
            mtu=network.mtu,
            underlay=underlay,
            others=self._others(underlay),
            evpn=self._fabric.evpn,
        )
        nics = self._context.network_nics(network.id)
        self._whereabouts.note(network.id, nics)
        self._guards.ensure(wanted, nics, lambda: self._leased(network.id))
        problems = self._ensure_gateway(network, wanted, nics, mtu)
        return NetworkState(device=names.bridge(network.id), mtu=mtu, problems=tuple(problems))

    def network_remove(self, network: NetworkSpec) -> bool:
        with self._role.turn(network.id):
            self._gateways.remove(network.id)
        self._overlay.remove(network.id)
        self._whereabouts.forget(network.id)
        self._asked.pop(network.id, None)
        if network.deleting and self._role.held:
            self._context.records.delete(f"lease/{network.id}")
        return True

    def network_list(self) -> list[str]:
        return sorted({*self._overlay.networks(), *self._gateways.present()})

    def network_check(self, network: NetworkSpec) -> list[Finding]:
        site = check.Site(
            node=self._context.node.name,
            underlay=self._underlay(),
            nodes=self._whereabouts.nodes(),
            fabric=self._fabric,
            gateways=self._gateways,
            rules=self._rules,
            held=self._role.held,
            bridge_netfilter=self._config.bridge_netfilter,
        )
        return check.findings(site, network, network_of(network), self._context.network_nics(network.id))

    # --- NICs ---------------------------------------------------------------------------------------

    def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
        del vm, incoming  # libvirt makes the tap and puts it into the bridge, on the target of a migration too
        bridge = self._overlay.bridge(network.id)
        if bridge is None:
            raise ObjectMissing(f"network {network.name} does not exist on node {self._context.node.name} yet")
        nics = self._context.network_nics(network.id)
        self._guards.attach(network_of(network), nic, nics, lambda: self._leased(network.id))
        mtu = "" if bridge.mtu == _DEFAULT_MTU else f"<mtu size='{bridge.mtu}'/>"
        inner = f"<source bridge='{bridge.name}'/><target dev='{device_of(nic.mac)}'/>{mtu}"
        return NicSource(type="bridge", inner_xml=inner)

    def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        del network, vm  # the tap ends with the guest
        self._guards.detach(nic)
        return True

    # --- parts --------------------------------------------------------------------------------------

    def _underlay(self) -> Underlay:
        with self._lock:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] > _UNDERLAY_S:
                with Links() as links:
                    self._seen = now, find_underlay(links, self._address, self._context.node.name)
            return self._seen[1]

    def _others(self, underlay: Underlay) -> frozenset[str]:
        """Return the underlay addresses of the other nodes, as they have said themselves."""
        return frozenset(self._whereabouts.nodes().values()) - {underlay.address}

    def _leased(self, network_id: str) -> dict[str, set[str]]:
        """Return the addresses that the NICs of a network have by leases, by MAC address."""
        found: dict[str, set[str]] = {}
        for lease in self._gateways.leases(network_id):
            if lease.mac:
                found.setdefault(lease.mac, set()).add(lease.address)
        return found

    def _ensure_gateway(
        self, network: NetworkSpec, wanted: VxlanNetwork, nics: list[NetworkNic], mtu: int
    ) -> list[str]:
        with self._role.turn(network.id) as here:
            if not here:
                return []
            self._asked[network.id] = wanted.dns_servers
            self._guard_hosts()
            self._gateways.ensure(network.id, network.name, wanted, nics, mtu)
        return [*self._gateways.problems(network.id), *self._rules.problems(network.id)]

    def _look_again(self) -> None:
        for network_id in self._overlay.networks():
            self._context.wake("network", network_id)

    def _tend_fabric(self) -> None:
        before = self._fabric.conditions
        self._fabric.tend(self._underlay())
        if self._fabric.conditions != before:
            self._context.wake("health", "")

    def _tend_gateways(self) -> None:
        if not self._role.held:
            return
        for network_id in self._gateways.mend():
            self._context.log.warning("gateway-mended network=%s", network_id)
            self._context.wake("network", network_id)
        self._gateways.publish()

    def _guard_hosts(self, *, look: bool = False) -> None:
        protected = self._config.protected or self._underlay().prefixes
        asked = {*self._config.dns_servers, *(server for own in self._asked.copy().values() for server in own)}
        with self._hosts_lock:
            if self._hosts.ensure(protected, sorted(asked), look=look):
                self._context.log.info("hosts-guarded prefixes=%s", ",".join(protected))

    def _tend_tables(self) -> None:
        underlay = self._underlay()
        self._whereabouts.announce(underlay.address)
        if self._role.held:
            self._guard_hosts(look=True)
            self._whereabouts.take_gateways()
        self._whereabouts.mend(underlay.address, self._overlay.tunnels(), self._fabric.named())
        others = self._others(underlay)
        if others != self._peers:
            self._peers = others
            self._look_again()

    def _leases(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        network_id = str(arguments.get("network", ""))
        return as_rows(self._gateways.leases(network_id), self._context.network_nics(network_id))

    def _counters(self, arguments: dict[str, Any]) -> dict[str, tuple[int, int]]:
        return table.counters(self._gateway_here(arguments))

    def _check_rules(self, arguments: dict[str, Any]) -> list[str]:
        """Return what nft has against rules, as they would be in the gateway's table; nothing changes."""
        namespace = self._gateway_here(arguments)
        # What the prefixes are does not matter to rules.
        parameters = {"vni": 1, "ipv4": "10.0.0.0/24", "ipv6": "fd00::/64", "rules": arguments.get("rules", [])}
        try:
            table.check(namespace, render(typed(parameters)))
        except (table.RuleRefused, msgspec.ValidationError) as refused:
            return [str(refused)]
        return []

    def _gateway_here(self, arguments: dict[str, Any]) -> str:
        """Return the namespace of the gateway that a query is about; raises NotReady unless it is here."""
        network_id = str(arguments.get("network", ""))
        if not self._role.held or network_id not in self._gateways.present():
            raise NotReady(f"the network's gateway is not on node {self._context.node.name}")
        return names.gateway_namespace(network_id)
