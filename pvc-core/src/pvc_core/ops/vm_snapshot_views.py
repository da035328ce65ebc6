"""Snapshots of VMs as people and scripts see them."""

from collections.abc import Mapping

from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.model.vm_snapshot import VmSnapshot, VmSnapshotState
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.vm_definition import VmDefine, definition_of
from pvc_core.ops.vm_snapshot import VmSnapshotQuery
from pvc_core.ops.vm_snapshot_documents import all_snapshots, find, snapshots_of
from pvc_core.ops.vm_snapshot_places import Members
from pvc_core.store import keys
from pvc_core.store.documents import read_many

FAILED = "failed"
"""State of a snapshot whose task ended before it was complete, renamed or gone."""


class VmSnapshotView(View, frozen=True, kw_only=True):
    """A snapshot of a VM in a list."""

    id: str
    name: str
    vm: str
    """Name of the VM."""
    state: str
    """complete; creating, renaming, deleting; failed: that was not finished."""
    consistency: str = ""
    """filesystem, crash or offline; empty until it is complete."""
    created: float = 0.0
    """Seconds since the epoch."""
    disks: tuple[str, ...] = ()
    """Its volumes as they were called then, as ``pool/volume``."""
    size_bytes: int = 0
    """Size of all disks together."""
    description: str = ""
    task: str = ""
    """The task that works on it, or did last."""
    reason: str = ""
    """Why it failed."""


class SnapshotDiskView(View, frozen=True, kw_only=True):
    """One disk of a snapshot, and what is there of it now."""

    volume: str
    """``pool/volume`` as it is called now."""
    then: str
    """As it was called then."""
    size_bytes: int
    state: str
    """present, missing (the volume has no such snapshot), gone (there is no such volume)."""
    protected: bool = False
    attached: bool = False
    """It is a disk of the VM now."""


class VmSnapshotInfo(View, frozen=True, kw_only=True):
    """Everything about one snapshot."""

    view: VmSnapshotView
    disks: tuple[SnapshotDiskView, ...]
    definition: VmDefine
    """The VM as it was defined then."""


class VmSnapshotList(Request, frozen=True, kw_only=True):
    """Whose snapshots to list."""

    vm: str = ""
    """Empty: of all VMs."""


def vm_snapshot_list(ops: Ops, request: VmSnapshotList) -> list[VmSnapshotView]:
    """List the snapshots of a VM, or of all: by VM, the oldest first.  Raises NotFound (VM)."""
    if request.vm:
        vm = resolve.vm(ops, request.vm).value
        found, names = snapshots_of(ops.store, vm.id), {vm.id: vm.name}
    else:
        found = all_snapshots(ops.store)
        wanted = [keys.vm_spec(id_) for id_ in sorted({entry.value.vm for entry in found})]
        names = {entry.value.id: entry.value.name for entry in read_many(ops.store, wanted) if entry is not None}
    snapshots = [entry.value for entry in found]
    tasks = _tasks(ops, snapshots)
    views = [_view(snapshot, names.get(snapshot.vm, snapshot.vm), tasks) for snapshot in snapshots]
    return sorted(views, key=lambda view: (view.vm, view.created, view.name))


def vm_snapshot_info(ops: Ops, request: VmSnapshotQuery) -> VmSnapshotInfo:
    """Return one snapshot, and what is there of it now.  Raises NotFound."""
    vm = resolve.vm(ops, request.vm).value
    snapshot = find(ops, vm, request.snapshot).value
    members = Members(ops, snapshot.disks)
    disks: list[SnapshotDiskView] = []
    for disk in snapshot.disks:
        status = members.statuses.get(disk.volume)
        kept = [s for s in status.snapshots if s.name in (snapshot.name, *snapshot.names)] if status is not None else []
        state = "gone" if disk.volume not in members.specs else "present" if kept else "missing"
        disks.append(
            SnapshotDiskView(
                volume=members.path(disk),
                then=disk.path,
                size_bytes=disk.size_bytes,
                state=state,
                protected=any(s.protected for s in kept),
                attached=members.holders.get(disk.volume) == vm.id,
            )
        )
    return VmSnapshotInfo(
        view=_view(snapshot, vm.name, _tasks(ops, [snapshot])),
        disks=tuple(disks),
        definition=definition_of(snapshot.definition),
    )


def _tasks(ops: Ops, snapshots: list[VmSnapshot]) -> dict[str, Task]:
    """Return the tasks of those that are not complete."""
    ids = sorted({s.task for s in snapshots if s.task and s.state is not VmSnapshotState.COMPLETE})
    return {e.value.id: e.value for e in read_many(ops.store, [keys.task(id_) for id_ in ids]) if e is not None}


def _view(snapshot: VmSnapshot, vm: str, tasks: Mapping[str, Task]) -> VmSnapshotView:
    task = tasks.get(snapshot.task)
    ended = snapshot.state is not VmSnapshotState.COMPLETE and (task is None or task.state in FINAL)
    reason = ""
    if ended:
        said = task.error if task is not None and task.state is not TaskState.DONE else ""
        reason = f"{snapshot.state.value} it was not finished" + (f": {said}" if said else "")
    return VmSnapshotView(
        id=snapshot.id,
        name=snapshot.name,
        vm=vm,
        state=FAILED if ended else snapshot.state.value,
        consistency=snapshot.consistency.value if snapshot.consistency is not None else "",
        created=snapshot.created,
        disks=tuple(disk.path for disk in snapshot.disks),
        size_bytes=sum(disk.size_bytes for disk in snapshot.disks),
        description=snapshot.description,
        task=snapshot.task,
        reason=reason,
    )
