"""The cluster as a whole."""

import logging
from collections import Counter
from itertools import islice
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.fence import Means
from pvc_core.model.names import check_name
from pvc_core.model.node import Primary
from pvc_core.model.storage import PoolStatus
from pvc_core.model.task import FINAL
from pvc_core.model.vm import VmState
from pvc_core.ops import fence_problems
from pvc_core.ops.context import Ops
from pvc_core.ops.fence_facts import FenceFacts, decode_fencing, fence_paths, guests_by_node
from pvc_core.ops.message import Request, View
from pvc_core.ops.node import daemon_state, problems
from pvc_core.ops.node_service import Nothing, PrimaryView, maintenance_until, primary_view
from pvc_core.ops.snapshot import StatusRow, VmRow, node_views, read_nodes, status_row, vm_row
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_checks import check_selector
from pvc_core.ops.vm_views import UNKNOWN, VmView, row_view
from pvc_core.plan.capacity import Capacity, capacity
from pvc_core.store import keys
from pvc_core.store.documents import Entry, maybe, read, read_many

log = logging.getLogger(__name__)

_NAMED = 5
"""So many VMs are named in a problem; more are counted."""


class ClusterStatus(View, frozen=True, kw_only=True):
    """How the cluster is."""

    name: str
    health: Literal["healthy", "degraded", "maintenance"]
    problems: tuple[str, ...] = ()
    """What is wrong, one sentence each; also in maintenance, which only keeps it from being degraded."""
    maintenance: bool
    maintenance_until: float = 0.0
    """When the primary ends it, seconds since the epoch; 0: a person does."""
    primary: PrimaryView
    nodes: int
    nodes_alive: int
    nodes_ready: int
    vms: int
    vms_by_state: dict[str, int]
    networks: int
    pools: int
    volumes: int
    tasks: int
    """Unfinished tasks."""
    capacity: Capacity
    conditions: dict[str, tuple[Condition, ...]] = {}
    """Node -> its conditions that are not ok."""


class ClusterMaintenance(Request, frozen=True, kw_only=True):
    """Switch the cluster's maintenance mode: no fencing, no alarms."""

    maintenance: bool
    for_s: float | None = None
    """The primary ends it after so many seconds; None: a person does."""


class ClusterSettings(Request, frozen=True, kw_only=True):
    """Settings to change; what is not given stays."""

    name: str | UnsetType = UNSET
    default_selector: str | UnsetType = UNSET
    cpu_model: str | UnsetType = UNSET
    migrations_per_source: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    migrations_per_target: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    pool_full_percent: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    recovery: tuple[Means, ...] | UnsetType = UNSET
    """Which proofs of a node's death suffice to start its VMs elsewhere; none: an operator's word only."""
    power_on_after_fence: bool | UnsetType = UNSET
    return_after_fence: bool | UnsetType = UNSET


def cluster_status(ops: Ops, request: Nothing) -> ClusterStatus:
    """Return how the cluster is, in a fixed small number of round trips."""
    del request
    store = ops.store
    kinds = [f"{keys.SPEC}/{kind}" for kind in ("vm", "network", "pool", "volume")]
    ids, networks, pools, volumes, tasks, fencers = store.children_many([*kinds, keys.TASK, f"{keys.STATUS}/fence"])
    nodes = read_nodes(store)
    fencing_paths = fence_paths(nodes, fencers)
    alive = frozenset(name for name, facts in nodes.items() if facts.alive)
    found = iter(
        store.get_many(
            [
                keys.CLUSTER.path,
                keys.PRIMARY.path,
                *fencing_paths,
                *[keys.pool_spec(id_).path for id_ in pools],
                *[keys.vm_spec(id_).path for id_ in ids],
                *[keys.vm_status(id_).path for id_ in ids],
            ]
        )
    )
    cluster_entry, primary_entry = maybe(keys.CLUSTER, next(found)), maybe(keys.PRIMARY, next(found))
    records, health = decode_fencing(list(nodes), fencers, list(islice(found, len(fencing_paths))))
    pool_specs = [maybe(keys.pool_spec(id_), next(found)) for id_ in pools]
    cluster = cluster_entry.value if cluster_entry is not None else Cluster()
    primary = primary_entry.value if primary_entry is not None else Primary()
    vms = [
        (vm_row(id_, spec), status_row(id_, status) if status is not None else None)
        for id_, spec, status in zip(ids, list(islice(found, len(ids))), found, strict=True)
        if spec is not None
    ]
    views = [row_view(row, status, alive) for row, status in vms]
    memory = capacity(node_views(nodes, {}, {}), sum(row.memory_mib for row, status in vms if _counts(row, status)))
    pool_statuses = read_many(store, [keys.pool_status(id_) for id_ in pools])
    unfinished = [e for e in read_many(store, [keys.task(id_) for id_ in tasks]) if e and e.value.state not in FINAL]
    known_pools = [entry.value for entry in pool_specs if entry is not None]
    guests = guests_by_node(vms, lambda row: [row.node] if row.node else [], known_pools)
    fencing = FenceFacts(cluster, nodes, primary.node, records, health, guests)
    wrong = [
        *_primary_problems(primary, alive),
        *_node_problems(fencing),
        *fence_problems.unfenceable(fencing),
        *fence_problems.returned(fencing),
        *_vm_problems(views),
        *_pool_problems(pool_statuses),
        *([memory.message] if memory.degraded else []),
    ]
    return ClusterStatus(
        name=cluster.name,
        health="maintenance" if cluster.maintenance else "degraded" if wrong else "healthy",
        problems=tuple(wrong),
        maintenance=cluster.maintenance,
        maintenance_until=cluster.maintenance_until,
        primary=primary_view(primary),
        nodes=len(nodes),
        nodes_alive=len(alive),
        nodes_ready=sum(not facts.not_ready() for facts in nodes.values()),
        vms=len(views),
        vms_by_state=dict(sorted(Counter(view.state for view in views).items())),
        networks=len(networks),
        pools=len(pools),
        volumes=len(volumes),
        tasks=len(unfinished),
        capacity=memory,
        conditions={
            name: bad
            for name, facts in sorted(nodes.items())
            if facts.status is not None and (bad := tuple(c for c in facts.status.conditions if not c.ok))
        },
    )


def cluster_maintenance(ops: Ops, request: ClusterMaintenance) -> Cluster:
    """Switch maintenance on, for a time or until somebody ends it, or off.  Raises InvalidRequest."""
    until = maintenance_until(ops, on=request.maintenance, for_s=request.for_s)
    return _change(ops, {"maintenance": request.maintenance, "maintenance_until": until})


def cluster_settings(ops: Ops, request: ClusterSettings) -> Cluster:
    """Change settings; without any it returns them.  Raises InvalidRequest."""
    changes = {field: value for field in request.__struct_fields__ if (value := getattr(request, field)) is not UNSET}
    if "name" in changes:
        check_name(changes["name"], "cluster name")
    if "default_selector" in changes:
        check_name(changes["default_selector"], "selector")
        check_selector(ops, changes["default_selector"])
    if request.recovery is not UNSET:
        for means, times in Counter(request.recovery).items():
            if times > 1:
                raise InvalidRequest(f"recovery: {means} is given {times} times")
    return _change(ops, changes)


def _change(ops: Ops, changes: dict[str, object]) -> Cluster:
    def once() -> Cluster:
        entry = read(ops.store, keys.CLUSTER)
        if entry is None:
            raise NotFound("this cluster was never started: no node has made its state tree yet")
        new = replace(entry.value, **changes)
        if new == entry.value:
            return new
        new = replace(new, generation=entry.value.generation + 1)
        ops.store.commit(entry.put(new))
        log.info("cluster-changed %s", " ".join(f"{field}={value}" for field, value in sorted(changes.items())))
        return new

    return attempt("the cluster's settings could not be changed", once)


def _counts(row: VmRow, status: StatusRow | None) -> bool:
    """Say whether a VM runs, may run or should run, and so needs memory after the loss of a node."""
    if status is not None and status.state in ("running", "stopping", "migrating"):
        return True
    ended = status is not None and status.halted == row.generation
    return row.power == "running" and not row.deleting and not ended


def _primary_problems(primary: Primary, alive: frozenset[str]) -> list[str]:
    if primary.node is None or primary.node not in alive:
        return ["no coordinator is primary now"]
    return []


def _node_problems(fencing: FenceFacts) -> list[str]:
    result: list[str] = []
    for name, facts in sorted(fencing.nodes.items()):
        if facts.spec.maintenance:
            continue
        if not facts.alive:
            is_lost = daemon_state(facts) == "lost"
            result.append(fence_problems.lost(fencing, name) if is_lost else f"node {name} is stopped")
        else:
            result += [f"node {name}: {problem}" for problem in problems(facts)]
    return result


def _vm_problems(views: list[VmView]) -> list[str]:
    """Return one sentence per bad state; what a person switched off is not bad."""
    meanings = {
        VmState.FAILED.value: "failed",
        VmState.BACKOFF.value: "crash and are started again",
        VmState.WAITING.value: "wait for a node with room",
        UNKNOWN: "were on nodes that are not alive",
    }
    result: list[str] = []
    for state, meaning in meanings.items():
        names = sorted(view.name for view in views if view.state == state)
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            result.append(f"VMs {meaning}: {', '.join(names[:_NAMED])}{more}")
    return result


def _pool_problems(statuses: list[Entry[PoolStatus] | None]) -> list[str]:
    return [
        f"storage pool: {condition.message or condition.reason}"
        for entry in statuses
        if entry is not None
        for condition in entry.value.conditions
        if not condition.ok
    ]
