"""Backup of the state tree to a file on this machine, and restore."""

import os
import tempfile
from pathlib import Path

from pvc_core.model.errors import AlreadyExists, InvalidRequest, PvcError
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.store.backup import Backup, backup, read_backup
from pvc_core.store.restore import restore


class ClusterBackup(Request, frozen=True, kw_only=True):
    """Write the state tree to a new file on this machine."""

    path: str
    overwrite: bool = False


class ClusterRestore(Request, frozen=True, kw_only=True):
    """Replace the state tree by that of a file."""

    path: str
    force: bool = False
    """Also over a cluster that has nodes alive or objects in it."""


class BackupView(View, frozen=True, kw_only=True):
    """What the file holds."""

    path: str
    cluster: str
    documents: int
    bytes: int
    created: float = 0.0


def cluster_backup(ops: Ops, request: ClusterBackup) -> BackupView:
    """Back the state tree up.  Leases, which end with their sessions, are left out.

    The file appears under its name only when it is whole and on disk; its mode is 0600.  Raises AlreadyExists,
    InvalidRequest when it cannot be written.
    """
    path = Path(request.path).absolute()
    if path.exists() and not request.overwrite:
        raise AlreadyExists(f"{path} exists; give another name, or overwrite it")
    data = backup(ops.store, created=ops.wall())
    try:
        _write(path, data, overwrite=request.overwrite)
    except FileExistsError as error:
        raise AlreadyExists(f"{path} exists; give another name, or overwrite it") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}") from error
    return _view(path, read_backup(data), len(data))


def cluster_restore(ops: Ops, request: ClusterRestore) -> BackupView:
    """Restore a state tree.  Raises InUse over a live cluster without ``force``, InvalidRequest for another file."""
    path = Path(request.path).absolute()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        saved = read_backup(data)
    except PvcError as error:
        raise type(error)(f"{path}: {error}") from error
    restore(ops.store, saved, force=request.force)
    return _view(path, saved, len(data))


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # unlike a rename it fails when somebody made the file meanwhile
    finally:
        temporary.unlink(missing_ok=True)


def _view(path: Path, saved: Backup, size: int) -> BackupView:
    return BackupView(
        path=str(path),
        cluster=saved.cluster,
        documents=saved.documents(),
        bytes=size,
        created=saved.created,
    )
