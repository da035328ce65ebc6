"""Child processes: an argument list, a deadline, a process group of their own, no shell."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from pvc_core.plugin.errors import DeadlineExceeded, DriverError

_GRACE_S: Final = 2.0
"""Time between SIGTERM and SIGKILL when the deadline has passed."""


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A child process that ended by itself."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def check(self) -> "Completed":
        """Return itself; raise DriverError with the last lines of its output unless it returned 0."""
        if self.returncode:
            said = (self.stderr.strip() or self.stdout.strip() or "it said nothing").splitlines()[-3:]
            raise DriverError(f"{self.argv[0]} ended with status {self.returncode}: {' / '.join(said)}")
        return self


def run(
    argv: Sequence[str], *, deadline_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program to its end and return what it said, decoded as UTF-8 with replacement.

    ``env`` replaces the environment.  Raises DeadlineExceeded when it takes longer than ``deadline_s``
    (its whole process group has then been killed), DriverError when it cannot be started.
    """
    try:
        # Own session, so that its children can be ended with it.
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise DriverError(f"cannot run {argv[0]}: {error.strerror}", retryable=False) from error
    try:
        out, err = child.communicate(stdin, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        _end(child)
        raise DeadlineExceeded(f"{argv[0]} was killed: it took longer than {deadline_s:g} s") from None
    return Completed(
        argv=tuple(argv),
        returncode=child.returncode,
        stdout=out.decode("utf-8", "replace"),
        stderr=err.decode("utf-8", "replace"),
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            break
        try:
            child.communicate(timeout=_GRACE_S)
            break
        except subprocess.TimeoutExpired:
            continue
