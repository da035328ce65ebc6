"""Volumes from and to image files: tasks of one node."""

from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request


class VolumeImport(Request, frozen=True, kw_only=True):
    """Make a volume from an image file on a node."""

    pool: str
    name: str
    path: str
    """Absolute path on the node."""
    format: str = "raw"
    node: str | None = None
    """Node that has the file; None: any with the pool's driver (the file is on all)."""
    description: str = ""


class VolumeExport(Request, frozen=True, kw_only=True):
    """Write a volume to a new image file on a node."""

    volume: str
    path: str
    format: str = "raw"
    snapshot: str = ""
    node: str | None = None


def volume_import(ops: Ops, request: VolumeImport) -> Task:
    """Begin an import: task ``volume.import``.  Raises NotFound, AlreadyExists, InvalidRequest, NoNodeFits."""
    raise NotImplementedError


def volume_export(ops: Ops, request: VolumeExport) -> Task:
    """Begin an export: task ``volume.export``.  Raises NotFound, InvalidRequest, InUse (it is in use and no snapshot is given)."""
    raise NotImplementedError
