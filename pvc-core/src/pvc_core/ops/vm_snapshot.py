"""Snapshots of whole VMs: create, rename, delete.

Each is a task of one node that works on the volumes; its arguments are ``vm`` and ``snapshot`` (ids), and for
``vm-snapshot.create`` also ``freeze``: ``auto``, ``always`` or ``never``.  The snapshot's document says what is to be
done, so a task that is repeated, or another one that takes over from it, knows what was asked.
"""

import logging
import time
from typing import Final

from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest
from pvc_core.model.names import check_name
from pvc_core.model.task import Task
from pvc_core.model.vm_snapshot import VmSnapshot, VmSnapshotState
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.task import TaskCreate, new_task
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_snapshot_documents import (
    find,
    names_of,
    reference_operations,
    require_no_rollback,
    require_rest,
    take_back,
)
from pvc_core.ops.vm_snapshot_places import Members, choose_node, disks_of
from pvc_core.ops.vm_write import VmDocuments, read_vm, with_documents
from pvc_core.store import keys
from pvc_core.store.api import Check, Create, Operation
from pvc_core.store.documents import Entry, create, read

log = logging.getLogger(__name__)

CREATE: Final = "vm-snapshot.create"
RENAME: Final = "vm-snapshot.rename"
DELETE: Final = "vm-snapshot.delete"


class VmSnapshotCreate(Request, frozen=True, kw_only=True):
    """Keep the contents of all disks of a VM, of one instant."""

    vm: str
    snapshot: str = ""
    """Empty: a name made of the time (UTC)."""
    freeze: bool | None = None
    """Have the guest agent freeze the file systems: None: when it answers; True: or fail; False: no."""
    description: str = ""


class VmSnapshotQuery(Request, frozen=True, kw_only=True):
    """One snapshot of a VM."""

    vm: str
    snapshot: str


class VmSnapshotRename(Request, frozen=True, kw_only=True):
    """Rename a snapshot of a VM."""

    vm: str
    snapshot: str
    name: str


def vm_snapshot_create(ops: Ops, request: VmSnapshotCreate) -> Task:
    """Begin task ``vm-snapshot.create``.

    Raises NotFound, InvalidRequest (no disks; no snapshots in a pool; freeze without a guest agent), AlreadyExists,
    Conflict (moving, a volume is not ready), InUse (being rolled back), NoNodeFits.
    """
    name = request.snapshot or time.strftime("%Y%m%d-%H%M%S", time.gmtime(ops.wall()))
    check_name(name, "snapshot name")

    def once() -> Task:
        vm = read_vm(ops, request.vm)
        require_no_rollback(ops, vm.spec)
        if request.freeze and not vm.spec.guest_agent:
            raise InvalidRequest(f"VM {vm.spec.name!r} is defined without a guest agent: nothing can freeze it")
        disks = disks_of(ops, vm)
        members = Members(ops, disks)
        old = _abandoned(ops, vm, name)
        if old is None:
            members.require_free(disks, name)
        elif [disk.volume for disk in old.value.disks] != [disk.volume for disk in disks]:
            raise Conflict(
                f"an earlier try of snapshot {name!r} of VM {vm.spec.name!r} failed, and the VM had other disks: delete "
                "what is left of it first, or choose another name"
            )
        freeze = {None: "auto", True: "always", False: "never"}[request.freeze]
        task = _task(ops, CREATE, vm, members, old.value.id if old is not None else ops.new_id(), name, freeze=freeze)
        new = VmSnapshot(
            id=str(task.arguments["snapshot"]),
            vm=vm.spec.id,
            name=name,
            task=task.id,
            begun=old is not None and old.value.begun,
            names=old.value.names if old is not None else (),
            description=request.description,
            disks=disks,
            created=ops.wall(),
            definition=vm.spec,
        )
        written: list[Operation] = [old.put(new)] if old is not None else []
        if old is None:
            written = [create(keys.vm_snapshot(new.id), new), *reference_operations(new)]
        # The VM's version moves, so that its removal at the same moment does not overlook the snapshot.
        ops.store.commit(create(keys.task(task.id), task), *written, vm.entry.put(vm.spec))
        return _told(task)

    return attempt(f"snapshot {name!r} of VM {request.vm!r} could not be begun", once)


def vm_snapshot_rename(ops: Ops, request: VmSnapshotRename) -> Task:
    """Begin task ``vm-snapshot.rename``, or go on with one that failed.  Raises NotFound, AlreadyExists, Conflict, InUse."""
    name = check_name(request.name, "snapshot name")

    def once() -> Task:
        vm, entry = _read(ops, request.vm, request.snapshot)
        old = entry.value
        if old.state is VmSnapshotState.RENAMING:
            if name not in (old.name, *old.names):
                both = " or ".join(repr(known) for known in sorted({old.name, *old.names}))
                raise Conflict(f"renaming snapshot {old.name!r} was not finished: finish it, by renaming it to {both}")
        else:
            require_complete(old)
            if name == old.name:
                raise InvalidRequest(f"snapshot {old.name!r} of VM {vm.spec.name!r} has that name already")
            if name in names_of(ops.store, vm.spec.id):
                raise AlreadyExists(f"VM {vm.spec.name!r} has a snapshot {name!r} already")
        members = Members(ops, old.disks)
        task = _task(ops, RENAME, vm, members, old.id, old.name, new=name)
        if old.state is VmSnapshotState.RENAMING:
            new = replace(old, name=name, task=task.id)
            index: list[Operation] = []
        else:
            members.require_free(old.disks, name)
            new = replace(old, name=name, state=VmSnapshotState.RENAMING, begun=False, task=task.id)
            index = [Create(keys.vm_snapshot_name(old.vm, name), old.id.encode())]
        ops.store.commit(create(keys.task(task.id), task), entry.put(new), *index, _unchanged(vm))
        return _told(task)

    return attempt(f"snapshot {request.snapshot!r} of VM {request.vm!r} could not be renamed", once)


def vm_snapshot_delete(ops: Ops, request: VmSnapshotQuery) -> Task:
    """Begin task ``vm-snapshot.delete``, also of what a failed task left.

    Raises NotFound, Conflict (a task works on it), InUse (a member is protected; it is being rolled back to).
    """

    def once() -> Task:
        vm, entry = _read(ops, request.vm, request.snapshot)
        return begin_deletion(ops, vm, entry)

    return attempt(f"snapshot {request.snapshot!r} of VM {request.vm!r} could not be deleted", once)


def begin_deletion(ops: Ops, vm: VmDocuments, entry: Entry[VmSnapshot], *guard: Operation) -> Task:
    """Begin task ``vm-snapshot.delete``; once, see ``attempt``.  Raises InUse, and what ``choose_node`` does."""
    old = entry.value
    members = Members(ops, old.disks)
    if old.state is VmSnapshotState.COMPLETE:
        _refuse_protected(members, old)
    task = _task(ops, DELETE, vm, members, old.id, old.name)
    # What was not completed cannot become so any more: whatever there is of it goes.
    begun = old.begun if old.state in (VmSnapshotState.COMPLETE, VmSnapshotState.DELETING) else True
    new = replace(old, state=VmSnapshotState.DELETING, begun=begun, task=task.id)
    ops.store.commit(create(keys.task(task.id), task), entry.put(new), _unchanged(vm), *guard)
    return _told(task)


def finish(ops: Ops, snapshot: VmSnapshot, *guard: Operation) -> Task | None:
    """Begin a task for a snapshot whose own did not come to its end; None when there is nothing to do.

    Called by the primary.  What was not completed is deleted, what was being renamed is; a deletion or renaming that had
    not begun, as when it was cancelled before, is taken back.  Raises TransactionFailed when something changed meanwhile,
    NoNodeFits.
    """
    entry = read(ops.store, keys.vm_snapshot(snapshot.id))
    owner = read(ops.store, keys.vm_spec(snapshot.vm))
    if entry is None or entry.value != snapshot or owner is None or owner.value.deleting:
        return None
    if take_back(ops, entry, *guard) is not entry:
        return None
    vm = with_documents(ops, owner)
    if snapshot.state is not VmSnapshotState.RENAMING:
        return begin_deletion(ops, vm, entry, *guard)
    task = _task(ops, RENAME, vm, Members(ops, snapshot.disks), snapshot.id, snapshot.name, new=snapshot.name)
    ops.store.commit(
        create(keys.task(task.id), task), entry.put(replace(snapshot, task=task.id)), _unchanged(vm), *guard
    )
    return _told(task)


def _read(ops: Ops, name: str, snapshot: str) -> tuple[VmDocuments, Entry[VmSnapshot]]:
    """Read a snapshot that nothing works on; raises NotFound, Conflict, InUse."""
    vm = with_documents(ops, resolve.vm(ops, name))
    entry = find(ops, vm.spec, snapshot)
    require_rest(ops, entry.value)
    entry = take_back(ops, entry)
    if vm.spec.rollback is not None and vm.spec.rollback.snapshot == entry.value.id:
        require_no_rollback(ops, vm.spec)
    return vm, entry


def require_complete(snapshot: VmSnapshot) -> None:
    """Raise Conflict unless a snapshot is complete."""
    if snapshot.state is not VmSnapshotState.COMPLETE:
        raise Conflict(
            f"snapshot {snapshot.name!r} is not complete: {snapshot.state.value} it (task {snapshot.task}) was not "
            "finished; delete it"
        )


def _abandoned(ops: Ops, vm: VmDocuments, name: str) -> Entry[VmSnapshot] | None:
    """Return what is left of a try to make a snapshot of this name; raises AlreadyExists, Conflict when there is one."""
    id_ = names_of(ops.store, vm.spec.id).get(name)
    entry = read(ops.store, keys.vm_snapshot(id_)) if id_ is not None else None
    if entry is None:
        return None
    require_rest(ops, entry.value)
    if entry.value.state is not VmSnapshotState.CREATING:
        raise AlreadyExists(f"VM {vm.spec.name!r} has a snapshot {name!r} already")
    return entry


def _refuse_protected(members: Members, snapshot: VmSnapshot) -> None:
    for disk in snapshot.disks:
        status = members.statuses.get(disk.volume)
        kept = {s.name: s for s in status.snapshots} if status is not None else {}
        if snapshot.name in kept and kept[snapshot.name].protected:
            raise InUse(
                f"snapshot {members.path(disk)}@{snapshot.name} is protected: allow deleting it first; nothing was deleted"
            )


def _task(ops: Ops, kind: str, vm: VmDocuments, members: Members, snapshot: str, name: str, **arguments: str) -> Task:
    verb = kind.rpartition(".")[2]
    return new_task(
        ops,
        TaskCreate(
            kind=kind,
            node=choose_node(ops, vm, members, f"{verb} snapshots of its volumes"),
            arguments={"vm": vm.spec.id, "snapshot": snapshot, **arguments},
            subject=f"snapshot {name} of VM {vm.spec.name}",
        ),
    )


def _unchanged(vm: VmDocuments) -> Operation:
    """Return the check that the VM is as it was read: not removed, and not being rolled back since."""
    return Check(vm.entry.key.path, vm.entry.version)


def _told(task: Task) -> Task:
    log.info("task-created task=%s kind=%s node=%s subject=%r", task.id, task.kind, task.node, task.subject)
    return task
