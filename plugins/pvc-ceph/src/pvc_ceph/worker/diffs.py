"""Incremental streams of volumes, in the format of ``rbd export-diff`` (version 1), so that Ceph's own tools read them too.

Source: https://docs.ceph.com/en/pacific/dev/rbd-diff/.  A stream that is being applied is noted in the image's metadata: when
that is interrupted, what it has changed is undone before anything else.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from pvc_ceph.worker import holdings, kept
from pvc_ceph.worker.ceph import Cluster, Image
from pvc_ceph.worker.volumes import check_instant, instant_of, metadata, opened, what
from pvc_core.plugin import Cancelled, DriverError, ObjectMissing, Progress
from pvc_core.plugin.holding import check_unused
from pvc_core.plugin.qemu_img import check_source, new_file

_MAGIC: Final = b"rbd diff v1\n"
_LENGTH: Final = struct.Struct("<I")
_NUMBER: Final = struct.Struct("<Q")
_EXTENT: Final = struct.Struct("<QQ")
_CHUNK: Final = 4 * 1024 * 1024
_APPLYING: Final = "pvc.applying"
"""Metadata: the snapshot that the stream which is being applied ends with."""


class _Extent(NamedTuple):
    """A part of a volume that changed."""

    offset: int
    length: int
    data: bool
    """False: it reads as zeros."""


class _Stream(NamedTuple):
    """The head of a stream."""

    base: str
    snapshot: str
    size_bytes: int


def export(cluster: Cluster, pool: str, name: str, base: str, snapshot: str, path: str, progress: Progress) -> None:
    """Write what changed from snapshot ``base`` (empty: all) to ``snapshot`` into a new file."""
    read = instant_of(cluster, pool, name, snapshot)
    with opened(cluster, pool, name, snapshot=snapshot, read_only=True) as image:
        if base and kept.find(image, base) is None:
            raise ObjectMissing(f"{what(pool, name)} has no snapshot {base!r}")
        extents: list[_Extent] = []
        image.diff_iterate(
            0, image.size(), base or None, lambda offset, length, data: extents.append(_Extent(offset, length, data))
        )
        with new_file(path) as partial, partial.open("xb") as file:
            _write(file, image, _Stream(base, snapshot, image.size()), extents, progress)
            check_instant(cluster, pool, name, read)


def take_in(cluster: Cluster, pool: str, name: str, path: str, progress: Progress) -> None:
    """Apply a stream to a volume that nobody uses and that has not changed since the stream's base.

    One whose snapshot the volume has already is success.
    """
    check_source(Path(path))
    with Path(path).open("rb") as file, opened(cluster, pool, name) as image:
        stream = _read_head(file, path)
        check_unused(holdings.get(cluster, pool, image.id()), name, "apply a stream to it")
        snapshots = {found.name: found.size_bytes for found in kept.named(image)}
        if stream.snapshot in snapshots:
            progress(1.0)
            return
        if stream.base and stream.base not in snapshots:
            raise DriverError(
                f"{what(pool, name)} has no snapshot {stream.base!r}, on which {path} rests; apply what came before it first",
                retryable=False,
            )
        if _applying(image):
            _undo(image, stream.base, snapshots)
        elif _has_changed(cluster, pool, name, image, stream.base):
            since = f"since snapshot {stream.base!r}" if stream.base else "and the stream holds a whole one"
            raise DriverError(
                f"{what(pool, name)} has been written to {since}; apply {path} to another", retryable=False
            )
        image.metadata_set(_APPLYING, stream.snapshot)
        try:
            _apply(file, image, stream, path, progress)
        except BaseException:
            _undo(image, stream.base, snapshots)
            image.metadata_remove(_APPLYING)
            raise
        image.metadata_remove(_APPLYING)


def _write(file: IO[bytes], image: Image, stream: _Stream, extents: list[_Extent], progress: Progress) -> None:
    file.write(_MAGIC)
    for tag, text in ((b"f", stream.base), (b"t", stream.snapshot)):
        if text:
            file.write(tag + _LENGTH.pack(len(text.encode())) + text.encode())
    file.write(b"s" + _NUMBER.pack(stream.size_bytes))
    total, done = sum(extent.length for extent in extents) or 1, 0
    _stop_if_told(progress, 0.0)
    for extent in extents:
        for offset, length in _chunks(extent) if extent.data else [(extent.offset, extent.length)]:
            if extent.data:
                file.write(b"w" + _EXTENT.pack(offset, length) + image.read(offset, length))
            else:
                file.write(b"z" + _EXTENT.pack(offset, length))
            done += length
            _stop_if_told(progress, done / total)
    file.write(b"e")


def _chunks(extent: _Extent) -> Iterator[tuple[int, int]]:
    for offset in range(extent.offset, extent.offset + extent.length, _CHUNK):
        yield offset, min(_CHUNK, extent.offset + extent.length - offset)


def _read_head(file: IO[bytes], path: str) -> _Stream:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise DriverError(f"{path} is not an incremental stream of a volume", retryable=False)
    base = snapshot = ""
    while (tag := file.read(1)) in (b"f", b"t"):
        (length,) = _LENGTH.unpack(_exactly(file, _LENGTH.size, path))
        text = _exactly(file, min(length, 4096), path).decode()
        base, snapshot = (text, snapshot) if tag == b"f" else (base, text)
    if tag != b"s" or not snapshot:
        raise DriverError(f"{path} does not say with which snapshot it ends", retryable=False)
    (size,) = _NUMBER.unpack(_exactly(file, _NUMBER.size, path))
    return _Stream(base, snapshot, size)


def _apply(file: IO[bytes], image: Image, stream: _Stream, path: str, progress: Progress) -> None:
    if image.size() != stream.size_bytes:
        image.resize(stream.size_bytes)
    length_of_file = Path(path).stat().st_size
    _stop_if_told(progress, 0.0)
    while (tag := _exactly(file, 1, path)) != b"e":
        if tag not in (b"w", b"z"):
            raise DriverError(f"{path} is damaged at byte {file.tell() - 1}", retryable=False)
        offset, length = _EXTENT.unpack(_exactly(file, _EXTENT.size, path))
        if offset + length > stream.size_bytes:
            raise DriverError(f"{path} is damaged: it writes past the end of the volume", retryable=False)
        if tag == b"z":
            image.discard(offset, length)
        for at in range(offset, offset + length if tag == b"w" else offset, _CHUNK):
            image.write(_exactly(file, min(_CHUNK, offset + length - at), path), at)
        _stop_if_told(progress, file.tell() / length_of_file)
    image.flush()
    image.create_snap(stream.snapshot)


def _exactly(file: IO[bytes], length: int, path: str) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise DriverError(f"{path} ends too early: it is not whole", retryable=False)
    return data


def _applying(image: Image) -> bool:
    return metadata(image, _APPLYING) is not None


def _has_changed(cluster: Cluster, pool: str, name: str, image: Image, base: str) -> bool:
    """Return whether a volume reads otherwise than its snapshot ``base`` (empty: than zeros).

    What Ceph tells of may read the same: after a roll-back it is all that was rolled back.
    """
    extents: list[_Extent] = []
    image.diff_iterate(
        0, image.size(), base or None, lambda offset, length, data: extents.append(_Extent(offset, length, data))
    )
    if not base:
        return any(any(image.read(*part)) for extent in extents for part in _chunks(extent))
    with opened(cluster, pool, name, snapshot=base, read_only=True) as before:
        if before.size() != image.size():
            return True
        return any(image.read(*part) != before.read(*part) for extent in extents for part in _chunks(extent))


def _undo(image: Image, base: str, snapshots: dict[str, int]) -> None:
    if base:
        image.rollback_to_snap(base)
    elif not snapshots:
        image.discard(0, image.size())


def _stop_if_told(progress: Progress, done: float) -> None:
    if progress(done):
        raise Cancelled("it was stopped; the volume is as it was")
