"""What the demo prints: titles, commands, and how long things took."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pvc_core.model.units import format_duration
from pvc_sandbox.waiting import wait_until

T = TypeVar("T")

_CLEAR_LINE: Final = "\r\x1b[K"
_TICK_S: Final = 0.1


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def indented(text: str) -> None:
    """Print a line of what a command said."""
    say(f"      {text}")


@contextmanager
def timed() -> Iterator[None]:
    """Print how long what is inside took."""
    begun = time.monotonic()
    yield
    indented(f"({format_duration(time.monotonic() - begun)})")


class Stopwatch:
    """Prints lines with the seconds since it was made; on a terminal the seconds run while something is waited for."""

    def __init__(self) -> None:
        self.begun = time.time()
        self._live = sys.stdout.isatty()

    def tell(self, text: str, at: float | None = None) -> None:
        """Print a line; ``at``: when it happened, seconds since the epoch (default: now)."""
        self._clear()
        say(f"    {self._seconds(at)}  {text}")

    def wait(
        self, what: str, condition: Callable[[], T], *, deadline_s: float, detail: Callable[[], str] | None = None
    ) -> T:
        """Wait as ``wait_until`` does."""
        if not self._live:
            return wait_until(what, condition, deadline_s=deadline_s, detail=detail)
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(over,))
        ticker.start()
        try:
            return wait_until(what, condition, deadline_s=deadline_s, detail=detail)
        finally:
            over.set()
            ticker.join()
            self._clear()

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(_TICK_S):
            sys.stdout.write(f"{_CLEAR_LINE}    {self._seconds(None)}")
            sys.stdout.flush()

    def _seconds(self, at: float | None) -> str:
        return f"{(time.time() if at is None else at) - self.begun:5.1f} s"

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write(_CLEAR_LINE)
            sys.stdout.flush()
