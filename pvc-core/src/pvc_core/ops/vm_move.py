"""Moving VMs between nodes."""

from pvc_core.model.vm import MigrationMethod
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.vm_views import VmView


class VmMove(Request, frozen=True, kw_only=True):
    """Place a VM on another node for good."""

    vm: str
    node: str | None = None
    """None: one is chosen."""
    method: MigrationMethod | None = None
    """For this move only; None: the VM's own method."""


class VmMigrate(Request, frozen=True, kw_only=True):
    """Move a VM for a while: ``unmigrate`` and ``node ready`` bring it back."""

    vm: str
    node: str | None = None
    method: MigrationMethod | None = None
    force: bool = False
    """Also a VM that is away from home already; its home stays the same."""


class VmUnmigrate(Request, frozen=True, kw_only=True):
    """Bring a VM back home."""

    vm: str
    method: MigrationMethod | None = None


class VmMoved(View, frozen=True, kw_only=True):
    """Where it goes."""

    vm: VmView
    source: str | None
    target: str
    chosen_by: str = ""
    """Selector that chose the target; empty when it was named."""


def vm_move(ops: Ops, request: VmMove) -> VmMoved:
    """Move a VM; a move of a migrated one makes its new place its home.  Raises NotFound, NoNodeFits, InvalidRequest."""
    raise NotImplementedError


def vm_migrate(ops: Ops, request: VmMigrate) -> VmMoved:
    """Move a VM and remember its home.  Raises NotFound, NoNodeFits, InvalidRequest."""
    raise NotImplementedError


def vm_unmigrate(ops: Ops, request: VmUnmigrate) -> VmMoved:
    """Bring a VM home.  Raises NotFound, NoNodeFits, InvalidRequest when it is at home."""
    raise NotImplementedError
