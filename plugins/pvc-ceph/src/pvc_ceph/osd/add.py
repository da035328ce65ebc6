"""Making OSDs, so that nothing half-made stays.

Invariant: whatever is on a disk or known to the monitors and is not an OSD in service belongs to the one addition that
``unfinished`` holds.  So: 1. decide the UUIDs and write them down; 2. make each OSD (its part of the disk, its id); 3. let
them run; 4. wait until they are up, in, and counted; 5. forget the addition.  When that fails, or a later task finds an addition
that a daemon did not live to finish, each of its OSDs that was never up is taken back: ended, forgotten by the monitors,
wiped.  One that was up may hold the only copy of something: it is kept, and let run.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Final

from pvc_ceph.osd.check import AddRequest, Checked, check_add
from pvc_ceph.osd.layout import NewOsd
from pvc_ceph.osd.site import POLL_S, Course, Site
from pvc_ceph.osd.unfinished import Addition
from pvc_ceph.osd.values import NEW, Found, OsdRow, Store
from pvc_core.plugin import DriverError

UP_S: Final = 180.0
"""For an OSD to come up: its daemon reads its database first."""
_TIB: Final = 1 << 40

Result = dict[str, str | int | float | bool | None]


def add(site: Site, request: AddRequest, course: Course) -> Result:
    """Make OSDs on an empty disk and return when they take data.  Raises PvcError, Cancelled; nothing is left then."""
    with site.turn(course):
        take_back(site)
        listing = site.monitors.osds()
        fsids = [str(uuid.uuid4()) for _ in range(request.count)]
        checked = check_add(site, request, listing, fsids)
        addition = Addition(stores=checked.stores, device_class=checked.preview.device_class, weight=request.weight)
        ids = bring_up(site, addition, course, 0.0)
    return result(checked, ids)


def result(checked: Checked, ids: Sequence[int]) -> Result:
    """Return what a task tells of its end."""
    preview = checked.preview
    return {
        "osds": ",".join(map(str, ids)),
        "device": preview.device,
        "device_class": preview.device_class,
        "size_bytes": preview.size_bytes,
        "db": preview.db,
        "warning": preview.warning,
    }


def bring_up(site: Site, addition: Addition, course: Course, begin: float) -> list[int]:
    """Make what was decided, and return the ids of the OSDs once they are in service; or take all back."""
    course.safe(begin)
    site.unfinished.begin(addition)
    try:
        ids = _make(site, addition, course, begin)
    except BaseException:
        _take_back_after_failure(site)
        raise
    site.unfinished.end()
    course.on(1.0)
    return ids


def _make(site: Site, addition: Addition, course: Course, begin: float) -> list[int]:
    span, count = 1.0 - begin, len(addition.stores)
    ids = []
    for number, store in enumerate(addition.stores):
        course.safe(begin + span * 0.5 * number / count)
        new = NewOsd(store=store, device_class=addition.device_class, id=addition.replaces)
        ids.append(site.layout.make(new))
        if addition.weight is not None:
            site.monitors.place(ids[-1], addition.weight, site.node)
    course.safe(begin + span * 0.5)
    mine = found_of(site, addition.stores)
    for osd in mine:
        site.layout.activate(osd)
    wait_in_service(site, [store.fsid for store in addition.stores], course, begin + span * 0.6)
    return ids


def found_of(site: Site, stores: Sequence[Store]) -> list[Found]:
    """Return these OSDs as their disks have them; raise DriverError when one is not there."""
    found = {osd.fsid: osd for osd in site.layout.found()}
    missing = [store for store in stores if store.fsid not in found]
    if missing:
        raise DriverError(f"the OSD that was made on {missing[0].device} is not found there")
    return [found[store.fsid] for store in stores]


def wait_in_service(site: Site, fsids: Sequence[str], course: Course, part: float) -> None:
    """Wait until new OSDs are up, in, and have figures; raise DriverError when that takes too long, Cancelled."""

    def settled(rows: Sequence[OsdRow]) -> bool:
        out = [row.id for row in rows if row.up and not row.inside]
        if out:
            site.monitors.take_in(out)
        return not out and all(row.up and row.size_bytes for row in rows)

    wait_for(site, fsids, settled, course, part)


def wait_for(
    site: Site, fsids: Sequence[str], settled: Callable[[Sequence[OsdRow]], bool], course: Course, part: float
) -> None:
    """Wait until the monitors know these OSDs, and they are settled; raise DriverError, Cancelled."""
    deadline = site.clock() + UP_S
    while True:
        listing = site.ask(site.monitors.osds, course, part)
        rows = [row for fsid in fsids if (row := listing.with_fsid(fsid)) is not None]
        if len(rows) == len(fsids) and settled(rows):
            return
        if site.clock() >= deadline:
            late = ", ".join(str(row.id) for row in rows if not row.up) or "of the last task"
            raise DriverError(
                f"OSD {late} did not come up within {UP_S:g} s; its log says why: journalctl -u ceph-osd@ID on node "
                f"{site.node}, or /var/log/ceph"
            )
        course.safe(part)
        site.pause(POLL_S)


def take_back(site: Site) -> None:
    """Undo what an addition that was cut off has left; its OSDs that were up once are let run.  Raises DriverError."""
    addition = site.unfinished.load()
    if addition is None:
        return
    listing = site.monitors.osds()
    found = {osd.fsid: osd for osd in site.layout.found()}
    for store in addition.stores:
        row = listing.with_fsid(store.fsid)
        if row is not None and row.state != NEW:
            site.log.info("osd-kept osd=%d device=%s", row.id, store.device)
            if store.fsid in found:
                _let_run(site, found[store.fsid])
            continue
        try:
            if row is not None:
                site.layout.deactivate(row.id, store.fsid)
                _forget(site, row, addition)
            site.layout.wipe([store])
        except DriverError as error:
            raise DriverError(
                f"an earlier addition on {store.device} was cut off and could not be undone: {error}; repeat the command, "
                "and if that disk is dead, pull it first"
            ) from error
        site.log.info("osd-taken-back osd=%s device=%s", row.id if row else "-", store.device)
    site.unfinished.end()


def _let_run(site: Site, osd: Found) -> None:
    try:
        site.layout.activate(osd)
    except DriverError as error:
        # It is an OSD like any other, which refresh starts too: no reason to do nothing else on this node.
        site.log.warning("osd-not-started osd=%d error=%s", osd.id, error)


def _forget(site: Site, row: OsdRow, addition: Addition) -> None:
    if row.up:
        site.monitors.mark_down(row.id)
    if addition.replaces is None:
        site.monitors.purge_new(row.id)
    else:
        # The id goes on being kept.  It holds nothing: it was never up; but it has its share of the map.
        site.monitors.destroy(row.id, force=True)


def _take_back_after_failure(site: Site) -> None:
    try:
        take_back(site)
    except DriverError as error:
        # What failed first is told; the next task of this node tries again.
        site.log.warning("osd-not-taken-back error=%s", error)


def weight_of(size_bytes: int) -> float:
    """Return the weight that Ceph gives a disk by itself: TiB."""
    return size_bytes / _TIB
