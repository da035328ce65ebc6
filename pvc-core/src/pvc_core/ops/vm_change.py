"""Replacing a VM's spec by another one: what all changes of a definition have in common."""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from pvc_core.model.disk import Disk
from pvc_core.model.errors import InUse
from pvc_core.model.vm import VmSpec, VmStatus, hardware, hardware_changed, kept_disks
from pvc_core.ops.context import Ops
from pvc_core.ops.message import View
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_checks import check_spec
from pvc_core.ops.vm_placing import choose_node
from pvc_core.ops.vm_resources import check_resources, read_resources, reference_operations
from pvc_core.ops.vm_snapshot_documents import require_no_rollback
from pvc_core.ops.vm_views import VmView, read_view
from pvc_core.ops.vm_write import VmDocuments, changed, read_vm
from pvc_core.plan.vm import behind
from pvc_core.store.api import Operation

log = logging.getLogger(__name__)


class FieldChange(View, frozen=True, kw_only=True):
    """One field before and after, as plain data."""

    field: str
    old: Any
    new: Any


class VmModified(View, frozen=True, kw_only=True):
    """What was (or with ``dry_run`` would be) changed."""

    vm: VmView
    changes: tuple[FieldChange, ...]
    restart_needed: bool
    """The guest runs, and a change takes effect only when it is started again."""
    restarting: bool = False
    written: bool = True
    reasons: tuple[str, ...] = ()
    """Which changes of disks need the restart, as sentences."""


def change_vm(
    ops: Ops, name: str, next_: Callable[[VmSpec], VmSpec], *, restart: bool = False, dry_run: bool = False
) -> VmModified:
    """Replace a VM's spec by what ``next_`` makes of it, after all checks.

    A disk that ``next_`` leaves out is taken away at once while nobody may run the VM.  Of a running guest it stays in the
    spec, marked: the VM's node frees it when the guest has let go.  ``next_`` gets the disks without those marks, and takes
    a removal back by leaving the disk in.
    """

    def once() -> VmModified:
        vm = read_vm(ops, name)
        old = vm.spec
        wanted = next_(replace(old, disks=kept_disks(old)))
        if vm.holder:
            wanted = replace(wanted, disks=_with_removed(old.disks, _taken_back(old.disks, wanted.disks)))
        changes = differences(old, wanted)
        if not changes:
            return VmModified(vm=read_view(ops, old), changes=(), restart_needed=False, written=False)
        reasons = _reasons(wanted, vm.status.value) if vm.holder and vm.status is not None else ()
        needed = bool(reasons) or _hardware_differs(vm, wanted)
        restarting = restart and needed and old.power == "running"
        new = changed(wanted, restart_request=old.restart_request + (1 if restarting else 0))
        operations = _checked(ops, vm, new, restarting=restarting)
        if not dry_run:
            ops.store.commit(*operations)
            log.info("vm-modified vm=%s fields=%s", new.id, ",".join(change.field for change in changes))
        return VmModified(
            vm=read_view(ops, old if dry_run else new),
            changes=changes,
            restart_needed=needed and not restarting,
            restarting=restarting,
            written=not dry_run,
            reasons=reasons,
        )

    return attempt(f"VM {name!r} could not be changed", once)


def differences(old: VmSpec, new: VmSpec) -> tuple[FieldChange, ...]:
    """Return the fields that differ, as plain data."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return tuple(
        FieldChange(field=field, old=before[field], new=after[field])
        for field in after
        if before[field] != after[field]
    )


def _taken_back(old: tuple[Disk, ...], wanted: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """Return the wanted disks; one that was being removed, and of which only the name is said, is as it was."""
    removing = {disk.path: replace(disk, removing=False) for disk in old if disk.removing}
    return tuple(
        removing.get(disk.path, disk) if disk == Disk(pool=disk.pool, volume=disk.volume) else disk for disk in wanted
    )


def _with_removed(old: tuple[Disk, ...], wanted: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """Return the wanted disks with those that are left out of the old ones, marked, each behind what it was behind."""
    names = {disk.path for disk in wanted}
    result = list(wanted)
    for index, disk in enumerate(old):
        if disk.path not in names:
            before = {other.path for other in old[:index]}
            place = max((n for n, other in enumerate(result, 1) if other.path in before), default=0)
            result.insert(place, replace(disk, removing=True))
    return tuple(result)


def _hardware_differs(vm: VmDocuments, wanted: VmSpec) -> bool:
    if not vm.holder:
        return False
    if vm.status is None or not vm.status.value.running_hardware:
        # Nobody has said yet what it was started with: it was this spec.
        return hardware(wanted) != hardware(vm.spec) or wanted.disks != vm.spec.disks
    return hardware_changed(wanted, vm.status.value)


def _reasons(wanted: VmSpec, status: VmStatus) -> tuple[str, ...]:
    """Return what of the disks a guest takes over only when it is started again."""
    if status.guest_disks is None:
        return ()
    has = {disk.path: disk for disk in status.guest_disks}
    # A display brings a controller for USB with it; what the guest really has is known on its node.
    usb = wanted.vnc or any(disk.bus == "usb" for disk in status.guest_disks)
    return behind(wanted, has, usb=usb)


def _checked(ops: Ops, vm: VmDocuments, new: VmSpec, *, restarting: bool) -> list[Operation]:
    """Return the operations of a change after all checks."""
    old = vm.spec
    check_spec(ops, new, old)
    operations = vm.write(new)
    if old.disks != new.disks:
        require_no_rollback(ops, old)
    if (old.disks, old.nics) != (new.disks, new.nics):
        resources = read_resources(ops, old, new)
        check_resources(ops, new, resources)
        operations += reference_operations(new, old, resources)
        if vm.holder:
            _refuse_to_take(vm, new)
        elif _lost(old, new):
            operations.append(vm.unclaimed())
    if restarting and new.memory_mib > old.memory_mib and vm.holder == new.node:
        needs = read_resources(ops, new).capabilities(new)
        choose_node(ops, new, needs, wanted=vm.holder)
    return operations


def _refuse_to_take(vm: VmDocuments, new: VmSpec) -> None:
    """Raise InUse when the change takes from a running guest what it does not give up while it runs."""
    old = vm.spec
    where = f"VM {old.name!r} runs on node {vm.holder} and its guest uses"
    if old.disks and not old.disks[0].removing and old.disks[0].path not in _paths(kept_disks(new)):
        raise InUse(f"{where} volume {old.disks[0].path}, its first disk: shut it down first")
    nics = _lost_nics(old, new)
    if nics:
        raise InUse(f"{where} {', '.join(nics)}: shut it down first")


def _paths(disks: tuple[Disk, ...]) -> set[str]:
    return {disk.path for disk in disks}


def _lost(old: VmSpec, new: VmSpec) -> bool:
    """Return whether a change takes something from the VM."""
    return bool(_paths(old.disks) - _paths(new.disks) or _lost_nics(old, new))


def _lost_nics(old: VmSpec, new: VmSpec) -> list[str]:
    kept = {(nic.mac, nic.network) for nic in new.nics}
    return [f"NIC {nic.mac} in network {nic.network}" for nic in old.nics if (nic.mac, nic.network) not in kept]
