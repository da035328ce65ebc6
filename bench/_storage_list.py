"""Many volumes: making them, and listing them."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Final, cast

from _cluster import note, tell_all
from _storage_site import MIB, POOL, WAIT_S, Site, tell

from pvc_core.model.storage import VolumeState
from pvc_core.ops.context import Ops
from pvc_core.ops.volume import VolumeAdd, VolumeList, volume_add, volume_list
from pvc_core.plugin import run
from pvc_core.store import keys
from pvc_core.store.api import Node, Store
from pvc_core.store.documents import read_many
from pvc_core.store.zookeeper import READ_BATCH
from pvc_sandbox.waiting import wait_until

_MAKING_S: Final = 1800.0
_SOME: Final = 100
_IMAGE_LISTS: Final = 3
"""Runs of what opens every image, which takes seconds."""
_MEMORY: Final = """\
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Prints the most memory in KiB that a program had.  A process of its own: before exec(2) a child is as large as its parent."""


class Counted:
    """A store that counts what a list reads with: each call waits once for answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.round_trips = 0
        self.requests = 0
        """Those of one round trip are all sent before its first answer is waited for."""

    def get(self, path: str) -> Node | None:
        self._count(1)
        return self._store.get(path)

    def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        self._count(len(paths))
        return self._store.get_many(paths)

    def children(self, path: str) -> list[str]:
        self._count(1)
        return self._store.children(path)

    def children_many(self, paths: Sequence[str]) -> list[list[str]]:
        self._count(len(paths))
        return self._store.children_many(paths)

    def _count(self, reads: int) -> None:
        self.round_trips += min(reads, 1)
        self.requests += math.ceil(reads / READ_BATCH)


def make_volumes(site: Site, count: int) -> None:
    """Make so many volumes.

    They are added one after the other: transactions that add to the same pool at once refuse each other, and several threads
    take longer than one.
    """
    begun = time.perf_counter()
    missing = []
    some: list[float] = []
    for number in range(count):
        started = time.perf_counter()
        view = volume_add(site.ops, VolumeAdd(pool=POOL, name=f"many{number:05}", size=MIB, force=True))
        some.append(time.perf_counter() - started)
        missing.append(view.id)
        if (number + 1) % _SOME == 0:
            note(f"{number + 1} volumes added")
    added = time.perf_counter()
    unfinished = len(_unfinished(site, missing))

    def ready() -> bool:
        missing[:] = _unfinished(site, missing)
        return not missing

    wait_until(f"{count} volumes", ready, deadline_s=_MAKING_S, detail=lambda: f"{len(missing)} are not ready")
    made_s = time.perf_counter() - begun
    tell("volumes_made", made_s, unit="s", volumes=count, per_second=round(count / made_s, 1))
    tell("volumes_added", added - begun, unit="s", volumes=count, unfinished_then=unfinished)
    first, last = some[:_SOME], some[-_SOME:]
    tell_all("storage", "add_request_ms", [1000 * each for each in first], unit="ms", which=f"first {len(first)}")
    tell_all("storage", "add_request_ms", [1000 * each for each in last], unit="ms", which=f"last {len(last)}")


def _unfinished(site: Site, ids: Sequence[str]) -> list[str]:
    statuses = read_many(site.ops.store, [keys.volume_status(id_) for id_ in ids])
    return [
        id_
        for id_, status in zip(ids, statuses, strict=True)
        if status is None or status.value.state is not VolumeState.READY
    ]


def lists(site: Site, runs: int) -> None:
    """Measure how long it takes to see all volumes."""
    there = len(volume_list(site.ops, VolumeList()))
    _command(site, there, runs)
    _operation(site, runs)
    _driver(site, there, min(runs, _IMAGE_LISTS))


def _command(site: Site, volumes: int, runs: int) -> None:
    """Measure `pvc storage volume list`, from the start of its process to its end."""
    words = ("storage", "volume", "list")
    listed = len(site.sandbox.pvc.json(*words))
    if listed != volumes:
        raise SystemExit(f"the list has {listed} volumes; there are {volumes}")
    for form in ("table", "json"):
        argv = site.sandbox.pvc.argv("--format", form, *words)
        most = float(_succeed([sys.executable, "-c", _MEMORY, *argv])) / 1024
        times = _times(partial(_succeed, argv), runs)
        more = {"format": form, "volumes": volumes, "rss_mib": round(most, 1)}
        tell_all("storage", "volume_list_command_s", times, unit="s", **more)


def _succeed(argv: list[str]) -> str:
    return run(argv, deadline_s=WAIT_S).check().stdout


def _operation(site: Site, runs: int) -> None:
    """Measure the same without a process, and how often it waits for ZooKeeper."""
    store = Counted(site.ops.store)
    listed = volume_list(Ops(cast("Store", store)), VolumeList())
    tell("volume_list_round_trips", store.round_trips, requests=store.requests, volumes=len(listed))
    times = _times(lambda: volume_list(site.ops, VolumeList()), runs)
    tell_all("storage", "volume_list_operation_s", times, unit="s", volumes=len(listed))

    def one_by_one() -> None:
        for each in listed:
            site.ops.store.get(keys.volume_spec(each.id).path)

    (each_alone,) = _times(one_by_one, 1)
    tell("volume_specs_one_by_one_s", each_alone, unit="s", round_trips=len(listed), note="what a list must not do")


def _driver(site: Site, volumes: int, runs: int) -> None:
    """Measure the list that the driver makes of the images themselves, and that of `rbd`."""

    def own_list() -> None:
        found = len(site.driver.volume_list(site.pool))
        if found != volumes:
            raise SystemExit(f"the driver's list has {found} volumes; there are {volumes}")

    own: list[float] = []
    plain: list[float] = []
    for _ in range(runs):
        own += _times(own_list, 1)
        plain += _times(lambda: site.program("rbd", "ls", "-l", POOL, "--format", "json"), 1)
    tell_all("storage", "images_list_s", plain, unit="s", way="rbd ls -l", images=volumes)
    ratio = round(median(own) / median(plain), 2)
    tell_all("storage", "images_list_s", own, unit="s", way="driver", images=volumes, ratio_to_rbd=ratio)


def _times(call: Callable[[], Any], runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times
