"""What is unwise about taking OSDs out, in sentences with their numbers.  Pure."""

from collections.abc import Collection
from typing import Final

from pvc_ceph.osd.values import OsdList
from pvc_core.model.units import format_bytes

_NEARFULL_PERCENT: Final = 85.0
"""Ceph's default for ``mon_osd_nearfull_ratio``: from here on it warns."""


def without(listing: OsdList, ids: Collection[int]) -> tuple[str, ...]:
    """Return the warnings about taking these OSDs out of a cluster; those that are out already count for nothing."""
    going = [osd for osd in listing.osds if osd.id in ids and osd.inside]
    staying = [osd for osd in listing.osds if osd.id not in ids and osd.inside]
    if not going:
        return ()
    found = []
    hosts, before = {osd.node for osd in staying}, {osd.node for osd in (*going, *staying)}
    names = ", ".join(f"OSD {osd.id}" for osd in going)
    if len(hosts) < min(listing.copies, len(before)):
        found.append(
            f"without {names} {len(hosts)} hosts have OSDs, and each of the {listing.copies} copies needs another host: "
            "data stays on it, and its removal does not end; add an OSD on another host first"
        )
    elif staying and listing.measured:
        used = sum(osd.used_bytes for osd in (*going, *staying))
        room = sum(osd.size_bytes for osd in staying)
        percent = 100.0 * used / room if room else 100.0
        if percent > _NEARFULL_PERCENT:
            found.append(
                f"without {names} the other OSDs would be {percent:.0f} % full ({format_bytes(used)} of "
                f"{format_bytes(room)}): Ceph warns from 85 %, and stops moving data at 90 %; add OSDs first"
            )
    return tuple(found)
