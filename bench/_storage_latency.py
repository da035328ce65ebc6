"""What single changes of volumes take: librbd itself, the driver, and whole operations."""

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Final, Protocol

import rbd
from _cluster import tell_all
from _storage_site import GIB, MIB, POOL, WAIT_S, Site

from pvc_ceph.worker.ceph import FEATURES
from pvc_core.ops.resolve import volume
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeClone,
    VolumeQuery,
    VolumeRename,
    VolumeResize,
    VolumeView,
    volume_add,
    volume_clone,
    volume_remove,
    volume_rename,
    volume_resize,
)
from pvc_core.ops.volume_snapshot import SnapshotCreate, SnapshotQuery, snapshot_create, snapshot_delete
from pvc_core.ops.wait import ObjectGoal, wait_task, wait_volume

SOURCE: Final = "source"
"""What full copies are made of."""
COPIED_MIB: Final = 64
_SNAPSHOT: Final = "before"
_SIZE: Final = GIB


class Way(Protocol):
    """A way to change volumes; each call returns when the change is done."""

    name: str

    def create(self, name: str) -> None: ...
    def resize(self, name: str) -> None: ...
    def snapshot_create(self, name: str) -> None: ...
    def clone(self, name: str, target: str) -> None: ...
    def full_copy(self, target: str) -> None: ...
    def snapshot_delete(self, name: str) -> None: ...
    def rename(self, name: str, new_name: str) -> None: ...
    def delete(self, name: str) -> None: ...


class Librbd:
    """librbd, called from this process."""

    name = "librbd"

    def __init__(self, site: Site) -> None:
        self._ioctx = site.ioctx

    def create(self, name: str) -> None:
        rbd.RBD().create(self._ioctx, name, _SIZE, old_format=False, features=FEATURES)

    def resize(self, name: str) -> None:
        with rbd.Image(self._ioctx, name) as image:
            image.resize(2 * _SIZE)

    def snapshot_create(self, name: str) -> None:
        with rbd.Image(self._ioctx, name) as image:
            image.create_snap(_SNAPSHOT)

    def clone(self, name: str, target: str) -> None:
        rbd.RBD().clone(self._ioctx, name, _SNAPSHOT, self._ioctx, target, features=FEATURES)

    def full_copy(self, target: str) -> None:
        with rbd.Image(self._ioctx, SOURCE, read_only=True) as image:
            image.copy(self._ioctx, target, features=FEATURES)

    def snapshot_delete(self, name: str) -> None:
        with rbd.Image(self._ioctx, name) as image:
            image.remove_snap(_SNAPSHOT)

    def rename(self, name: str, new_name: str) -> None:
        rbd.RBD().rename(self._ioctx, name, new_name)

    def delete(self, name: str) -> None:
        rbd.RBD().remove(self._ioctx, name)


class Driver:
    """The driver's own calls, as a node's daemon makes them: a worker process does the work."""

    name = "driver"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._driver = site.driver

    def create(self, name: str) -> None:
        self._driver.volume_create(self._site.ref(name), _SIZE, "")

    def resize(self, name: str) -> None:
        self._driver.volume_resize(self._site.ref(name), 2 * _SIZE)

    def snapshot_create(self, name: str) -> None:
        self._driver.snapshot_create(self._site.ref(name), _SNAPSHOT)

    def clone(self, name: str, target: str) -> None:
        self._driver.volume_clone(self._site.ref(name), _SNAPSHOT, self._site.ref(target), full_copy=False)

    def full_copy(self, target: str) -> None:
        self._driver.volume_clone(self._site.ref(SOURCE), "", self._site.ref(target), full_copy=True)

    def snapshot_delete(self, name: str) -> None:
        self._driver.snapshot_delete(self._site.ref(name), _SNAPSHOT)

    def rename(self, name: str, new_name: str) -> None:
        self._driver.volume_rename(self._site.ref(name), new_name)

    def delete(self, name: str) -> None:
        self._driver.volume_delete(self._site.ref(name))


class Operations:
    """Operations, and the wait until the cluster says that they are carried out."""

    name = "operation"

    def __init__(self, site: Site) -> None:
        self._ops = site.ops

    def create(self, name: str) -> None:
        # The sizes exceed what the sandbox's OSDs have, and nothing is written.
        self._settle(volume_add(self._ops, VolumeAdd(pool=POOL, name=name, size=_SIZE, force=True)))

    def resize(self, name: str) -> None:
        request = VolumeResize(volume=f"{POOL}/{name}", size=2 * _SIZE, force=True)
        self._settle(volume_resize(self._ops, request))

    def snapshot_create(self, name: str) -> None:
        task = snapshot_create(self._ops, SnapshotCreate(volume=f"{POOL}/{name}", snapshot=_SNAPSHOT))
        wait_task(self._ops, task.id, timeout_s=WAIT_S)

    def clone(self, name: str, target: str) -> None:
        request = VolumeClone(pool=POOL, source=f"{name}@{_SNAPSHOT}", name=target, force=True)
        self._settle(volume_clone(self._ops, request))

    def full_copy(self, target: str) -> None:
        request = VolumeClone(pool=POOL, source=SOURCE, name=target, full_copy=True, force=True)
        self._settle(volume_clone(self._ops, request))

    def snapshot_delete(self, name: str) -> None:
        task = snapshot_delete(self._ops, SnapshotQuery(volume=f"{POOL}/{name}", snapshot=_SNAPSHOT))
        wait_task(self._ops, task.id, timeout_s=WAIT_S)

    def rename(self, name: str, new_name: str) -> None:
        self._settle(volume_rename(self._ops, VolumeRename(volume=f"{POOL}/{name}", name=new_name)))

    def delete(self, name: str) -> None:
        id_ = volume(self._ops, f"{POOL}/{name}").value.id
        volume_remove(self._ops, VolumeQuery(volume=id_))
        wait_volume(self._ops, id_, ObjectGoal.GONE, timeout_s=WAIT_S)

    def _settle(self, view: VolumeView) -> None:
        wait_volume(self._ops, view.id, ObjectGoal.READY, timeout_s=WAIT_S)


def latencies(site: Site, runs: int) -> None:
    """Measure the life of a volume, each way in turn, so that a busy moment of the machine hits all alike."""
    site.add_volume(SOURCE, COPIED_MIB * MIB, filled=True)
    ways: list[Way] = [Librbd(site), Driver(site), Operations(site)]
    for way in ways:
        _life(way, f"{way.name}-first")  # its processes are started, and its libraries loaded
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(runs):
        for way in ways:
            for step, duration_s in _life(way, f"{way.name}-{number}").items():
                times[step][way.name].append(1000 * duration_s)
    for step, by_way in times.items():
        plain = median(by_way[Librbd.name])
        for name, values in by_way.items():
            ratio = {} if name == Librbd.name else {"ratio_to_librbd": round(median(values) / plain, 2)}
            tell_all("storage", f"{step}_ms", values, unit="ms", way=name, **ratio)


def _life(way: Way, name: str) -> dict[str, float]:
    """Make a volume, change it, and delete it; return the duration of each step in seconds."""
    times: dict[str, float] = {}

    def timed(step: str, call: Callable[[], None]) -> None:
        begun = time.perf_counter()
        call()
        times[step] = time.perf_counter() - begun

    clone, copy, renamed = f"{name}-clone", f"{name}-copy", f"{name}-renamed"
    timed("create", lambda: way.create(name))
    timed("resize", lambda: way.resize(name))
    timed("snapshot_create", lambda: way.snapshot_create(name))
    timed("clone", lambda: way.clone(name, clone))
    timed("full_copy", lambda: way.full_copy(copy))
    way.delete(clone)
    way.delete(copy)
    timed("snapshot_delete", lambda: way.snapshot_delete(name))
    timed("rename", lambda: way.rename(name, renamed))
    timed("delete", lambda: way.delete(renamed))
    return times
