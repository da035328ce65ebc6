"""A node as a placement decision sees it."""

from pvc_core.model.base import Value
from pvc_core.model.node import Role


class NodeView(Value, frozen=True, kw_only=True):
    """A node in a snapshot of the cluster."""

    name: str
    role: Role = "hypervisor"
    alive: bool = True
    """Its lease exists."""
    ready: bool = True
    """Its daemon runs, and neither drains nor is in maintenance."""
    not_ready_reason: str = ""
    cpus: int = 0
    memory_mib: int = 0
    """What VMs may have: total less the host's reserve."""
    free_mib: int = 0
    """What the host says is free now."""
    allocated_mib: int = 0
    """Maximum memory of the VMs that run here or are on their way here."""
    provisioned_mib: int = 0
    """Maximum memory of all VMs placed here, running or not."""
    allocated_vcpus: int = 0
    vms: int = 0
    """VMs that run here or are on their way here."""
    load1: float = 0.0
    capabilities: frozenset[str] = frozenset()
    accelerators: tuple[str, ...] = ()
