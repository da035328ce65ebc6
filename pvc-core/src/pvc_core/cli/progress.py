"""Showing how far the cluster is with what was asked, while a command waits for it, or how far the command is itself.

What is waited for goes on by itself on the nodes.  So Ctrl-C and a time-out end the waiting only, and say so.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from pvc_core.cli.session import Session
from pvc_core.model.errors import PvcError
from pvc_core.ops.wait import Progress, Report, WaitFailed, WaitTimeout


class NotFinished(PvcError):
    """Waiting ended before what was waited for."""


class Interrupted(PvcError):
    """The person pressed Ctrl-C."""

    exit_status = 130


class _Display(Protocol):
    def show(self, progress: Progress) -> None:
        """Show what is seen now."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class _Silent:
    def show(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to undo."""


class _Lines:
    """One line for each new message, for logs and pipes."""

    def __init__(self, session: Session, what: str) -> None:
        self._session = session
        self._what = what
        self._last = ""

    def show(self, progress: Progress) -> None:
        """Print the message unless it is the last one again."""
        if progress.message != self._last:
            self._last = progress.message
            self._session.out.note(f"{self._what}: {progress.message}")

    def close(self) -> None:
        """Nothing to undo."""


def _display(session: Session, what: str) -> _Display:
    if session.out.quiet:
        return _Silent()
    if sys.stderr.isatty() and session.out.coloured(sys.stderr):
        from pvc_core.cli.live import LiveDisplay

        return LiveDisplay(what)
    return _Lines(session, what)


@contextlib.contextmanager
def working(session: Session, what: str, *, stopped: str) -> Iterator[Report]:
    """Show the progress of what this command does itself.  Raises Interrupted after Ctrl-C, saying ``stopped``."""
    display = _display(session, what)
    try:
        yield display.show
    except KeyboardInterrupt:
        raise Interrupted(f"{what}: {stopped}") from None
    finally:
        display.close()


@contextlib.contextmanager
def watching(session: Session, what: str, *, later: str) -> Iterator[Report]:
    """Show the progress of a wait: give it the report function that this yields.

    ``what`` names the subject (``VM web1``), ``later`` the command that shows later how it went on.
    Raises Interrupted after Ctrl-C and NotFinished after a time-out, both saying that it goes on.
    """
    display = _display(session, what)
    seen = ""

    def report(progress: Progress) -> None:
        nonlocal seen
        seen = progress.message
        display.show(progress)

    try:
        yield report
    except KeyboardInterrupt:
        raise Interrupted(f"{what}: stopped waiting; it goes on in the cluster, see: {later}") from None
    except WaitTimeout as error:
        still = f" (still: {seen})" if seen else ""
        raise NotFinished(f"{what}: not finished in time{still}; it goes on in the cluster, see: {later}") from error
    except WaitFailed as error:
        named = what.rpartition(" ")[2] in str(error)
        raise NotFinished(str(error) if named else f"{what}: {error}") from error
    finally:
        display.close()
