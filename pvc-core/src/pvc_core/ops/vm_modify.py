"""Changing the definition of VMs."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from pvc_core.model.base import Value
from pvc_core.model.vm import DirectKernel, MigrationMethod, RestartPolicy
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine
from pvc_core.ops.vm_views import VmView


class VmPatch(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields to change; one that is not given stays.  Meanings as in ``VmDefine``."""

    description: str | UnsetType = UNSET
    memory: int | str | UnsetType = UNSET
    vcpus: Annotated[int, Meta(ge=1, le=4096)] | UnsetType = UNSET
    machine: str | UnsetType = UNSET
    cpu_model: str | UnsetType = UNSET
    accelerator: Literal["auto", "kvm", "tcg"] | UnsetType = UNSET
    firmware: Literal["bios", "uefi"] | UnsetType = UNSET
    direct_kernel: DirectKernel | UnsetType | None = UNSET
    vnc: bool | UnsetType = UNSET
    guest_agent: bool | UnsetType = UNSET
    disks: tuple[DiskDefinition, ...] | UnsetType = UNSET
    """All disks: those left out are detached (their volumes stay)."""
    nics: tuple[NicDefinition, ...] | UnsetType = UNSET
    """All NICs: those left out are removed."""
    overlay_xml: str | UnsetType = UNSET
    shutdown_timeout_s: Annotated[int, Meta(ge=1, le=86400)] | UnsetType = UNSET
    restart: RestartPolicy | UnsetType = UNSET
    autostart: bool | UnsetType = UNSET
    node_limit: tuple[str, ...] | UnsetType = UNSET
    selector: str | UnsetType = UNSET
    migration: MigrationMethod | UnsetType = UNSET
    max_downtime_ms: Annotated[int, Meta(ge=1, le=60000)] | UnsetType = UNSET


class VmModify(Request, frozen=True, kw_only=True):
    """Change a VM by a patch, or to a whole definition (the result of editing a dump)."""

    vm: str
    patch: VmPatch | None = None
    definition: VmDefine | None = None
    """Its ``name`` and ``id`` must be the VM's; ``node``, ``start`` and tags follow their own operations."""
    restart: bool = False
    """Restart the guest so that changes take effect, if it runs and needs it."""
    dry_run: bool = False
    """Check everything and answer the diff; write nothing."""
    generation: int | None = None
    """Refuse with Conflict unless the spec has this generation (the one that was edited)."""


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


class VmRename(Request, frozen=True, kw_only=True):
    """Give a VM another name; the guest and its volumes keep theirs."""

    vm: str
    name: str


class VmTags(Request, frozen=True, kw_only=True):
    """Change a VM's tags."""

    vm: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    protected: bool = False
    """Added ones are protected."""
    force: bool = False
    """Remove protected ones too."""


class VmAutostart(Request, frozen=True, kw_only=True):
    """Start the VM whenever its node returns to service, or no longer."""

    vm: str
    autostart: bool


class VmDiskAdd(Request, frozen=True, kw_only=True):
    """Give a VM another disk."""

    vm: str
    disk: DiskDefinition
    restart: bool = False


class VmDiskRemove(Request, frozen=True, kw_only=True):
    """Take a disk from a VM; the volume stays."""

    vm: str
    volume: str
    """``pool/volume``."""
    restart: bool = False


class VmNicAdd(Request, frozen=True, kw_only=True):
    """Give a VM another NIC."""

    vm: str
    nic: NicDefinition
    restart: bool = False


class VmNicRemove(Request, frozen=True, kw_only=True):
    """Take a NIC from a VM; by network when it has one there, else by MAC address."""

    vm: str
    network: str = ""
    mac: str = ""
    restart: bool = False


def vm_modify(ops: Ops, request: VmModify) -> VmModified:
    """Change a VM's definition.

    Raises NotFound, InvalidRequest, InUse, AlreadyExists (MAC), Conflict (other generation).
    """
    raise NotImplementedError


def vm_rename(ops: Ops, request: VmRename) -> VmView:
    """Rename a VM, running or not.  Raises NotFound, AlreadyExists, InvalidRequest."""
    raise NotImplementedError


def vm_tags(ops: Ops, request: VmTags) -> VmView:
    """Add and remove tags.  Raises NotFound for a tag it does not have, InUse for a protected one."""
    raise NotImplementedError


def vm_autostart(ops: Ops, request: VmAutostart) -> VmView:
    """Set or clear autostart."""
    raise NotImplementedError


def vm_disk_add(ops: Ops, request: VmDiskAdd) -> VmModified:
    """Attach a volume as the last disk."""
    raise NotImplementedError


def vm_disk_remove(ops: Ops, request: VmDiskRemove) -> VmModified:
    """Detach a volume."""
    raise NotImplementedError


def vm_nic_add(ops: Ops, request: VmNicAdd) -> VmModified:
    """Add a NIC."""
    raise NotImplementedError


def vm_nic_remove(ops: Ops, request: VmNicRemove) -> VmModified:
    """Remove a NIC."""
    raise NotImplementedError
