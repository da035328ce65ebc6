"""Nodes: list, info."""

from collections.abc import Iterable

from pvc_core.model.base import Condition
from pvc_core.model.fence import FenceRecord, FenceStage
from pvc_core.model.names import not_found
from pvc_core.model.node import NodeSpec, NodeStatus, Role
from pvc_core.model.placement import NodeView
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.snapshot import ClusterSnapshot, NodeFacts, occupied, read_cluster
from pvc_core.store import keys
from pvc_core.store.documents import maybe, read


class NodeRow(View, frozen=True, kw_only=True):
    """A node in a list."""

    name: str
    role: Role
    primary: bool
    alive: bool
    """Its lease exists."""
    daemon: str
    """starting, running, stopping, stopped, or ``lost`` when its lease is gone unasked."""
    scheduling: str
    """ready, draining, drained, returning."""
    ready: bool
    """It takes VMs."""
    reason: str = ""
    """Why it takes none."""
    maintenance: bool = False
    maintenance_until: float = 0.0
    """When the primary ends it, seconds since the epoch; 0: a person does."""
    cpus: int
    load1: float
    memory_mib: int
    """What VMs may have."""
    free_mib: int
    """What the host said was free."""
    allocated_mib: int
    """Maximum memory of the VMs that run here or are on their way here."""
    provisioned_mib: int
    """Maximum memory of all VMs placed here."""
    allocated_vcpus: int
    vms: int
    """VMs that run here or are on their way here."""
    version: str = ""
    kernel: str = ""
    hypervisor: str = ""
    problems: tuple[str, ...] = ()
    """Messages of conditions that are not ok, and of plugins that do not work."""
    fencing: FenceStage | None = None
    """How far its fencing is; None: it is not lost."""
    fencing_waits_for: str = ""
    """Why there is no proof of its death yet."""


class NodeInfo(View, frozen=True, kw_only=True):
    """Everything about one node."""

    row: NodeRow
    spec: NodeSpec
    status: NodeStatus | None
    lease: int | None
    """Generation of its lease; None: it has none."""
    vms: tuple[str, ...] = ()
    """Names of VMs that run here or are on their way here."""
    placed: tuple[str, ...] = ()
    """Names of VMs placed here that do not run."""
    away: tuple[str, ...] = ()
    """Names of VMs at home here that are elsewhere now."""
    conditions: tuple[Condition, ...] = ()


class NodeList(Request, frozen=True, kw_only=True):
    """Which nodes to list."""

    name: str = ""
    """Regular expression found anywhere in the name."""


class NodeQuery(Request, frozen=True, kw_only=True):
    """One node."""

    node: str


def node_list(ops: Ops, request: NodeList) -> list[NodeRow]:
    """List nodes, sorted by name, in a fixed number of round trips."""
    name = resolve.pattern(request.name)
    snapshot = read_cluster(ops)
    return [row for row in node_rows(ops, snapshot) if name.search(row.name)]


def node_info(ops: Ops, request: NodeQuery) -> NodeInfo:
    """Return everything about a node.  Raises NotFound."""
    snapshot = read_cluster(ops)
    if request.node not in snapshot.nodes:
        raise not_found("node", request.node, snapshot.nodes)
    rows = {row.name: row for row in node_rows(ops, snapshot)}
    lease = read(ops.store, keys.lease(request.node))
    facts = snapshot.nodes[request.node]
    here = {row.id for row in snapshot.vms.values() if request.node in occupied(row, snapshot.claims.get(row.id))}
    vms = snapshot.vms.values()
    return NodeInfo(
        row=rows[request.node],
        spec=facts.spec,
        status=facts.status,
        lease=lease.value.generation if lease is not None else None,
        vms=_names(row.name for row in vms if row.id in here),
        placed=_names(row.name for row in vms if row.node == request.node and row.id not in here),
        away=_names(row.name for row in vms if row.home == request.node and row.node != request.node),
        conditions=facts.status.conditions if facts.status is not None else (),
    )


def read_primary(ops: Ops) -> str | None:
    """Return the name of the primary."""
    entry = read(ops.store, keys.PRIMARY)
    return entry.value.node if entry is not None else None


def node_rows(ops: Ops, snapshot: ClusterSnapshot) -> list[NodeRow]:
    """Return the rows of all nodes, sorted by name; reads what the snapshot has not, in one round trip."""
    fences = [keys.fence(name) for name in snapshot.nodes]
    found = ops.store.get_many([keys.PRIMARY.path, *[key.path for key in fences]])
    primary = maybe(keys.PRIMARY, found[0])
    records = {
        entry.value.node: entry.value
        for key, node in zip(fences, found[1:], strict=True)
        if (entry := maybe(key, node)) is not None
    }
    holder = primary.value.node if primary is not None else None
    return [_row(view, snapshot.nodes[view.name], holder, records.get(view.name)) for view in snapshot.views()]


def daemon_state(facts: NodeFacts) -> str:
    """Return the state of a node's daemon as one word: what it reported, unless its lease says otherwise."""
    reported = facts.status.daemon if facts.status is not None else "stopped"
    if facts.alive:
        return reported
    return "stopped" if facts.released or reported == "stopped" else "lost"


def problems(facts: NodeFacts) -> tuple[str, ...]:
    """Return what is wrong with a node, one sentence each."""
    if facts.status is None:
        return ()
    return (
        *(f"{c.type}: {c.message or c.reason}" for c in facts.status.conditions if not c.ok),
        *(
            f"plugin {plugin.name} is {plugin.state}" + (f": {plugin.error}" if plugin.error else "")
            for plugin in facts.status.plugins
            if plugin.state != "healthy"
        ),
    )


def _row(view: NodeView, facts: NodeFacts, primary: str | None, record: FenceRecord | None) -> NodeRow:
    lost = record is not None and not facts.alive and record.lease == facts.last.generation
    status = facts.status or NodeStatus(id=view.name)
    return NodeRow(
        name=view.name,
        role=facts.spec.role,
        primary=view.name == primary,
        alive=view.alive,
        daemon=daemon_state(facts),
        scheduling=status.scheduling,
        ready=view.ready,
        reason=view.not_ready_reason,
        maintenance=facts.spec.maintenance,
        maintenance_until=facts.spec.maintenance_until,
        cpus=view.cpus,
        load1=view.load1,
        memory_mib=view.memory_mib,
        free_mib=view.free_mib,
        allocated_mib=view.allocated_mib,
        provisioned_mib=view.provisioned_mib,
        allocated_vcpus=view.allocated_vcpus,
        vms=view.vms,
        version=status.version,
        kernel=status.kernel,
        hypervisor=status.hypervisor,
        problems=problems(facts),
        fencing=record.stage if record is not None and lost else None,
        fencing_waits_for=record.waits_for if record is not None and lost else "",
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
