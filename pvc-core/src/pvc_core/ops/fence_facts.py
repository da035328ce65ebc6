"""What is known of the fencing of all nodes, and the subjects of a forecast made of it."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from pvc_core.model.cluster import Cluster
from pvc_core.model.fence import DeviceHealth, FenceHealth, FenceRecord
from pvc_core.model.storage import PoolSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import ClusterSnapshot, NodeFacts, StatusRow, VmRow, occupied, read_cluster, status_row
from pvc_core.plan.fence_outlook import Fencer, Guest, Subject
from pvc_core.store import keys
from pvc_core.store.api import Node
from pvc_core.store.documents import maybe

Guests = dict[str, list[Guest]]
"""Node -> the VMs that it would take down with it."""


class FenceFacts(NamedTuple):
    """All documents about fencing."""

    cluster: Cluster
    nodes: Mapping[str, NodeFacts]
    primary: str | None
    records: Mapping[str, FenceRecord]
    """Node -> its last record, whatever lease that is of."""
    health: Mapping[str, FenceHealth]
    """Coordinator -> what it found."""
    guests: Guests

    def coordinators(self) -> list[str]:
        """Return the coordinators that are alive, the primary first."""
        alive = [name for name, facts in self.nodes.items() if facts.alive and facts.spec.role == "coordinator"]
        return sorted(alive, key=lambda name: (name != self.primary, name))

    def record(self, node: str) -> FenceRecord | None:
        """Return the record of the loss of a node's last lease, None when that was not lost."""
        record = self.records.get(node)
        facts = self.nodes.get(node)
        return record if record is not None and facts is not None and record.lease == facts.last.generation else None

    def left_alone(self, node: str) -> str:
        """Return why a node is not fenced if it is lost, or an empty string."""
        if self.cluster.maintenance:
            return "the cluster is in maintenance"
        facts = self.nodes[node]
        if facts.spec.maintenance:
            return "it is in maintenance"
        if not facts.alive and facts.released:
            return "its daemon was stopped on purpose"
        if not facts.last.generation:
            return "its daemon never ran"
        return ""

    def subject(self, node: str) -> Subject:
        """Return what a forecast for a node rests on."""
        facts = self.nodes[node]
        able = [name for name in self.coordinators() if name != node]
        if able and able[0] == self.primary:
            first, others = able[:1], able[1:]
        else:
            first, others = able, []
        waits = next((self.health[name] for name in able if name in self.health), FenceHealth(coordinator=""))
        return Subject(
            node=node,
            recovery=self.cluster.recovery,
            levels=facts.spec.fence_levels,
            watchdog_down_s=facts.last.watchdog_down_s,
            identities=blocking_drivers(facts),
            guests=tuple(self.guests.get(node, ())),
            fencers=tuple(self._fencer(name, node) for name in first),
            others=tuple(self._fencer(name, node) for name in others),
            lease_s=waits.lease_s,
            grace_s=waits.grace_s,
        )

    def _fencer(self, name: str, node: str) -> Fencer:
        health = self.health.get(name)
        record = self.record(node)
        devices = health.nodes.get(node, ()) if health is not None else ()
        return Fencer(
            name=name,
            devices=_after(record, devices) if record is not None else devices,
            drivers=_offers(self.nodes[name], "fencing"),
            storage=_offers(self.nodes[name], "storage"),
        )


def read_fence_facts(ops: Ops) -> FenceFacts:
    """Read everything about fencing, VMs included, in four round trips."""
    snapshot = read_cluster(ops)
    coordinators, pools = ops.store.children_many([f"{keys.STATUS}/fence", f"{keys.SPEC}/pool"])
    nodes, vms = list(snapshot.nodes), list(snapshot.vms)
    fencing = fence_paths(nodes, coordinators)
    found = iter(
        ops.store.get_many(
            [
                keys.PRIMARY.path,
                *[keys.pool_spec(pool).path for pool in pools],
                *fencing,
                *[keys.vm_status(vm).path for vm in vms],
            ]
        )
    )
    primary = maybe(keys.PRIMARY, next(found))
    specs = [maybe(keys.pool_spec(id_), next(found)) for id_ in pools]
    records, health = decode_fencing(nodes, coordinators, list(islice(found, len(fencing))))
    statuses = {id_: status_row(id_, status) for id_, status in zip(vms, found, strict=True) if status is not None}
    return FenceFacts(
        snapshot.cluster,
        snapshot.nodes,
        primary.value.node if primary is not None else None,
        records,
        health,
        _claimed(snapshot, statuses, [entry.value for entry in specs if entry is not None]),
    )


def fence_paths(nodes: Iterable[str], coordinators: Iterable[str]) -> list[str]:
    """Return the paths of the nodes' fence records, and of what coordinators found."""
    return [*(keys.fence(name).path for name in nodes), *(keys.fence_health(name).path for name in coordinators)]


def decode_fencing(
    nodes: list[str], coordinators: list[str], found: list[Node | None]
) -> tuple[dict[str, FenceRecord], dict[str, FenceHealth]]:
    """Return the documents that were found at ``fence_paths``, by node and by coordinator."""
    records = (maybe(keys.fence(name), node) for name, node in zip(nodes, found[: len(nodes)], strict=True))
    health = (maybe(keys.fence_health(name), n) for name, n in zip(coordinators, found[len(nodes) :], strict=True))
    return (
        {entry.value.node: entry.value for entry in records if entry is not None},
        {entry.value.coordinator: entry.value for entry in health if entry is not None},
    )


def guests_by_node(
    rows: Iterable[tuple[VmRow, StatusRow | None]],
    where: Callable[[VmRow], Iterable[str]],
    pools: Iterable[PoolSpec],
) -> Guests:
    """Return the VMs that should run, by the nodes where they are."""
    drivers = {pool.name: pool.driver for pool in pools}
    result: Guests = {}
    for row, status in rows:
        if row.power == "running" and not row.deleting:
            running = (status.running_disks if status is not None else None) or ()
            guest = Guest(row.name, frozenset(drivers.get(volume.partition("/")[0], "") for volume in running))
            for node in where(row):
                result.setdefault(node, []).append(guest)
    return {node: sorted(guests) for node, guests in result.items()}


def blocking_drivers(facts: NodeFacts) -> frozenset[str]:
    """Return the storage drivers that know by what to keep a node, as its last lease is, from writing."""
    status = facts.status
    return frozenset(status.identities) if status is not None and status.lease == facts.last.generation else frozenset()


def _after(record: FenceRecord, devices: Iterable[DeviceHealth]) -> tuple[DeviceHealth, ...]:
    """Return what is known of devices since a fencing tried them: they are not asked while that goes on."""
    last = {attempt.level: attempt for attempt in record.attempts if attempt.means == "power"}
    failed = {level: attempt.message for level, attempt in last.items() if not attempt.ok}
    return tuple(
        replace(device, power="unknown", error=f"it was tried: {failed[device.level]}")
        if device.level in failed
        else device
        for device in devices
    )


def _claimed(snapshot: ClusterSnapshot, statuses: Mapping[str, StatusRow], pools: list[PoolSpec]) -> Guests:
    rows = [(row, statuses.get(id_)) for id_, row in snapshot.vms.items()]
    return guests_by_node(rows, lambda row: occupied(row, snapshot.claims.get(row.id)), pools)


def _offers(facts: NodeFacts, kind: str) -> frozenset[str]:
    words = facts.status.capabilities() if facts.status is not None else frozenset()
    return frozenset(word.partition(":")[2] for word in words if word.startswith(f"{kind}:"))
