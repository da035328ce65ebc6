"""Nodes: list, info, and what an operator wants of one."""

from pvc_core.model.base import Condition
from pvc_core.model.node import NodeSpec, NodeStatus, Role
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View


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
    cpus: int
    load1: float
    memory_mib: int
    """What VMs may have."""
    free_mib: int
    allocated_mib: int
    provisioned_mib: int
    allocated_vcpus: int
    vms: int
    version: str = ""
    kernel: str = ""
    hypervisor: str = ""
    problems: tuple[str, ...] = ()
    """Messages of conditions that are not ok, and of plugins that do not work."""


class NodeInfo(View, frozen=True, kw_only=True):
    """Everything about one node."""

    row: NodeRow
    spec: NodeSpec
    status: NodeStatus | None
    lease: int | None
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
    """List nodes, sorted by name."""
    raise NotImplementedError


def node_info(ops: Ops, request: NodeQuery) -> NodeInfo:
    """Return everything about a node.  Raises NotFound."""
    raise NotImplementedError
