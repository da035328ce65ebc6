"""Starting and stopping VMs."""

from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.vm_views import VmQuery, VmView


class VmStop(Request, frozen=True, kw_only=True):
    """Cut a VM's power."""

    vm: str


class VmDisable(Request, frozen=True, kw_only=True):
    """Switch a VM off on purpose: it is not started by autostart and not counted as unhealthy."""

    vm: str
    force: bool = False
    """Cut the power of a running guest instead of asking it to shut down."""


class VmStart(Request, frozen=True, kw_only=True):
    """Start a VM."""

    vm: str
    node: str | None = None
    """Start it here; refused with the reason when this node cannot take it.  None: where it is placed if that node
    can take it, else a chosen one."""


def vm_start(ops: Ops, request: VmStart) -> VmView:
    """Start a VM; one that runs is left alone.  Raises NotFound, NoNodeFits, InvalidRequest (other node while it runs)."""
    raise NotImplementedError


def vm_shutdown(ops: Ops, request: VmQuery) -> VmView:
    """Ask the guest to shut down; its power is cut after ``shutdown_timeout_s``."""
    raise NotImplementedError


def vm_stop(ops: Ops, request: VmStop) -> VmView:
    """Cut a VM's power now."""
    raise NotImplementedError


def vm_restart(ops: Ops, request: VmQuery) -> VmView:
    """Shut the guest down in good order and start it again.  Raises InvalidRequest when it should not be running."""
    raise NotImplementedError


def vm_disable(ops: Ops, request: VmDisable) -> VmView:
    """Shut a VM down and keep it off."""
    raise NotImplementedError
