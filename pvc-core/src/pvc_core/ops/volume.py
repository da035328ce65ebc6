"""Volumes: list, info, add, clone, resize, rename, remove."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.errors import AlreadyExists, InUse, InvalidRequest
from pvc_core.model.names import check_name
from pvc_core.model.storage import PoolSpec, Snapshot, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.units import format_bytes, parse_bytes
from pvc_core.model.vm import removed_disks
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.pool import read_pools
from pvc_core.ops.pool_space import require_space
from pvc_core.ops.removal import volume_operations
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_resources import vm_name
from pvc_core.ops.vm_snapshot_documents import members_of
from pvc_core.ops.vm_write import changed
from pvc_core.ops.volume_documents import VolumeDocuments, choose_volume_node, new_volume, read_volume
from pvc_core.plan.pool_space import Wanted
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Create, Delete, Operation
from pvc_core.store.documents import read, read_many

log = logging.getLogger(__name__)


class VolumeView(View, frozen=True, kw_only=True):
    """A volume."""

    id: str
    name: str
    pool: str
    """The pool's name."""
    generation: int
    settled: bool
    """Its node has seen the last change."""
    state: str
    """A VolumeState."""
    size_bytes: int
    """As specified, or what it has where that is more."""
    used_bytes: int = 0
    format: str = ""
    vm: str | None = None
    """Name of the VM it belongs to."""
    source: str = ""
    description: str = ""
    node: str | None = None
    """The node that carries out changes."""
    task: str = ""
    """Task that makes its contents (an import)."""
    snapshots: tuple[Snapshot, ...] = ()
    conditions: tuple[Condition, ...] = ()
    deleting: bool = False


class VolumeAdd(Request, frozen=True, kw_only=True):
    """Add an empty volume."""

    pool: str
    name: str
    size: int | str
    """Bytes, or a size such as ``10G``."""
    format: str = ""
    """raw, qcow2, ...; empty: the driver's default."""
    description: str = ""
    force: bool = False
    """Also when the pool would be promised beyond its limit."""


class VolumeClone(Request, frozen=True, kw_only=True):
    """Make a volume with the contents of another one of the same pool."""

    pool: str
    source: str
    """``volume`` or ``volume@snapshot``."""
    name: str
    full_copy: bool = False
    """Copy all blocks instead of sharing them."""
    description: str = ""
    force: bool = False
    """Also when the pool would be promised beyond its limit."""


class VolumeQuery(Request, frozen=True, kw_only=True):
    """One volume."""

    volume: str
    """``pool/volume`` or its id."""


class VolumeResize(Request, frozen=True, kw_only=True):
    """Grow a volume."""

    volume: str
    size: int | str
    """The new size in all: bytes, or a size such as ``10G``."""
    force: bool = False
    """Also when the pool would be promised beyond its limit."""


class VolumeRename(Request, frozen=True, kw_only=True):
    """Rename a volume within its pool."""

    volume: str
    name: str
    """The new name, without the pool."""


class VolumeList(Request, frozen=True, kw_only=True):
    """Which volumes to list."""

    pool: str = ""
    name: str = ""
    """Regular expression found anywhere in the name."""
    vm: str = ""


def volume_add(ops: Ops, request: VolumeAdd) -> VolumeView:
    """Add a volume.

    Raises NotFound (pool), InvalidRequest, AlreadyExists, NoNodeFits (no node with the driver), NoSpace.
    """
    size = parse_bytes(request.size)
    if size < 1:
        raise InvalidRequest(f"size {request.size!r} is too small for a volume")

    def new(pool: PoolSpec) -> _New:
        spec = VolumeSpec(
            id=id_,
            name=request.name,
            pool=pool.id,
            size_bytes=size,
            format=request.format,
            description=request.description,
        )
        return _New(spec, need_bytes=size)

    id_ = ops.new_id()
    return _add(ops, request.pool, request.name, new, force=request.force)


def volume_clone(ops: Ops, request: VolumeClone) -> VolumeView:
    """Clone a volume.

    Raises NotFound (pool, source, snapshot), AlreadyExists, InUse when the source is in use and no snapshot is given,
    NoSpace.
    """
    source_name, _, snapshot = request.source.partition("@")
    id_ = ops.new_id()

    def new(pool: PoolSpec) -> _New:
        source = read_volume(ops, f"{pool.name}/{source_name}")
        if snapshot:
            source.snapshot(snapshot)
        else:
            source.require_unused("make a snapshot of it and clone that")
        spec = VolumeSpec(
            id=id_,
            name=request.name,
            pool=pool.id,
            size_bytes=source.size_bytes,
            source=request.source,
            full_copy=request.full_copy,
            description=request.description,
        )
        # A clone that shares its blocks takes nothing now; but guests may write all of it, so its whole size is promised.
        return _New(spec, need_bytes=_data(source, snapshot) if request.full_copy else 0)

    return _add(ops, request.pool, request.name, new, force=request.force)


def volume_resize(ops: Ops, request: VolumeResize) -> VolumeView:
    """Grow a volume.  Raises NotFound, InvalidRequest when it would shrink, NoSpace."""
    size = parse_bytes(request.size)

    def once() -> VolumeSpec:
        volume = read_volume(ops, request.volume)
        if size < volume.size_bytes:
            raise InvalidRequest(
                f"volume {volume.path} has {format_bytes(volume.size_bytes)}; it cannot shrink to {format_bytes(size)}"
            )
        if size == volume.spec.size_bytes:
            return volume.spec
        growth = size - volume.size_bytes
        wanted = Wanted(
            f"volume {volume.path} of {format_bytes(size)} instead of {format_bytes(volume.size_bytes)}", growth, growth
        )
        room = require_space(ops.store, volume.pool, wanted, force=request.force)
        new = replace(volume.spec, size_bytes=size, generation=volume.spec.generation + 1)
        ops.store.commit(volume.entry.put(new), *room)
        log.info("volume-resized volume=%s size=%d", new.id, size)
        return new

    return volume_view(ops, attempt(f"volume {request.volume!r} could not be resized", once))


def volume_rename(ops: Ops, request: VolumeRename) -> VolumeView:
    """Rename a volume, and in the definition of its VM too, in one transaction.

    Raises NotFound, AlreadyExists, InUse while its VM is not stopped.
    """
    name = check_name(request.name, "volume name")

    def once() -> VolumeSpec:
        volume = read_volume(ops, request.volume)
        old = volume.spec
        if old.name == name:
            return old
        index = keys.volume_name(volume.pool.name, name)
        taken = ops.store.get(index)
        if taken is not None and taken.value.decode() != old.id:
            raise AlreadyExists(f"there is a volume {volume.pool.name}/{name} already")
        new = replace(old, name=name, generation=old.generation + 1)
        unused = volume.require_unused("shut it down first")
        ops.store.commit(
            volume.entry.put(new),
            *([] if taken is not None else [Create(index, old.id.encode())]),
            *_old_name(ops, volume),
            *unused,
            *_in_vm(volume, name),
        )
        log.info("volume-renamed volume=%s old=%s new=%s", new.id, old.name, name)
        return new

    return volume_view(ops, attempt(f"volume {request.volume!r} could not be renamed", once))


def volume_remove(ops: Ops, request: VolumeQuery) -> VolumeView:
    """Delete a volume with its contents and snapshots.

    Raises NotFound, InUse when it belongs to a VM, or to a snapshot of a whole VM.
    """

    def once() -> VolumeSpec:
        volume = read_volume(ops, request.volume, deleting=True)
        if volume.spec.deleting:
            return volume.spec
        if volume.holder:
            raise InUse(_is_a_disk(ops, volume))
        members = members_of(ops.store, volume.spec.id)
        if members:
            vm = vm_name(ops, members[0].value.vm)
            raise InUse(
                f"volume {volume.path} is part of snapshot {members[0].value.name!r} of VM {vm!r}: delete that first"
            )
        new = replace(volume.spec, deleting=True, generation=volume.spec.generation + 1)
        # Without the second node no VM can take it any more; deleting it fails when one has.
        ops.store.commit(volume.entry.put(new), Delete(keys.ref("volume", new.id)))
        log.info("volume-remove volume=%s name=%s", new.id, volume.path)
        return new

    return volume_view(ops, attempt(f"volume {request.volume!r} could not be removed", once))


def _is_a_disk(ops: Ops, volume: VolumeDocuments) -> str:
    name = vm_name(ops, volume.holder)
    if volume.vm is not None and volume.path in removed_disks(volume.vm.spec):
        return (
            f"volume {volume.path} is being taken from VM {name!r}, whose guest has not let go of it yet: look at "
            f"'pvc vm info {name}'"
        )
    return f"volume {volume.path} is a disk of VM {name!r}: take it from the VM first"


def volume_list(ops: Ops, request: VolumeList) -> list[VolumeView]:
    """List volumes, sorted by pool and name.  Raises NotFound (pool, vm), InvalidRequest."""
    name = resolve.pattern(request.name)
    pool = resolve.pool(ops, request.pool).value.id if request.pool else ""
    vm = resolve.vm(ops, request.vm).value.name if request.vm else ""
    wanted = [keys.volume_spec(id_) for id_ in ops.store.children(f"{keys.SPEC}/volume")]
    specs = [entry.value for entry in read_many(ops.store, wanted) if entry is not None]
    specs = [spec for spec in specs if pool in ("", spec.pool) and name.search(spec.name)]
    views = [view for view in _views(ops, specs) if vm in ("", view.vm)]
    return sorted(views, key=lambda view: (view.pool, view.name))


def volume_info(ops: Ops, request: VolumeQuery) -> VolumeView:
    """Return one volume.  Raises NotFound."""
    return volume_view(ops, resolve.volume(ops, request.volume).value)


def volume_view(ops: Ops, spec: VolumeSpec) -> VolumeView:
    """Return one volume whose spec was read."""
    return _views(ops, [spec])[0]


def volume_forget(ops: Ops, volume: str, guard: tuple[Operation, ...] = ()) -> bool:
    """Remove the documents of a volume (id) that is being deleted; called by its node when the backend's is gone.

    Returns False, with nothing changed, when it is not being deleted; True when it is gone.  Raises TransactionFailed
    when it changed meanwhile.
    """
    entry = read(ops.store, keys.volume_spec(volume))
    if entry is None:
        return True
    if not entry.value.deleting:
        return False
    ops.store.commit(*volume_operations(ops.store, entry, read(ops.store, keys.volume_status(volume))), *guard)
    return True


def _old_name(ops: Ops, volume: VolumeDocuments) -> list[Operation]:
    """Free the old name unless the backend still has the volume under it.

    Then its node frees it when the backend's rename is done: another volume of that name would be taken for this one.
    """
    old, key = volume.spec, keys.volume_status(volume.spec.id)
    status = read(ops.store, key)
    free = Delete(keys.volume_name(volume.pool.name, old.name))
    if status is None:
        return [CheckAbsent(key.path), free]
    return [Check(key.path, status.version), *([] if status.value.name == old.name else [free])]


def _in_vm(volume: VolumeDocuments, name: str) -> list[Operation]:
    if volume.vm is None:
        return []
    spec = volume.vm.spec
    disks = tuple(
        replace(disk, volume=name) if (disk.pool, disk.volume) == (volume.pool.name, volume.spec.name) else disk
        for disk in spec.disks
    )
    return volume.vm.write(changed(spec, disks=disks))


class _New(NamedTuple):
    spec: VolumeSpec
    need_bytes: int
    """What must be free in the pool now."""


def _data(source: VolumeDocuments, snapshot: str) -> int:
    """Return how many bytes a full copy writes at most.

    What the source itself takes is all of its data only when it shares none with another; what a snapshot holds is not known.
    """
    shares = bool(source.spec.source) and not source.spec.full_copy
    known = source.status.size_bytes > 0 and not shares and not snapshot
    return min(source.status.used_bytes, source.size_bytes) if known else source.size_bytes


def _add(ops: Ops, pool_name: str, name: str, new: Callable[[PoolSpec], _New], *, force: bool) -> VolumeView:
    check_name(name, "volume name")

    def once() -> VolumeSpec:
        pool = resolve.pool(ops, pool_name)
        made, need = new(pool.value)
        spec = replace(made, node=choose_volume_node(ops, pool.value.driver))
        documents = new_volume(ops, pool, spec)
        what = f"volume {pool.value.name}/{name} of {format_bytes(spec.size_bytes)}"
        room = require_space(ops.store, pool.value, Wanted(what, need, spec.size_bytes), force=force)
        ops.store.commit(*documents, *room)
        return spec

    spec = attempt(f"volume {pool_name}/{name} could not be added", once)
    log.info("volume-added volume=%s name=%s/%s size=%d node=%s", spec.id, pool_name, name, spec.size_bytes, spec.node)
    return volume_view(ops, spec)


def _views(ops: Ops, specs: list[VolumeSpec]) -> list[VolumeView]:
    pools = {pool.id: pool.name for pool in read_pools(ops)}
    statuses = read_many(ops.store, [keys.volume_status(spec.id) for spec in specs])
    holders = ops.store.get_many([keys.volume_holder(spec.id) for spec in specs])
    ids = sorted({node.value.decode() for node in holders if node is not None})
    vms = {
        id_: entry.value.name
        for id_, entry in zip(ids, read_many(ops.store, [keys.vm_spec(id_) for id_ in ids]), strict=True)
        if entry is not None
    }
    return [
        _view(
            spec,
            entry.value if entry is not None else VolumeStatus(id=spec.id),
            pools.get(spec.pool, spec.pool),
            vms.get(node.value.decode()) if node is not None else None,
        )
        for spec, entry, node in zip(specs, statuses, holders, strict=True)
    ]


def _view(spec: VolumeSpec, status: VolumeStatus, pool: str, vm: str | None) -> VolumeView:
    return VolumeView(
        id=spec.id,
        name=spec.name,
        pool=pool,
        generation=spec.generation,
        settled=status.observed_generation >= spec.generation,
        state=(VolumeState.DELETING if spec.deleting else status.state).value,
        size_bytes=max(spec.size_bytes, status.size_bytes),
        used_bytes=status.used_bytes,
        format=status.format or spec.format,
        vm=vm,
        source=spec.source,
        description=spec.description,
        node=spec.node,
        task=spec.task,
        snapshots=status.snapshots,
        conditions=status.conditions,
        deleting=spec.deleting,
    )
