"""What operations on snapshots of VMs begin with: the documents, and who works on them."""

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from pvc_core.model.errors import Conflict, InUse
from pvc_core.model.names import not_found
from pvc_core.model.task import FINAL
from pvc_core.model.vm import VmSpec
from pvc_core.model.vm_snapshot import VmSnapshot, VmSnapshotState
from pvc_core.ops.context import Ops
from pvc_core.ops.resolve import is_plain
from pvc_core.store import keys
from pvc_core.store.api import Create, Delete, Operation, Store
from pvc_core.store.documents import Entry, read, read_many

log = logging.getLogger(__name__)


def names_of(store: Store, vm: str) -> dict[str, str]:
    """Return the names of a VM's (id) snapshots, with their ids; one that is being renamed has two."""
    begin = f"{vm}:"
    names = [child for child in store.children(f"{keys.NAME}/{keys.VM_SNAPSHOT}") if child.startswith(begin)]
    nodes = store.get_many([keys.name(keys.VM_SNAPSHOT, child) for child in names])
    return {
        child.removeprefix(begin): node.value.decode()
        for child, node in zip(names, nodes, strict=True)
        if node is not None
    }


def snapshots_of(store: Store, vm: str) -> list[Entry[VmSnapshot]]:
    """Return the snapshots of a VM (id)."""
    return _existing(store, sorted(set(names_of(store, vm).values())))


def all_snapshots(store: Store) -> list[Entry[VmSnapshot]]:
    """Return the snapshots of all VMs."""
    return _existing(store, store.children(f"{keys.SPEC}/{keys.VM_SNAPSHOT}"))


def members_of(store: Store, volume: str) -> list[Entry[VmSnapshot]]:
    """Return the VMs' snapshots that a volume (id) is part of."""
    return _existing(store, [child for child in store.children(keys.ref("volume", volume)) if child != keys.HOLDER])


def find(ops: Ops, vm: VmSpec, name: str) -> Entry[VmSnapshot]:
    """Return the snapshot of a VM with this name, or the name it had before; raises NotFound."""
    index = ops.store.get(keys.vm_snapshot_name(vm.id, name)) if is_plain(name) else None
    entry = read(ops.store, keys.vm_snapshot(index.value.decode())) if index is not None else None
    if entry is None:
        raise not_found(f"snapshot of VM {vm.name!r}", name, names_of(ops.store, vm.id))
    return entry


def in_work(store: Store, task: str) -> bool:
    """Say whether a task has not come to its end."""
    entry = read(store, keys.task(task)) if task else None
    return entry is not None and entry.value.state not in FINAL


def require_rest(ops: Ops, snapshot: VmSnapshot) -> None:
    """Raise Conflict while a task works on a snapshot."""
    if in_work(ops.store, snapshot.task):
        raise Conflict(
            f"task {snapshot.task} works on snapshot {snapshot.name!r} ({snapshot.state.value}): wait for it, or cancel it"
        )


def require_no_rollback(ops: Ops, vm: VmSpec) -> None:
    """Raise InUse while the disks of a VM are, or may be, partly rolled back."""
    rollback = vm.rollback
    if rollback is None:
        return
    if in_work(ops.store, rollback.task):
        raise InUse(
            f"the disks of VM {vm.name!r} are being rolled back to snapshot {rollback.name!r} (task {rollback.task})"
        )
    if not rollback.begun:
        raise InUse(
            f"rolling VM {vm.name!r} back to snapshot {rollback.name!r} ended before it began (task {rollback.task}), and "
            "nothing was changed: do it now, or let it be with 'vm snapshot abandon'"
        )
    raise InUse(
        f"the disks of VM {vm.name!r} were not all rolled back to snapshot {rollback.name!r} (task {rollback.task}): roll "
        "it back again, to this snapshot or another one, or let that be with 'vm snapshot abandon'"
    )


def refuse_in_rollback(ops: Ops, volume: str, path: str) -> None:
    """Raise InUse while a volume (id) that is no disk of a VM is being rolled back with one that had it."""
    for entry in members_of(ops.store, volume):
        owner = read(ops.store, keys.vm_spec(entry.value.vm))
        rollback = owner.value.rollback if owner is not None else None
        if owner is None or rollback is None or rollback.snapshot != entry.value.id:
            continue
        if in_work(ops.store, rollback.task):
            raise InUse(
                f"volume {path} is being rolled back to snapshot {rollback.name!r} of VM {owner.value.name!r} (task "
                f"{rollback.task}): wait for that"
            )


def refuse_members(ops: Ops, volume: str, path: str, snapshot: str, instead: str) -> None:
    """Raise InUse when a snapshot of a volume (id) is part of a VM's snapshot."""
    for entry in members_of(ops.store, volume):
        if snapshot in (entry.value.name, *entry.value.names):
            owner = read(ops.store, keys.vm_spec(entry.value.vm))
            vm = owner.value.name if owner is not None else entry.value.vm
            raise InUse(
                f"snapshot {path}@{snapshot} is part of snapshot {entry.value.name!r} of VM {vm!r}, with those of its "
                f"other disks: {instead}"
            )


def reference_operations(snapshot: VmSnapshot) -> list[Operation]:
    """Return the operations that reserve a new snapshot's name, and its volumes."""
    return [
        Create(keys.vm_snapshot_name(snapshot.vm, snapshot.name), snapshot.id.encode()),
        *(Create(keys.volume_member(disk.volume, snapshot.id), b"") for disk in snapshot.disks),
    ]


def removal_operations(store: Store, entries: Sequence[Entry[VmSnapshot]]) -> list[Operation]:
    """Return the operations that remove the documents of snapshots of one VM, with their names and references."""
    if not entries:
        return []
    ids = {entry.value.id for entry in entries}
    vm = entries[0].value.vm
    members = [keys.volume_member(disk.volume, e.value.id) for e in entries for disk in e.value.disks]
    found = store.get_many(members)
    return [
        *(entry.delete() for entry in entries),
        *(Delete(keys.vm_snapshot_name(vm, name)) for name, id_ in names_of(store, vm).items() if id_ in ids),
        *(Delete(path) for path, node in zip(members, found, strict=True) if node is not None),
    ]


def take_back(ops: Ops, entry: Entry[VmSnapshot], *guard: Operation) -> Entry[VmSnapshot]:
    """Return a snapshot as it was before it was asked for to be deleted or renamed, when that ended before it began.

    Else as it is.  Raises TransactionFailed when something changed meanwhile.
    """
    snapshot = entry.value
    asked = snapshot.state in (VmSnapshotState.DELETING, VmSnapshotState.RENAMING)
    if not asked or snapshot.begun or in_work(ops.store, snapshot.task):
        return entry
    old = as_before(snapshot)
    ops.store.commit(entry.put(old), *other_names(ops.store, old), *guard)
    log.info("vm-snapshot-taken-back snapshot=%s was=%s task=%s", old.id, snapshot.state.value, old.task)
    return read(ops.store, keys.vm_snapshot(old.id)) or entry


def as_before(snapshot: VmSnapshot) -> VmSnapshot:
    """Return a snapshot as it was before it was asked for to be deleted or renamed."""
    name = snapshot.names[-1] if snapshot.state is VmSnapshotState.RENAMING else snapshot.name
    return replace(snapshot, state=VmSnapshotState.COMPLETE, name=name)


def other_names(store: Store, snapshot: VmSnapshot) -> list[Operation]:
    """Return the operations that free all names of a snapshot but the one it has."""
    names = names_of(store, snapshot.vm)
    return [
        Delete(keys.vm_snapshot_name(snapshot.vm, name))
        for name, id_ in names.items()
        if id_ == snapshot.id and name != snapshot.name
    ]


def _existing(store: Store, ids: Sequence[str]) -> list[Entry[VmSnapshot]]:
    return [entry for entry in read_many(store, [keys.vm_snapshot(id_) for id_ in ids]) if entry is not None]
