"""After a node was installed anew: all OSDs of this cluster on its disks are let run again."""

from pvc_ceph.osd.add import Result, take_back, wait_for
from pvc_ceph.osd.site import Course, Site
from pvc_ceph.osd.values import Found, OsdList
from pvc_core.plugin import DriverError


def refresh(site: Site, course: Course) -> Result:
    """Let every OSD of this cluster that is found here run, and return when all are up.

    Those of another cluster, and those that this cluster does not know any more, are left alone and told of.  May be
    repeated.  Raises DriverError when one does not come up; the others run all the same.
    """
    with site.turn(course):
        take_back(site)
        listing = site.monitors.osds()
        found = sorted(site.layout.found(), key=lambda osd: osd.id)
        refused = {osd.fsid: text for osd in found if (text := objection(osd, listing))}
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


def objection(osd: Found, listing: OsdList) -> str:
    """Return why an OSD that was found on a disk is not to run here; empty: it is."""
    if osd.cluster != listing.fsid:
        return f"{osd.device} holds OSD {osd.id} of another Ceph cluster ({osd.cluster})"
    row = listing.of(osd.id)
    if row is None or row.fsid != osd.fsid:
        return f"{osd.device} holds an OSD {osd.id} that was removed or replaced; wipe it if it is to be used again"
    return ""
