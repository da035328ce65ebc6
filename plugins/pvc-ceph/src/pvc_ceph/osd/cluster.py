"""What changes no disk: OSDs in and out, flags; and a volume group for metadata."""

from collections.abc import Sequence

import msgspec

from pvc_ceph.osd import verdict
from pvc_ceph.osd.add import Result, take_back, weight_of
from pvc_ceph.osd.check import on_disk, refusals
from pvc_ceph.osd.flags import CLUSTER_FLAGS, OSD_FLAGS
from pvc_ceph.osd.monitors import known
from pvc_ceph.osd.site import Course, Site
from pvc_ceph.osd.values import OsdRow
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin import ObjectBusy


class OsdsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OSDs to be put in or out."""

    osds: tuple[int, ...]


class FlagRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flag to be set or unset."""

    flag: str
    wanted: bool
    osds: tuple[int, ...] = ()
    """Empty: of the whole cluster."""


class GroupRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume group to be made on an empty disk."""

    device: str


def put_in(site: Site, request: OsdsRequest, course: Course) -> Result:
    """Let data be placed on OSDs; one without weight, as a removal leaves it that was cut off, gets that of its size.

    Raises ObjectMissing, DriverError.
    """
    rows = _known(site, request.osds)
    course.safe(0.0)
    for row in rows:
        if not row.weight and row.disk_bytes:
            site.monitors.reweight(row.id, weight_of(row.disk_bytes))
    site.monitors.take_in(request.osds)
    return {"osds": _ids(request.osds)}


def put_out(site: Site, request: OsdsRequest, course: Course) -> Result:
    """Let the data of OSDs move to others.  Raises ObjectMissing, DriverError."""
    _known(site, request.osds)
    course.safe(0.0)
    site.monitors.put_out(request.osds)
    return {"osds": _ids(request.osds)}


def set_flag(site: Site, request: FlagRequest, course: Course) -> Result:
    """Set or unset a flag.  Raises InvalidRequest, ObjectMissing, DriverError."""
    possible = OSD_FLAGS if request.osds else CLUSTER_FLAGS
    if request.flag not in possible:
        of = "a single OSD" if request.osds else "a cluster"
        raise InvalidRequest(f"{request.flag!r} is no flag of {of}; there are: {', '.join(possible)}")
    if request.osds:
        _known(site, request.osds)
    course.safe(0.0)
    site.monitors.flag(request.flag, request.wanted, request.osds)
    return {"flag": request.flag, "set": request.wanted, "osds": _ids(request.osds)}


def create_db_group(site: Site, request: GroupRequest, course: Course) -> Result:
    """Make a volume group for metadata on an empty disk.  Raises ObjectBusy, DriverError, Unsupported."""
    with site.turn(course):
        take_back(site)
        block = site.disks.one(request.device)
        listing = site.monitors.osds()
        here = on_disk(block, site.layout.found())
        reasons = refusals(site, block, listing, here)
        if reasons:
            raise ObjectBusy(verdict.advice(block.name, reasons))
        course.safe(0.5)
        name = site.layout.make_db_group(block.name)
    return {"group": name, "device": block.name, "size_bytes": block.size_bytes}


def _known(site: Site, ids: Sequence[int]) -> list[OsdRow]:
    if not ids:
        raise InvalidRequest("name at least one OSD")
    listing = site.monitors.osds()
    return [known(listing, id_) for id_ in ids]


def _ids(ids: Sequence[int]) -> str:
    return ",".join(map(str, ids))
