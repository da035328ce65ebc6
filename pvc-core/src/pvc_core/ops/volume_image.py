"""Volumes from and to image files: tasks of one node.

Tasks and their arguments, for those who carry them out (``volume`` is always the volume's id):

``volume.import``  volume, path, format, force.  The volume's documents are there; its spec names the task.
``volume.export``  volume, path, format, snapshot ("": the volume itself).
"""

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.storage import VolumeSpec
from pvc_core.model.task import Task
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.pool_space import require_space
from pvc_core.ops.snapshot import read_nodes
from pvc_core.ops.task import TaskCreate, new_task, require_alive
from pvc_core.ops.transaction import attempt
from pvc_core.ops.volume_documents import VolumeDocuments, choose_volume_node, new_volume, read_volume
from pvc_core.plan.pool_space import Wanted
from pvc_core.store import keys
from pvc_core.store.api import Operation
from pvc_core.store.documents import create


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
    force: bool = False
    """Also when the pool would be promised beyond its limit."""


class VolumeExport(Request, frozen=True, kw_only=True):
    """Write a volume to a new image file on a node."""

    volume: str
    path: str
    """Absolute path on the node."""
    format: str = "raw"
    snapshot: str = ""
    node: str | None = None
    """Where the file is wanted; None: on any node with the pool's driver; the task says which."""


def volume_import(ops: Ops, request: VolumeImport) -> Task:
    """Begin an import: task ``volume.import``.

    The name is taken at once; when the task fails, the volume is FAILED and can be removed.  Its node looks how large the
    image is, so here only a pool that is at its limit already refuses.  Raises NotFound, AlreadyExists, InvalidRequest,
    NoNodeFits, NoSpace.
    """
    _check_path(request.path)
    id_ = ops.new_id()

    def once() -> Task:
        task, operations = _new_import(ops, request, id_, 1)
        ops.store.commit(*operations)
        return task

    return attempt(f"volume {request.pool}/{request.name} could not be imported", once)


def volume_import_node(ops: Ops, request: VolumeImport, size_bytes: int) -> str:
    """Return the node to which a file of this size is to be sent for an import; its path is not known yet.

    Raises what the import would raise now.
    """
    return _new_import(ops, request, ops.new_id(), size_bytes)[0].node


def _new_import(ops: Ops, request: VolumeImport, id_: str, size_bytes: int) -> tuple[Task, list[Operation]]:
    """Return a task that imports at least so many bytes, and what brings it and its volume about."""
    pool = resolve.pool(ops, request.pool)
    node = _node(ops, request.node, pool.value.driver)
    task = new_task(
        ops,
        TaskCreate(
            kind="volume.import",
            node=node,
            arguments={"volume": id_, "path": request.path, "format": request.format, "force": request.force},
            subject=f"volume {pool.value.name}/{request.name}",
        ),
    )
    spec = VolumeSpec(
        id=id_,
        name=request.name,
        pool=pool.value.id,
        size_bytes=0,
        task=task.id,
        description=request.description,
        node=node,
    )
    documents = new_volume(ops, pool, spec)
    wanted = Wanted(f"volume {pool.value.name}/{request.name}", size_bytes, size_bytes)
    room = require_space(ops.store, pool.value, wanted, force=request.force)
    return task, [create(keys.task(task.id), task), *documents, *room]


def volume_export(ops: Ops, request: VolumeExport) -> Task:
    """Begin an export: task ``volume.export``.

    Raises NotFound, InvalidRequest, NoNodeFits, InUse (its VM runs and no snapshot is given).
    """
    _check_path(request.path)

    def once() -> Task:
        volume = read_volume(ops, request.volume)
        unused = [] if _snapshot(volume, request.snapshot) else volume.require_unused("export a snapshot of it")
        task = new_task(
            ops,
            TaskCreate(
                kind="volume.export",
                node=_node(ops, request.node, volume.pool.driver),
                arguments={
                    "volume": volume.spec.id,
                    "path": request.path,
                    "format": request.format,
                    "snapshot": request.snapshot,
                },
                subject=f"volume {volume.path}" + (f"@{request.snapshot}" if request.snapshot else ""),
            ),
        )
        ops.store.commit(create(keys.task(task.id), task), *unused)
        return task

    return attempt(f"volume {request.volume!r} could not be exported", once)


def _snapshot(volume: VolumeDocuments, name: str) -> bool:
    return bool(name) and bool(volume.snapshot(name))


def _node(ops: Ops, wanted: str | None, driver: str) -> str:
    if wanted is None:
        return choose_volume_node(ops, driver)
    require_alive(ops, wanted)
    node = read_nodes(ops.store).get(wanted)
    if node is None or not node.offers(f"storage:{driver}"):
        raise InvalidRequest(f"node {wanted} has no working storage driver {driver}")
    return wanted


def _check_path(path: str) -> None:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise InvalidRequest(f"{path!r} is not the path of a file: write an absolute path as the node sees it")
