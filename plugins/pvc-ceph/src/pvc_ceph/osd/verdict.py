"""Whether an OSD can be made on a disk, and if not, what is on it.  Pure."""

from collections.abc import Sequence
from typing import Final

from pvc_ceph.osd.values import LEAST_DEVICE_BYTES, Block, Found
from pvc_core.model.units import format_bytes

WHOLE: Final = ("disk", "loop", "mpath")
"""Types of devices that are disks, or stand for one."""
_NAMED: Final = 3
"""So many mounts and uses are named; more are counted."""


def refusals(
    block: Block,
    signatures: Sequence[str],
    *,
    busy: bool,
    cluster: str,
    osds: Sequence[Found] = (),
    unreadable: str = "",
    least_bytes: int = LEAST_DEVICE_BYTES,
) -> tuple[str, ...]:
    """Return what speaks against making an OSD on a disk, most telling first; nothing: it is empty, and free.

    ``signatures``: what begins on it (``ext4 (label home)``); ``busy``: somebody has it open for himself alone;
    ``osds``: whose data was found on it; ``cluster``: the fsid of ours; ``unreadable``: why nothing is known of what is on it.
    """
    reasons = [_osd(osd, cluster) for osd in osds]
    if block.type not in WHOLE:
        reasons.append(f"is no whole disk but of type {block.type}")
    if block.mounted:
        reasons.append(f"is mounted at {_some(block.mounted)}")
    if block.uses and not osds:
        reasons.append(f"is used by {_some(block.uses)}")
    known = ("ceph_bluestore", "LVM2_member") if osds else ()
    foreign = [text for text in signatures if not text.startswith(known)] if known else list(signatures)
    if foreign:
        reasons.append(f"has data on it: {', '.join(foreign)}")
    if unreadable:
        reasons.append(f"cannot be read ({unreadable})")
    if busy and not reasons:
        reasons.append("is open in another program, or in the kernel")
    if block.read_only:
        reasons.append("is read-only")
    if block.size_bytes < least_bytes:
        reasons.append(f"has {format_bytes(block.size_bytes)}, and {format_bytes(least_bytes)} are needed")
    return tuple(reasons)


def advice(device: str, reasons: Sequence[str]) -> str:
    """Return the sentence with which a disk is refused."""
    text = f"{device} {', '.join(reasons)}"
    if any("has data on it" in reason for reason in reasons):
        return f"{text}; if nothing on it is needed, wipe it on its node: wipefs --all {device}"
    return text


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _osd(osd: Found, cluster: str) -> str:
    return f"holds OSD {osd.id}" + ("" if osd.cluster == cluster else f" of another Ceph cluster ({osd.cluster})")
