"""Snapshots of volumes.  A snapshot is made, changed and deleted by a task; the volume's status lists them."""

from pvc_core.model.storage import Snapshot
from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request


class SnapshotQuery(Request, frozen=True, kw_only=True):
    """One snapshot."""

    volume: str
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
    raise NotImplementedError


def snapshot_delete(ops: Ops, request: SnapshotQuery) -> Task:
    """Begin task ``snapshot.delete``.  Raises NotFound, InUse when it is protected."""
    raise NotImplementedError


def snapshot_rename(ops: Ops, request: SnapshotRename) -> Task:
    """Begin task ``snapshot.rename``.  Raises NotFound, AlreadyExists."""
    raise NotImplementedError


def snapshot_protect(ops: Ops, request: SnapshotProtect) -> Task:
    """Begin task ``snapshot.protect``.  Raises NotFound."""
    raise NotImplementedError


def snapshot_rollback(ops: Ops, request: SnapshotQuery) -> Task:
    """Begin task ``snapshot.rollback``.  Raises NotFound, InUse while the volume's VM is not stopped."""
    raise NotImplementedError


def snapshot_list(ops: Ops, request: SnapshotList) -> list[Snapshot]:
    """List a volume's snapshots, oldest first.  Raises NotFound."""
    raise NotImplementedError
