"""A document whose versions are files: compare-and-set on any shared file system.

Version N is the file ``state.N``; the highest is the document.  ``replace`` writes N+1 under a name of its
own and links it in place: link(2) refuses an existing name also between NFS clients, where neither the
cached listing of a directory nor fcntl locks can be relied on.  Nothing has to be unlocked after a crash.

A writer that slept so long that N+1 was already cleared away links it without an error.  So each version
begins with a line of tokens: its own, and those of the versions it rests on.  A writer has won when the
highest version after its link is its own, or rests on its own.
"""

import os
import uuid
from pathlib import Path
from typing import Final, NamedTuple

_PREFIX: Final = "state."
_MAGIC: Final = b"pvc-dir-1"
_KEPT: Final = 2
"""Versions that stay: the current one and the one before."""
_HISTORY: Final = 32
"""Tokens of earlier versions in each: how many may follow while one writer looks whether it won."""
_READS: Final = 100


class Version(NamedTuple):
    """A document as read."""

    number: int
    data: bytes
    tokens: tuple[bytes, ...]
    """This version's own token, then those of the versions before it."""


def read(directory: Path) -> Version | None:
    """Return the document in a directory, or None when there is no such directory or document."""
    for _ in range(_READS):
        try:
            number = max(_numbers(directory), default=None)
            if number is None:
                return None
            content = (directory / f"{_PREFIX}{number}").read_bytes()
        except FileNotFoundError:
            if not directory.is_dir():
                return None
            continue  # replaced between the listing and the opening: there is a newer one
        head, _, data = content.partition(b"\n")
        magic, *tokens = head.split(b" ")
        if magic != _MAGIC or not tokens:
            raise OSError(f"{directory / f'{_PREFIX}{number}'} is not a volume's state of this version of pvc-dir")
        return Version(number, data, tuple(tokens))
    raise OSError(f"{directory} changes faster than it can be read")


def create(directory: Path, data: bytes) -> None:
    """Write the first version into a directory that nobody else knows yet."""
    _write(directory / f"{_PREFIX}1", (_token(),), data)
    sync_directory(directory)


def replace(directory: Path, old: Version, data: bytes) -> bool:
    """Write the version after ``old``; return False when somebody else did.

    Raises FileNotFoundError when the directory is gone.
    """
    token = _token()
    number = old.number + 1
    target = directory / f"{_PREFIX}{number}"
    temporary = directory / f".{uuid.uuid4().hex}"
    _write(temporary, (token, *old.tokens[:_HISTORY]), data)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(directory)
    now = read(directory)
    if now is None or token not in now.tokens:
        target.unlink(missing_ok=True)
        return False
    for other in _numbers(directory):
        if other <= number - _KEPT:
            (directory / f"{_PREFIX}{other}").unlink(missing_ok=True)
    return True


def write_new(path: Path, data: bytes) -> None:
    """Write a new file and make its contents survive a power cut; its name does after ``sync_directory``."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _numbers(directory: Path) -> list[int]:
    return [int(path.name.removeprefix(_PREFIX)) for path in directory.iterdir() if path.name.startswith(_PREFIX)]


def _token() -> bytes:
    return uuid.uuid4().hex[:16].encode()


def _write(path: Path, tokens: tuple[bytes, ...], data: bytes) -> None:
    write_new(path, b" ".join((_MAGIC, *tokens)) + b"\n" + data)
