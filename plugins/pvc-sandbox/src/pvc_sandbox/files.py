"""Files that another process reads, and a lock between processes."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.waiting import wait_until


def write_atomically(path: Path, content: bytes | str, mode: int = 0o644, owner: str = "") -> None:
    """Replace a file so that a reader, and a kill at any moment, sees the old or the new one.

    ``owner``: the user, and the group of the same name, to whom it is to belong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        Path(temporary).chmod(mode)
        if owner:
            shutil.chown(temporary, owner, owner)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_tree(path: Path, deadline_s: float = 10.0) -> None:
    """Remove a directory with all that is in it, also what somebody puts there meanwhile; absent is success.

    Raises SandboxError when something of it stays.
    """

    def gone() -> bool:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()

    wait_until(f"removal of {path}", gone, deadline_s=deadline_s)


class Lock:
    """A lock between processes, by ``flock`` on a file: it ends with the process that holds it, however that ends.

    Whoever holds it may delete the file.  ``make_directory=False``: raise SandboxError when the file's directory is
    not there, instead of making it.
    """

    def __init__(self, path: Path, deadline_s: float = 120.0, *, make_directory: bool = True) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._make_directory = make_directory
        self._handle = -1

    def __enter__(self) -> Self:
        wait_until(
            f"{self._path} is locked",
            self._try,
            deadline_s=self._deadline_s,
            detail=lambda: "another `pvc sandbox` command is at work; let it end first",
        )
        return self

    def _try(self) -> bool:
        if self._make_directory:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if self._make_directory:  # it was removed in between
                return False
            raise SandboxError(f"{self._path.parent} is not there: the sandbox was removed") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have deleted the file: then this is not the one that others lock.
            if os.fstat(handle).st_ino == self._path.stat().st_ino:
                self._handle, handle = handle, -1
                return True
        except (BlockingIOError, FileNotFoundError):
            return False
        finally:
            if handle >= 0:
                os.close(handle)
        return False

    def fileno(self) -> int:
        """Return the descriptor: a child that inherits it shares the lock until it ends."""
        return self._handle

    def delete(self) -> None:
        """Delete the file, while the lock is held."""
        self._path.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
