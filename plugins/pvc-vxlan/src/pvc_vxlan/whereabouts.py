"""Who has which MAC address, as the cluster knows it, and the mending of nodes' tables that say otherwise.

Each node has its underlay address on record, and the primary has itself as the gateway.  An entry is wrong when it sends to another
node than the one that has the NIC, or to the end of a tunnel that EVPN does not name any more; see ``evpn.stale`` for how that comes
about.  Whom the first kind is compared with was read when the network was ensured, and is read again before anything is held against
an entry; so one is found within a resync interval.  The second kind, which is what a node's death leaves, is found within seconds.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from pvc_core.plugin import Context, NetworkNic
from pvc_netdev.links import EVERYBODY, ForwardingEntry, Links
from pvc_vxlan import names
from pvc_vxlan.evpn.stale import Stale, judge, repair, suspects

NODES: Final = "node"
"""Record below which each node has its underlay address."""
GATEWAY: Final = "gateway"
"""Record of the node that has the gateways."""
_NODES_S: Final = 4.0


class Whereabouts:
    """The record of MAC addresses by network, and its comparison with the kernel.  May be used from any thread."""

    def __init__(self, context: Context) -> None:
        self._node: Final = context.node.name
        self._records: Final = context.records
        self._members: Final = context.nodes
        self._read: Final = context.network_nics
        self._log: Final = context.log
        self._lock: Final = threading.Lock()
        self._nics: dict[str, dict[str, str]] = {}
        """Network -> MAC address -> node."""
        self._suspects: dict[Stale, float] = {}
        self._announced = ""
        self._nodes: tuple[float, dict[str, str]] | None = None
        """What ``nodes`` found, and when."""

    def announce(self, address: str) -> None:
        """Put this node's underlay address on record.  Raises PvcError without the store or the lease."""
        if address != self._announced:
            self._records.put(f"{NODES}/{self._node}", address)
            self._announced = address

    def take_gateways(self) -> None:
        """Put it on record that the gateways are here."""
        self._records.put(GATEWAY, self._node)

    def note(self, network_id: str, nics: Iterable[NetworkNic]) -> None:
        """Take over who has the NICs of a network; those of VMs that do not run are nowhere."""
        with self._lock:
            self._nics[network_id] = {each.nic.mac: each.node for each in nics if each.node}

    def forget(self, network_id: str) -> None:
        """The network is gone."""
        with self._lock:
            self._nics.pop(network_id, None)

    def mend(self, local: str, tunnels: Mapping[int, str], named: Mapping[str, Collection[str]]) -> list[Stale]:
        """Compare the kernel's entries with the record and take out those that are wrong for certain; return them.

        ``local``: this node's underlay address.  ``tunnels``: index -> name of the devices of networks here.  ``named``: tunnel's
        device -> the other ends that EVPN names now; a device that is not in it is not judged by that.  Called every few seconds:
        an entry must be wrong several times in a row.
        """
        with Links() as links:
            entries: dict[str, list[ForwardingEntry]] = {}
            for entry in links.all_forwarding():
                if entry.own and entry.destination and entry.device in tunnels:
                    entries.setdefault(tunnels[entry.device], []).append(entry)
            found = self._wrong(entries, local, named)
            with self._lock:
                certain, self._suspects = judge(self._suspects, found, now=time.monotonic())
            for stale in certain:
                repair(links, stale)
                self._log.warning(
                    "stale-entry-removed device=%s mac=%s sent_to=%s owner=%s",
                    stale.device, stale.mac, stale.sent_to, stale.owner or "unknown",
                )  # fmt: skip
        return certain

    def _wrong(
        self, entries: Mapping[str, list[ForwardingEntry]], local: str, named: Mapping[str, Collection[str]]
    ) -> set[Stale]:
        with self._lock:
            networks = {names.tunnel(network): network for network in self._nics}
        nodes, gateway = self.nodes(), self._records.get(GATEWAY)
        found: set[Stale] = set()
        for device, network in networks.items():
            there = entries.get(device, [])
            if device in named:
                found |= _to_nowhere(device, there, named[device])
            if suspects(device, there, self._owners(network, nodes, gateway), local=local):
                # A VM that moved since the network was last looked at is where its claim says now.
                self.note(network, self._read(network))
                found |= suspects(device, there, self._owners(network, nodes, gateway), local=local)
        return found

    def _owners(self, network: str, nodes: Mapping[str, str], gateway: object) -> dict[str, str]:
        """Return MAC address -> underlay address of the node that has it."""
        with self._lock:
            nics = dict(self._nics.get(network, {}))
        if isinstance(gateway, str):
            nics[names.gateway_mac(network)] = gateway
        return {mac: nodes[node] for mac, node in nics.items() if node in nodes}

    def nodes(self) -> dict[str, str]:
        """Return the underlay addresses of the cluster's nodes, alive or not, by name; as they were some seconds ago."""
        now = time.monotonic()
        with self._lock:
            if self._nodes is not None and now - self._nodes[0] < _NODES_S:
                return self._nodes[1]
        members = set(self._members())
        found = {node: str(address) for node, address in self._records.below(NODES).items() if node in members}
        with self._lock:
            self._nodes = now, found
        return found


def _to_nowhere(device: str, entries: Iterable[ForwardingEntry], named: Collection[str]) -> set[Stale]:
    """Return the entries that send to the end of a tunnel that EVPN does not name any more."""
    return {
        Stale(mac=entry.mac, device=device, sent_to=entry.destination, owner="", here=False)
        for entry in entries
        if entry.mac != EVERYBODY and entry.destination not in named
    }
