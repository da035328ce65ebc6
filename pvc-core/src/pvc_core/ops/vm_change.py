"""Replacing a VM's spec by another one: what all changes of a definition have in common."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from pvc_core.model.disk import Disk
from pvc_core.model.errors import InUse
from pvc_core.model.vm import Nic, VmSpec, VmStatus, hardware, hardware_changed, kept_devices, kept_disks
from pvc_core.ops.context import Ops
from pvc_core.ops.message import View
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_checks import check_spec
from pvc_core.ops.vm_placing import choose_node
from pvc_core.ops.vm_resources import check_resources, read_resources, reference_operations
from pvc_core.ops.vm_snapshot_documents import require_no_rollback
from pvc_core.ops.vm_views import VmView, read_view
from pvc_core.ops.vm_write import VmDocuments, changed, read_vm
from pvc_core.plan.vm import behind, behind_nics
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
    """Which changes of disks and NICs need the restart, as sentences."""


def change_vm(
    ops: Ops, name: str, next_: Callable[[VmSpec], VmSpec], *, restart: bool = False, dry_run: bool = False
) -> VmModified:
    """Replace a VM's spec by what ``next_`` makes of it, after all checks.

    A disk or NIC that ``next_`` leaves out is taken away at once while nobody may run the VM.  Of a running guest it stays in
    the spec, marked: the VM's node frees it when the guest has let go.  ``next_`` gets the VM without those that are marked,
    and takes a removal back by leaving the device in.
    """

    def once() -> VmModified:
        vm = read_vm(ops, name)
        old = vm.spec
        wanted = next_(kept_devices(old))
        if vm.holder:
            wanted = replace(
                wanted,
                disks=_merged(old.disks, wanted.disks, _disk_key, _bare_disk),
                nics=_merged(old.nics, wanted.nics, _nic_key, _bare_nic),
            )
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


Device = TypeVar("Device", Disk, Nic)


def _bare_disk(disk: Disk) -> Disk:
    """Return a disk of which only that is said what tells it from others."""
    return Disk(pool=disk.pool, volume=disk.volume)


def _bare_nic(nic: Nic) -> Nic:
    """The same of a NIC."""
    return Nic(network=nic.network, mac=nic.mac)


def _disk_key(disk: Disk) -> str:
    return disk.path


def _nic_key(nic: Nic) -> str:
    return nic.mac


def _merged(
    old: tuple[Device, ...],
    wanted: tuple[Device, ...],
    key: Callable[[Device], str],
    bare: Callable[[Device], Device],
) -> tuple[Device, ...]:
    """Return the wanted devices, and those of the old ones that are left out, marked, each behind what it was behind.

    A wanted one that was being removed, and of which only the name is said, is as it was; also in its old place, where it
    is the last, as it is when it was added again.
    """
    removing = {key(device): device for device in old if device.removing}
    back = {key(d) for d in wanted if key(d) in removing and d == bare(d) == bare(removing[key(d)])}
    result = [replace(removing[key(d)], removing=False) if key(d) in back else d for d in wanted]
    again = result.pop() if result and key(result[-1]) in back else None
    names = {key(device) for device in result}
    for index, device in enumerate(old):
        if key(device) not in names:
            before = {key(other) for other in old[:index]}
            place = max((n for n, other in enumerate(result, 1) if key(other) in before), default=0)
            result.insert(place, again if again and key(again) == key(device) else replace(device, removing=True))
    return tuple(result)


def _hardware_differs(vm: VmDocuments, wanted: VmSpec) -> bool:
    if not vm.holder:
        return False
    if vm.status is None or not vm.status.value.running_hardware:
        # Nobody has said yet what it was started with: it was this spec.
        return hardware(wanted) != hardware(vm.spec) or (wanted.disks, wanted.nics) != (vm.spec.disks, vm.spec.nics)
    return hardware_changed(wanted, vm.status.value)


def _reasons(wanted: VmSpec, status: VmStatus) -> tuple[str, ...]:
    """Return what of the disks and NICs a guest takes over only when it is started again."""
    nics = behind_nics(wanted, {nic.mac: nic for nic in status.guest_nics}) if status.guest_nics is not None else ()
    if status.guest_disks is None:
        return nics
    has = {disk.path: disk for disk in status.guest_disks}
    # A display brings a controller for USB with it; what the guest really has is known on its node.
    usb = wanted.vnc or any(disk.bus == "usb" for disk in status.guest_disks)
    return (*behind(wanted, has, usb=usb), *nics)


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
    networks = {nic.mac: nic.network for nic in new.nics}
    moved = [nic for nic in old.nics if networks.get(nic.mac, nic.network) != nic.network]
    if moved:
        raise InUse(
            f"{where} {moved[0].title}, which keeps its network while it runs: add another NIC in network "
            f"{networks[moved[0].mac]} and remove this one, or shut it down first"
        )


def _paths(disks: tuple[Disk, ...]) -> set[str]:
    return {disk.path for disk in disks}


def _lost(old: VmSpec, new: VmSpec) -> bool:
    """Return whether a change takes something from the VM."""
    nics = {(nic.mac, nic.network) for nic in old.nics} - {(nic.mac, nic.network) for nic in new.nics}
    return bool(_paths(old.disks) - _paths(new.disks) or nics)
