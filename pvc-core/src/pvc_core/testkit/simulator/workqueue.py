"""The daemon's work queue, made cheap to ask: the simulator looks at the queues of all nodes after each step."""

import heapq
from collections.abc import Callable

from pvc_core.node.clock import Clock
from pvc_core.node.workqueue import WorkKey, WorkQueue


class SimQueue(WorkQueue):
    """A WorkQueue whose rules are unchanged, and of which ``waiting`` tells at once what could be taken.

    ``move`` must be called when the clock has reached a time that was announced.
    """

    def __init__(self, clock: Clock, announce: Callable[[float, int, WorkKey], None]) -> None:
        """``announce`` is told of each time at which a key will be due: when, its number, the key."""
        super().__init__(clock)
        self._announce = announce
        self._coming: list[tuple[float, int, WorkKey]] = []
        self.waiting: dict[WorkKey, None] = {}
        """Keys that are due and not in work, in the order in which they came to be."""

    def move(self, now: float) -> None:
        """Take note that time has passed."""
        while self._coming and self._coming[0][0] <= now:
            due, sequence, key = heapq.heappop(self._coming)
            if self.stands(due, sequence, key):
                self.waiting[key] = None

    def stands(self, due: float, sequence: int, key: WorkKey) -> bool:
        """Return whether what was announced still holds."""
        place = self._due.get(key)
        return place is not None and (place.due, place.sequence) == (due, sequence) and key not in self._taken

    def take(self, key: WorkKey) -> bool:
        """Begin work on a key."""
        self.waiting.pop(key, None)
        return super().take(key)

    def _put(self, key: WorkKey, due: float, *, routine: bool = False) -> None:
        super()._put(key, due, routine=routine)
        self._note(key)

    def _wake(self, key: WorkKey) -> None:
        if key in self._due:
            self._note(key)

    def _note(self, key: WorkKey) -> None:
        if key in self._taken or key in self.waiting:
            return
        _, sequence, due = self._due[key]
        if due <= self._clock.monotonic():
            self.waiting[key] = None
        else:
            heapq.heappush(self._coming, (due, sequence, key))
            self._announce(due, sequence, key)
