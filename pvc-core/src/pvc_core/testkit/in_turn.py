"""Calls that are made one after the other, where a test or the simulator has no threads."""

from collections.abc import Callable, Sequence

from pvc_core.node.clock import Clock
from pvc_core.node.reconcile.together import Call


class InTurn:
    """Implements ``Calls`` on a clock that only the calls themselves move."""

    def __init__(self, clock: Clock, calls: Sequence[Call]) -> None:
        """Make all of them."""
        began = clock.monotonic()
        self._failures: list[Exception] = []
        for call in calls:
            try:
                call()
            except Exception as error:  # carried over to whoever waits
                self._failures.append(error)
        self._took_s = clock.monotonic() - began

    def done_within(self, limit_s: float, stop: Callable[[], bool]) -> bool:
        """Say whether they took no longer, and nobody wants them stopped."""
        return self._took_s <= limit_s and not stop()

    def failures(self) -> list[Exception]:
        """Return what they raised."""
        return list(self._failures)
