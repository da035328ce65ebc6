"""Renaming and deleting snapshots of whole VMs, and rolling back to them: tasks of the node that works on the volumes.

Each looks at all volumes before it changes the first one; when something stands in the way then, it is as if it had not
been asked for.  From the first change on it only goes forward: a task that is repeated, or asked for again, finishes it.
"""

import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, Conflict, NotFound, PvcError
from pvc_core.model.storage import PoolSpec
from pvc_core.model.task import Task
from pvc_core.model.vm_snapshot import VmSnapshot, VmSnapshotState
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.vm_snapshot_members import (
    Member,
    Result,
    alone,
    begin,
    check_stop,
    find_members,
    record,
    snapshot_of,
    tell,
)
from pvc_core.ops.context import Ops
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_snapshot_documents import as_before, other_names, removal_operations
from pvc_core.ops.vm_snapshot_rollback import rollback_begin, rollback_end
from pvc_core.plugin.errors import DriverError, ObjectBusy, ObjectMissing
from pvc_core.plugin.specs.storage import Cancelled, Progress
from pvc_core.store import keys
from pvc_core.store.documents import read

log = logging.getLogger(__name__)


class ChangeVmSnapshots:
    """The runners ``delete``, ``rename`` and ``roll_back``; see ``TaskRunner``."""

    def __init__(self, context: NodeContext, ops: Ops, exclusive: Exclusive) -> None:
        self._c = context
        self._ops = ops
        self._exclusive = exclusive

    # --- delete -------------------------------------------------------------------------------------

    def delete(self, task: Task, progress: Progress) -> Result:
        """Delete the snapshots of all volumes, then the document.  Protected and cloned ones are refused."""
        if read(self._c.store, keys.vm_snapshot(str(task.arguments.get("snapshot", "")))) is None:
            return {}  # the daemon died after it had removed it
        snapshot = snapshot_of(self._c, task).value
        if snapshot.state is VmSnapshotState.COMPLETE:
            raise Conflict("the deletion was taken back when the daemon was stopped: repeat it")
        with alone(self._exclusive, [disk.volume for disk in snapshot.disks], progress):
            members, gone = find_members(self._c, snapshot.disks)
            if not snapshot.begun:
                self._or_take_back(task, lambda: self._check_deletable(snapshot, members, progress))
                snapshot = begin(self._c, task)
            missing = len(gone)
            for index, member in enumerate(members):
                check_stop(progress, index / len(members))
                missing += not self._delete_member(member, snapshot.names)
            tell(self._c, members)
            attempt(
                f"the document of snapshot {snapshot.name!r} could not be removed",
                lambda: self._c.store.commit(
                    *removal_operations(self._c.store, [snapshot_of(self._c, task)]), *self._c.lease.guard()
                ),
            )
        log.info("vm-snapshot-deleted vm=%s name=%s", snapshot.vm, snapshot.name)
        return {"disks": len(snapshot.disks), "missing": missing}

    def _check_deletable(self, snapshot: VmSnapshot, members: Sequence[Member], progress: Progress) -> None:
        parents: dict[str, dict[str, str]] = {}
        for member in members:
            check_stop(progress, 0.0)
            pool = member.ref.pool
            if pool.id not in parents:
                parents[pool.id] = _clones(member, pool)
            info = member.info()
            kept = [s for s in info.snapshots if s.name in snapshot.names] if info is not None else []
            if any(s.protected for s in kept):
                raise ObjectBusy(f"snapshot {member.path}@{snapshot.name} is protected: allow deleting it first")
            clone = parents[pool.id].get(f"{member.ref.name}@{snapshot.name}")
            if clone is not None:
                raise ObjectBusy(
                    f"snapshot {member.path}@{snapshot.name} has the clone {pool.name}/{clone}: remove that first"
                )

    def _delete_member(self, member: Member, names: Sequence[str]) -> bool:
        """Delete a volume's snapshot; return whether there was one."""
        found = member.snapshots() & frozenset(names)
        for name in sorted(found):
            try:
                member.driver.snapshot_delete(member.ref, name)
            except ObjectMissing:
                return False
        return bool(found)

    # --- rename -------------------------------------------------------------------------------------

    def rename(self, task: Task, progress: Progress) -> Result:
        """Give the snapshots of all volumes the name that the document has."""
        snapshot = snapshot_of(self._c, task).value
        new = snapshot.name
        if snapshot.state is VmSnapshotState.COMPLETE:
            if new == task.arguments.get("new"):
                return {"snapshot": new}  # the daemon died after it had said so
            raise Conflict("the renaming was taken back when the daemon was stopped: repeat it")
        with alone(self._exclusive, [disk.volume for disk in snapshot.disks], progress):
            members, gone = find_members(self._c, snapshot.disks)
            if not snapshot.begun:
                self._or_take_back(task, lambda: self._check_renamable(new, members, progress))
                snapshot = begin(self._c, task, new)
            missing = len(gone)
            for index, member in enumerate(members):
                check_stop(progress, index / len(members))
                missing += not self._rename_member(member, snapshot.names, new)
            tell(self._c, members)
            self._finish_rename(task)
        log.info("vm-snapshot-renamed vm=%s name=%s", snapshot.vm, new)
        return {"snapshot": new, "disks": len(snapshot.disks), "missing": missing}

    def _check_renamable(self, new: str, members: Sequence[Member], progress: Progress) -> None:
        for member in members:
            check_stop(progress, 0.0)
            if new in member.snapshots():
                raise AlreadyExists(f"volume {member.path} has a snapshot {new!r} of its own already")

    def _rename_member(self, member: Member, names: Sequence[str], new: str) -> bool:
        """Rename a volume's snapshot; return whether there is one."""
        found = member.snapshots()
        if new in found:
            return True
        old = next((name for name in names if name in found), None)
        if old is not None:
            member.driver.snapshot_rename(member.ref, old, new)
        return old is not None

    def _finish_rename(self, task: Task) -> None:
        record(
            self._c,
            task,
            lambda s: replace(s, state=VmSnapshotState.COMPLETE, begun=False, names=(s.name,)),
            lambda s: other_names(self._c.store, s),
        )

    # --- roll back ----------------------------------------------------------------------------------

    def roll_back(self, task: Task, progress: Progress) -> Result:
        """Give all volumes the contents of the snapshot; until that is done the VM's spec keeps it from being started."""
        id_ = str(task.arguments.get("snapshot", ""))
        entry = read(self._c.store, keys.vm_snapshot(id_)) if id_ else None
        if entry is None:
            raise NotFound("the snapshot of this task was removed")
        snapshot, guard = entry.value, self._c.lease.guard
        if snapshot.task == task.id:
            return _rolled_back(snapshot)  # the daemon died after it had said so
        with alone(self._exclusive, [disk.volume for disk in snapshot.disks], progress):
            try:
                members = self._whole(snapshot, progress)
                rollback_begin(self._ops, task, guard())
            except (PvcError, Cancelled):
                rollback_end(self._ops, task, guard(), done=False)
                raise
            for index, member in enumerate(members):
                self._roll_back_member(member, snapshot.name, _part(progress, index, len(members)))
            rollback_end(self._ops, task, guard(), done=True)
            tell(self._c, members)
        log.info("vm-rolled-back vm=%s snapshot=%s", snapshot.vm, snapshot.name)
        self._c.wake("vm", snapshot.vm, 0.0)
        return _rolled_back(snapshot)

    def _whole(self, snapshot: VmSnapshot, progress: Progress) -> list[Member]:
        """Return all volumes; raises NotFound unless each has its snapshot."""
        if snapshot.state is not VmSnapshotState.COMPLETE:
            raise Conflict(f"snapshot {snapshot.name!r} is not complete: it is {snapshot.state.value}")
        members, gone = find_members(self._c, snapshot.disks)
        missing = [f"volume {disk.path} does not exist any more" for disk in gone]
        for member in members:
            check_stop(progress, 0.0)
            if snapshot.name not in member.snapshots():
                missing.append(f"volume {member.path} has no snapshot {snapshot.name!r} any more")
        if missing:
            raise NotFound(f"snapshot {snapshot.name!r} is not complete: {'; '.join(missing)}")
        return members

    def _roll_back_member(self, member: Member, name: str, progress: Progress) -> None:
        check_stop(progress, 0.0)
        try:
            member.driver.snapshot_rollback(member.ref, name, progress)
        except DriverError as error:
            raise DriverError(
                f"volume {member.path} could not be rolled back: {error}; the VM is not started until all are: repeat it"
            ) from error

    # --- common -------------------------------------------------------------------------------------

    def _or_take_back(self, task: Task, check: Callable[[], None]) -> None:
        """Make a check; when it fails, let the snapshot be as before it was asked for, and raise."""
        try:
            check()
        except (PvcError, Cancelled):
            record(self._c, task, as_before, lambda s: other_names(self._c.store, s))
            raise


def _rolled_back(snapshot: VmSnapshot) -> Result:
    return {"snapshot": snapshot.name, "disks": len(snapshot.disks)}


def _clones(member: Member, pool: PoolSpec) -> dict[str, str]:
    """Return what volumes of a pool share blocks with -> the volume."""
    return {volume.parent: volume.name for volume in member.driver.volume_list(pool) if volume.parent}


def _part(progress: Progress, index: int, count: int) -> Progress:
    """Return the progress of one of several parts of equal weight."""
    return lambda done: progress((index + done) / count)
