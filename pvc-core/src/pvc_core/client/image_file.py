"""An image file on this machine: what it holds, and whether it is what it is said to be."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from pvc_core.model.errors import InvalidRequest

PART_BYTES: Final = 16 << 20
"""Files are sent in parts of so many bytes; the node's service takes no larger ones."""

_SUFFIXES: Final = {"qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhd": "vpc", "vpc": "vpc"}
_SIGNATURES: Final = (
    ("qcow2", 0, b"QFI\xfb"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vpc", 0, b"conectix"),
    ("vpc", -512, b"conectix"),
)
"""Format, where in the file (from the end: negative), what is there.  Source: QEMU's probes, the VHD specification."""


class Part(NamedTuple):
    """A stretch of a file that is no hole."""

    offset: int
    length: int
    data: bytes
    """Empty when the bytes are all zeros."""


class ImageFile:
    """A file, opened for reading.  Close it."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidRequest when it cannot be read, is no regular file or is empty."""
        if not path.is_file():
            raise InvalidRequest(f"{path} is not a regular file" if path.exists() else f"there is no file {path}")
        try:
            self._file: Final[IO[bytes]] = path.open("rb", buffering=0)
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error
        self.path: Final = path
        self._before: Final = self._state()
        self.size_bytes: Final = self._before[0]
        if not self.size_bytes:
            self.close()
            raise InvalidRequest(f"{path} is empty")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def data_bytes(self) -> int:
        """Return how many of its bytes are in no hole."""
        return sum(length for _, length in self._extents())

    def parts(self) -> Iterator[Part]:
        """Return what it holds, holes left out.  Raises InvalidRequest when it changes meanwhile, or cannot be read."""
        for start, total in self._extents():
            for offset in range(start, start + total, PART_BYTES):
                length = min(PART_BYTES, start + total - offset)
                data = self._read(offset, length)
                if len(data) < length:
                    raise self._changed()
                yield Part(offset, length, b"" if data == bytes(length) else data)
        if self._state() != self._before:
            raise self._changed()

    def format(self, wanted: str | None) -> str:
        """Return the format to take it for: ``wanted``, else by its name, else raw.

        Raises InvalidRequest when its contents say otherwise.  What is asked for as raw is taken so: a disk may hold an image.
        """
        name = wanted or _SUFFIXES.get(self.path.suffix.lower().removeprefix("."), "raw")
        found = next((format_ for format_, at, what in _SIGNATURES if self._begins(at, what)), "raw")
        if name == found or wanted == "raw":
            return name
        if found == "raw":
            raise InvalidRequest(
                f"{self.path} is no {name} image; say --image-format raw to take its bytes as they are"
            )
        raise InvalidRequest(
            f"{self.path} is taken for {name} by its name, and its contents are a {found} image; say --image-format {found}, "
            "or raw to take its bytes as they are"
            if wanted is None
            else f"{self.path} is a {found} image, no {name}; say --image-format {found}"
        )

    def _begins(self, at: int, what: bytes) -> bool:
        return self._read(max(at if at >= 0 else self.size_bytes + at, 0), len(what)) == what

    def _extents(self) -> Iterator[tuple[int, int]]:
        """Return where it has data: offset and length.  A file system that knows no holes has it everywhere."""
        end = 0
        while end < self.size_bytes:
            try:
                start = os.lseek(self._file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    return
                raise InvalidRequest(f"cannot read {self.path}: {error.strerror}") from error
            end = min(os.lseek(self._file.fileno(), start, os.SEEK_HOLE), self.size_bytes)
            if end > start:
                yield start, end - start

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise InvalidRequest(f"cannot read {self.path}: {error.strerror}") from error

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _changed(self) -> InvalidRequest:
        return InvalidRequest(f"{self.path} was changed while it was sent; nothing was made of it")
