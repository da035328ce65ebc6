"""What an addition would make, and whether it may: nothing is changed."""

from collections.abc import Sequence

import msgspec

from pvc_ceph.osd import verdict
from pvc_ceph.osd.site import Site
from pvc_ceph.osd.values import DESTROYED, LEAST_DEVICE_BYTES, AddPreview, Block, Found, OsdList, OsdRow, Store
from pvc_ceph.sizing import uneven
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import MIB, format_bytes
from pvc_core.plugin import DriverError, ObjectBusy


class AddRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OSDs to be made on a disk of this node."""

    device: str
    count: int = 1
    weight: float | None = None
    """In CRUSH's map, of each; None: its size in TiB."""
    device_class: str = ""
    """Empty: by the kind of disk."""
    db: str = ""
    """Volume group (layout ``lvm``) or empty device (layout ``raw``) for metadata."""
    db_bytes: int = 0
    """Of each OSD."""
    db_percent: float = 0.0
    """Of each OSD's size; instead of ``db_bytes``."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """An addition that may be made."""

    preview: AddPreview
    stores: tuple[Store, ...]


def check_add(
    site: Site,
    request: AddRequest,
    listing: OsdList,
    fsids: Sequence[str],
    *,
    replaced: OsdRow | None = None,
) -> Checked:
    """Check an addition; ``fsids``: UUIDs of the OSDs to be made; ``replaced``: whose disk may be used again.

    Raises InvalidRequest, ObjectBusy (the disk is not empty), DriverError.
    """
    _check_request(request)
    check_can_come_up(listing)
    if "noin" in listing.flags:
        raise ObjectBusy("no OSD gets data while the flag noin is set: pvc storage osd flag unset noin")
    found = site.layout.found()
    freed = [osd for osd in found if replaced is not None and is_of(osd, replaced, listing)]
    old = tuple(osd.fsid for osd in freed)
    gone = (replaced.fsid,) if replaced is not None and replaced.fsid else ()
    block = site.disks.one(request.device)
    _check_free(site, block, listing, found, old)
    size = block.size_bytes // request.count
    if size < LEAST_DEVICE_BYTES:
        raise InvalidRequest(
            f"{request.count} OSDs on {block.name} would have {format_bytes(size)} each, and need at least "
            f"{format_bytes(LEAST_DEVICE_BYTES)}"
        )
    db_bytes = _whole_mib(request.db_bytes or int(size * request.db_percent / 100))
    db = site.layout.db_for(request.db, db_bytes, request.count, {*old, *gone}) if request.db or db_bytes else ""
    if db.startswith("/"):
        metadata = site.disks.one(db)
        if metadata.path == block.path:
            raise InvalidRequest(f"{block.name} cannot hold the metadata of an OSD on itself; leave --db out")
        _check_free(site, metadata, listing, found, old)
        db = metadata.name
    stores = tuple(
        Store(
            fsid=fsid,
            device=block.name,
            part=part,
            parts=request.count,
            db=db,
            db_bytes=0 if db.startswith("/") else db_bytes,
        )
        for part, fsid in enumerate(fsids, 1)
    )
    objection = site.layout.objection(stores)
    if objection:
        raise InvalidRequest(objection)
    device_class = request.device_class or block.device_class
    preview = AddPreview(
        device=block.name,
        osds=request.count,
        size_bytes=size,
        device_class=device_class,
        db=db,
        db_bytes=db_bytes,
        warning=_uneven(site.node, size * request.count, device_class, listing, replaced),
    )
    return Checked(preview=preview, stores=stores)


def check_can_come_up(listing: OsdList) -> None:
    """Raise ObjectBusy while the monitors let no OSD come up."""
    if "noup" in listing.flags:
        raise ObjectBusy("no OSD can come up while the flag noup is set: pvc storage osd flag unset noup")


def _whole_mib(size: int) -> int:
    """LVM wants whole sectors."""
    return -(-size // MIB) * MIB


def is_of(found: Found, osd: OsdRow, listing: OsdList) -> bool:
    """Return whether what was found on a disk is an OSD's data; of a destroyed OSD only the id is known."""
    if found.cluster != listing.fsid or found.id != osd.id:
        return False
    return osd.state == DESTROYED or found.fsid == osd.fsid


def _check_request(request: AddRequest) -> None:
    if not 1 <= request.count <= 16:
        raise InvalidRequest(f"{request.count} OSDs on a device cannot be had; give 1 to 16, 1 as a rule")
    if request.weight is not None and not 0 <= request.weight <= 1000:
        raise InvalidRequest(f"weight {request.weight:g} is none: give TiB, 0 to 1000")
    if request.db_bytes < 0 or not 0 <= request.db_percent <= 50:
        raise InvalidRequest("the part for metadata is 0 to 50 % of an OSD's size")
    if request.db_bytes and request.db_percent:
        raise InvalidRequest("give the size of the metadata or its ratio, not both")


def _check_free(site: Site, block: Block, listing: OsdList, found: Sequence[Found], old: Sequence[str]) -> None:
    """Raise ObjectBusy unless a disk is empty, or holds nothing but the OSDs ``old``."""
    here = on_disk(block, found)
    if here and all(osd.fsid in old for osd in here):
        return
    reasons = refusals(site, block, listing, here)
    if reasons:
        raise ObjectBusy(verdict.advice(block.name, reasons))


def on_disk(block: Block, found: Sequence[Found]) -> list[Found]:
    """Return those of the OSDs that were found that have data or metadata on a disk."""
    return [osd for osd in found if {block.name, block.path} & {osd.device, osd.db}]


def refusals(site: Site, block: Block, listing: OsdList, here: Sequence[Found]) -> tuple[str, ...]:
    """Return what speaks against making an OSD on a disk, on which ``here`` were found."""
    signatures: tuple[str, ...] = ()
    busy, unreadable = False, ""
    try:
        busy = site.disks.is_busy(block)
        signatures = site.disks.signatures(block)
    except DriverError as error:
        unreadable = str(error)
    return verdict.refusals(block, signatures, busy=busy, cluster=listing.fsid, osds=here, unreadable=unreadable)


def _uneven(node: str, added: int, device_class: str, listing: OsdList, replaced: OsdRow | None) -> str:
    if not listing.measured:
        return ""
    before = listing.host_bytes(device_class)
    kept = before.get(node, 0)
    if replaced is not None and replaced.inside and replaced.device_class == device_class:
        kept -= replaced.size_bytes
    try:
        return uneven(before, {**before, node: max(kept, 0) + added}, listing.copies)
    except InvalidRequest:
        # More copies or kinds of hosts than can be counted: no reason to make no OSD.
        return ""
