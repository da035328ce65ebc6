"""After a node was installed anew: all OSDs of this cluster on its disks are let run again."""

import msgspec

from pvc_ceph.osd.add import Result, take_back, wait_for
from pvc_ceph.osd.check import check_can_come_up
from pvc_ceph.osd.site import Course, Site
from pvc_ceph.osd.values import Found, OsdList
from pvc_core.plugin import DriverError


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OSDs to be found."""

    moved: bool = False
    """Also those that were on another node, if they are down: their disks were carried here."""


def refresh(site: Site, request: RefreshRequest, course: Course) -> Result:
    """Let every OSD of this cluster that is found here run, and return when all are up.

    Those of another cluster or node, and those that this cluster does not know any more, are left alone and told of: two
    daemons on one disk, which several nodes may see, would destroy it.  May be repeated.  Raises DriverError when one does not come up; the others run all the same.
    """
    with site.turn(course):
        take_back(site)
        listing = site.monitors.osds()
        check_can_come_up(listing)
        found = sorted(site.layout.found(), key=lambda osd: osd.id)
        refused = {osd.fsid: text for osd in found if (text := objection(osd, listing, site.node, moved=request.moved))}
        mine = [osd for osd in found if osd.fsid not in refused]
        failed: list[str] = []
        for number, osd in enumerate(mine):
            course.safe(0.7 * number / len(mine))
            try:
                site.layout.activate(osd)
            except DriverError as error:
                failed.append(f"OSD {osd.id} on {osd.device}: {error}")
        if failed:
            raise DriverError("; ".join(failed))
        course.safe(0.7)
        # Whether data is placed on it is as it was: an operator may have put it out.
        wait_for(site, [osd.fsid for osd in mine], lambda rows: all(row.up for row in rows), course, 0.7)
        course.on(1.0)
    return {
        "osds": ",".join(str(osd.id) for osd in mine),
        "refused": "; ".join(refused.values()),
    }


def objection(osd: Found, listing: OsdList, node: str, *, moved: bool) -> str:
    """Return why an OSD that was found on a disk is not to run on a node; empty: it is."""
    if osd.cluster != listing.fsid:
        return f"{osd.device} holds OSD {osd.id} of another Ceph cluster ({osd.cluster})"
    row = listing.of(osd.id)
    if row is None or row.fsid != osd.fsid:
        return f"{osd.device} holds an OSD {osd.id} that was removed or replaced; wipe it if it is to be used again"
    if row.node in ("", node):
        return ""
    if row.up:
        return f"{osd.device} holds OSD {osd.id}, which runs on node {row.node}"
    if not moved:
        return (
            f"{osd.device} holds OSD {osd.id} of node {row.node}; if its disk was carried here, repeat it with --moved"
        )
    return ""
