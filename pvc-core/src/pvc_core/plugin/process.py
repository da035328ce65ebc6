"""Child processes: an argument list, a deadline, a process group of their own, no shell."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final, cast

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
    child = _start(argv, subprocess.PIPE, env)
    try:
        out, err = child.communicate(stdin, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        _end(child)
        raise _too_long(argv, deadline_s) from None
    return _completed(argv, child, out, err)


def watch(
    argv: Sequence[str], *, deadline_s: float, heard: Callable[[str], bool], interval_s: float = 0.25
) -> Completed | None:
    """Run a long job and hand on what it prints while it runs.

    ``heard`` is called in this thread about every ``interval_s`` with the new part of its standard output
    (empty when there is none); when it returns True, or raises, the whole process group is killed.  Returns None when
    it was stopped so.  Raises DeadlineExceeded and DriverError as ``run`` does.
    """
    child = _start(argv, subprocess.DEVNULL, None)
    try:
        return _listen(argv, child, deadline_s, heard, interval_s)
    finally:
        if child.returncode is None:
            _end(child)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _listen(
    argv: Sequence[str],
    child: subprocess.Popen[bytes],
    deadline_s: float,
    heard: Callable[[str], bool],
    interval_s: float,
) -> Completed | None:
    end = time.monotonic() + deadline_s
    said: dict[IO[bytes], bytearray] = {pipe: bytearray() for pipe in (child.stdout, child.stderr) if pipe}
    new = bytearray()
    told = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in said:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(interval_s):
                pipe = cast("IO[bytes]", key.fileobj)
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(pipe)
                said[pipe] += chunk
                if pipe is child.stdout:
                    new += chunk
            now = time.monotonic()
            if now >= end:
                raise _too_long(argv, deadline_s)
            if now - told >= interval_s:
                told = now
                if heard(new.decode("utf-8", "replace")):
                    return None
                new.clear()
    if child.stdout is None or child.stderr is None:
        raise AssertionError("both are pipes")
    try:
        child.wait(timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _too_long(argv, deadline_s) from None
    return _completed(argv, child, bytes(said[child.stdout]), bytes(said[child.stderr]))


def _start(argv: Sequence[str], stdin: int, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    try:
        # Own session, so that its children can be ended with it.
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise DriverError(f"cannot run {argv[0]}: {error.strerror}", retryable=False) from error


def _completed(argv: Sequence[str], child: subprocess.Popen[bytes], out: bytes, err: bytes) -> Completed:
    return Completed(
        argv=tuple(argv),
        returncode=child.returncode,
        stdout=out.decode("utf-8", "replace"),
        stderr=err.decode("utf-8", "replace"),
    )


def _too_long(argv: Sequence[str], deadline_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"{argv[0]} was killed: it took longer than {deadline_s:g} s")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the whole process group: SIGKILL also when the first has ended, for what it leaves behind."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=_GRACE_S)
