"""Locks on the disks of a VM that runs nowhere, left behind by a node or a program that died.

``vm.flush-locks``: task with the arguments ``vm`` (id) and ``epoch`` (of its claim).
"""

from typing import Final

from pvc_core.model.errors import InUse, InvalidRequest
from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import choose_by_drivers
from pvc_core.ops.snapshot import read_nodes
from pvc_core.ops.task import TaskCreate, begin
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_resources import read_resources
from pvc_core.ops.vm_views import VmQuery
from pvc_core.ops.vm_write import read_vm

FLUSH_LOCKS: Final = "vm.flush-locks"


def vm_flush_locks(ops: Ops, request: VmQuery) -> Task:
    """Begin task ``vm.flush-locks``: storage drivers break what still holds the VM's disks.

    Raises NotFound, InUse while the VM may run somewhere, InvalidRequest (no disks), NoNodeFits.
    """

    def once() -> Task:
        vm = read_vm(ops, request.vm)
        if vm.holder:
            raise InUse(
                f"node {vm.holder} holds the claim of VM {vm.spec.name!r}: stop the VM, or wait until a lost node is proven "
                "dead (pvc fence list)"
            )
        if not vm.spec.disks:
            raise InvalidRequest(f"VM {vm.spec.name!r} has no disks")
        pools = read_resources(ops, vm.spec).pools
        drivers = sorted({pools[disk.pool].driver for disk in vm.spec.disks if disk.pool in pools})
        node = choose_by_drivers(read_nodes(ops.store), drivers, "work on its disks")
        epoch = vm.claim.value.epoch if vm.claim is not None else 0
        new = TaskCreate(
            kind=FLUSH_LOCKS,
            node=node,
            arguments={"vm": vm.spec.id, "epoch": epoch},
            subject=f"locks of VM {vm.spec.name}",
        )
        return begin(ops, new, vm.unclaimed())

    return attempt(f"the locks of VM {request.vm!r} could not be flushed", once)
