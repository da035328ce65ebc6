"""Backup of the state tree to a file, and restore."""

from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View


class ClusterBackup(Request, frozen=True, kw_only=True):
    """Write the state tree to a new file on this machine."""

    path: str
    overwrite: bool = False


class ClusterRestore(Request, frozen=True, kw_only=True):
    """Replace the state tree by that of a file."""

    path: str
    force: bool = False
    """Also over a cluster that has nodes alive or VMs defined."""


class BackupView(View, frozen=True, kw_only=True):
    """What the file holds."""

    path: str
    cluster: str
    documents: int
    bytes: int
    created: float = 0.0


def cluster_backup(ops: Ops, request: ClusterBackup) -> BackupView:
    """Back the state tree up.  Leases, which end with their sessions, are left out.  Raises AlreadyExists."""
    raise NotImplementedError


def cluster_restore(ops: Ops, request: ClusterRestore) -> BackupView:
    """Restore a state tree.  Raises InUse over a live cluster without ``force``, InvalidRequest for another file."""
    raise NotImplementedError
