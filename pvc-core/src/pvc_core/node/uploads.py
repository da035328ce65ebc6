"""Image files that operators send to this node, kept until the task that makes a volume of one has ended.

A file is sent in parts, each of which may be sent again.  What nobody goes on with is ``idle``, and is removed in the end.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pvc_core.model.errors import NotFound, PvcError
from pvc_core.model.units import format_bytes
from pvc_core.plugin.qemu_img import sync

log = logging.getLogger(__name__)

MAX_PART_BYTES: Final = 16 << 20
KEEP_FREE_BYTES: Final = 1 << 30
"""The file system keeps this much: the daemon's own files may be on it."""
IDLE_S: Final = 3600.0
"""An upload to which nothing was added for so long, and that no task waits for, was given up."""
_PIECE_BYTES: Final = 1 << 20
_ID: Final = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9._-]{1,80}")


class NoRoom(PvcError):
    """This node has no room for the file."""


class Damaged(PvcError):
    """A part did not arrive as it was sent."""


class Body(Protocol):
    """Where a part comes from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none when no more come."""


class Uploads:
    """The files in one directory.  May be used from any thread."""

    def __init__(self, directory: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._directory: Final = directory
        self._wall: Final = wall

    def begin(self, name: str, size_bytes: int, data_bytes: int) -> Path:
        """Make an empty file of ``size_bytes`` and return its path; the last part of that names it from now on.

        ``name`` is what the sender calls it, for messages; ``data_bytes`` is what will be sent, the rest being holes.
        Raises NoRoom, PvcError.
        """
        self._require_room(data_bytes)
        id_ = f"{uuid.uuid4().hex}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-80:] or 'image'}"
        path = self._directory / id_
        try:
            path.touch(mode=0o600, exist_ok=False)
            os.truncate(path, size_bytes)
            sync(path)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _failed(error, path) from error
        log.info("upload-begun upload=%s size_bytes=%d", id_, size_bytes)
        return path

    def write(self, id_: str, offset: int, body: Body, length: int, sha256: str) -> None:
        """Write a part.  Raises NotFound, NoRoom, Damaged, ValueError when it does not lie within the file."""
        path = self._path(id_)
        self._require_room(length)
        checksum = hashlib.sha256()
        try:
            with path.open("r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if offset + length > size:
                    raise ValueError(f"{length} bytes at {offset} do not lie within the {size} bytes of {id_}")
                file.seek(offset)
                left = length
                while left and (piece := body.read(min(left, _PIECE_BYTES))):
                    file.write(piece)
                    checksum.update(piece)
                    left -= len(piece)
                # What was said to be here is not sent again: it must be here after a power cut too.
                file.flush()
                os.fdatasync(file.fileno())
        except FileNotFoundError:
            raise _unknown(id_) from None
        except OSError as error:
            raise _failed(error, path) from error
        if left or checksum.hexdigest() != sha256:
            raise Damaged(f"the {length} bytes at {offset} of {id_} did not arrive as they were sent; send them again")

    def remove(self, id_: str) -> None:
        """Remove a file that will not be used; an absent one is success.  Raises NotFound when it can be none."""
        self._path(id_).unlink(missing_ok=True)
        log.info("upload-removed upload=%s", id_)

    def used(self, path: str) -> None:
        """Remove a file whose task has ended; any other file than one that was sent here is left alone."""
        file = Path(path)
        if file.parent == self._directory and _ID.fullmatch(file.name):
            try:
                self.remove(file.name)
            except OSError as error:
                log.warning("upload-not-removed upload=%s error=%s", file.name, error)

    def idle(self) -> list[Path]:
        """Return the files to which nothing was added for ``IDLE_S``: given up, unless a task waits for one."""
        found = []
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if _ID.fullmatch(path.name) and self._wall() - path.stat().st_mtime > IDLE_S:
                    found.append(path)
        return found

    def _path(self, id_: str) -> Path:
        if not _ID.fullmatch(id_):
            raise _unknown(id_)
        return self._directory / id_

    def _require_room(self, wanted: int) -> None:
        found = os.statvfs(self._directory)
        free = found.f_bavail * found.f_frsize
        if free - wanted < KEEP_FREE_BYTES:
            raise NoRoom(
                f"{self._directory} has {format_bytes(free)} free, of which {format_bytes(KEEP_FREE_BYTES)} are kept; "
                f"{format_bytes(wanted)} do not fit (see node.upload_directory)"
            )


def _unknown(id_: str) -> NotFound:
    return NotFound(f"there is no upload {id_!r}: one that nobody goes on with is removed after {IDLE_S / 3600:g} h")


def _failed(error: OSError, path: Path) -> PvcError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"{path.parent} is full (see node.upload_directory)")
    return PvcError(f"cannot write {path}: {error.strerror}")
