"""Taking OSDs out of the cluster: removed, or replaced by one of the same id.

The order, each step of which may be the last before the daemon's death; the same command then goes on from there:

1. out: its data moves to others.  To be removed, its weight becomes 0 too: its host gets its lesser part of the data at once and
   not in a second move, and CRUSH does not try again and again to choose the OSD, and give up (Ceph documentation, "Removing
   OSDs").  To be replaced, it keeps its weight: what left the host comes back to it.
2. wait until nothing rests on it (``osd safe-to-destroy``); until then all can be cancelled.
3. wait until it may stop (``osd ok-to-stop``), end its daemon for good.
4. ``osd destroy``: from now on it cannot come back.  Ceph checks 2 once more, in the same step.
5. wipe its disk: whatever carries this OSD's UUID, of a destroyed one its id.
6. ``osd purge`` (remove), or make the new one under the same id (replace).

With force, 2 and the questions to Ceph in 3 and 4 are left out: what had no copy elsewhere is lost.
"""

import uuid
from typing import Final

import msgspec

from pvc_ceph.osd.add import Result, bring_up, result, take_back, weight_of
from pvc_ceph.osd.check import AddRequest, Checked, check_add, is_of
from pvc_ceph.osd.monitors import known
from pvc_ceph.osd.site import POLL_S, Course, Site
from pvc_ceph.osd.unfinished import Addition
from pvc_ceph.osd.values import DESTROYED, NEW, OsdList, OsdRow, Store
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin import Cancelled, DriverError, ObjectBusy

_DOWN_S: Final = 60.0


class RemoveRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OSD to be removed."""

    osd: int
    force: bool = False
    absent: bool = False
    """Its node is gone: only the cluster forgets it.  With ``force``, on any node."""


class ReplaceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OSD that gets another disk and keeps its id."""

    osd: int
    device: str
    force: bool = False
    weight: float | None = None
    db: str = ""
    db_bytes: int = 0
    db_percent: float = 0.0


def remove(site: Site, request: RemoveRequest, course: Course) -> Result:
    """Remove an OSD with its data.  Raises ObjectMissing, DriverError, Cancelled (it is as before then)."""
    with site.turn(course):
        take_back(site)
        listing = site.monitors.osds()
        osd = known(listing, request.osd)
        wiped = _retire(site, listing, osd, request, course, 0.9, for_good=True)
        course.on(0.95)
        # Destroyed as it is, nothing can rest on it; but Ceph has no figures any more that say so.
        site.monitors.purge(osd.id, force=True)
        course.on(1.0)
    return {"osd": osd.id, "node": osd.node, "wiped": wiped}


def replace(site: Site, request: ReplaceRequest, course: Course) -> Result:
    """Give an OSD another disk, or the same one anew.  Raises ObjectMissing, ObjectBusy, DriverError, Cancelled."""
    with site.turn(course):
        take_back(site)
        listing = site.monitors.osds()
        osd = known(listing, request.osd)
        wanted = AddRequest(
            device=request.device,
            weight=request.weight,
            device_class=osd.device_class,
            db=request.db,
            db_bytes=request.db_bytes,
            db_percent=request.db_percent,
        )
        # Before anything is given up.
        checked = check_add(site, wanted, listing, [str(uuid.uuid4())], replaced=osd)
        retired = RemoveRequest(osd=osd.id, force=request.force)
        _retire(site, listing, osd, retired, course, 0.6, for_good=False)
        try:
            _check_again(site, wanted, checked, osd)
            weight = weight_of(checked.preview.size_bytes) if request.weight is None else request.weight
            # CRUSH's map still has the class, and would take no other.
            ids = bring_up(site, Addition(stores=checked.stores, weight=weight, replaces=osd.id), course, 0.6)
        except (DriverError, InvalidRequest, Cancelled) as error:
            raise DriverError(
                f"OSD {osd.id} is destroyed, and keeps its id, but could not be made anew: {error}; repeat the command, with "
                "another disk if need be"
            ) from error
    return result(checked, ids)


def _check_again(site: Site, wanted: AddRequest, before: Checked, osd: OsdRow) -> None:
    """Raise unless the new disk is as it was before its predecessor was emptied, which may have been days ago."""
    fsids = [store.fsid for store in before.stores]
    now = check_add(site, wanted, site.monitors.osds(), fsids, replaced=osd)
    if (now.preview.device, now.preview.size_bytes) != (before.preview.device, before.preview.size_bytes):
        raise ObjectBusy(f"{wanted.device} is another disk than when the command was given")


def _retire(
    site: Site, listing: OsdList, osd: OsdRow, request: RemoveRequest, course: Course, end: float, *, for_good: bool
) -> str:
    """Do steps 1 to 5; return what was wiped."""
    if request.absent:
        _check_absent(osd, request)
    elif osd.node not in ("", site.node):
        raise InvalidRequest(f"OSD {osd.id} is on node {osd.node}, not on {site.node}")
    mine = [] if request.absent else [found for found in site.layout.found() if is_of(found, osd, listing)]
    if osd.state != DESTROYED:
        if not request.force and osd.state != NEW:
            _drain(site, osd, course, end * 0.9, for_good=for_good)
        try:
            _stop(site, osd, request, course.without_return(), end * 0.9)
            site.monitors.destroy(osd.id, force=request.force or osd.state == NEW)
        except DriverError:
            if not request.absent:
                for found in mine:
                    site.layout.activate(found)
            raise
    course.on(end * 0.95)
    if not request.absent:
        # Of one whose disk was not found: there may be a directory, and a unit that is enabled.
        site.layout.deactivate(osd.id, osd.fsid)
    stores = [Store(fsid=found.fsid, device=found.data, db=found.db) for found in mine]
    if osd.fsid and not mine and not request.absent:
        # Its disk is dead or gone; what holds its metadata may be there.
        stores.append(Store(fsid=osd.fsid, device="", db=osd.db))
    site.layout.wipe(stores)
    return ", ".join(found.device for found in mine)


def _check_absent(osd: OsdRow, request: RemoveRequest) -> None:
    if not request.force:
        raise InvalidRequest(
            f"the disk of OSD {osd.id} cannot be reached without its node; with force only the cluster forgets it"
        )
    if osd.up:
        raise InvalidRequest(f"OSD {osd.id} is up, so node {osd.node} is not gone; it is removed there")


def _drain(site: Site, osd: OsdRow, course: Course, end: float, *, for_good: bool) -> None:
    """Let its data move away, and wait for that; as before when it is cancelled."""
    try:
        if osd.inside:
            site.monitors.put_out([osd.id])
        if for_good and osd.weight:
            site.monitors.reweight(osd.id, 0.0)
        most, part = 1, 0.0
        said = _Said(site, course, osd.id)
        while not (safety := site.ask(lambda: site.monitors.safety(osd.id), course, part)).safe:
            said.why(safety.why)
            most = max(most, safety.pgs)
            part = end * (1.0 - safety.pgs / most)
            course.safe(part)
            site.pause(POLL_S)
        while why := site.ask(lambda: site.monitors.why_not_stop(osd.id), course, end):
            said.why(why)
            course.safe(end)
            site.pause(POLL_S)
        course.say("")
    except Cancelled:
        if for_good and osd.weight:
            site.monitors.reweight(osd.id, osd.weight)
        if osd.inside:
            site.monitors.take_in([osd.id])
        raise


class _Said:
    """Why a wait goes on, for who asked and for the node's log: once for each reason."""

    def __init__(self, site: Site, course: Course, osd: int) -> None:
        self._site: Final = site
        self._course: Final = course
        self._osd: Final = osd
        self._last = ""

    def why(self, reason: str) -> None:
        """Tell it, unless it was told."""
        if reason != self._last:
            self._site.log.info("osd-waits osd=%d for=%r", self._osd, reason)
            self._course.say(f"OSD {self._osd} waits: {reason}")
            self._last = reason


def _stop(site: Site, osd: OsdRow, request: RemoveRequest, course: Course, part: float) -> None:
    """End its daemon, and wait until the monitors know that."""
    if request.absent:
        return
    site.layout.deactivate(osd.id, osd.fsid)
    deadline = site.clock() + _DOWN_S
    while (row := site.ask(site.monitors.osds, course, part).of(osd.id)) is not None and row.up:
        if site.clock() >= deadline:
            raise DriverError(f"OSD {osd.id} is up although its daemon on node {site.node} has ended")
        site.monitors.mark_down(osd.id)
        site.pause(POLL_S)
