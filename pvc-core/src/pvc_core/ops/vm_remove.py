"""Removing VMs."""

import logging

from msgspec.structs import replace

from pvc_core.model.errors import InUse
from pvc_core.model.vm import VmSpec, kept_disks
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.removal import vm_operations
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_resources import read_resources, vm_name
from pvc_core.ops.vm_snapshot_documents import in_work, members_of, require_no_rollback, snapshots_of
from pvc_core.ops.vm_write import changed, with_documents
from pvc_core.store import keys
from pvc_core.store.api import Operation
from pvc_core.store.documents import read

log = logging.getLogger(__name__)


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
    snapshots: tuple[str, ...] = ()
    """Names of its snapshots, which are forgotten; what they were made of stays on volumes that stay."""
    gone: bool = False
    """It is gone already; False: its node has to undo something first."""


def vm_remove(ops: Ops, request: VmRemove) -> VmRemoved:
    """Remove a VM: at once when no node runs it, else its node ends the guest first.

    Its snapshots are forgotten; on volumes that stay, what they were made of stays too.  Raises NotFound, InUse when it runs
    and ``force`` is not given, while its disks are being rolled back, and when a volume to delete is part of another VM's
    snapshot.
    """
    snapshots: tuple[str, ...] = ()

    def once() -> tuple[VmSpec, bool]:
        nonlocal snapshots
        vm = with_documents(ops, resolve.vm(ops, request.vm))
        spec = vm.spec
        snapshots = tuple(sorted(entry.value.name for entry in snapshots_of(ops.store, spec.id)))
        volumes = request.volumes or spec.delete_volumes
        if spec.rollback is not None and in_work(ops.store, spec.rollback.task):
            require_no_rollback(ops, spec)
        if volumes:
            _refuse_members_of_others(ops, spec)
        if not vm.holder:
            # Nobody holds the claim, and the transaction sees to it that nobody takes it: nothing of it runs.
            entry = vm.entry._replace(value=_deleting(spec, volumes=volumes))
            ops.store.commit(*vm_operations(ops.store, entry, vm.status, vm.claim))
            return entry.value, True
        if not request.force and not spec.deleting:
            raise InUse(
                f"VM {spec.name!r} runs on node {vm.holder}: shut it down first, or remove it with force, which cuts "
                "its power"
            )
        if spec.deleting and spec.delete_volumes == volumes:
            return spec, False
        new = changed(_deleting(spec, volumes=volumes), node=vm.holder)
        ops.store.commit(vm.entry.put(new))
        return new, False

    spec, gone = attempt(f"VM {request.vm!r} could not be removed", once)
    log.info("vm-remove vm=%s name=%s volumes=%s gone=%s", spec.id, spec.name, spec.delete_volumes, gone)
    volumes = tuple(disk.path for disk in kept_disks(spec)) if spec.delete_volumes else ()
    return VmRemoved(id=spec.id, name=spec.name, volumes=volumes, snapshots=snapshots, gone=gone)


def vm_forget(ops: Ops, vm: str, guard: tuple[Operation, ...] = ()) -> bool:
    """Remove the documents of a VM (id) that is being deleted, when nothing of it is left on any node.

    One transaction, with the caller's ``guard``, that demands that nobody holds the VM's claim.  Returns False, with nothing
    changed, when somebody does or the VM is not being deleted; True when it is gone.  Raises TransactionFailed when
    it changed meanwhile.
    """
    entry = read(ops.store, keys.vm_spec(vm))
    if entry is None:
        return True
    documents = with_documents(ops, entry)
    if not entry.value.deleting or documents.holder:
        return False
    ops.store.commit(*vm_operations(ops.store, entry, documents.status, documents.claim), *guard)
    return True


def _refuse_members_of_others(ops: Ops, spec: VmSpec) -> None:
    """Raise InUse when a volume that is to be deleted is part of a snapshot of a VM that had it once."""
    for volume in read_resources(ops, spec).volumes.values():
        for entry in members_of(ops.store, volume.id):
            if entry.value.vm != spec.id:
                raise InUse(
                    f"volume {volume.name!r} of VM {spec.name!r} is part of snapshot {entry.value.name!r} of VM "
                    f"{vm_name(ops, entry.value.vm)!r}: delete that first, or take the volume from the VM"
                )


def _deleting(spec: VmSpec, *, volumes: bool) -> VmSpec:
    return replace(spec, deleting=True, delete_volumes=volumes)
