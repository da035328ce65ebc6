"""Cluster-wide settings."""

from typing import Annotated

from msgspec import Meta

from pvc_core.model.base import Document
from pvc_core.model.fence import Means


class Cluster(Document, frozen=True, kw_only=True):
    """Settings that hold for the whole cluster."""

    name: str = "pvc"
    schema: int = 1
    """Version of the layout of the state tree."""
    generation: int = 1
    maintenance: bool = False
    """No node is fenced, and nothing is an alarm."""
    maintenance_until: float = 0.0
    """When the primary ends the maintenance, seconds since the epoch; 0: a person does."""
    recovery: tuple[Means, ...] = ("power", "storage", "watchdog")
    """Which proofs of a node's death suffice to start its VMs elsewhere; an operator's word always does."""
    power_on_after_fence: bool = False
    """Switch a node on again after its VMs were taken from it."""
    return_after_fence: bool = False
    """Put a node that was fenced back into service when it is back; otherwise an operator does."""
    default_selector: str = "mem"
    cpu_model: str = ""
    """CPU model of VMs that name none; empty: the hypervisor's choice."""
    migrations_per_source: Annotated[int, Meta(ge=1, le=64)] = 2
    migrations_per_target: Annotated[int, Meta(ge=1, le=64)] = 2
    pool_full_percent: Annotated[int, Meta(ge=1, le=100)] = 80
    """Fuller than this no storage pool may become by its volumes' whole sizes, unless forced."""
