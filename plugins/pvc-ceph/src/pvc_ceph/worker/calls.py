"""What a worker can do, by name."""

import inspect
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from pvc_ceph.worker import clones, diffs, disks, fences, images, osds, pools, reports, snapshots, volumes
from pvc_ceph.worker.ceph import Cluster
from pvc_core.plugin import Progress

_GIVEN: Final = ("cluster", "progress")


class _Call(NamedTuple):
    """A function ``f(cluster, ..., [progress])``; its annotations say what its arguments are."""

    function: Callable[..., Any]
    types: dict[str, Any]
    reports: bool

    def run(self, cluster: Cluster, arguments: dict[str, Any], progress: Progress) -> Any:
        given = {name: msgspec.convert(value, self.types[name]) for name, value in arguments.items()}
        if self.reports:
            given["progress"] = progress
        return msgspec.to_builtins(self.function(cluster, **given))


def _call(function: Callable[..., Any]) -> _Call:
    parameters = inspect.signature(function).parameters
    types = {name: parameter.annotation for name, parameter in parameters.items() if name not in _GIVEN}
    return _Call(function, types, "progress" in parameters)


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "problems": pools.problems,
    "preflight": pools.preflight,
    "pool-ensure": pools.ensure,
    "pool-delete": pools.delete,
    "pool-usage": pools.usage,
    "volume-list": volumes.all_of,
    "volume-info": volumes.info,
    "volume-create": volumes.create,
    "volume-delete": volumes.delete,
    "volume-resize": volumes.resize,
    "volume-rename": volumes.rename,
    "volume-clone": clones.clone,
    "image-begin": images.begin,
    "image-finish": images.finish,
    "image-drop": volumes.drop,
    "image-readable": images.readable,
    "image-check": volumes.check_instant,
    "image-release": images.release,
    "diff-export": diffs.export,
    "diff-import": diffs.take_in,
    "snapshot-create": snapshots.create,
    "snapshot-delete": snapshots.delete,
    "snapshot-rename": snapshots.rename,
    "snapshot-protect": snapshots.protect,
    "snapshot-rollback": snapshots.roll_back,
    "disk-attach": disks.attach,
    "disk-detach": disks.detach,
    "disk-flush": disks.flush,
    "disk-attachments": disks.attachments,
    "vm-key": disks.vm_key,
    "node-identity": fences.identity,
    "node-block": fences.block,
    "node-unblock": fences.unblock,
    "blocked": fences.listed,
    "release": fences.release,
    "status": reports.status,
    "util": reports.use,
    "node-report": reports.node,
    "osd-list": osds.listed,
    "osd-create": osds.create,
    "osd-place": osds.place,
    "osd-reweight": osds.reweight,
    "osd-in": osds.take_in,
    "osd-out": osds.put_out,
    "osd-safety": osds.safety,
    "osd-stoppable": osds.stoppable,
    "osd-mark-down": osds.mark_down,
    "osd-destroy": osds.destroy,
    "osd-purge": osds.purge,
    "osd-purge-new": osds.purge_new,
    "osd-key": osds.key,
    "osd-bootstrap-key": osds.bootstrap_key,
    "osd-flag": osds.flag,
}
CALLS: Final[dict[str, _Call]] = {name: _call(function) for name, function in _FUNCTIONS.items()}
