"""Defining VMs."""

import logging

from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists
from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.mac import free_macs
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_checks import check_spec
from pvc_core.ops.vm_definition import VmDefine, check_id, spec_fields, tags
from pvc_core.ops.vm_placing import choose_node
from pvc_core.ops.vm_resources import check_resources, read_resources, reference_operations
from pvc_core.ops.vm_views import VmView, read_view
from pvc_core.ops.vm_write import on_node
from pvc_core.store import keys
from pvc_core.store.api import Create
from pvc_core.store.documents import create, maybe, read

log = logging.getLogger(__name__)


def vm_define(ops: Ops, request: VmDefine) -> VmView:
    """Define a VM.  It is stopped unless ``start``.

    Raises InvalidRequest (does not fit any node, malformed), NotFound (network, pool, volume, node),
    AlreadyExists (name, id, MAC address), InUse (volume of another VM), NoNodeFits (with ``start``).
    """
    id_ = check_id(request.id) if request.id else ops.new_id()
    spec = attempt(f"VM {request.name!r} could not be defined", lambda: _define(ops, request, id_))
    log.info("vm-defined vm=%s name=%s node=%s power=%s", spec.id, spec.name, spec.node, spec.power)
    return read_view(ops, spec)


def _define(ops: Ops, request: VmDefine, id_: str) -> VmSpec:
    fields = spec_fields(request, free_macs(ops))
    vm = VmSpec(id=id_, tags=tags(request.tags), node=request.node, **fields)
    _check_free(ops, vm)
    check_spec(ops, vm)
    resources = read_resources(ops, vm)
    check_resources(ops, vm, resources)
    if request.start:
        chosen = choose_node(ops, vm, resources.capabilities(vm), wanted=request.node)
        vm = replace(vm, node=chosen.node, power="running")
    ops.store.commit(
        create(keys.vm_spec(id_), vm),
        Create(keys.name("vm", vm.name), id_.encode()),
        *reference_operations(vm, None, resources),
        *on_node(vm.node),
    )
    return vm


def _check_free(ops: Ops, vm: VmSpec) -> None:
    by_name, by_id = ops.store.get_many([keys.name("vm", vm.name), keys.vm_spec(vm.id).path])
    same_id = maybe(keys.vm_spec(vm.id), by_id)
    if same_id is not None:
        raise AlreadyExists(f"VM {same_id.value.name!r} has the id {vm.id}; leave the id out to get a new one")
    if by_name is not None:
        other = read(ops.store, keys.vm_spec(by_name.value.decode()))
        if other is not None and other.value.deleting:
            raise AlreadyExists(f"VM {vm.name!r} is still being removed; repeat when it is gone")
        raise AlreadyExists(f"there is a VM named {vm.name!r} already; names are unique in the cluster")
