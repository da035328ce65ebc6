"""Files that another process reads, and a lock between processes."""

import fcntl
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pvc_sandbox.waiting import wait_until


def write_atomically(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Replace a file so that a reader, and a kill at any moment, sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Lock:
    """A lock between processes, by ``flock``: it ends with the process that holds it, however that ends."""

    def __init__(self, path: Path, deadline_s: float = 120.0) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._handle = -1

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            wait_until(
                f"{self._path} is locked",
                self._try,
                deadline_s=self._deadline_s,
                detail=lambda: "another `pvc sandbox` command is at work on it; let it end first",
            )
        except BaseException:
            os.close(self._handle)
            raise
        return self

    def _try(self) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def fileno(self) -> int:
        """Return the descriptor: a child that inherits it shares the lock until it ends."""
        return self._handle

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
