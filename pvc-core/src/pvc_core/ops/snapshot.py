"""The whole cluster as it is now, read in a fixed small number of round trips.

VM documents are decoded only as far as lists and placement need them: 5,000 VMs cost one pipelined read and some
ten milliseconds.  A snapshot is not of one instant; whoever acts on it checks what matters in his transaction.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pvc_core.model.cluster import Cluster
from pvc_core.model.fence import FenceStage
from pvc_core.model.node import HYPERVISOR, LeaseGeneration, NodeSpec, NodeStatus
from pvc_core.model.placement import NodeView
from pvc_core.model.vm import Power, VmSpec
from pvc_core.ops.context import Ops
from pvc_core.plan.placement import Policy
from pvc_core.store import keys
from pvc_core.store.api import Node, Store
from pvc_core.store.documents import CorruptDocument, Entry, decode, maybe

R = TypeVar("R")
log = logging.getLogger(__name__)


class DiskRow(msgspec.Struct, frozen=True):
    """Which volume."""

    pool: str
    volume: str


class NicRow(msgspec.Struct, frozen=True):
    """Which network."""

    network: str


class TagRow(msgspec.Struct, frozen=True):
    """Which tag."""

    name: str


class VmRow(msgspec.Struct, frozen=True):
    """The part of a VmSpec that lists and placement need."""

    id: str
    name: str
    memory_mib: int
    vcpus: int
    generation: int = 1
    description: str = ""
    power: Power = "stopped"
    autostart: bool = False
    node: str | None = None
    home: str | None = None
    tags: tuple[TagRow, ...] = ()
    disks: tuple[DiskRow, ...] = ()
    nics: tuple[NicRow, ...] = ()
    deleting: bool = False


class StatusRow(msgspec.Struct, frozen=True):
    """The part of a VmStatus that lists need."""

    state: str = "stopped"
    node: str | None = None
    observed_generation: int = 0
    reason: str = ""
    halted: int = 0
    running_disks: tuple[str, ...] | None = None


class MigrationRow(msgspec.Struct, frozen=True):
    """Where a migration goes."""

    target: str


class ClaimRow(msgspec.Struct, frozen=True):
    """Who may run a VM."""

    node: str = ""
    migration: MigrationRow | None = None


class FenceRow(msgspec.Struct, frozen=True):
    """What is left to do about a node that was fenced."""

    stage: str = ""
    dirty: bool = False
    blocked: tuple[msgspec.Raw, ...] = ()
    waits_for: str = ""


_VM: Final = msgspec.json.Decoder(VmRow)
_STATUS: Final = msgspec.json.Decoder(StatusRow)
_CLAIM: Final = msgspec.json.Decoder(ClaimRow)
_UNKNOWN_HOLDER: Final = ClaimRow(node="?")
"""In place of a claim that cannot be read."""
_FENCE: Final = msgspec.json.Decoder(FenceRow)
_SOUGHT: Final = (FenceStage.SUSPECTED, FenceStage.FENCING)
"""Stages in which a record waits for a proof, not for what the node owes."""


class NodeFacts(NamedTuple):
    """What the tree holds about a node."""

    spec: NodeSpec
    status: NodeStatus | None
    alive: bool
    """Its lease exists."""
    last: LeaseGeneration
    """Its last lease; generation 0: it never had one."""
    owes: str = ""
    """Why it takes no VMs since it was fenced; empty: it does."""

    @property
    def released(self) -> bool:
        """Say whether its last lease was given up on purpose."""
        return self.last.released

    def offers(self, capability: str) -> bool:
        """Say whether its plugins offer something, such as ``storage:dir``, or did when it last reported."""
        return self.status is not None and capability in self.status.capabilities()

    def max_mtu(self, driver: str) -> int:
        """Return the largest packet that networks of a driver can have there, 0 when it is not known."""
        plugins = self.status.plugins if self.status is not None else ()
        return next((plugin.max_mtu[driver] for plugin in plugins if driver in plugin.max_mtu), 0)

    def not_ready(self) -> str:
        """Return why the node takes no VMs now, or an empty string."""
        if not self.alive:
            return "its daemon is stopped" if self.released or self.status is None else "its lease is gone"
        if self.owes:
            return self.owes
        if self.status is None or self.status.daemon == "starting":
            return "its daemon is starting"
        if self.status.daemon != "running":
            return f"its daemon is {self.status.daemon}"
        if self.spec.scheduling == "drain":
            return "it is flushed"
        if self.spec.maintenance:
            return "it is in maintenance"
        if any(condition.type == HYPERVISOR and not condition.ok for condition in self.status.conditions):
            return "its hypervisor does not answer"
        return ""


class ClusterSnapshot(NamedTuple):
    """What placement decides on."""

    cluster: Cluster
    nodes: dict[str, NodeFacts]
    vms: dict[str, VmRow]
    claims: dict[str, ClaimRow]
    specs: dict[str, Node]
    """The VM specs as read, for those few that are decoded whole."""

    def alive(self) -> frozenset[str]:
        """Return the names of the nodes whose lease exists."""
        return frozenset(name for name, facts in self.nodes.items() if facts.alive)

    def spec(self, vm: str) -> Entry[VmSpec]:
        """Return a VM's whole spec as it was read."""
        return decode(keys.vm_spec(vm), self.specs[vm])

    def views(self, without: Collection[str] = ()) -> list[NodeView]:
        """Return the nodes as placement sees them, not counting some VMs (ids)."""
        return node_views(self.nodes, self.vms, self.claims, without)

    def policy(self, ops: Ops) -> Policy:
        """Return how nodes are chosen in this cluster."""
        return ops.policy._replace(default_selector=self.cluster.default_selector)


def read_cluster(ops: Ops, *, lenient: bool = False) -> ClusterSnapshot:
    """Read nodes and VMs: one pipelined listing and one pipelined read.

    ``lenient``: a VM that cannot be read is told and left out, and one whose claim cannot be read counts as held by
    nobody knows whom; otherwise CorruptDocument is raised.
    """
    store = ops.store
    names, leases, ids = store.children_many([f"{keys.SPEC}/node", keys.LEASE, f"{keys.SPEC}/vm"])
    node_paths = _node_paths(names)
    paths = [
        keys.CLUSTER.path,
        *node_paths,
        *[keys.vm_spec(id_).path for id_ in ids],
        *[keys.claim(id_).path for id_ in ids],
    ]
    found = store.get_many(paths)
    cluster = maybe(keys.CLUSTER, found[0])
    start = 1 + len(node_paths)
    specs = {id_: node for id_, node in zip(ids, found[start : start + len(ids)], strict=True) if node is not None}
    claims = zip(ids, found[start + len(ids) :], strict=True)
    return ClusterSnapshot(
        cluster.value if cluster is not None else Cluster(),
        _node_facts(names, frozenset(leases), found[1:start]),
        _rows(_VM, keys.vm_spec, specs.items(), lenient=lenient),
        _rows(_CLAIM, keys.claim, claims, lenient=lenient, instead=_UNKNOWN_HOLDER),
        specs,
    )


def read_nodes(store: Store) -> dict[str, NodeFacts]:
    """Read the nodes only: one pipelined listing and one pipelined read."""
    names, leases = store.children_many([f"{keys.SPEC}/node", keys.LEASE])
    return _node_facts(names, frozenset(leases), store.get_many(_node_paths(names)))


def offered(nodes: Mapping[str, NodeFacts], kind: str) -> set[str]:
    """Return what the nodes offer of a kind of capability: ``dir`` of ``storage:dir`` for ``storage``."""
    words = {word for facts in nodes.values() if facts.status is not None for word in facts.status.capabilities()}
    return {word.partition(":")[2] for word in words if word.startswith(f"{kind}:")}


def vm_row(id_: str, node: Node) -> VmRow:
    """Return the row in a VM spec's node."""
    return _row(_VM, keys.vm_spec(id_).path, node)


def status_row(id_: str, node: Node) -> StatusRow:
    """Return the row in a VM status's node."""
    return _row(_STATUS, keys.vm_status(id_).path, node)


def node_views(
    nodes: Mapping[str, NodeFacts],
    vms: Mapping[str, VmRow],
    claims: Mapping[str, ClaimRow],
    without: Collection[str] = (),
) -> list[NodeView]:
    """Return the nodes as placement sees them.

    A VM counts where its claim is held, where its migration goes, and where it is placed while it should run: so
    one that moves counts on both nodes, and one that was just sent somewhere counts there before it arrives.
    """
    memory, vcpus, count, provisioned = (dict.fromkeys(nodes, 0) for _ in range(4))
    left_out = frozenset(without)
    for id_, row in vms.items():
        if id_ in left_out:
            continue
        if row.node in provisioned:
            provisioned[row.node] += row.memory_mib
        for name in occupied(row, claims.get(id_)):
            if name in memory:
                memory[name] += row.memory_mib
                vcpus[name] += row.vcpus
                count[name] += 1
    return [
        _view(name, facts, memory[name], provisioned[name], vcpus[name], count[name])
        for name, facts in sorted(nodes.items())
    ]


def occupied(row: VmRow, claim: ClaimRow | None) -> set[str]:
    """Return the nodes whose memory a VM occupies, or is about to."""
    where: set[str] = set()
    if claim is not None and claim.node:
        where.add(claim.node)
        if claim.migration is not None:
            where.add(claim.migration.target)
    if row.power == "running" and row.node is not None and not row.deleting:
        where.add(row.node)
    return where


def _view(name: str, facts: NodeFacts, allocated: int, provisioned: int, vcpus: int, vms: int) -> NodeView:
    status = facts.status or NodeStatus(id=name)
    reason = facts.not_ready()
    return NodeView(
        name=name,
        role=facts.spec.role,
        alive=facts.alive,
        ready=not reason,
        not_ready_reason=reason,
        cpus=status.cpus,
        memory_mib=max(0, status.memory.total_mib - status.memory.reserved_mib),
        free_mib=status.memory.free_mib,
        allocated_mib=allocated,
        provisioned_mib=provisioned,
        allocated_vcpus=vcpus,
        vms=vms,
        load1=status.load1,
        capabilities=status.capabilities(),
        accelerators=status.accelerators,
    )


def _node_paths(names: list[str]) -> list[str]:
    return [path for name in names for path in (key.path for key in (*_node_keys(name), keys.fence(name)))]


def _node_keys(name: str) -> tuple[keys.Key[NodeSpec], keys.Key[NodeStatus], keys.Key[LeaseGeneration]]:
    return keys.node_spec(name), keys.node_status(name), keys.generation(name)


def _node_facts(names: list[str], leases: frozenset[str], found: list[Node | None]) -> dict[str, NodeFacts]:
    result: dict[str, NodeFacts] = {}
    for index, name in enumerate(names):
        spec_node, status_node, last_node, fence = found[4 * index : 4 * index + 4]
        spec_key, status_key, generation_key = _node_keys(name)
        spec, status, last = (
            maybe(spec_key, spec_node),
            maybe(status_key, status_node),
            maybe(generation_key, last_node),
        )
        if spec is None:
            continue
        result[name] = NodeFacts(
            spec.value,
            status.value if status is not None else None,
            name in leases,
            last.value if last is not None else LeaseGeneration(node=name),
            _owes(fence),
        )
    return result


def _owes(fence: Node | None) -> str:
    """Return why a node takes no VMs for longer than a moment since it was fenced, or an empty string."""
    if fence is None:
        return ""
    try:
        row = _FENCE.decode(fence.value)
    except msgspec.MsgspecError:
        return "its fence record cannot be read"
    stuck = row.waits_for and (row.dirty or row.blocked) and row.stage not in _SOUGHT
    return f"it was fenced, and {row.waits_for}" if stuck else ""


def _rows(
    decoder: msgspec.json.Decoder[R],
    key: Callable[[str], keys.Key[Any]],
    found: Iterable[tuple[str, Node | None]],
    *,
    lenient: bool,
    instead: R | None = None,
) -> dict[str, R]:
    rows = {}
    for id_, node in found:
        if node is None:
            continue
        try:
            rows[id_] = _row(decoder, key(id_).path, node)
        except CorruptDocument as error:
            if not lenient:
                raise
            log.error("document-unreadable error=%s", error)
            if instead is not None:
                rows[id_] = instead
    return rows


def _row(decoder: msgspec.json.Decoder[R], path: str, node: Node) -> R:
    try:
        return decoder.decode(node.value)
    except msgspec.MsgspecError as error:
        raise CorruptDocument(f"{path} cannot be read: {error}") from error
