"""What is known of a volume: its status in the store, and its name in the backend."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from pvc_core.model.storage import PoolSpec, VolumeStatus
from pvc_core.node.context import NodeContext
from pvc_core.plugin.errors import NotReady, ObjectMissing
from pvc_core.plugin.specs.storage import VolumeInfo, VolumeRef
from pvc_core.store import keys
from pvc_core.store.api import Operation, Store
from pvc_core.store.documents import Entry, create, read

_USED_STEP: Final = 64 * 1024 * 1024
"""Change of the used bytes that is worth a write: guests write all the time, and the store has other work."""


def observed(status: VolumeStatus, info: VolumeInfo) -> VolumeStatus:
    """Return the status with what the backend reports; used bytes only when they changed by a good deal."""
    step = max(_USED_STEP, info.size_bytes // 64)
    grew = status.size_bytes == 0 or abs(info.used_bytes - status.used_bytes) >= step
    return replace(
        status,
        size_bytes=info.size_bytes,
        used_bytes=info.used_bytes if grew else status.used_bytes,
        expected_bytes=0,
        format=info.format,
        snapshots=info.snapshots,
    )


def write_status(
    context: NodeContext, old: Entry[VolumeStatus] | None, new: VolumeStatus, more: Sequence[Operation] = ()
) -> None:
    """Write a volume's status under our lease if it changed, together with ``more``."""
    if old is None:
        context.store.commit(create(keys.volume_status(new.id), new), *more, *context.lease.guard())
    elif new != old.value or more:
        context.store.commit(old.put(new), *more, *context.lease.guard())


def clone_source(store: Store, pool: PoolSpec, name: str) -> VolumeRef:
    """Return a volume that is to be cloned; raises NotReady while it is not there yet, ObjectMissing when it is gone."""
    index = store.get(keys.volume_name(pool.name, name))
    if index is None:
        raise ObjectMissing(f"the volume to clone, {pool.name}/{name}, does not exist any more")
    status = read(store, keys.volume_status(index.value.decode()))
    if status is None or status.value.size_bytes == 0:
        raise NotReady(f"the volume to clone, {pool.name}/{name}, is not ready yet")
    return VolumeRef(pool=pool, name=status.value.name)
