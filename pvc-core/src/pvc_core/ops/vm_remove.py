"""Removing VMs."""

from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View


class VmRemove(Request, frozen=True, kw_only=True):
    """Remove a VM."""

    vm: str
    volumes: bool = False
    """Delete its volumes too, with their contents."""
    force: bool = False
    """Also when it runs: its power is cut."""


class VmRemoved(View, frozen=True, kw_only=True):
    """What is being removed."""

    id: str
    name: str
    volumes: tuple[str, ...] = ()
    """Volumes that are deleted with it, as ``pool/volume``."""
    gone: bool = False
    """It is gone already; False: its node has to undo something first."""


def vm_remove(ops: Ops, request: VmRemove) -> VmRemoved:
    """Remove a VM.  Raises NotFound, InUse when it runs and ``force`` is not given."""
    raise NotImplementedError


def vm_forget(ops: Ops, vm: str) -> bool:
    """Remove the documents of a VM that is being deleted; called by its node when nothing of it is left there.

    One transaction that demands that nobody holds the VM's claim.  Returns False when a claim exists or the VM
    is not being deleted (nothing is changed then), True when it is gone.
    """
    raise NotImplementedError
