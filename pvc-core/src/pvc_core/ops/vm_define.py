"""Defining VMs."""

from pvc_core.ops.context import Ops
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_views import VmView


def vm_define(ops: Ops, request: VmDefine) -> VmView:
    """Define a VM.  It is stopped unless ``start``.

    Raises InvalidRequest (does not fit any node, malformed), NotFound (network, pool, volume, node),
    AlreadyExists (name, id, MAC address), InUse (volume of another VM), NoNodeFits (with ``start``).
    """
    raise NotImplementedError
