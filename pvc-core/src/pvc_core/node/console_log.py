"""Reading a guest's console log, which QEMU appends to while it is read."""

import os
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

MAX_BYTES: Final = 1 << 20
"""Of one answer."""

_BLOCK: Final = 64 * 1024


class LogPart(NamedTuple):
    """Some bytes of a log, and the offset after them."""

    data: bytes
    next_offset: int


def read_from(path: Path, offset: int, limit: int) -> LogPart:
    """Return up to ``limit`` bytes from ``offset`` on.

    An offset behind the end means that the file was begun anew: reading goes on at its beginning.
    Raises FileNotFoundError.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        begin = offset if offset <= size else 0
        file.seek(begin)
        data = file.read(max(min(limit, MAX_BYTES), 0))
        return LogPart(data, begin + len(data))


def read_tail(path: Path, lines: int) -> LogPart:
    """Return the last lines, as far as they are in the last ``MAX_BYTES``.  Raises FileNotFoundError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        return LogPart(_tail(file, size, lines), size) if lines > 0 else LogPart(b"", size)


def _tail(file: BinaryIO, size: int, lines: int) -> bytes:
    data, begin = b"", size
    # A newline at the very end ends the last line and begins none.
    while begin > 0 and len(data) < MAX_BYTES and data[:-1].count(b"\n") < lines:
        step = min(_BLOCK, begin, MAX_BYTES - len(data))
        begin -= step
        file.seek(begin)
        data = file.read(step) + data
    parts = data.splitlines(keepends=True)
    return b"".join(parts[-lines:])
