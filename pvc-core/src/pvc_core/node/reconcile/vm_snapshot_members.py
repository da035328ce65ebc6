"""The volumes of a VM's snapshot, as the node that works on them has them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from pvc_core.model.errors import NotFound, PvcError
from pvc_core.model.task import Task
from pvc_core.model.vm_snapshot import SnapshotDisk, VmSnapshot
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.volume_status import observed, write_status
from pvc_core.ops.transaction import attempt
from pvc_core.plugin.errors import ObjectMissing
from pvc_core.plugin.specs.storage import Cancelled, Progress, StorageDriver, VolumeInfo, VolumeRef
from pvc_core.store import keys
from pvc_core.store.api import Operation
from pvc_core.store.documents import Entry, read

log = logging.getLogger(__name__)

Result = dict[str, str | int | float | bool | None]


class Member(NamedTuple):
    """A volume that is there."""

    disk: SnapshotDisk
    path: str
    """``pool/volume`` as it is called now."""
    driver: StorageDriver
    ref: VolumeRef

    def info(self) -> VolumeInfo | None:
        """Return it as the backend has it, None when it is gone there."""
        try:
            return self.driver.volume_info(self.ref)
        except ObjectMissing:
            return None

    def snapshots(self) -> frozenset[str]:
        """Return the names of its snapshots in the backend."""
        info = self.info()
        return frozenset(snapshot.name for snapshot in info.snapshots) if info is not None else frozenset()


def find_members(context: NodeContext, disks: Sequence[SnapshotDisk]) -> tuple[list[Member], list[SnapshotDisk]]:
    """Return the volumes that are there, and the disks whose volume is gone; raises NotReady (no driver here)."""
    there: list[Member] = []
    gone: list[SnapshotDisk] = []
    for disk in disks:
        spec = read(context.store, keys.volume_spec(disk.volume))
        pool = read(context.store, keys.pool_spec(spec.value.pool)) if spec is not None else None
        if spec is None or spec.value.deleting or pool is None:
            gone.append(disk)
            continue
        status = read(context.store, keys.volume_status(disk.volume))
        name = status.value.name if status is not None and status.value.name else spec.value.name
        ref = VolumeRef(pool=pool.value, name=name)
        driver = context.drivers.storage(pool.value.driver)
        there.append(Member(disk, f"{pool.value.name}/{spec.value.name}", driver, ref))
    return there, gone


@contextmanager
def alone(exclusive: Exclusive, ids: Sequence[str], progress: Progress) -> Iterator[None]:
    """Keep everything else of this node from these objects; in one order, so that two of us never wait for each other."""
    with ExitStack() as stack:
        for id_ in sorted(set(ids)):
            stack.enter_context(exclusive.when_free(id_, lambda: progress(0.0)))
        yield


def tell(context: NodeContext, members: Sequence[Member]) -> None:
    """Write what the backend reports now into the statuses of volumes; what fails is found by their own node later."""
    for member in members:
        try:
            attempt(f"status of volume {member.path} could not be written", partial(_tell, context, member))
        except PvcError as error:
            log.warning("volume-not-told volume=%s error=%s", member.path, error)
        context.wake("volume", member.disk.volume, 0.0)


def _tell(context: NodeContext, member: Member) -> None:
    entry, info = read(context.store, keys.volume_status(member.disk.volume)), member.info()
    if entry is not None and info is not None:
        write_status(context, entry, observed(entry.value, info))


def snapshot_of(context: NodeContext, task: Task) -> Entry[VmSnapshot]:
    """Return the snapshot that a task works on; raises NotFound when it is gone, or another task has it by now."""
    id_ = task.arguments.get("snapshot")
    entry = read(context.store, keys.vm_snapshot(id_)) if isinstance(id_, str) and id_ else None
    if entry is None or entry.value.task != task.id:
        raise NotFound("the snapshot of this task was removed: with its VM, or when the daemon was stopped")
    return entry


def record(
    context: NodeContext,
    task: Task,
    change: Callable[[VmSnapshot], VmSnapshot],
    more: Callable[[VmSnapshot], Sequence[Operation]] = lambda _: (),
) -> VmSnapshot:
    """Change a task's snapshot under our lease, together with ``more``; raises NotFound when it is another's by now."""

    def once() -> VmSnapshot:
        entry = snapshot_of(context, task)
        new = change(entry.value)
        context.store.commit(entry.put(new), *more(new), *context.lease.guard())
        return new

    return attempt(f"the progress of task {task.id} could not be recorded", once)


def begin(context: NodeContext, task: Task, *names: str) -> VmSnapshot:
    """Record that from now on volumes are changed, and which names their snapshots may get."""
    return record(context, task, lambda s: replace(s, begun=True, names=tuple(dict.fromkeys((*s.names, *names)))))


def check_stop(progress: Progress, part: float) -> None:
    """Report progress; raises Cancelled when the task shall stop."""
    if progress(part):
        raise Cancelled("stopped as asked")
