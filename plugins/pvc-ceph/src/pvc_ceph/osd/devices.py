"""Reads the block devices of this node: ``lsblk`` and ``wipefs``, both as JSON, and the kernel's own word on who has one open."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from pvc_ceph.osd.values import Block
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin import DriverError, ObjectMissing, Run

_COLUMNS: Final = "NAME,PATH,TYPE,SIZE,RO,ROTA,MOUNTPOINTS,MODEL,SERIAL,TRAN"
_DEADLINE_S: Final = 15.0
_STABLE: Final = ("/dev/disk/by-id", "/dev/disk/by-path", "/dev")
"""Where links to disks are that name the same disk after each boot, best first."""
_OF_CONTENTS: Final = ("lvm-pv-uuid-", "dm-")
"""Links that name what is on a disk, not the disk."""


def all_blocks(run: Run) -> list[Block]:
    """Return the block devices that this node has a file for in /dev, without partitions.  Raises DriverError."""
    links = _links()
    return [block(each, links) for each in _lsblk(run) if Path(each["path"]).is_block_device()]


def one_block(run: Run, device: str) -> Block:
    """Return one device, called by any of its paths.  Raises ObjectMissing, InvalidRequest (no block device), DriverError."""
    path = Path(device)
    if not path.is_absolute() or not path.exists():
        raise ObjectMissing(f"there is no device {device} on this node; see: pvc storage osd devices NODE")
    if not path.is_block_device():
        raise InvalidRequest(f"{device} is no block device; see: pvc storage osd devices NODE")
    found = _lsblk(run, os.path.realpath(device))
    if not found:
        raise ObjectMissing(f"the kernel knows no disk {device}")
    return block(found[0], _links())


def signatures(run: Run, device: str) -> tuple[str, ...]:
    """Return what begins on a device: file systems, partition tables, parts of volume groups and of OSDs."""
    said = run(["wipefs", "--json", "--no-act", device], deadline_s=_DEADLINE_S).check().stdout
    # Without a device of its own in sysfs, and for an empty one, older versions print nothing at all.
    return parse_signatures(said) if said.strip() else ()


def is_busy(device: str) -> bool:
    """Return whether somebody has it for himself alone: a mount, device-mapper, a RAID, swap.  Raises DriverError."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:  # open(2): O_EXCL without O_CREAT
            return True
        raise DriverError(f"{device} cannot be opened: {error.strerror}", retryable=False) from error
    return False


def parse_signatures(text: str) -> tuple[str, ...]:
    """Return the signatures in the output of ``wipefs --json``."""
    found = msgspec.json.decode(text)["signatures"]
    return tuple(dict.fromkeys(_signature(each) for each in found))


def block(found: dict[str, Any], links: dict[str, str]) -> Block:
    """Return a device of ``lsblk --json``; ``links``: real path -> stable path."""
    path = found["path"]
    return Block(
        path=path,
        type=found["type"],
        size_bytes=int(found["size"]),
        stable=links.get(path, ""),
        read_only=bool(found["ro"]),
        rotational=bool(found["rota"]),
        nvme=found.get("tran") == "nvme" or found["name"].startswith("nvme"),
        mounted=tuple(sorted(set(_mounts(found)), key=lambda place: (len(place), place))),
        model=(found.get("model") or "").strip(),
        serial=(found.get("serial") or "").strip(),
        uses=tuple(dict.fromkeys(_uses(found))),
    )


def _lsblk(run: Run, *devices: str) -> list[dict[str, Any]]:
    argv = ["lsblk", "--json", "--bytes", "--output", _COLUMNS, *devices]
    said = run(argv, deadline_s=_DEADLINE_S).check().stdout
    found: list[dict[str, Any]] = msgspec.json.decode(said)["blockdevices"]
    return found


def _links() -> dict[str, str]:
    """Return real path -> best stable path of all devices."""
    found: dict[str, str] = {}
    for directory in map(Path, _STABLE):
        for link in sorted(directory.iterdir()) if directory.is_dir() else ():
            if link.is_symlink() and not link.name.startswith(_OF_CONTENTS):
                found.setdefault(os.path.realpath(link), str(link))
    return found


def _mounts(found: dict[str, Any]) -> Iterator[str]:
    yield from (place for place in found.get("mountpoints") or () if place)
    for child in found.get("children", ()):
        yield from _mounts(child)


def _uses(found: dict[str, Any]) -> Iterator[str]:
    for child in found.get("children", ()):
        kind = "partition" if child["type"] == "part" else child["type"]
        yield f"{kind} {child['name']}"
        yield from _uses(child)


def _signature(found: dict[str, Any]) -> str:
    label = found.get("label")
    return f"{found['type']} (label {label})" if label else str(found["type"])
