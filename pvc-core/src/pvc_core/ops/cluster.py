"""The cluster as a whole."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from pvc_core.model.base import Condition
from pvc_core.model.cluster import Cluster
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.node_service import Nothing, PrimaryView
from pvc_core.plan.capacity import Capacity


class ClusterStatus(View, frozen=True, kw_only=True):
    """How the cluster is."""

    name: str
    health: Literal["healthy", "degraded", "maintenance"]
    problems: tuple[str, ...] = ()
    """Why it is degraded, one sentence each."""
    maintenance: bool
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


class ClusterSettings(Request, frozen=True, kw_only=True):
    """Settings to change; what is not given stays."""

    name: str | UnsetType = UNSET
    default_selector: str | UnsetType = UNSET
    cpu_model: str | UnsetType = UNSET
    migrations_per_source: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET
    migrations_per_target: Annotated[int, Meta(ge=1, le=64)] | UnsetType = UNSET


def cluster_status(ops: Ops, request: Nothing) -> ClusterStatus:
    """Return how the cluster is, in a fixed small number of round trips."""
    raise NotImplementedError


def cluster_maintenance(ops: Ops, request: ClusterMaintenance) -> Cluster:
    """Switch maintenance on or off."""
    raise NotImplementedError


def cluster_settings(ops: Ops, request: ClusterSettings) -> Cluster:
    """Change settings; without any it returns them.  Raises InvalidRequest."""
    raise NotImplementedError
