"""Clones of volumes: sharing the blocks of their source, or full copies."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from pvc_ceph.worker import names
from pvc_ceph.worker.ceph import FEATURES, RBD, Cluster, Image, ceph_errors
from pvc_ceph.worker.volumes import check_instant, drop, instant_of, keep_instant, metadata, opened, what
from pvc_core.plugin import Cancelled, DriverError, ObjectExists, ObjectMissing, Progress

_MADE_FROM: Final = "pvc.made_from"
"""Metadata of a clone: of what, so that a repeated request is recognised."""
_AT_ONCE: Final = 16
"""Pieces that are copied at the same time."""
_PIECE_BYTES: Final = 4 << 20


def clone(
    cluster: Cluster, pool: str, source: str, snapshot: str, target: str, full_copy: bool, progress: Progress
) -> None:
    """Create ``target`` with the contents of ``source``; the same clone made by an earlier try is success."""
    with opened(cluster, pool, source, snapshot=snapshot or None, read_only=True) as image:
        made_from = f"{image.id()}@{snapshot}" + (" copied" if full_copy else "")
    with ceph_errors(what(pool, target)):
        names.finish(cluster, pool, target)
    if _is_made_from(cluster, pool, target, made_from):
        return
    name = names.new(cluster, pool, target)
    try:
        with ceph_errors(f"{what(pool, target)} cannot be made from {source}{snapshot and '@'}{snapshot}"):
            if full_copy:
                _copy(cluster, pool, source, snapshot, name, progress)
            else:
                _share(cluster, pool, source, snapshot, name)
            with Image(cluster.pool(pool), name) as image:
                image.metadata_set(_MADE_FROM, made_from)
            names.rename(cluster, pool, name, target)
    except DriverError as error:
        drop(cluster, pool, name)
        if isinstance(error, ObjectExists) and _is_made_from(cluster, pool, target, made_from):
            return
        raise


def _copy(cluster: Cluster, pool: str, source: str, snapshot: str, name: str, progress: Progress) -> None:
    ioctx = cluster.pool(pool)
    base = snapshot or keep_instant(cluster, pool, source)
    try:
        read = instant_of(cluster, pool, source, base)
        with opened(cluster, pool, source, snapshot=base, read_only=True) as image:
            size = image.size()
            RBD().create(ioctx, name, size, old_format=False, features=FEATURES)
            with Image(ioctx, name) as target:
                _copy_data(image, target, size, progress)
        check_instant(cluster, pool, source, read)
    finally:
        if not snapshot:
            names.drop_hidden(cluster, pool, source, base)


def _copy_data(source: Image, target: Image, size: int, progress: Progress) -> None:
    """Copy what one image holds into an empty one.  librbd's own copy does not tell how far it is, nor that it hangs."""
    extents: list[tuple[int, int]] = []

    def note(offset: int, length: int, _exists: bool) -> None:
        # Whatever it says of them: before Ceph 16.2.15 it says of what is the parent's that it does not exist.
        extents.append((offset, length))

    source.diff_iterate(0, size, None, note, whole_object=True)
    total, done = sum(length for _, length in extents), 0

    def copy(piece: tuple[int, int]) -> int:
        offset, length = piece
        data = source.read(offset, length)
        if data != bytes(length):
            target.write(data, offset)
        return length

    pieces = (
        (at, min(_PIECE_BYTES, offset + length - at))
        for offset, length in extents
        for at in range(offset, offset + length, _PIECE_BYTES)
    )
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        while batch := list(islice(pieces, 4 * _AT_ONCE)):
            done += sum(threads.map(copy, batch))
            if progress(done / total):
                raise Cancelled("cancelled")


def _share(cluster: Cluster, pool: str, source: str, snapshot: str, name: str) -> None:
    ioctx = cluster.pool(pool)
    base = snapshot or keep_instant(cluster, pool, source)
    try:
        RBD().clone(ioctx, source, base, ioctx, name, features=FEATURES)
    except BaseException:
        if not snapshot:
            names.drop_hidden(cluster, pool, source, base)
        raise


def _is_made_from(cluster: Cluster, pool: str, name: str, made_from: str) -> bool:
    """Return whether the volume is such a clone, False when it does not exist; raise ObjectExists when it is another."""
    try:
        with opened(cluster, pool, name, read_only=True) as image:
            found = metadata(image, _MADE_FROM) or ""
    except ObjectMissing:
        return False
    if found != made_from:
        raise ObjectExists(f"{what(pool, name)} exists already")
    return True
