"""Rolling the disks of a VM back to a snapshot.

The VM's spec says that this is being done, from the request until every disk has the contents of the snapshot.  A node
takes the claim of a VM only in a transaction that checks the spec it has read, and starts none that is being rolled
back; the request is refused unless nobody holds the claim.  So a guest never sees disks of two times, whoever dies when.

The task is ``vm-snapshot.rollback``, with the arguments ``vm`` and ``snapshot`` (ids).
"""

import logging
from typing import Final

from msgspec.structs import replace

from pvc_core.model.errors import InUse, InvalidRequest, NotFound
from pvc_core.model.task import Task
from pvc_core.model.vm import Rollback, VmSpec, kept_disks, kept_nics, with_hardware
from pvc_core.model.vm_snapshot import VmSnapshot
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.task import TaskCreate, new_task
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_checks import check_spec
from pvc_core.ops.vm_resources import check_resources, read_resources, reference_operations, vm_name
from pvc_core.ops.vm_snapshot import require_complete
from pvc_core.ops.vm_snapshot_documents import find, in_work, require_no_rollback, require_rest, take_back
from pvc_core.ops.vm_snapshot_places import Members, choose_node, require_present
from pvc_core.ops.vm_views import VmQuery, VmView, read_view
from pvc_core.ops.vm_write import VmDocuments, changed, read_vm, with_documents
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Operation
from pvc_core.store.documents import create, read

log = logging.getLogger(__name__)

ROLLBACK: Final = "vm-snapshot.rollback"


class VmSnapshotRollback(Request, frozen=True, kw_only=True):
    """Give the disks of a VM the contents of a snapshot; what was written since is lost."""

    vm: str
    snapshot: str
    definition: bool = False
    """Give the VM the hardware that it had then, too."""


def vm_snapshot_rollback(ops: Ops, request: VmSnapshotRollback) -> Task:
    """Begin task ``vm-snapshot.rollback``; the hardware, where wanted, is that of the snapshot at once.

    Raises NotFound (VM, snapshot, a volume or its part of the snapshot), Conflict, InUse (the VM is not off; another VM has
    one of the volumes), what ``vm_modify`` does, NoNodeFits.
    """

    def once() -> Task:
        vm = read_vm(ops, request.vm)
        entry = find(ops, vm.spec, request.snapshot)
        require_rest(ops, entry.value)
        entry = take_back(ops, entry)
        snapshot = entry.value
        require_complete(snapshot)
        if vm.spec.rollback is not None and in_work(ops.store, vm.spec.rollback.task):
            require_no_rollback(ops, vm.spec)
        _require_off(vm)
        members = Members(ops, snapshot.disks)
        require_present(members, snapshot.disks, snapshot.name)
        holders = _holders(ops, vm.spec.id, snapshot, members)
        task = new_task(
            ops,
            TaskCreate(
                kind=ROLLBACK,
                node=choose_node(ops, vm, members, "roll its volumes back"),
                arguments={"vm": vm.spec.id, "snapshot": snapshot.id},
                subject=f"snapshot {snapshot.name} of VM {vm.spec.name}",
            ),
        )
        # Disks that an earlier one has changed stay so, whatever becomes of this one.
        begun = vm.spec.rollback is not None and vm.spec.rollback.begun
        lock = Rollback(snapshot=snapshot.id, name=snapshot.name, task=task.id, begun=begun)
        new = changed(vm.spec, rollback=lock)
        more: list[Operation] = []
        if request.definition:
            new, more = _restored(ops, vm.spec, new, snapshot, members)
        ops.store.commit(
            # First: what is restored may take volumes that nobody has.
            *holders,
            create(keys.task(task.id), task),
            *vm.write(new),
            *more,
            Check(entry.key.path, entry.version),
            vm.unclaimed(),
        )
        log.info("task-created task=%s kind=%s node=%s subject=%r", task.id, task.kind, task.node, task.subject)
        return task

    return attempt(f"rolling VM {request.vm!r} back to snapshot {request.snapshot!r} could not be begun", once)


def vm_snapshot_abandon(ops: Ops, request: VmQuery) -> VmView:
    """Let a VM be started though its disks were not all rolled back: they are of two times.

    Raises NotFound, InvalidRequest when it is not being rolled back, InUse while the task is in work.
    """

    def once() -> VmSpec:
        vm = read_vm(ops, request.vm)
        if vm.spec.rollback is None:
            raise InvalidRequest(f"VM {vm.spec.name!r} is not being rolled back: there is nothing to abandon")
        if in_work(ops.store, vm.spec.rollback.task):
            raise InUse(f"task {vm.spec.rollback.task} rolls VM {vm.spec.name!r} back: cancel it first")
        new = changed(vm.spec, rollback=None)
        ops.store.commit(*vm.write(new))
        log.warning("rollback-abandoned vm=%s snapshot=%s", new.id, vm.spec.rollback.name)
        return new

    return read_view(ops, attempt(f"the roll-back of VM {request.vm!r} could not be abandoned", once))


def rollback_begin(ops: Ops, task: Task, guard: tuple[Operation, ...]) -> VmSnapshot:
    """Record that disks are changed from now on; called by the task's node.  Returns the snapshot.

    Raises NotFound when the request was taken back, InUse when a guest may run or another VM has one of the volumes.
    """

    def once() -> VmSnapshot:
        vm, lock = _locked(ops, task)
        entry = read(ops.store, keys.vm_snapshot(lock.snapshot))
        if entry is None:
            raise NotFound(f"the snapshot of this task ({lock.name}) was removed")
        if vm.holder:
            raise InUse(f"VM {vm.spec.name!r} runs on node {vm.holder}: shut it down first")
        snapshot = entry.value
        holders = _holders(ops, vm.spec.id, snapshot, Members(ops, snapshot.disks))
        new = replace(vm.spec, rollback=replace(lock, begun=True))
        ops.store.commit(vm.entry.put(new), vm.unclaimed(), *holders, Check(entry.key.path, entry.version), *guard)
        return snapshot

    return attempt(f"the beginning of task {task.id} could not be recorded", once)


def rollback_end(ops: Ops, task: Task, guard: tuple[Operation, ...], *, done: bool) -> None:
    """Let the VM be started again; called by the task's node: when all disks are rolled back, or none was touched.

    Raises NotFound when the request was taken back.
    """

    def once() -> None:
        vm, lock = _locked(ops, task)
        entry = read(ops.store, keys.vm_snapshot(lock.snapshot))
        # So that the task knows, when it is repeated, that it was done.
        last = [entry.put(replace(entry.value, task=task.id))] if done and entry is not None else []
        if done or not lock.begun:
            ops.store.commit(*vm.write(changed(vm.spec, rollback=None)), *last, *guard)

    attempt(f"the end of task {task.id} could not be recorded", once)


def _locked(ops: Ops, task: Task) -> tuple[VmDocuments, Rollback]:
    entry = read(ops.store, keys.vm_spec(str(task.arguments.get("vm", ""))))
    lock = entry.value.rollback if entry is not None else None
    if entry is None or lock is None or lock.task != task.id:
        raise NotFound("what this task is to do was taken back: the VM was removed, or its roll-back abandoned")
    return with_documents(ops, entry), lock


def _require_off(vm: VmDocuments) -> None:
    # One that is locked already may want to run: it waits until its disks are rolled back.
    wanted = vm.spec.power == "running" and not vm.halted and vm.spec.rollback is None
    if vm.holder or wanted:
        raise InUse(f"VM {vm.spec.name!r} runs or is about to: shut it down first")


def _holders(ops: Ops, vm: str, snapshot: VmSnapshot, members: Members) -> list[Operation]:
    """Return the checks that volumes of a snapshot that nobody has as a disk stay so; raises InUse for another VM's."""
    checks: list[Operation] = []
    for disk in snapshot.disks:
        holder = members.holders.get(disk.volume)
        if holder is None:
            checks.append(CheckAbsent(keys.volume_holder(disk.volume)))
        elif holder != vm:
            raise InUse(
                f"volume {members.path(disk)} of snapshot {snapshot.name!r} is a disk of VM {vm_name(ops, holder)!r} now: "
                "take it from that VM first"
            )
    return checks


def _restored(
    ops: Ops, old: VmSpec, new: VmSpec, snapshot: VmSnapshot, members: Members
) -> tuple[VmSpec, list[Operation]]:
    """Return the VM with the hardware of the snapshot, and the operations beside that; after the checks of ``vm_modify``."""
    then = snapshot.definition
    disks = []
    for disk, member in zip(kept_disks(then), snapshot.disks, strict=True):
        # A volume may have another name by now.
        pool, _, name = members.path(member).partition("/")
        disks.append(replace(disk, pool=pool, volume=name))
    restored = with_hardware(new, replace(then, disks=tuple(disks), nics=kept_nics(then)))
    check_spec(ops, restored, old)
    resources = read_resources(ops, old, restored)
    check_resources(ops, restored, resources)
    return restored, reference_operations(restored, old, resources)
