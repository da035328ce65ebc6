"""Reading the end of a log that is being written."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pvc_sandbox.errors import SandboxError

_LOOK_AGAIN_S: Final = 0.3
_BLOCK: Final = 1 << 16


def tail(path: Path, lines: int, *, follow: bool = False) -> Iterator[str]:
    """Yield the last lines without their newline; with ``follow`` also those that come, for ever."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise SandboxError(f"{path} does not exist yet") from None
    with file:
        file.seek(_start_of_last(file, lines))
        rest = b""
        while True:
            *complete, rest = (rest + file.read()).split(b"\n")
            for line in complete:
                yield line.decode("utf-8", "replace")
            if not follow:
                if rest:
                    yield rest.decode("utf-8", "replace")
                return
            time.sleep(_LOOK_AGAIN_S)


def _start_of_last(file: BinaryIO, lines: int) -> int:
    """Return the offset of the last so many lines, reading backwards in blocks."""
    position = file.seek(0, os.SEEK_END)
    seen = b""
    # One newline more than lines: the one before the first of them.
    while position and seen.count(b"\n") <= lines:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        seen = file.read(step) + seen
    kept = b"".join(seen.splitlines(keepends=True)[-lines:]) if lines else b""
    return position + len(seen) - len(kept)
