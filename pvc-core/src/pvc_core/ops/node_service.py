"""Taking nodes out of service and back, the primary role, removal."""

import logging
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from pvc_core.model.errors import InUse, InvalidRequest, NoNodeFits
from pvc_core.model.node import NodeSpec, Primary
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.evacuate import plan_flush
from pvc_core.ops.message import Request, View
from pvc_core.ops.node import NodeQuery, NodeRow, node_rows, read_primary
from pvc_core.ops.node_remnants import displace_vms, leftovers, reassign_storage
from pvc_core.ops.snapshot import ClusterSnapshot, read_cluster, read_nodes
from pvc_core.ops.transaction import attempt
from pvc_core.plan.placement import describe
from pvc_core.store import keys
from pvc_core.store.api import CheckAbsent
from pvc_core.store.documents import create, read

log = logging.getLogger(__name__)

LONGEST_S: Final = 366 * 86400.0
"""A maintenance with an end lasts no longer."""


class NodeFlush(Request, frozen=True, kw_only=True):
    """Move all VMs off a node, and let none come."""

    node: str
    force: bool = False
    """Also when some VMs fit nowhere: these are shut down after a while, and wait for a place."""


class Flush(View, frozen=True, kw_only=True):
    """What a flush will do, as planned now."""

    node: str
    moves: dict[str, str] = {}
    """VM name -> target."""
    stuck: dict[str, dict[str, str]] = {}
    """VM name -> node -> why it does not fit there."""


class NodeMaintenance(Request, frozen=True, kw_only=True):
    """Say that work is being done on a node, or no longer."""

    node: str
    maintenance: bool
    for_s: float | None = None
    """The primary ends it after so many seconds; None: a person does."""


class NodePrimary(Request, frozen=True, kw_only=True):
    """Move the primary role to this coordinator."""

    node: str


class PrimaryView(View, frozen=True, kw_only=True):
    """The primary role."""

    node: str | None
    wanted: str | None
    """The coordinator it is moving to; ``*``: any other."""
    stage: str
    term: int


class Nothing(Request, frozen=True, kw_only=True):
    """A request without options."""


class NodeRemoved(View, frozen=True, kw_only=True):
    """The node is no longer part of the cluster."""

    node: str
    displaced: tuple[str, ...] = ()
    """Names of VMs that were placed or at home there; they get a node when they are started."""


def node_flush(ops: Ops, request: NodeFlush) -> Flush:
    """Drain a node.  Raises NotFound, NoNodeFits when a VM fits nowhere and ``force`` is not given.

    The plan in the answer is the one that the node will make, as far as nothing changes until then.
    """
    resolve.node(ops, request.node)
    plan = plan_flush(ops, request.node)
    flush = Flush(
        node=request.node,
        moves={item.name: item.target for item in plan.assignments},
        stuck={item.name: item.reasons for item in plan.unplaced},
    )
    if flush.stuck and not request.force:
        name, reasons = min(flush.stuck.items())
        more = f" ({len(flush.stuck)} VMs fit nowhere)" if len(flush.stuck) > 1 else ""
        raise NoNodeFits(
            f"node {request.node} cannot be flushed: {describe(name, reasons)}{more}; stop VMs, add room, or flush with "
            "force, which shuts such VMs down",
            dict(reasons),
        )
    _change_spec(ops, request.node, scheduling="drain")
    return flush


def node_ready(ops: Ops, request: NodeQuery) -> NodeRow:
    """Let a node take VMs again; those at home there return.  Raises NotFound."""
    return _row(ops, _change_spec(ops, request.node, scheduling="ready"))


def node_maintenance(ops: Ops, request: NodeMaintenance) -> NodeRow:
    """Set or clear a node's maintenance: in maintenance it is chosen for no VM and not fenced.

    Raises NotFound, InvalidRequest.
    """
    until = maintenance_until(ops, on=request.maintenance, for_s=request.for_s)
    return _row(ops, _change_spec(ops, request.node, maintenance=request.maintenance, maintenance_until=until))


def node_primary(ops: Ops, request: NodePrimary) -> PrimaryView:
    """Ask for the primary role to move.  Raises NotFound, InvalidRequest when it is no coordinator or not alive."""
    spec = resolve.node(ops, request.node).value
    if spec.role != "coordinator":
        raise InvalidRequest(f"node {spec.id} is a {spec.role}: only coordinators can be primary")
    if ops.store.get(keys.lease(spec.id).path) is None:
        raise InvalidRequest(f"node {spec.id} is not alive: it cannot become primary")

    def next_(primary: Primary) -> Primary:
        if primary.node == spec.id and primary.wanted is None:
            return primary
        return replace(primary, wanted=None if primary.node == spec.id else spec.id)

    return _change_primary(ops, next_)


def node_secondary(ops: Ops, request: NodeQuery) -> PrimaryView:
    """Ask a primary to give the role up to any other coordinator.  Raises InvalidRequest when none can take it."""
    name = resolve.node(ops, request.node).value.id
    nodes = read_nodes(ops.store)
    others = [n for n, facts in nodes.items() if n != name and facts.alive and facts.spec.role == "coordinator"]

    def next_(primary: Primary) -> Primary:
        if primary.node != name:
            return replace(primary, wanted=None) if primary.wanted == name else primary
        if not others:
            raise InvalidRequest(f"node {name} stays primary: no other coordinator is alive")
        return replace(primary, wanted="*")

    return _change_primary(ops, next_)


def primary_info(ops: Ops, request: Nothing) -> PrimaryView:
    """Return who has the primary role."""
    del request
    entry = read(ops.store, keys.PRIMARY)
    return primary_view(entry.value if entry is not None else Primary())


def node_remove(ops: Ops, request: NodeQuery) -> NodeRemoved:
    """Remove a node from the cluster.

    VMs placed there get no node, and those at home there stay where they are.  Raises NotFound; InUse while its lease
    exists, a claim names it, it is the primary, or it is the last node.
    """
    displaced: set[str] = set()

    def once() -> NodeRemoved:
        entry = resolve.node(ops, request.node)
        name = entry.value.id
        # Before the claims are read, so that a node that was back for a moment since is not removed.
        remnants = leftovers(ops, name)
        snapshot = read_cluster(ops)
        if name in snapshot.nodes and snapshot.nodes[name].alive:
            raise InUse(f"node {name} is alive: flush it and stop its daemon first")
        if len(snapshot.nodes) == 1:
            raise InUse(f"node {name} is the last node of the cluster")
        claimed = sorted(snapshot.vms[vm].name for vm in snapshot.vms if _claims(snapshot, vm, name))
        if claimed:
            raise InUse(
                f"node {name} holds the claims of VMs ({', '.join(claimed)}), so they may still run there: start the node "
                f"and flush it, or, if it is dead, say so with 'pvc fence confirm {name}'"
            )
        fence = read(ops.store, keys.fence(name))
        if fence is not None and fence.value.blocked and fence.value.whole_node() is None:
            raise InUse(
                f"storage is closed to node {name}, which may still run guests, and nobody would open it again: start the "
                f"node, or, if it is dead, say so with 'pvc fence confirm {name}'"
            )
        if read_primary(ops) == name:
            raise InUse(f"node {name} is the primary: wait until another coordinator has taken over")
        # Each step may be repeated; the last one takes the node out only if it has not come back.
        displaced.update(displace_vms(ops, snapshot, name))
        reassign_storage(ops, name)
        ops.store.commit(entry.delete(), CheckAbsent(keys.lease(name).path), *remnants)
        return NodeRemoved(node=name, displaced=tuple(sorted(displaced)))

    removed = attempt(f"node {request.node!r} could not be removed", once)
    log.info("node-removed node=%s displaced=%d", removed.node, len(removed.displaced))
    return removed


def maintenance_until(ops: Ops, *, on: bool, for_s: float | None) -> float:
    """Return when a maintenance that begins now ends by itself, seconds since the epoch; 0.0: it does not.

    Raises InvalidRequest for a time out of range, or without a maintenance.
    """
    if for_s is None:
        return 0.0
    if not on:
        raise InvalidRequest("a time is given for maintenance that is switched on, not off")
    if not 0 < for_s <= LONGEST_S:
        raise InvalidRequest(
            f"maintenance for {for_s:g} s: it lasts more than 0 s and at most a year; without a time it lasts until it is "
            "switched off"
        )
    return ops.wall() + for_s


def primary_view(primary: Primary) -> PrimaryView:
    """Return the primary role as people see it."""
    return PrimaryView(node=primary.node, wanted=primary.wanted, stage=primary.stage, term=primary.term)


def _claims(snapshot: ClusterSnapshot, vm: str, node: str) -> bool:
    claim = snapshot.claims.get(vm)
    if claim is None or not claim.node:
        return False
    return claim.node == node or (claim.migration is not None and claim.migration.target == node)


def _change_spec(ops: Ops, name: str, **changes: Any) -> NodeSpec:
    def once() -> NodeSpec:
        entry = resolve.node(ops, name)
        if all(getattr(entry.value, field) == value for field, value in changes.items()):
            return entry.value
        new = replace(entry.value, generation=entry.value.generation + 1, **changes)
        ops.store.commit(entry.put(new))
        log.info("node-changed node=%s %s", name, " ".join(f"{k}={v}" for k, v in changes.items()))
        return new

    return attempt(f"node {name!r} could not be changed", once)


def _row(ops: Ops, spec: NodeSpec) -> NodeRow:
    rows = node_rows(ops, read_cluster(ops))
    return next(row for row in rows if row.name == spec.id)


def _change_primary(ops: Ops, next_: Callable[[Primary], Primary]) -> PrimaryView:
    def once() -> Primary:
        entry = read(ops.store, keys.PRIMARY)
        if entry is None:
            primary = next_(Primary())
            ops.store.commit(create(keys.PRIMARY, primary))
            return primary
        primary = next_(entry.value)
        if primary != entry.value:
            ops.store.commit(entry.put(primary))
            log.info("primary-wanted node=%s", primary.wanted)
        return primary

    return primary_view(attempt("the primary role could not be moved", once))
