"""Changing the definition of VMs."""

import logging
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from pvc_core.model.base import Value
from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NotFound
from pvc_core.model.names import check_name, did_you_mean
from pvc_core.model.vm import DirectKernel, MigrationMethod, RestartPolicy, Tag, VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.mac import free_macs
from pvc_core.ops.message import Request
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_change import VmModified, change_vm
from pvc_core.ops.vm_definition import (
    DiskDefinition,
    VmDefine,
    disks,
    memory_mib,
    spec_fields,
    tags,
)
from pvc_core.ops.vm_nic_definition import NicDefinition, nics
from pvc_core.ops.vm_resources import read_resources, reference_operations
from pvc_core.ops.vm_views import VmView, read_view
from pvc_core.ops.vm_write import changed, read_vm
from pvc_core.store import keys
from pvc_core.store.api import Create, Delete

log = logging.getLogger(__name__)


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
    priority: Annotated[int, Meta(ge=-1000, le=1000)] | UnsetType = UNSET
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
    """Its ``name``, ``id`` and ``node``, where given, must be the VM's; ``start`` says nothing here."""
    restart: bool = False
    """Restart the guest so that changes take effect, if it runs and needs it."""
    dry_run: bool = False
    """Check everything and answer the diff; write nothing."""
    generation: int | None = None
    """Refuse with Conflict unless the spec has this generation (the one that was edited)."""


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


def vm_modify(ops: Ops, request: VmModify) -> VmModified:
    """Change a VM's definition.

    The first disk is taken only from a VM that does not run: its guest would go on using it.  Another disk of a running
    guest, or a NIC, is the VM's until the guest has let go of it.  Raises NotFound,
    InvalidRequest, InUse, AlreadyExists (MAC), NoNodeFits (restart with more memory), Conflict (other generation).
    """
    if (request.patch is None) == (request.definition is None):
        raise InvalidRequest("give either a patch or a definition")

    def next_(vm: VmSpec) -> VmSpec:
        if request.generation is not None and request.generation != vm.generation:
            raise Conflict(
                f"VM {vm.name!r} was changed meanwhile (generation {vm.generation}, edited was {request.generation}): "
                "look at it again and repeat"
            )
        if request.patch is not None:
            return _patched(ops, vm, request.patch)
        assert request.definition is not None
        return _redefined(ops, vm, request.definition)

    return change_vm(ops, request.vm, next_, restart=request.restart, dry_run=request.dry_run)


def vm_rename(ops: Ops, request: VmRename) -> VmView:
    """Rename a VM, running or not.  Raises NotFound, AlreadyExists, InvalidRequest."""
    name = check_name(request.name, "VM name")

    def once() -> VmSpec:
        vm = read_vm(ops, request.vm)
        if vm.spec.name == name:
            return vm.spec
        if ops.store.get(keys.name("vm", name)) is not None:
            raise AlreadyExists(f"there is a VM named {name!r} already; names are unique in the cluster")
        new = changed(vm.spec, name=name)
        ops.store.commit(
            *vm.write(new),
            Create(keys.name("vm", name), new.id.encode()),
            Delete(keys.name("vm", vm.spec.name)),
            # Names of guests are known in their networks.
            *reference_operations(new, vm.spec, read_resources(ops, new)),
        )
        log.info("vm-renamed vm=%s old=%s new=%s", new.id, vm.spec.name, name)
        return new

    return read_view(ops, attempt(f"VM {request.vm!r} could not be renamed", once))


def vm_tags(ops: Ops, request: VmTags) -> VmView:
    """Add and remove tags.  Raises NotFound for a tag it does not have, InUse for a protected one."""

    def next_(vm: VmSpec) -> VmSpec:
        have = {tag.name: tag for tag in vm.tags}
        for name in request.remove:
            if name not in have:
                raise NotFound(f"VM {vm.name!r} has no tag {name!r}{did_you_mean(name, have)}")
            if have[name].protected and not request.force:
                raise InUse(f"tag {name!r} of VM {vm.name!r} is protected; remove it with force")
            del have[name]
        for name in request.add:
            have[name] = Tag(name=name, protected=request.protected)
        return replace(vm, tags=tags(tuple(have.values())))

    return change_vm(ops, request.vm, next_).vm


def vm_autostart(ops: Ops, request: VmAutostart) -> VmView:
    """Set or clear autostart.  Raises NotFound."""
    return change_vm(ops, request.vm, lambda vm: replace(vm, autostart=request.autostart)).vm


def _patched(ops: Ops, vm: VmSpec, patch: VmPatch) -> VmSpec:
    given = {field: value for field in patch.__struct_fields__ if (value := getattr(patch, field)) is not UNSET}
    if "memory" in given:
        given["memory_mib"] = memory_mib(given.pop("memory"))
    if "disks" in given:
        given["disks"] = disks(given["disks"])
    if "nics" in given:
        given["nics"] = nics(_keep_macs(given["nics"], vm), free_macs(ops))
    return replace(vm, **given)


def _redefined(ops: Ops, vm: VmSpec, definition: VmDefine) -> VmSpec:
    if definition.name != vm.name:
        raise InvalidRequest(f"the definition names {definition.name!r}, not {vm.name!r}: rename a VM with 'vm rename'")
    if definition.id and definition.id.lower() != vm.id:
        raise InvalidRequest(f"the definition has id {definition.id}, VM {vm.name!r} has {vm.id}: an id never changes")
    if definition.node not in (None, vm.node):
        raise InvalidRequest(
            f"the definition places VM {vm.name!r} on {definition.node}, it is placed on {vm.node or 'no node'}: move it "
            "with 'vm move'"
        )
    new_tags = tags(definition.tags)
    removed = {tag.name for tag in vm.tags if tag.protected} - {tag.name for tag in new_tags}
    if removed:
        raise InUse(
            f"the definition leaves out protected tags of VM {vm.name!r} ({', '.join(sorted(removed))}): remove them first"
        )
    kept = replace(definition, nics=_keep_macs(definition.nics, vm))
    return replace(vm, tags=new_tags, **spec_fields(kept, free_macs(ops)))


def _keep_macs(definitions: tuple[NicDefinition, ...], vm: VmSpec) -> tuple[NicDefinition, ...]:
    """Give NICs without a MAC address that of a NIC the VM has in the same network, so that it does not change."""
    named = {nic.mac.lower() for nic in definitions if nic.mac}
    free = [nic for nic in vm.nics if nic.mac not in named]
    result: list[NicDefinition] = []
    for nic in definitions:
        match = next((have for have in free if not nic.mac and have.network == nic.network), None)
        if match is not None:
            free.remove(match)
            result.append(replace(nic, mac=match.mac))
        else:
            result.append(nic)
    return tuple(result)
