"""The storage driver ``dir``."""

import time
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from pvc_core.model.storage import PoolSpec, PoolUsage
from pvc_core.plugin import (
    Attachment,
    Context,
    DiskSource,
    DriverError,
    NotReady,
    ObjectBusy,
    ObjectMissing,
    Progress,
    StorageCapabilities,
    StorageDriver,
    VolumeInfo,
    VolumeRef,
)
from pvc_core.plugin.holding import Holder, attached, detached, flushed
from pvc_core.plugin.qemu_img import FILE_FORMATS
from pvc_dir import lineage, snapshots, transfer, volumes
from pvc_dir.config import DirConfig
from pvc_dir.image import Images
from pvc_dir.parameters import FORMATS
from pvc_dir.pool import Pool, Registry, file_errors, usage
from pvc_dir.state import VolumeState


class DirDriver(StorageDriver):
    """Volumes as image files in a directory that every node sees.  Holds no state: may be used from any thread."""

    def __init__(self, context: Context, config: DirConfig) -> None:
        self._node: Final = context.node.name
        self._log: Final = context.log
        self._images: Final = Images(config.qemu_img, context.run)
        self._pools: Final = Registry(Path(context.node.state_directory) / "dir" / "pools", config.roots)

    def storage_capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(
            snapshots=True,
            clones=True,
            resize_attached=True,
            formats=FORMATS,
            import_formats=FILE_FORMATS,
        )

    def storage_preflight(self) -> bool:
        try:
            version = self._images.version()
        except DriverError as error:
            raise NotReady(f"qemu-img does not work on this node: {error}; install qemu-utils") from error
        self._log.debug("preflight %s", version)
        return True

    # --- pools --------------------------------------------------------------------------------------

    def pool_ensure(self, pool: PoolSpec) -> bool:
        with file_errors(f"pool {pool.name}"):
            self._pools.ensure(pool)
            volumes.empty_trash(self._pools.open(pool))
        return True

    def pool_delete(self, pool: PoolSpec) -> bool:
        with file_errors(f"pool {pool.name}"):
            self._pools.delete(pool)
        return True

    def pool_usage(self, pool: PoolSpec) -> PoolUsage:
        with file_errors(f"pool {pool.name}"):
            return usage(self._pools.open(pool))

    def volume_list(self, pool: PoolSpec) -> list[VolumeInfo]:
        with file_errors(f"pool {pool.name}"):
            here = self._pools.open(pool)
            everything = volumes.all_of(here)
            by_id = lineage.index(everything)
            return [
                volumes.info(here, name, state, lineage.parent_name(here, state, by_id))
                for name, state in everything.items()
            ]

    # --- volumes ------------------------------------------------------------------------------------

    def volume_info(self, volume: VolumeRef) -> VolumeInfo:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            state = volumes.get(pool, volume.name)
            return volumes.info(pool, volume.name, state, lineage.parent_name(pool, state))

    def volume_create(self, volume: VolumeRef, size_bytes: int, format: str) -> bool:
        if format and format not in FORMATS:
            raise DriverError(f"volume format {format!r} is not one of {', '.join(FORMATS)}", retryable=False)
        with file_errors(_what(volume)):
            volumes.create(self._pools.open(volume.pool), self._images, volume.name, size_bytes, format)
        return True

    def volume_delete(self, volume: VolumeRef) -> bool:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            gone = volumes.delete(pool, volume.name, lambda state: lineage.clones(pool, state))
            volumes.empty_trash(pool)
            if gone is not None and gone.parent is not None:
                lineage.forget_child(pool, gone.parent, gone.id)
        return True

    def volume_resize(self, volume: VolumeRef, size_bytes: int) -> bool:
        with file_errors(_what(volume)):
            volumes.resize(self._pools.open(volume.pool), self._images, volume.name, size_bytes)
        return True

    def volume_rename(self, volume: VolumeRef, new_name: str) -> bool:
        with file_errors(_what(volume)):
            volumes.rename(self._pools.open(volume.pool), volume.name, new_name)
        return True

    def volume_clone(self, source: VolumeRef, snapshot: str, target: VolumeRef, full_copy: bool) -> bool:
        if source.pool.id != target.pool.id:
            raise DriverError(
                "a clone is made in the pool of its source; export and import it instead", retryable=False
            )
        with file_errors(_what(target)):
            pool = self._pools.open(source.pool)
            lineage.clone(pool, self._images, source.name, snapshot, target.name, full_copy=full_copy)
        return True

    def volume_import(self, volume: VolumeRef, path: str, format: str, progress: Progress) -> bool:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            transfer.take_in(pool, self._images, volume.name, path, format, progress)
        return True

    def volume_export(self, volume: VolumeRef, snapshot: str, path: str, format: str, progress: Progress) -> bool:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            transfer.hand_out(pool, self._images, volume.name, snapshot, path, format, progress)
        return True

    # --- snapshots ----------------------------------------------------------------------------------

    def snapshot_create(self, volume: VolumeRef, snapshot: str) -> bool:
        with file_errors(_what(volume)):
            snapshots.create(self._pools.open(volume.pool), self._images, volume.name, snapshot, time.time())
        return True

    def snapshot_delete(self, volume: VolumeRef, snapshot: str) -> bool:
        with file_errors(_what(volume)):
            snapshots.delete(self._pools.open(volume.pool), self._images, volume.name, snapshot)
        return True

    def snapshot_rename(self, volume: VolumeRef, snapshot: str, new_name: str) -> bool:
        with file_errors(_what(volume)):
            snapshots.rename(self._pools.open(volume.pool), volume.name, snapshot, new_name)
        return True

    def snapshot_protect(self, volume: VolumeRef, snapshot: str, protected: bool) -> bool:
        with file_errors(_what(volume)):
            snapshots.protect(self._pools.open(volume.pool), volume.name, snapshot, protected=protected)
        return True

    def snapshot_rollback(self, volume: VolumeRef, snapshot: str, progress: Progress) -> bool:
        with file_errors(_what(volume)):
            snapshots.roll_back(self._pools.open(volume.pool), self._images, volume.name, snapshot)
        progress(1.0)
        return True

    # --- disks of VMs -------------------------------------------------------------------------------

    def disk_attach(self, volume: VolumeRef, vm: str, epoch: int, incoming: bool) -> DiskSource:
        new = Holder(vm=vm, node=self._node, epoch=epoch, incoming=incoming)
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            before = volumes.get(pool, volume.name)
            state = volumes.change(pool, volume.name, lambda now: _attached(now, volume.name, new))
            if state.holders == (new,) and not incoming:
                self._grow(pool, volume.name, fresh=all(h.node != self._node for h in before.holders))
            layer = state.layer(state.active)
            path = pool.layer(layer.file)
            if not path.exists():
                raise ObjectMissing(f"the image {path} of volume {volume.name!r} is gone; restore it from a backup")
        return DiskSource(
            type="file",
            source_xml=f"<source file={quoteattr(str(path))}/>",
            format=layer.format,
            # libvirt knows only some file systems as shared; the pool's marker vouches for this one.
            migrate_unsafe=True,
        )

    def disk_detach(self, volume: VolumeRef, vm: str) -> bool:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            if volumes.find(pool, volume.name) is not None:
                volumes.change(pool, volume.name, lambda now: detached(now, vm, self._node))
        return True

    def disk_flush_locks(self, volume: VolumeRef, vm: str, epoch: int) -> list[str]:
        with file_errors(_what(volume)):
            pool = self._pools.open(volume.pool)
            before = volumes.get(pool, volume.name)
            volumes.change(pool, volume.name, lambda now: flushed(now, volume.name, vm, epoch))
        return [f"node {holder.node} held volume {volume.name!r}" for holder in before.holders]

    def disk_attachments(self) -> list[Attachment]:
        with file_errors("listing attached volumes"):
            return [
                Attachment(pool=pool.id, volume=name, vm=holder.vm)
                for pool in self._pools.known()
                for name, state in volumes.all_of(pool).items()
                for holder in state.holders
                if holder.node == self._node
            ]

    def _grow(self, pool: Pool, name: str, *, fresh: bool) -> None:
        """Give the image the volume's size, in case it was resized in use and QEMU never got to it."""
        try:
            volumes.settle_size(pool, self._images, name)
        except DriverError as error:
            if fresh:
                raise
            # Attached here before: the guest runs, and QEMU's lock on the image refused us.
            self._log.info("image-not-grown pool=%s volume=%s error=%s", pool.name, name, error)


def _attached(state: VolumeState, volume: str, new: Holder) -> VolumeState:
    if state.leaving:
        raise ObjectBusy(f"volume {volume!r} cannot be attached: {state.leaving}")
    return attached(state, volume, new)


def _what(volume: VolumeRef) -> str:
    return f"volume {volume.name!r} of pool {volume.pool.name}"
