"""Snapshots of volumes.  A snapshot is made, changed and deleted by a task; the volume's status lists them.

Tasks and their arguments, for those who carry them out (``volume`` is the volume's id):

``snapshot.create``    volume, snapshot
``snapshot.delete``    volume, snapshot
``snapshot.rename``    volume, snapshot, name
``snapshot.protect``   volume, snapshot, protected
``snapshot.rollback``  volume, snapshot

The task runs where the volume is in use, else on the volume's own node, else on any with the driver: a backend
that has a volume open on one node only can change it there only.
"""

import time
from collections.abc import Callable

from pvc_core.model.errors import AlreadyExists, InUse
from pvc_core.model.names import check_name
from pvc_core.model.storage import Snapshot
from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.task import TaskCreate, begin
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_snapshot_documents import refuse_members, require_no_rollback
from pvc_core.ops.volume_documents import VolumeDocuments, choose_volume_node, read_volume
from pvc_core.store import keys
from pvc_core.store.api import Operation

Arguments = dict[str, str | int | bool | list[str] | None]


class SnapshotQuery(Request, frozen=True, kw_only=True):
    """One snapshot."""

    volume: str
    """``pool/volume`` or its id."""
    snapshot: str


class SnapshotCreate(Request, frozen=True, kw_only=True):
    """Keep a volume's contents."""

    volume: str
    snapshot: str = ""
    """Empty: a name made of the time (UTC)."""


class SnapshotRename(Request, frozen=True, kw_only=True):
    """Rename a snapshot."""

    volume: str
    snapshot: str
    name: str


class SnapshotProtect(Request, frozen=True, kw_only=True):
    """Forbid or allow deleting a snapshot."""

    volume: str
    snapshot: str
    protected: bool = True


class SnapshotList(Request, frozen=True, kw_only=True):
    """Snapshots of one volume."""

    volume: str


def snapshot_create(ops: Ops, request: SnapshotCreate) -> Task:
    """Begin task ``snapshot.create``.  Raises NotFound, AlreadyExists, InvalidRequest."""
    name = request.snapshot or time.strftime("%Y%m%d-%H%M%S", time.gmtime(ops.wall()))
    check_name(name, "snapshot name")

    def check(volume: VolumeDocuments) -> list[Operation]:
        _free(volume, name)
        _not_of_vm(ops, volume, name, "choose another name")
        return []

    return _begin(ops, "create", request.volume, {"snapshot": name}, check)


def snapshot_delete(ops: Ops, request: SnapshotQuery) -> Task:
    """Begin task ``snapshot.delete``.  Raises NotFound, InUse when it is protected, or part of a snapshot of a whole VM."""

    def check(volume: VolumeDocuments) -> list[Operation]:
        if volume.snapshot(request.snapshot).protected:
            raise InUse(f"snapshot {volume.path}@{request.snapshot} is protected: allow deleting it first")
        _not_of_vm(ops, volume, request.snapshot, "delete that with 'vm snapshot delete'")
        return []

    return _begin(ops, "delete", request.volume, {"snapshot": request.snapshot}, check)


def snapshot_rename(ops: Ops, request: SnapshotRename) -> Task:
    """Begin task ``snapshot.rename``.  Raises NotFound, AlreadyExists, InUse when it is part of a snapshot of a whole VM."""
    check_name(request.name, "snapshot name")

    def check(volume: VolumeDocuments) -> list[Operation]:
        volume.snapshot(request.snapshot)
        _free(volume, request.name)
        _not_of_vm(ops, volume, request.snapshot, "rename that with 'vm snapshot rename'")
        _not_of_vm(ops, volume, request.name, "choose another name")
        return []

    return _begin(ops, "rename", request.volume, {"snapshot": request.snapshot, "name": request.name}, check)


def snapshot_protect(ops: Ops, request: SnapshotProtect) -> Task:
    """Begin task ``snapshot.protect``.  Raises NotFound."""

    def check(volume: VolumeDocuments) -> list[Operation]:
        volume.snapshot(request.snapshot)
        return []

    arguments: Arguments = {"snapshot": request.snapshot, "protected": request.protected}
    return _begin(ops, "protect", request.volume, arguments, check)


def snapshot_rollback(ops: Ops, request: SnapshotQuery) -> Task:
    """Begin task ``snapshot.rollback``.  Raises NotFound, InUse while the volume's VM is not stopped."""

    def check(volume: VolumeDocuments) -> list[Operation]:
        volume.snapshot(request.snapshot)
        if volume.vm is not None:
            require_no_rollback(ops, volume.vm.spec)
        return volume.require_unused("shut it down first")

    return _begin(ops, "rollback", request.volume, {"snapshot": request.snapshot}, check)


def snapshot_list(ops: Ops, request: SnapshotList) -> list[Snapshot]:
    """List a volume's snapshots, oldest first.  Raises NotFound."""
    volume = read_volume(ops, request.volume, deleting=True)
    # Backends have them in the order of their making, and some of them the time in whole seconds only.
    return sorted(volume.status.snapshots, key=lambda snapshot: snapshot.created)


def _begin(
    ops: Ops,
    verb: str,
    name: str,
    arguments: Arguments,
    check: Callable[[VolumeDocuments], list[Operation]],
) -> Task:
    def once() -> Task:
        volume = read_volume(ops, name)
        conditions = check(volume)
        request = TaskCreate(
            kind=f"snapshot.{verb}",
            node=_node(ops, volume),
            arguments={"volume": volume.spec.id, **arguments},
            subject=f"snapshot {volume.path}@{arguments['snapshot']}",
        )
        return begin(ops, request, *conditions)

    return attempt(f"snapshot of {name!r}: {verb} failed", once)


def _node(ops: Ops, volume: VolumeDocuments) -> str:
    if volume.vm is not None and volume.vm.holder:
        return volume.vm.holder
    own = volume.spec.node
    if own is not None and ops.store.get(keys.lease(own).path) is not None:
        return own
    return choose_volume_node(ops, volume.pool.driver)


def _not_of_vm(ops: Ops, volume: VolumeDocuments, name: str, instead: str) -> None:
    refuse_members(ops, volume.spec.id, volume.path, name, instead)


def _free(volume: VolumeDocuments, name: str) -> None:
    if any(snapshot.name == name for snapshot in volume.status.snapshots):
        raise AlreadyExists(f"volume {volume.path} has a snapshot {name!r} already")
