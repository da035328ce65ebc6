"""Time, so that the simulator can have its own."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards: for every decision."""

    def wall(self) -> float:
        """Return seconds since the epoch: for display only."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
