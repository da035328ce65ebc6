"""Tasks and queries of this plugin on OSDs: what core runs on a node."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pvc_ceph.config import CephConfig
from pvc_ceph.osd import cluster
from pvc_ceph.osd.add import Result, add
from pvc_ceph.osd.check import AddRequest, check_add, on_disk, refusals
from pvc_ceph.osd.layout import Layout
from pvc_ceph.osd.lvm import LvmLayout
from pvc_ceph.osd.monitors import CephMonitors, known
from pvc_ceph.osd.raw import RawLayout
from pvc_ceph.osd.refresh import RefreshRequest, refresh
from pvc_ceph.osd.retire import RemoveRequest, ReplaceRequest, remove, replace
from pvc_ceph.osd.site import Course, KernelDisks, Site
from pvc_ceph.osd.tools import Tools
from pvc_ceph.osd.unfinished import Unfinished
from pvc_ceph.osd.values import Block, DeviceRow, Found, OsdList
from pvc_ceph.osd.verdict import WHOLE
from pvc_ceph.workers import Workers
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.task import Task
from pvc_core.plugin import Context, Query, TaskProgress, TaskRunner

R = TypeVar("R")
_STATE: Final = "ceph"
_PREVIEW: Final = "00000000-0000-0000-0000-000000000000"


class _PreviewRequest(AddRequest, frozen=True, kw_only=True):
    replaces: int | None = None


class OsdService:
    """All of it, for one node.  May be used from any thread."""

    def __init__(self, context: Context, config: CephConfig, workers: Workers) -> None:
        tools = Tools(context)
        monitors = CephMonitors(workers)
        layout: Layout = (
            RawLayout(tools, monitors, config.conf)
            if config.osd_layout == "raw"
            else LvmLayout(tools, monitors, config.conf)
        )
        self._external: Final = config.external
        self._site: Final = Site(
            node=context.node.name,
            monitors=monitors,
            layout=layout,
            disks=KernelDisks(context.run),
            unfinished=Unfinished(Path(context.node.state_directory) / _STATE),
            settle=tools.settle,
            log=context.log,
        )

    def task_runners(self) -> dict[str, TaskRunner]:
        """Return kind -> runner."""
        return {
            "ceph.osd.add": self._runner(AddRequest, add),
            "ceph.osd.remove": self._runner(RemoveRequest, remove),
            "ceph.osd.replace": self._runner(ReplaceRequest, replace),
            "ceph.osd.refresh": self._runner(RefreshRequest, refresh),
            "ceph.osd.in": self._runner(cluster.OsdsRequest, cluster.put_in),
            "ceph.osd.out": self._runner(cluster.OsdsRequest, cluster.put_out),
            "ceph.osd.flag": self._runner(cluster.FlagRequest, cluster.set_flag),
            "ceph.osd.create-db-vg": self._runner(cluster.GroupRequest, cluster.create_db_group),
        }

    def queries(self) -> dict[str, Query]:
        """Return name -> what answers it."""
        return {
            "ceph.osd-list": lambda _: msgspec.to_builtins(self.listing()),
            "ceph.devices": lambda _: msgspec.to_builtins(self.devices()),
            "ceph.osd-preview": self._preview,
        }

    def listing(self) -> OsdList:
        """Return all OSDs of the cluster."""
        return msgspec.structs.replace(self._site.monitors.osds(), answered_by=self._site.node)

    def devices(self) -> list[DeviceRow]:
        """Return this node's disks, the free ones first."""
        listing, found = self._site.monitors.osds(), self._site.layout.found()
        rows = [
            self._device(block, listing, found)
            for block in self._site.disks.all()
            if block.type in WHOLE and block.size_bytes
        ]
        return sorted(rows, key=lambda row: (not row.free, row.device))

    def _device(self, block: Block, listing: OsdList, found: list[Found]) -> DeviceRow:
        here = on_disk(block, found)
        reasons = refusals(self._site, block, listing, here)
        return DeviceRow(
            device=block.name,
            path=block.path,
            size_bytes=block.size_bytes,
            device_class=block.device_class,
            model=block.model,
            serial=block.serial,
            free=not reasons,
            found=reasons,
            osds=tuple(osd.id for osd in here if osd.cluster == listing.fsid),
        )

    def _preview(self, arguments: dict[str, Any]) -> Any:
        self._check_ours()
        request = _decoded(arguments, _PreviewRequest)
        listing = self._site.monitors.osds()
        replaced = None if request.replaces is None else known(listing, request.replaces)
        checked = check_add(self._site, request, listing, [_PREVIEW] * request.count, replaced=replaced)
        return msgspec.to_builtins(checked.preview)

    def _runner(self, type_: type[R], flow: Callable[[Site, R, Course], Result]) -> TaskRunner:
        def run(task: Task, progress: TaskProgress) -> Result:
            self._check_ours()
            return flow(self._site, _decoded(task.arguments, type_), Course(progress))

        return run

    def _check_ours(self) -> None:
        if self._external:
            raise InvalidRequest(
                "this Ceph cluster is looked after by somebody else (plugins.ceph.external is true): its daemons, disks and "
                "flags are not changed from here"
            )


def _decoded(arguments: dict[str, Any], type_: type[R]) -> R:
    try:
        # Arguments of tasks have no fractions: those come as text.
        return msgspec.convert(arguments, type_, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"arguments of this task: {error}") from error
