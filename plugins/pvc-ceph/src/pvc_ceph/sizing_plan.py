"""A cluster on paper: its space, what its losses cost, and what Ceph takes from its nodes.

Figures per daemon are those of Ceph's documentation, page "Hardware Recommendations"
(https://docs.ceph.com/en/latest/start/hardware-recommendations/), where it has any; the others are named as assumptions.
Fill levels are from "Monitor Config Reference", section "Storage Capacity".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, get_args

import msgspec

from pvc_ceph.sizing import ideal_bytes, shares, usable_bytes

GIB: Final = 1 << 30

Media = Literal["hdd", "ssd", "nvme"]
Outcome = Literal["heals", "degraded", "too full", "stops", "lost"]
_FROM_BEST: Final[tuple[Outcome, ...]] = get_args(Outcome)

OSD_CORES: Final[dict[Media, int]] = {"hdd": 1, "ssd": 2, "nvme": 5}
"""Cores (hardware threads) for each OSD: the page's minimum, its recommendation, and what it says NVMe OSDs use."""
OSD_MEMORY_BYTES: Final = 4 * GIB
"""Default of ``osd_memory_target``."""
_OVERSHOOT_PERCENT: Final = 20
"""An OSD exceeds its target at times; the page advises to keep so much more."""
_MONITOR_MEMORY_BYTES: Final = 5 * GIB
_MANAGER_MEMORY_BYTES: Final = 2 * GIB
"""An assumption: the page has no figure for a manager alone."""
_MONITOR_CORES: Final = 2
"""The page's minimum for a monitor; the manager beside it is taken to find its time there."""
SYSTEM_MEMORY_BYTES: Final = 4 * GIB
SYSTEM_CORES: Final = 1
"""Assumptions: the system, libvirt, ZooKeeper and pvcnoded."""
BACKFILLFULL_PERCENT: Final = 90
"""Default of ``mon_osd_backfillfull_ratio``: an OSD that is fuller takes no copies that are to be restored."""


class PlannedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A server; without disks it only runs VMs."""

    name: str
    disks: tuple[int, ...] = ()
    """Bytes of each data disk; each is one OSD."""
    db_devices: tuple[int, ...] = ()
    """Bytes of each device for the OSDs' metadata (block.db)."""
    memory_bytes: int = 0
    """0: not known, so nothing is said of it."""
    cores: int = 0
    """Hardware threads; 0: not known."""

    @property
    def disk_bytes(self) -> int:
        """All its disks."""
        return sum(self.disks)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What is planned; at least one node has a disk."""

    nodes: tuple[PlannedNode, ...]
    copies: int = 3
    mincopies: int = 2
    """Copies that must be there for an object to be read and written (``min_size`` of the pool)."""
    full_percent: int = 80
    """How full it is planned to become."""
    media: Media = "ssd"
    monitors: int = 3
    """The first so many nodes run a monitor and a manager."""
    osd_memory_bytes: int = OSD_MEMORY_BYTES


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What the worst loss of one kind costs, with the cluster as full as it is planned to become."""

    what: str
    """``host hv1``, ``a disk in hv1``, ``a DB device in hv1``."""
    osds: int
    copied_bytes: int
    """What is to be restored: the copies that were there."""
    outcome: Outcome
    """All copies are restored; they wait for the host, and data stays usable; they are restored until disks are too full;
    data is not usable until the host is back; it is gone."""
    full_percent: float = 0.0
    """How full the fullest host is when all is restored; 0: there is nowhere to restore it to."""
    heals_up_to_bytes: int = 0
    """Data with which the cluster is no fuller than planned when all is restored; 0: nothing is restored."""


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a node."""

    name: str
    osds: int
    disk_bytes: int
    full_percent: float
    """How full its disks are when the cluster is as full as planned."""
    monitor: bool
    ceph_memory_bytes: int
    ceph_cores: int
    vm_memory_bytes: int | None = None
    """What is left for VMs; None: its memory is not known."""
    vm_cores: int | None = None
    osds_per_db: int = 0
    """OSDs that share a DB device, the most; 0: it has none."""
    db_bytes: int = 0
    """DB space of each OSD, the least."""
    db_percent: float = 0.0
    """The same as a part of the largest OSD."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a layout.  Sizes are bytes; ``usable`` ones are what guests can store."""

    copies: int
    mincopies: int
    planned_percent: int
    """How full it is planned to become."""
    osds: int
    smallest_osd_bytes: int
    largest_osd_bytes: int
    raw_bytes: int
    usable_bytes: int
    """When the fullest host is full, as CRUSH places the copies."""
    ideal_bytes: int
    """The most that any placement could keep."""
    planned_bytes: int
    """When the fullest host is as full as planned."""
    recommended_bytes: int
    """The same, and no fuller after the worst of those losses that are healed."""
    host_loss: Loss
    disk_loss: Loss
    db_loss: Loss | None
    nodes: tuple[NodePlan, ...]
    vm_memory_bytes: int | None
    """Of all nodes but the one with the most; None: not known of all."""
    vm_cores: int | None


def plan(layout: Layout) -> Plan:
    """Return the figures of a layout.  Raises InvalidRequest as ``usable_bytes`` does.

    With fewer hosts than copies, the figures are those of as many copies as there are hosts.
    """
    hosts = hosts_of(layout.nodes)
    disks = [disk for node in layout.nodes for disk in node.disks]
    usable = _room(hosts, layout.copies)
    planned = usable * layout.full_percent // 100
    parts = shares(hosts, min(layout.copies, len(hosts)))
    nodes = tuple(_node(layout, index, parts, planned) for index in range(len(layout.nodes)))
    losses = _Losses(layout, hosts, planned)
    lost_hosts, lost_disks, lost_dbs = losses.hosts(), losses.disks(), losses.db_devices()
    healed = [loss.heals_up_to_bytes for loss in (*lost_hosts, *lost_disks, *lost_dbs) if loss.heals_up_to_bytes]
    return Plan(
        copies=layout.copies,
        mincopies=layout.mincopies,
        planned_percent=layout.full_percent,
        osds=len(disks),
        smallest_osd_bytes=min(disks),
        largest_osd_bytes=max(disks),
        raw_bytes=sum(disks),
        usable_bytes=usable,
        ideal_bytes=ideal_bytes(hosts, min(layout.copies, len(hosts))),
        planned_bytes=planned,
        recommended_bytes=min([planned, *healed]),
        host_loss=_worst(lost_hosts),
        disk_loss=_worst(lost_disks),
        db_loss=_worst(lost_dbs) if lost_dbs else None,
        nodes=nodes,
        vm_memory_bytes=_without_largest(node.vm_memory_bytes for node in nodes),
        vm_cores=_without_largest(node.vm_cores for node in nodes),
    )


def hosts_of(nodes: Iterable[PlannedNode]) -> dict[str, int]:
    """Return host -> bytes of its disks, of those that have any."""
    return {node.name: node.disk_bytes for node in nodes if node.disks}


def osds_per_device(node: PlannedNode) -> list[list[int]]:
    """Return the disks that each DB device of a node serves: dealt out in turn, the largest first."""
    served: list[list[int]] = [[] for _ in node.db_devices]
    for index, disk in enumerate(sorted(node.disks, reverse=True) if served else ()):
        served[index % len(served)].append(disk)
    return served


def _room(hosts: Mapping[str, int], copies: int) -> int:
    return usable_bytes(hosts, min(copies, len(hosts)))


def _node(layout: Layout, index: int, parts: Mapping[str, float], planned: int) -> NodePlan:
    node = layout.nodes[index]
    held = parts.get(node.name, 0.0) * planned
    monitor = index < layout.monitors
    osd_memory = layout.osd_memory_bytes * (100 + _OVERSHOOT_PERCENT) // 100
    memory = osd_memory * len(node.disks) + (_MONITOR_MEMORY_BYTES + _MANAGER_MEMORY_BYTES if monitor else 0)
    cores = OSD_CORES[layout.media] * len(node.disks) + (_MONITOR_CORES if monitor else 0)
    served = osds_per_device(node)
    least = min((size // len(osds) for size, osds in zip(node.db_devices, served, strict=True) if osds), default=0)
    return NodePlan(
        name=node.name,
        osds=len(node.disks),
        disk_bytes=node.disk_bytes,
        full_percent=100 * held / node.disk_bytes if node.disks else 0.0,
        monitor=monitor,
        ceph_memory_bytes=memory,
        ceph_cores=cores,
        vm_memory_bytes=node.memory_bytes - memory - SYSTEM_MEMORY_BYTES if node.memory_bytes else None,
        vm_cores=node.cores - cores - SYSTEM_CORES if node.cores else None,
        osds_per_db=max(map(len, served), default=0),
        db_bytes=least,
        db_percent=100 * least / max(node.disks) if node.disks else 0.0,
    )


def _without_largest(figures: Iterable[int | None]) -> int | None:
    known = list(figures)
    if any(figure is None for figure in known):
        return None
    left = [max(figure or 0, 0) for figure in known]
    return sum(left) - max(left)


def _worst(losses: list[Loss]) -> Loss:
    return max(losses, key=lambda loss: (_FROM_BEST.index(loss.outcome), loss.full_percent, loss.copied_bytes))


class _Losses:
    """Everything that can be lost, of nodes that are alike once."""

    def __init__(self, layout: Layout, hosts: Mapping[str, int], planned: int) -> None:
        self._layout = layout
        self._hosts = hosts
        self._planned = planned
        self._copies = min(layout.copies, len(hosts))
        self._shares = shares(hosts, self._copies)

    def hosts(self) -> list[Loss]:
        """Return what the loss of each host costs."""
        return [self._loss(f"host {node.name}", node, list(node.disks)) for node in self._nodes()]

    def disks(self) -> list[Loss]:
        """Return what the loss of each disk costs."""
        return [
            self._loss(f"a disk in {node.name}", node, [disk])
            for node in self._nodes()
            for disk in sorted(set(node.disks))
        ]

    def db_devices(self) -> list[Loss]:
        """Return what the loss of each DB device costs, which takes all its OSDs with it."""
        return [
            self._loss(f"a DB device in {node.name}", node, osds)
            for node in self._nodes()
            for osds in osds_per_device(node)
            if osds
        ]

    def _nodes(self) -> Iterator[PlannedNode]:
        """Yield the nodes with disks, of equal ones only the first."""
        seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        for node in self._layout.nodes:
            same = (tuple(sorted(node.disks)), node.db_devices)
            if node.disks and same not in seen:
                seen.add(same)
                yield node

    def _loss(self, what: str, node: PlannedNode, gone: list[int]) -> Loss:
        """Return what the loss of these disks of a node costs.

        CRUSH draws again when it comes to a disk that is out, so a host counts with the disks it has left.
        """
        size = self._hosts[node.name]
        copied = int(self._shares[node.name] * self._planned * sum(gone) / size)
        left = {**self._hosts, node.name: size - sum(gone)}
        if size == sum(gone):
            del left[node.name]
        lost = Loss(what=what, osds=len(gone), copied_bytes=copied, outcome="degraded")
        if self._copies == 1:
            return msgspec.structs.replace(lost, outcome="lost")
        if len(left) < self._copies:
            # Every host has a copy of everything, so no other has room for the one that is missing.
            readable = self._copies - 1 >= self._layout.mincopies
            return lost if readable else msgspec.structs.replace(lost, outcome="stops")
        room = usable_bytes(left, self._copies)
        full = 100 * self._planned / room
        return msgspec.structs.replace(
            lost,
            outcome="heals" if full <= BACKFILLFULL_PERCENT else "too full",
            full_percent=full,
            heals_up_to_bytes=room * self._layout.full_percent // 100,
        )
