"""The daemon's run directory: one daemon at a time, and how its successor knows its lease again."""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

from pvc_core.model.errors import PvcError

_REMEMBERED: Final = 16


class AlreadyRunning(PvcError):
    """Another daemon uses this run directory."""


class Succession(NamedTuple):
    """The word of this daemon, and those of the ones before it, all certainly dead."""

    holder: str
    predecessor: str


class RunDirectory:
    """A directory whose lock this process holds until it ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Create the directory and lock it.  Raises AlreadyRunning."""
        self._holders = path / "lease-holders"
        path.mkdir(parents=True, exist_ok=True)
        lock = path / "pvcnoded.lock"
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = lock.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise AlreadyRunning(
                f"another pvcnoded (process {other}) uses {path}: stop it, or set node.run_directory to another one"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def succeed(self) -> Succession:
        """Leave a new word for the daemon after us, before it can be in a lease; return it with those found."""
        words: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            words = self._holders.read_text(encoding="ascii").split()[-_REMEMBERED:]
        holder = secrets.token_hex(8)
        self._write([*words, holder])
        return Succession(holder, " ".join(words))

    def settle(self, holder: str) -> None:
        """Forget the words before ours: their leases are gone, as we have the lease."""
        self._write([holder])

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)

    def _write(self, words: list[str]) -> None:
        new = self._holders.with_suffix(".new")
        new.write_text("\n".join(words) + "\n", encoding="ascii")
        new.replace(self._holders)
