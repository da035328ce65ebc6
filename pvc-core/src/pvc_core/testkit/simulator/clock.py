"""Virtual time."""


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
