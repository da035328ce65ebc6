"""The storage driver ``ceph-rbd``."""

import contextlib
import time
from pathlib import Path
from typing import Any, Final, TypeVar

from pvc_ceph.blocked import Blocked, unblock_runner
from pvc_ceph.config import CephConfig
from pvc_ceph.health import conditions
from pvc_ceph.osd.service import OsdService
from pvc_ceph.parameters import pool_parameters, warnings
from pvc_ceph.protocol import Open, Readable
from pvc_ceph.report import NodeReport, Status, Use
from pvc_ceph.secret import LibvirtSecret
from pvc_ceph.source import disk_source, qemu_url
from pvc_ceph.workers import Workers
from pvc_core.model.base import Condition
from pvc_core.model.storage import PoolSpec, PoolUsage
from pvc_core.plugin import (
    Attachment,
    BlockResult,
    Context,
    DiskSource,
    DriverError,
    NotReady,
    Progress,
    Query,
    StorageCapabilities,
    StorageDriver,
    TaskRunner,
    VolumeInfo,
    VolumeRef,
    hookimpl,
)
from pvc_core.plugin.holding import Holder
from pvc_core.plugin.qemu_img import FILE_FORMATS, QemuImg, check_format, check_importable, check_source, new_file

T = TypeVar("T")

_FORMAT: Final = "raw"
_LONG_S: Final = 7 * 86400.0
"""Bound of what runs in a task, which has its own time limit."""
_SILENT_S: Final = 590.0
"""For what takes as long as there is data: since it was last heard of, or, of what can be gone on with, in all."""
_QUICK_S: Final = 27.0
"""For what takes a fraction of a second on a cluster that is well: an error that says why is worth more than patience."""
_IDENTITY_S: Final = 30.0
"""For how long the node's addresses are taken as they were."""


class CephDriver(StorageDriver):
    """Volumes as RBD images.  May be used from any thread.

    Whatever talks to Ceph does so in worker processes, with deadlines somewhat shorter than those of the hooks.
    """

    def __init__(self, context: Context, config: CephConfig) -> None:
        self._node: Final = context.node.name
        self._coordinator: Final = context.node.role == "coordinator"
        self._log: Final = context.log
        self._config: Final = config
        settings = Open(
            conf=config.conf,
            user=config.user,
            keyring=config.keyring,
            state_pool=config.state_pool,
            node=self._node,
        )
        self._workers: Final = Workers(settings, context.log)
        self._images: Final = QemuImg("qemu-img", context.run)
        self._secret: Final = LibvirtSecret(context, config.vm_user)
        self._identity: tuple[float, dict[str, str]] | None = None
        self._lacking: list[str] = []
        self._osds: Final = OsdService(context, config, self._workers)

    def storage_capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(
            snapshots=True,
            clones=True,
            resize_attached=True,
            formats=(_FORMAT,),
            import_formats=FILE_FORMATS,
            blocks_nodes=not self._lacking,
            streams=True,
        )

    def storage_preflight(self) -> bool:
        if not Path(self._config.conf).is_file():
            raise NotReady(f"there is no {self._config.conf} on this node: it says where Ceph's monitors are")
        try:
            self._images.version()
        except DriverError as error:
            raise NotReady(f"qemu-img does not work on this node: {error}; install qemu-utils") from error
        self._lacking = self._call(list[str], "preflight", 27.0)
        if self._lacking:
            self._log.warning("no-fencing user=%s lacks=%s", self._config.user, ",".join(self._lacking))
        return True

    def storage_close(self) -> bool:
        self._workers.close()
        return True

    # --- pools --------------------------------------------------------------------------------------

    def pool_ensure(self, pool: PoolSpec) -> bool:
        wanted = pool_parameters(pool)
        for warning in warnings(wanted):
            self._log.warning("pool-risk pool=%s said=%r", pool.name, warning)
        self._call(None, "pool-ensure", 55.0, pool=wanted)
        return True

    def pool_delete(self, pool: PoolSpec) -> bool:
        self._call(None, "pool-delete", 55.0, pool=pool_parameters(pool))
        return True

    def pool_usage(self, pool: PoolSpec) -> PoolUsage:
        return self._call(PoolUsage, "pool-usage", 9.0, pool=pool_parameters(pool))

    def volume_list(self, pool: PoolSpec) -> list[VolumeInfo]:
        return self._call(list[VolumeInfo], "volume-list", 55.0, pool=pool_parameters(pool).pool)

    # --- volumes ------------------------------------------------------------------------------------

    def volume_info(self, volume: VolumeRef) -> VolumeInfo:
        return self._call(VolumeInfo, "volume-info", 9.0, **_names(volume))

    def volume_create(self, volume: VolumeRef, size_bytes: int, format: str) -> bool:
        if format not in ("", _FORMAT):
            raise DriverError(f"volume format {format!r} is not {_FORMAT}, which is all that Ceph has", retryable=False)
        self._call(None, "volume-create", _QUICK_S, size_bytes=size_bytes, **_names(volume))
        return True

    def volume_delete(self, volume: VolumeRef) -> bool:
        self._call(None, "volume-delete", _SILENT_S, **_names(volume))
        return True

    def volume_resize(self, volume: VolumeRef, size_bytes: int) -> bool:
        self._call(None, "volume-resize", _QUICK_S, size_bytes=size_bytes, **_names(volume))
        return True

    def volume_rename(self, volume: VolumeRef, new_name: str) -> bool:
        self._call(None, "volume-rename", _QUICK_S, new_name=new_name, **_names(volume))
        return True

    def volume_clone(self, source: VolumeRef, snapshot: str, target: VolumeRef, full_copy: bool) -> bool:
        if source.pool.id != target.pool.id:
            raise DriverError(
                "a clone is made in the pool of its source; export and import it instead", retryable=False
            )
        self._call(
            None,
            "volume-clone",
            _SILENT_S,
            lambda _: False,
            pool=_names(source)["pool"],
            source=source.name,
            snapshot=snapshot,
            target=target.name,
            full_copy=full_copy,
        )
        return True

    def volume_import(self, volume: VolumeRef, path: str, format: str, progress: Progress) -> bool:
        check_format(format)
        source = Path(path)
        check_source(source)
        found = self._images.info(source, format)
        check_importable(source, format, found)
        where = _names(volume)
        hidden = self._call(str, "image-begin", _QUICK_S, size_bytes=found.size_bytes, **where)
        try:
            target = qemu_url(self._config, where["pool"], hidden)
            self._images.copy(path, format, target, _FORMAT, progress, existing=True)
            self._call(None, "image-finish", _QUICK_S, hidden=hidden, **where)
        except BaseException:
            # What is left of it goes later; what went wrong is told.
            with contextlib.suppress(DriverError):
                self._call(None, "image-drop", _QUICK_S, pool=where["pool"], name=hidden)
            raise
        return True

    def volume_export(self, volume: VolumeRef, snapshot: str, path: str, format: str, progress: Progress) -> bool:
        check_format(format)
        where = _names(volume)
        kept = self._call(Readable, "image-readable", _QUICK_S, snapshot=snapshot, **where)
        try:
            with new_file(path) as partial:
                source = qemu_url(self._config, where["pool"], where["name"], kept.snapshot)
                self._images.copy(source, _FORMAT, str(partial), format, progress)
                self._call(None, "image-check", _QUICK_S, instant=kept.instant, **where)
        finally:
            # Should that fail, it goes with one that is made a day later.
            with contextlib.suppress(DriverError):
                self._call(None, "image-release", _QUICK_S, snapshot=kept.snapshot, **where)
        return True

    def volume_diff_export(self, volume: VolumeRef, base: str, snapshot: str, path: str, progress: Progress) -> bool:
        where = _names(volume)
        self._call(None, "diff-export", _LONG_S, progress, base=base, snapshot=snapshot, path=path, **where)
        return True

    def volume_diff_import(self, volume: VolumeRef, path: str, progress: Progress) -> bool:
        self._call(None, "diff-import", _LONG_S, progress, path=path, **_names(volume))
        return True

    # --- snapshots ----------------------------------------------------------------------------------

    def snapshot_create(self, volume: VolumeRef, snapshot: str) -> bool:
        self._call(None, "snapshot-create", _QUICK_S, snapshot=snapshot, **_names(volume))
        return True

    def snapshot_delete(self, volume: VolumeRef, snapshot: str) -> bool:
        self._call(None, "snapshot-delete", _SILENT_S, snapshot=snapshot, **_names(volume))
        return True

    def snapshot_rename(self, volume: VolumeRef, snapshot: str, new_name: str) -> bool:
        self._call(None, "snapshot-rename", _QUICK_S, snapshot=snapshot, new_name=new_name, **_names(volume))
        return True

    def snapshot_protect(self, volume: VolumeRef, snapshot: str, protected: bool) -> bool:
        self._call(None, "snapshot-protect", _QUICK_S, snapshot=snapshot, protected=protected, **_names(volume))
        return True

    def snapshot_rollback(self, volume: VolumeRef, snapshot: str, progress: Progress) -> bool:
        # It cannot be stopped half-way: the contents would be of no instant.
        self._call(None, "snapshot-rollback", _LONG_S, snapshot=snapshot, **_names(volume))
        progress(1.0)
        return True

    # --- disks of VMs -------------------------------------------------------------------------------

    def disk_attach(self, volume: VolumeRef, vm: str, epoch: int, incoming: bool) -> DiskSource:
        holder = Holder(vm=vm, node=self._node, epoch=epoch, incoming=incoming)
        where = _names(volume)
        self._call(None, "disk-attach", 18.0, holder=holder, **where)
        secret = self._secret.ensure(lambda: self._call(dict[str, str], "vm-key", 9.0, vm_user=self._config.vm_user))
        return disk_source(self._config, where["pool"], where["name"], secret)

    def disk_detach(self, volume: VolumeRef, vm: str) -> bool:
        self._call(None, "disk-detach", 27.0, vm=vm, node=self._node, **_names(volume))
        return True

    def disk_flush_locks(self, volume: VolumeRef, vm: str, epoch: int) -> list[str]:
        return self._call(list[str], "disk-flush", 27.0, vm=vm, epoch=epoch, **_names(volume))

    def disk_attachments(self) -> list[Attachment]:
        return self._call(list[Attachment], "disk-attachments", 9.0, node=self._node)

    # --- fencing ------------------------------------------------------------------------------------

    def node_identity(self) -> dict[str, str]:
        now = time.monotonic()
        if self._identity is None or now - self._identity[0] > _IDENTITY_S:
            self._identity = now, self._call(dict[str, str], "node-identity", 4.5)
        return self._identity[1]

    def node_block(self, node: str, identity: dict[str, str], volumes: list[VolumeRef], epoch: int) -> BlockResult:
        where = [(names["pool"], names["name"]) for names in map(_names, volumes)]
        return self._call(
            BlockResult,
            "node-block",
            29.0,
            node=node,
            identity=identity,
            volumes=where,
            epoch=epoch,
            seconds=20.0,
        )

    def node_unblock(self, node: str, identity: dict[str, str], epoch: int) -> bool:
        self._call(None, "node-unblock", 27.0, node=node, identity=identity, epoch=epoch)
        return True

    # --- jobs, questions, health --------------------------------------------------------------------

    @hookimpl
    def task_runners(self) -> dict[str, TaskRunner]:
        return unblock_runner(self._release) | self._osds.task_runners()

    @hookimpl
    def queries(self) -> dict[str, Query]:
        return {
            "ceph.blocked": lambda _: self._call(list[Blocked], "blocked", 18.0),
            "ceph.status": lambda _: self._call(Status, "status", 18.0),
            "ceph.util": lambda _: self._call(Use, "util", 18.0),
            **self._osds.queries(),
        }

    @hookimpl
    def health_checks(self) -> list[Condition]:
        return conditions(
            lambda: self._call(NodeReport, "node-report", 9.0, host=self._node),
            self._node,
            coordinator=self._coordinator,
            external=self._config.external,
        )

    def _release(self, node: str, force: bool) -> list[str]:
        return self._call(list[str], "release", 27.0, node=node, force=force)

    def _call(
        self, result: type[T] | None, call: str, deadline_s: float, report: Progress | None = None, /, **arguments: Any
    ) -> T:
        return self._workers.call(result, call, deadline_s, report, **arguments)


def _names(volume: VolumeRef) -> dict[str, str]:
    return {"pool": pool_parameters(volume.pool).pool, "name": volume.name}
