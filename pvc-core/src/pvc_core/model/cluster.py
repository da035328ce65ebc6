"""Cluster-wide settings."""

from typing import Annotated

from msgspec import Meta

from pvc_core.model.base import Document


class Cluster(Document, frozen=True, kw_only=True):
    """Settings that hold for the whole cluster."""

    name: str = "pvc"
    schema: int = 1
    """Version of the layout of the state tree."""
    generation: int = 1
    maintenance: bool = False
    default_selector: str = "mem"
    cpu_model: str = ""
    """CPU model of VMs that name none; empty: the hypervisor's choice."""
    migrations_per_source: Annotated[int, Meta(ge=1, le=64)] = 2
    migrations_per_target: Annotated[int, Meta(ge=1, le=64)] = 2
