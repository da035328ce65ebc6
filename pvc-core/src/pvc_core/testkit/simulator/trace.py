"""What happened in a run, in virtual time: one line per event, who did what."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pvc_core.testkit.simulator.clock import VirtualClock

_CORE: Final = logging.getLogger("pvc_core")
_NO_END: Final = "without-end"
"""Part of the message of a daemon that gave up a loop."""


class Trace(logging.Handler):
    """The lines of one run; also notices when a daemon reports a defect of its own code."""

    def __init__(self, clock: VirtualClock, *, verbose: bool) -> None:
        """``verbose``: with everything that the daemons log."""
        super().__init__(logging.INFO if verbose else logging.ERROR)
        self._clock = clock
        self._start = clock.monotonic()
        self.verbose = verbose
        self.lines: list[str] = []
        self.defects: list[str] = []
        self.actor = ""
        """The node whose code runs now."""

    def note(self, what: str) -> None:
        """Add a line."""
        self.lines.append(f"{self._clock.monotonic() - self._start:9.3f}  {what}")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of a daemon's log."""
        said = record.getMessage()
        if record.exc_info or (record.levelno >= logging.ERROR and _NO_END in said):
            error = repr(record.exc_info[1]) if record.exc_info else ""
            self.defects.append(f"{self.actor}: {said} {error}".rstrip())
        if self.verbose:
            self.note(f"  {self.actor:<4} {said}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Be the one that core's logs go to."""
        level, propagate = _CORE.level, _CORE.propagate
        _CORE.addHandler(self)
        _CORE.setLevel(self.level)
        _CORE.propagate = False
        try:
            yield
        finally:
            _CORE.removeHandler(self)
            _CORE.setLevel(level)
            _CORE.propagate = propagate
