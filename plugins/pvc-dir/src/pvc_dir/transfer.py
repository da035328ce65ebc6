"""Volumes from and to image files outside the pool."""

import os
import stat
from pathlib import Path
from typing import Final

from pvc_core.plugin import DriverError, ObjectExists, Progress
from pvc_dir import lineage, volumes
from pvc_dir.holders import check_unused
from pvc_dir.image import Images, check_importable, sync
from pvc_dir.pool import Pool

FILE_FORMATS: Final = ("raw", "qcow2", "vmdk", "vdi", "vpc")
"""What qemu-img reads and writes, under its names: vpc is VHD."""


def take_in(pool: Pool, images: Images, name: str, path: str, format_: str, progress: Progress) -> None:
    """Make a volume, in the pool's format, from an image file; nothing is left of one that fails."""
    _check_format(format_)
    source = Path(path)
    _check_source(source)
    if volumes.find(pool, name) is not None:
        raise volumes.exists(pool, name)
    found = images.info(source, format_)
    check_importable(source, format_, found)
    layer = volumes.new_layer(pool.format, found.size_bytes)
    with volumes.building(pool, name, layer.format, layer) as attempt:
        images.convert(source, format_, attempt.path(), layer.format, progress)
        attempt.commit(size_bytes=found.size_bytes)


def hand_out(pool: Pool, images: Images, name: str, snapshot: str, path: str, format_: str, progress: Progress) -> None:
    """Write a volume, or a snapshot of it, to a new image file, which appears when it is complete."""
    _check_format(format_)
    target = Path(path)
    if not target.is_absolute() or not target.parent.is_dir():
        raise DriverError(f"{path}: give an absolute path in a directory of this node that exists", retryable=False)
    if os.path.lexists(target):
        raise ObjectExists(f"{path} exists already; give another name")
    state = volumes.get(pool, name)
    if snapshot:
        file = lineage.required_snapshot(state, name, snapshot).layer
    else:
        check_unused(state, name, "export it, or export a snapshot of it")
        file = volumes.settle_size(pool, images, name).active
    layer = state.layer(file)
    partial = target.with_name(f"{target.name}.part")
    images.convert(pool.layer(file), layer.format, partial, format_, progress)
    try:
        os.link(partial, target)
    except FileExistsError:
        raise ObjectExists(f"{path} was made by somebody else meanwhile; give another name") from None
    finally:
        partial.unlink(missing_ok=True)
    sync(target)


def _check_format(format_: str) -> None:
    if format_ not in FILE_FORMATS:
        raise DriverError(f"image format {format_!r} is not one of {', '.join(FILE_FORMATS)}", retryable=False)


def _check_source(source: Path) -> None:
    if not source.is_absolute():
        raise DriverError(f"{source} is not an absolute path", retryable=False)
    try:
        mode = source.stat().st_mode
    except FileNotFoundError:
        raise DriverError(f"there is no file {source} on this node", retryable=False) from None
    if not stat.S_ISREG(mode):
        raise DriverError(f"{source} is not a regular file", retryable=False)
