"""Virtual time, and the clocks of nodes."""

import math


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    def move_to(self, when: float) -> None:
        """Move forwards; time never runs backwards."""
        self._now = max(self._now, when)


class NodeClock:
    """One node's clocks: its monotonic one runs a little too fast or too slow, its wall clock may be set at any time."""

    def __init__(self, true: VirtualClock, *, rate: float = 1.0) -> None:
        """``rate``: its seconds per true second."""
        self._true = true
        self.rate = rate
        self._zero = true.monotonic()
        self.wall_offset_s = 0.0

    def monotonic(self) -> float:
        return self._at(self._true.monotonic())

    def wall(self) -> float:
        return self._true.wall() + self.wall_offset_s

    def when(self, monotonic: float) -> float:
        """Return the true time at which this clock has reached a value."""
        true = self._zero + (monotonic - self._zero) / self.rate
        while self._at(true) < monotonic:
            true = math.nextafter(true, math.inf)
        return true

    def _at(self, true: float) -> float:
        return self._zero + (true - self._zero) * self.rate
