"""Whether the VMs would still fit after the loss of a node (n-1)."""

from pvc_core.model.base import Value


class Capacity(Value, frozen=True, kw_only=True):
    """Memory of the cluster in MiB, and the verdict on n-1."""

    total_mib: int = 0
    """Of all nodes known, for VMs."""
    alive_mib: int = 0
    largest: str = ""
    """The largest node."""
    largest_mib: int = 0
    available_mib: int = 0
    """What the rest has when the largest is lost."""
    running_mib: int = 0
    """Maximum memory of the VMs that run or should run."""
    degraded: bool = False
    message: str = ""
