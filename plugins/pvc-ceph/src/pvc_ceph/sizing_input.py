"""Layouts as people write them: ``4x3.84T``, nodes one by one, or a file.

Disks are written as their makers do: T is 10^12 bytes, TiB is 2^40.  Memory is written as everywhere in PVC: G is 2^30.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from pvc_ceph.sizing import MOST_COPIES
from pvc_ceph.sizing_plan import OSD_MEMORY_BYTES, Layout, Media, PlannedNode
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_name, did_you_mean
from pvc_core.model.units import parse_bytes

_DISKS: Final = re.compile(
    r"^(?:(\d{1,4})\s*[x*]\s*)?(\d{1,9}(?:\.\d{1,9})?)\s*([KMGTP])(i)?B?$", re.IGNORECASE | re.ASCII
)
_POWER: Final = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_PERCENT: Final = re.compile(r"^(\d{1,3})\s*%?$", re.ASCII)
_LEAST_DISK_BYTES: Final = 10**9
_MOST_NODES: Final = 1000
_MOST_DISKS: Final = 200


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node in a file."""

    disks: tuple[str, ...] = ()
    """Such as ``4x3.84T``."""
    db_devices: tuple[str, ...] = ()
    memory: str | int = 0
    cores: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0


class LayoutFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with a layout."""

    nodes: dict[str, NodeEntry]
    copies: int = 3
    mincopies: int | None = None
    full_at: str | int = 80
    media: Media = "ssd"
    monitors: int | None = None
    osd_memory: str | int = OSD_MEMORY_BYTES


def parse_disks(text: str) -> tuple[int, ...]:
    """Return the bytes of each disk of ``4x3.84T`` or of several such parts with commas.  Raises InvalidRequest."""
    disks: list[int] = []
    for part in text.split(","):
        match = _DISKS.match(part.strip())
        if match is None:
            raise InvalidRequest(
                f"{text!r} says no disks; write their number and size, such as 4x3.84T or 2x7.68T,1x960G"
            )
        size = int(Fraction(match[2]) * (1024 if match[4] else 1000) ** _POWER[match[3].upper()])
        if size < _LEAST_DISK_BYTES:
            raise InvalidRequest(f"{part.strip()!r} is too small for a disk; write its size such as 960G or 3.84T")
        disks += [size] * int(match[1] or 1)
    if not 0 < len(disks) <= _MOST_DISKS:
        raise InvalidRequest(f"{text!r} are {len(disks)} disks in one node; there can be 1 to {_MOST_DISKS}")
    return tuple(disks)


def parse_percent(text: str | int) -> int:
    """Return a whole percentage of 1 to 95.  Raises InvalidRequest."""
    match = _PERCENT.match(str(text).strip())
    if match is None or not 1 <= int(match[1]) <= 95:
        raise InvalidRequest(f"{text!r} is no fill level; write 1% to 95%, at which Ceph stops all writes")
    return int(match[1])


def node(
    name: str,
    disks: Iterable[str],
    *,
    db_devices: Iterable[str] = (),
    memory: str | int = 0,
    cores: int = 0,
) -> PlannedNode:
    """Return a node as written.  Raises InvalidRequest that names it."""
    check_name(name, "node name")
    try:
        return PlannedNode(
            name=name,
            disks=tuple(disk for text in disks for disk in parse_disks(text)),
            db_devices=tuple(disk for text in db_devices for disk in parse_disks(text)),
            memory_bytes=parse_bytes(memory, "memory") if memory else 0,
            cores=cores,
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"node {name}: {error}") from error


def layout(
    nodes: Sequence[PlannedNode],
    *,
    copies: int = 3,
    mincopies: int | None = None,
    full_at: str | int = 80,
    media: Media = "ssd",
    monitors: int | None = None,
    osd_memory: str | int = OSD_MEMORY_BYTES,
) -> Layout:
    """Return a layout after checks.

    ``mincopies`` is what Ceph takes where nobody says: half of the copies, rounded up.  ``monitors`` are 3, or as many as
    there are nodes.  Raises InvalidRequest.
    """
    if not 0 < len(nodes) <= _MOST_NODES:
        raise InvalidRequest(f"{len(nodes)} nodes cannot be planned; give 1 to {_MOST_NODES}")
    if not any(one.disks for one in nodes):
        raise InvalidRequest("no node has a disk; give them with --disks or --node, such as --disks 4x3.84T")
    if not 1 <= copies <= MOST_COPIES:
        raise InvalidRequest(f"{copies} copies cannot be had; take 1 to {MOST_COPIES}, 3 as a rule")
    needed = copies - copies // 2 if mincopies is None else mincopies
    if not 1 <= needed <= copies:
        raise InvalidRequest(f"of {copies} copies {needed} cannot be needed; give 1 to {copies} as mincopies")
    running = min(3, len(nodes)) if monitors is None else monitors
    if not 1 <= running <= len(nodes):
        raise InvalidRequest(
            f"{running} monitors cannot run on {len(nodes)} nodes, one on each; give 1 to {len(nodes)}"
        )
    memory = parse_bytes(osd_memory, "memory of an OSD")
    if memory < 1 << 30:
        raise InvalidRequest(f"{osd_memory!r} is too little memory for an OSD; give at least 2G, 4G as a rule")
    return Layout(
        nodes=tuple(nodes),
        copies=copies,
        mincopies=needed,
        full_percent=parse_percent(full_at),
        media=media,
        monitors=running,
        osd_memory_bytes=memory,
    )


def read_file(path: Path) -> LayoutFile:
    """Return a layout file (YAML or JSON).  Raises InvalidRequest that names the file and what is wrong."""
    try:
        data = msgspec.yaml.decode(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    try:
        return msgspec.convert(data, LayoutFile)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{path}: {error}{_hint(str(error), data)}") from error


def _hint(error: str, data: object) -> str:
    """Return the nearest known key for an unknown one."""
    if "unknown field" not in error or not isinstance(data, dict):
        return ""
    entries: list[Any]
    if "at `$" in error:
        entries, known = list(data["nodes"].values()), NodeEntry.__struct_fields__
    else:
        entries, known = [data], LayoutFile.__struct_fields__
    unknown = [str(key) for entry in entries if isinstance(entry, dict) for key in entry if key not in known]
    return did_you_mean(unknown[0], known) if unknown else ""


def file_nodes(found: LayoutFile) -> list[PlannedNode]:
    """Return the nodes of a file.  Raises InvalidRequest."""
    return [
        node(name, entry.disks, db_devices=entry.db_devices, memory=entry.memory, cores=entry.cores)
        for name, entry in found.nodes.items()
    ]
