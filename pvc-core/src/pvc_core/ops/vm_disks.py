"""Disks of VMs: add, remove, modify, while the VM runs or not."""

from typing import Final

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from pvc_core.model.disk import DiskCache, DiskLimits
from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.names import did_you_mean
from pvc_core.model.vm import VmSpec, disk_names
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.vm_change import VmModified, change_vm
from pvc_core.ops.vm_definition import DiskDefinition, definition_of, disk_limits, disks

LIMITS: Final = DiskLimits.__struct_fields__
"""Names of the limits that a disk may have."""


class VmDiskAdd(Request, frozen=True, kw_only=True):
    """Give a VM another disk, or take back the removal of one that its guest has not let go of."""

    vm: str
    disk: DiskDefinition
    restart: bool = False
    """Restart the guest, if it runs and cannot have the disk otherwise."""


class VmDiskRemove(Request, frozen=True, kw_only=True):
    """Take a disk from a VM; the volume stays."""

    vm: str
    volume: str
    """``pool/volume``."""
    restart: bool = False
    """Restart the guest, if it runs and cannot give the disk up otherwise."""


class VmDiskModify(Request, frozen=True, kw_only=True):
    """Change settings of a disk."""

    vm: str
    volume: str
    """``pool/volume``."""
    limits: dict[str, int | str] = {}
    """The limits to change, by their names in ``model.disk.DiskLimits``; 0: none."""
    cache: DiskCache | UnsetType = UNSET
    discard: bool | UnsetType = UNSET
    restart: bool = False
    """Restart the guest, if it runs and a change needs that."""


def vm_disk_add(ops: Ops, request: VmDiskAdd) -> VmModified:
    """Attach a volume as the last disk: of a running guest at once, where the bus can do that.

    One that is being removed is taken back as it is, if nothing is said of it but its name.  Raises NotFound, InUse (other
    VM), InvalidRequest (attached already, limits).
    """

    def next_(vm: VmSpec) -> VmSpec:
        return replace(vm, disks=disks((*definition_of(vm).disks, request.disk)))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def vm_disk_remove(ops: Ops, request: VmDiskRemove) -> VmModified:
    """Detach a volume; it stays.

    Of a running guest it is asked for, and belongs to the VM until the guest has let go, or has ended.  Raises NotFound, InUse
    for the first disk while the VM runs.
    """

    def next_(vm: VmSpec) -> VmSpec:
        _demand(vm, request.volume)
        return replace(vm, disks=tuple(disk for disk in vm.disks if disk.path != request.volume))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def vm_disk_modify(ops: Ops, request: VmDiskModify) -> VmModified:
    """Change a disk's limits, which a running guest has to keep at once, or cache and discard, which need a restart.

    Raises NotFound, InvalidRequest (unknown or contradictory limits, nothing to change).
    """
    unknown = next((name for name in request.limits if name not in LIMITS), None)
    if unknown is not None:
        raise InvalidRequest(
            f"a disk has no limit {unknown!r}{did_you_mean(unknown, LIMITS)}; limits are {', '.join(LIMITS)}"
        )
    changes = {field: value for field in ("cache", "discard") if (value := getattr(request, field)) is not UNSET}
    if not (changes or request.limits):
        raise InvalidRequest(f"say what to change of disk {request.volume}: a limit, cache or discard")

    def next_(vm: VmSpec) -> VmSpec:
        _demand(vm, request.volume)
        (old,) = (disk for disk in vm.disks if disk.path == request.volume)
        limits = disk_limits(asdict(old.limits) | request.limits, f"disk {old.path}")
        new = replace(old, limits=limits, **changes)
        return replace(vm, disks=tuple(new if disk is old else disk for disk in vm.disks))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def _demand(vm: VmSpec, volume: str) -> None:
    names = disk_names(vm)
    if volume not in names:
        hint = did_you_mean(volume, names)
        raise NotFound(f"VM {vm.name!r} has no disk {volume!r}{hint}; it has {', '.join(names) or 'none'}")
