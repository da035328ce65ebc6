"""What is unwise about a layout: one sentence each, with its numbers and what to do.

Limits for DB devices and memory are from Ceph's documentation, pages "Hardware Recommendations" (disks per DB device,
memory per OSD) and "BlueStore Configuration Reference", section "Sizing" (1 to 2 % for block devices, 4 % at most).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from pvc_ceph.sizing_plan import (
    BACKFILLFULL_PERCENT,
    GIB,
    SYSTEM_CORES,
    SYSTEM_MEMORY_BYTES,
    Layout,
    Loss,
    Plan,
    hosts_of,
)
from pvc_core.model.units import format_bytes

_EVEN: Final = 0.95
"""Hosts that give this part of what even ones would are even enough."""
_MOST_OSDS_PER_DB: Final = 10
_LEAST_DB_PERCENT: Final = 1.0
_GOOD_OSD_MEMORY_BYTES: Final = 4 * GIB
_NAMED: Final = 5
"""So many nodes are named; more are counted."""


def warnings(layout: Layout, plan: Plan) -> tuple[str, ...]:
    """Return the warnings about a layout and its figures, the gravest first."""
    return (
        *_copies(plan),
        *_hosts(layout, plan),
        *_uneven(layout, plan),
        *_losses(layout, plan),
        *_disks(plan),
        *_db_devices(layout, plan),
        *_resources(layout, plan),
        *_monitors(layout),
    )


def _copies(plan: Plan) -> Iterator[str]:
    copies, mincopies = plan.copies, plan.mincopies
    if copies == 1:
        yield "1 copy: every lost disk loses data for good; use 3 copies"
    elif copies == 2:
        yield (
            "2 copies: while one is being restored a second failure loses data for good; use 3 copies, and 2 that must be "
            "there"
        )
    if mincopies == 1 and copies > 1:
        yield (
            "1 copy that must be there: writes go on with a single copy, and are lost for good with its disk; let 2 be "
            "needed"
        )
    if mincopies == copies > 1:
        yield (
            f"all {copies} copies must be there: every lost disk or host stops the guests until its data is restored; "
            f"let {copies - 1} be needed"
        )


def _hosts(layout: Layout, plan: Plan) -> Iterator[str]:
    hosts = len(hosts_of(layout.nodes))
    if hosts < plan.copies:
        rest = "nothing can be written" if hosts < plan.mincopies else "every object stays degraded"
        yield (
            f"{hosts} hosts with disks for {plan.copies} copies: each copy is on another host, so {rest}; add "
            f"{plan.copies - hosts} more"
        )
    if hosts < 3:
        yield f"{hosts} hosts: the monitors have no majority when one is lost, and Ceph stops; use 3 or more"


def _uneven(layout: Layout, plan: Plan) -> Iterator[str]:
    hosts = hosts_of(layout.nodes)
    if len(hosts) < plan.copies:
        return
    fair = plan.raw_bytes // plan.copies
    if plan.usable_bytes >= fair * _EVEN:
        return
    small, large = min(hosts, key=hosts.__getitem__), max(hosts, key=hosts.__getitem__)
    balanced = ""
    if plan.ideal_bytes > plan.usable_bytes:
        balanced = f" (with Ceph's balancer up to {format_bytes(plan.ideal_bytes)})"
    yield (
        f"uneven hosts, {small} with {format_bytes(hosts[small])} to {large} with {format_bytes(hosts[large])}: "
        f"{format_bytes(plan.usable_bytes)} are usable{balanced}, with the same disks spread evenly "
        f"{format_bytes(fair)}; move disks to the smaller hosts"
    )


def _losses(layout: Layout, plan: Plan) -> Iterator[str]:
    if plan.host_loss.outcome == "stops" and plan.copies > 1 and plan.mincopies < plan.copies:
        yield f"a lost host stops all guests, because fewer than {plan.mincopies} copies are left; add a host"
    db = plan.db_loss
    if db is not None and db.osds > 1 and db.copied_bytes == plan.host_loss.copied_bytes:
        yield (
            f"{db.what} takes all its {db.osds} OSDs with it, as if the host were lost; use 2 or more DB devices for each host"
        )
        db = None
    yield from _unhealed(layout, plan.host_loss, "hosts")
    yield from _unhealed(layout, plan.disk_loss, "and smaller disks")
    yield from _unhealed(layout, db, "DB devices")


def _unhealed(layout: Layout, loss: Loss | None, more: str) -> Iterator[str]:
    if loss is not None and loss.outcome == "too full":
        yield (
            f"{loss.what} that is lost at {layout.full_percent} % full is not healed, because its "
            f"{format_bytes(loss.copied_bytes)} would fill what is left to {loss.full_percent:.0f} %, and at "
            f"{BACKFILLFULL_PERCENT} % Ceph stops restoring; store no more than {format_bytes(loss.heals_up_to_bytes)}, or "
            f"use more {more}"
        )


def _disks(plan: Plan) -> Iterator[str]:
    if plan.smallest_osd_bytes != plan.largest_osd_bytes:
        times = plan.largest_osd_bytes / plan.smallest_osd_bytes
        yield (
            f"disks of {format_bytes(plan.smallest_osd_bytes)} to {format_bytes(plan.largest_osd_bytes)}: the largest gets "
            f"{times:.1f} times the requests of the smallest and sets the pace; use disks of one size"
        )


def _db_devices(layout: Layout, plan: Plan) -> Iterator[str]:
    having = [node for node in plan.nodes if node.osds_per_db]
    if not having:
        return
    if layout.media == "nvme":
        yield "DB devices beside NVMe disks gain nothing unless they are faster: leave them out and use them as OSDs"
    crowded = max(having, key=lambda node: node.osds_per_db)
    if crowded.osds_per_db > _MOST_OSDS_PER_DB:
        yield (
            f"{crowded.osds_per_db} OSDs share a DB device in {crowded.name}: it limits them all, and they are lost with it; "
            f"let at most {_MOST_OSDS_PER_DB} share an NVMe device, 5 a SATA one"
        )
    tight = min(having, key=lambda node: node.db_percent)
    if tight.db_percent < _LEAST_DB_PERCENT:
        yield (
            f"{format_bytes(tight.db_bytes)} of DB space for each OSD in {tight.name} are {tight.db_percent:.1f} % of it: "
            "metadata would go over to the slow disk; give 1 to 2 %"
        )
    bare = sorted(node.name for node in plan.nodes if node.osds and not node.osds_per_db)
    if bare:
        yield f"no DB device in {', '.join(bare)}: writes are as slow as there; give all hosts one, or none"


def _resources(layout: Layout, plan: Plan) -> Iterator[str]:
    if layout.osd_memory_bytes < _GOOD_OSD_MEMORY_BYTES:
        yield (
            f"{format_bytes(layout.osd_memory_bytes)} of memory for each OSD: below 4 GiB metadata is read from disk again "
            "and again, below 2 GiB Ceph cannot keep to it; give 4 GiB"
        )
    short = [
        (node.name, planned.memory_bytes, node.ceph_memory_bytes + SYSTEM_MEMORY_BYTES)
        for node, planned in zip(plan.nodes, layout.nodes, strict=True)
        if node.vm_memory_bytes is not None and node.vm_memory_bytes <= 0
    ]
    for (has, need), names in _alike(short):
        yield (
            f"{names}: {format_bytes(has)} of memory, and Ceph and the system alone need {format_bytes(need)}; add memory or "
            "use fewer, larger disks"
        )
    few = [
        (node.name, planned.cores, node.ceph_cores + SYSTEM_CORES)
        for node, planned in zip(plan.nodes, layout.nodes, strict=True)
        if node.vm_cores is not None and node.vm_cores <= 0
    ]
    for (has, need), names in _alike(few):
        yield (
            f"{names}: {has} cores, and Ceph and the system alone want {need}, so guests and OSDs wait for each other; add "
            "cores or use fewer, larger disks"
        )


def _alike(nodes: Iterable[tuple[str, int, int]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield the figures of nodes, each with the names of those that have them."""
    found: dict[tuple[int, int], list[str]] = {}
    for name, has, need in nodes:
        found.setdefault((has, need), []).append(name)
    for figures, names in found.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield figures, ", ".join(names[:_NAMED]) + more


def _monitors(layout: Layout) -> Iterator[str]:
    if len(layout.nodes) >= 3 and (layout.monitors < 3 or layout.monitors % 2 == 0):
        survives = (layout.monitors - 1) // 2
        yield f"{layout.monitors} monitors survive the loss of {survives}: use an odd number, 3 or 5"
