"""Taking nodes out of service and back, the primary role, removal."""

from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.node import NodeQuery, NodeRow


class NodeFlush(Request, frozen=True, kw_only=True):
    """Move all VMs off a node, and let none come."""

    node: str
    force: bool = False
    """Also when some VMs fit nowhere: these stay until there is room."""


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


class NodePrimary(Request, frozen=True, kw_only=True):
    """Move the primary role to this coordinator."""

    node: str


class PrimaryView(View, frozen=True, kw_only=True):
    """The primary role."""

    node: str | None
    wanted: str | None
    stage: str
    term: int


class Nothing(Request, frozen=True, kw_only=True):
    """A request without options."""


class NodeRemoved(View, frozen=True, kw_only=True):
    """The node is no longer part of the cluster."""

    node: str
    displaced: tuple[str, ...] = ()
    """Names of stopped VMs that were placed there; they get a node when they are started."""


def node_flush(ops: Ops, request: NodeFlush) -> Flush:
    """Drain a node.  Raises NotFound, NoNodeFits when a VM fits nowhere and ``force`` is not given."""
    raise NotImplementedError


def node_ready(ops: Ops, request: NodeQuery) -> NodeRow:
    """Let a node take VMs again; those at home there return."""
    raise NotImplementedError


def node_maintenance(ops: Ops, request: NodeMaintenance) -> NodeRow:
    """Set or clear a node's maintenance: in maintenance it is chosen for no VM."""
    raise NotImplementedError


def node_primary(ops: Ops, request: NodePrimary) -> PrimaryView:
    """Ask for the primary role to move.  Raises NotFound, InvalidRequest when it is no coordinator or not alive."""
    raise NotImplementedError


def node_secondary(ops: Ops, request: NodeQuery) -> PrimaryView:
    """Ask a primary to give the role up to any other coordinator.  Raises InvalidRequest when none can take it."""
    raise NotImplementedError


def primary_info(ops: Ops, request: Nothing) -> PrimaryView:
    """Return who has the primary role."""
    raise NotImplementedError


def node_remove(ops: Ops, request: NodeQuery) -> NodeRemoved:
    """Remove a node from the cluster.

    Raises InUse while its lease exists, a claim names it, it is the primary, or it is the last node.
    """
    raise NotImplementedError
