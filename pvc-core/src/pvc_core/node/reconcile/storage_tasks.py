"""Task runners of core: images in and out, full copies, snapshots.

Each task names its volume by id (argument ``volume``), and works on it alone: nothing else of this node touches
the volume meanwhile.  When a runner returns, the volume's status says what it did, so whoever waited for the task
sees it.
"""

import logging
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.base import with_condition
from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.task import Task
from pvc_core.model.units import format_bytes
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.problems import ready
from pvc_core.node.reconcile.volume_status import observed, write_status
from pvc_core.ops.pool_space import require_space
from pvc_core.ops.transaction import attempt
from pvc_core.plan.pool_space import Wanted
from pvc_core.plugin.errors import ObjectMissing
from pvc_core.plugin.specs.lifecycle import TaskProgress, TaskRunner
from pvc_core.plugin.specs.storage import Progress, StorageDriver, VolumeRef
from pvc_core.store import keys
from pvc_core.store.documents import read

log = logging.getLogger(__name__)

Result = dict[str, str | int | float | bool | None]

_MAKES: Final = "volume.import"
"""The kind whose task makes the volume: its success makes it READY."""


class _Job(NamedTuple):
    """What a runner works with."""

    task: Task
    volume: VolumeSpec
    pool: PoolSpec
    driver: StorageDriver
    ref: VolumeRef
    """The volume under the name it has in the backend now."""
    progress: Progress
    reserve: Callable[[Wanted], None]
    """Keep room in the pool free for what the task is about to make; raises NoSpace."""


def storage_runners(
    context: NodeContext, exclusive: Exclusive, imported: Callable[[str], None]
) -> dict[str, TaskRunner]:
    """Return the runners by kind: ``volume.import``, ``volume.export``, ``snapshot.*``.

    ``imported`` is told the path of an import's file, whether that succeeded or not.
    """
    actions: dict[str, Callable[[_Job], Result]] = {
        "volume.import": _import,
        "volume.export": _export,
        "snapshot.create": _create_snapshot,
        "snapshot.delete": _delete_snapshot,
        "snapshot.rename": _rename_snapshot,
        "snapshot.protect": _protect_snapshot,
        "snapshot.rollback": _roll_back,
    }
    runners = {kind: _runner(context, exclusive, action) for kind, action in actions.items()}
    return {**runners, _MAKES: _telling(runners[_MAKES], imported)}


def _telling(runner: TaskRunner, imported: Callable[[str], None]) -> TaskRunner:
    def run(task: Task, progress: TaskProgress) -> Result:
        try:
            return runner(task, progress)
        finally:
            imported(_text(task, "path"))

    return run


def _runner(context: NodeContext, exclusive: Exclusive, action: Callable[[_Job], Result]) -> TaskRunner:
    def run(task: Task, progress: Progress) -> Result:
        volume = _text(task, "volume")
        with exclusive.when_free(volume, lambda: progress(0.0)):
            job = _find(context, task, volume, progress)
            result = action(job)
            attempt(
                f"status of volume {job.pool.name}/{job.volume.name} could not be written", lambda: _tell(context, job)
            )
        context.wake("volume", volume, 0.0)
        return result

    return run


def _find(context: NodeContext, task: Task, id_: str, progress: Progress) -> _Job:
    spec = read(context.store, keys.volume_spec(id_))
    if spec is None or spec.value.deleting:
        raise NotFound(f"the volume of this task ({id_}) was removed")
    volume = spec.value
    pool = read(context.store, keys.pool_spec(volume.pool))
    if pool is None:
        raise NotFound(f"the storage pool {volume.pool} of volume {volume.name!r} does not exist any more")
    status = read(context.store, keys.volume_status(id_))
    made = status is not None and status.value.size_bytes > 0
    if task.kind != _MAKES and not made:
        raise ObjectMissing(f"volume {pool.value.name}/{volume.name} is not ready yet")
    name = status.value.name if status is not None else volume.name
    driver = context.drivers.storage(pool.value.driver)
    ref = VolumeRef(pool=pool.value, name=name)
    return _Job(task, volume, pool.value, driver, ref, progress, partial(_reserve, context, volume, pool.value, task))


def _reserve(context: NodeContext, volume: VolumeSpec, pool: PoolSpec, task: Task, wanted: Wanted) -> None:
    """Write what a volume will need into its status, by which all others count it, if the pool has room for it."""

    def once() -> None:
        entry = read(context.store, keys.volume_status(volume.id))
        old = entry.value if entry is not None else VolumeStatus(id=volume.id, name=volume.name)
        if old.expected_bytes == wanted.promise_bytes:
            return
        room = require_space(context.store, pool, wanted, force=task.arguments.get("force") is True)
        write_status(context, entry, replace(old, expected_bytes=wanted.promise_bytes), room)

    attempt(f"room for volume {pool.name}/{volume.name} could not be kept", once)


def _tell(context: NodeContext, job: _Job) -> None:
    """Write what the backend reports now into the volume's status."""
    info = job.driver.volume_info(job.ref)
    entry = read(context.store, keys.volume_status(job.volume.id))
    old = entry.value if entry is not None else VolumeStatus(id=job.volume.id, name=job.ref.name)
    new = observed(old, info)
    if job.task.kind == _MAKES:
        # The rest (a rename, a larger size) is the reconciler's; it says when it has observed the spec.
        conditions = with_condition(old.conditions, ready(context.clock.wall()))
        new = replace(new, state=VolumeState.READY, conditions=conditions)
    write_status(context, entry, new)


# --- the actions ------------------------------------------------------------------------------------


def _import(job: _Job) -> Result:
    path, format_ = _text(job.task, "path"), _text(job.task, "format")
    if (size := _file_bytes(path)) is not None:
        job.reserve(Wanted(f"volume {job.pool.name}/{job.volume.name} from {path} of {format_bytes(size.full)}", *size))
    job.driver.volume_import(job.ref, path, format_, job.progress)
    return {"size_bytes": job.driver.volume_info(job.ref).size_bytes}


class _FileBytes(NamedTuple):
    data: int
    full: int


def _file_bytes(path: str) -> _FileBytes | None:
    """Return what an image takes at least: a raw one is as large as its file, any other holds at least that much.

    None: it is no file here, which is for the driver to tell.
    """
    try:
        found = Path(path).stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return _FileBytes(min(found.st_blocks * 512, found.st_size), found.st_size)


def _export(job: _Job) -> Result:
    path, format_ = _text(job.task, "path"), _text(job.task, "format")
    job.driver.volume_export(job.ref, _text(job.task, "snapshot", empty=True), path, format_, job.progress)
    return {"path": path}


def _create_snapshot(job: _Job) -> Result:
    snapshot = _text(job.task, "snapshot")
    job.driver.snapshot_create(job.ref, snapshot)
    return {"snapshot": snapshot}


def _delete_snapshot(job: _Job) -> Result:
    job.driver.snapshot_delete(job.ref, _text(job.task, "snapshot"))
    return {}


def _rename_snapshot(job: _Job) -> Result:
    name = _text(job.task, "name")
    job.driver.snapshot_rename(job.ref, _text(job.task, "snapshot"), name)
    return {"snapshot": name}


def _protect_snapshot(job: _Job) -> Result:
    protected = job.task.arguments.get("protected")
    if not isinstance(protected, bool):
        raise InvalidRequest(
            f"task {job.task.kind} needs the argument 'protected', true or false; it has {protected!r}"
        )
    job.driver.snapshot_protect(job.ref, _text(job.task, "snapshot"), protected)
    return {"protected": protected}


def _roll_back(job: _Job) -> Result:
    snapshot = _text(job.task, "snapshot")
    job.driver.snapshot_rollback(job.ref, snapshot, job.progress)
    return {"snapshot": snapshot}


def _text(task: Task, argument: str, *, empty: bool = False) -> str:
    value = task.arguments.get(argument, "" if empty else None)
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequest(f"task {task.kind} needs the argument {argument!r}, a text; it has {value!r}")
    return value
