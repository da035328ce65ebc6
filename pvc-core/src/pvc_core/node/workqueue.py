"""The work queue: which objects are to be looked at, and when.

Rules:

* A key ``(kind, id)`` is in the queue at most once; adding it again keeps the earlier time.
* A key that is in work is not given out again; what is added meanwhile becomes due when the work is done.
* A failed key comes back after a pause that doubles with each failure up to a bound, until a success.
  An event during the pause brings it forward, but not nearer than ``EVENT_PAUSE_S`` to the failure:
  many failures cause events themselves, and would otherwise be repeated without end.
* What is looked at only for safety (``routine``) comes after what something happened to, unless it has waited for
  ``ROUTINE_S``: an operator's change to one of a thousand networks does not wait until the others were looked at.
* Keys of each kind have a number of places of their own, so that slow work of one kind (an hour of
  copying volumes) never keeps another (the lease, VMs) waiting.

Time is passed in or read from the given clock, and nothing here starts a thread: a simulator drives the
queue with ``ready``, ``take`` and ``done``; ``pvc_core.node.workers`` does it with threads.
"""

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from pvc_core.node.clock import Clock
from pvc_core.plan.backoff import backoff

WorkKey = tuple[str, str]
"""Kind and id of an object."""

EVENT_PAUSE_S: Final = 1.0
"""An event does not repeat a failed key sooner than this."""

ROUTINE_S: Final = 60.0
"""A routine key that was due for so long has the rank of one that is due now."""

_LEAST_PAUSE_S: Final = 0.01

OTHER_KINDS: Final = ""
"""Key of ``places`` for kinds that are not in it: they share these places."""


class _Failures(NamedTuple):
    times: int
    last: float
    pause_s: float


class _Place(NamedTuple):
    """Of a key in the queue."""

    rank: float
    """Who has the lowest of those that are due comes first."""
    sequence: int
    due: float


class WorkQueue:
    """A de-duplicating queue of keys with due times.  May be used from any thread."""

    def __init__(
        self,
        clock: Clock,
        *,
        places: Mapping[str, int] | None = None,
        backoff_first_s: float = 0.5,
        backoff_max_s: float = 30.0,
    ) -> None:
        """``places``: how many keys of a kind may be in work at once; None: no bound."""
        self._clock = clock
        self._places = places
        self._first_s = backoff_first_s
        self._max_s = backoff_max_s
        self._lock = threading.Condition()
        self._due: dict[WorkKey, _Place] = {}
        self._taken: set[WorkKey] = set()
        self._failures: dict[WorkKey, _Failures] = {}
        self._sequence = 0
        self._closed = False

    def add(self, kind: str, id_: str, delay: float = 0.0, *, routine: bool = False) -> None:
        """Have a key looked at ``delay`` seconds from now, or earlier when it is due earlier already.

        ``routine``: nothing has happened to it that anybody knows of.
        """
        with self._lock:
            key = (kind, id_)
            due = self._clock.monotonic() + max(delay, 0.0)
            failed = self._failures.get(key)
            if failed is not None:
                due = max(due, failed.last + min(failed.pause_s, EVENT_PAUSE_S))
            self._put(key, due, routine=routine)

    def ready(self, now: float) -> list[WorkKey]:
        """Return the keys that may be taken at ``now``, in the order in which they are to be."""
        with self._lock:
            return self._ready(now)

    def next_due(self) -> float | None:
        """Return when the next key that is not in work is due, on the monotonic clock; None when there is none."""
        with self._lock:
            return min((place.due for key, place in self._due.items() if key not in self._taken), default=None)

    def take(self, key: WorkKey) -> bool:
        """Begin work on a key, whether it is due or not; False when it is in work already."""
        with self._lock:
            if key in self._taken:
                return False
            self._due.pop(key, None)
            self._taken.add(key)
            return True

    def done(self, key: WorkKey, requeue: float | None = None) -> None:
        """End work on a key with success; ``requeue``: look at it again after so many seconds."""
        with self._lock:
            self._taken.discard(key)
            self._failures.pop(key, None)
            if requeue is not None:
                # A wait computed as the difference of two times may be too small to move the clock: it would spin.
                pause = max(requeue, _LEAST_PAUSE_S) if requeue > 0 else 0.0
                self._put(key, self._clock.monotonic() + pause)
            self._wake(key)

    def failed(self, key: WorkKey, *, first_s: float | None = None) -> float:
        """End work on a key with failure, and return the seconds after which it comes back.

        ``first_s`` replaces the first pause, for failures that are known to pass quickly.
        """
        with self._lock:
            self._taken.discard(key)
            count = self._failures[key].times + 1 if key in self._failures else 1
            first = self._first_s if first_s is None else first_s
            pause = backoff(count, first, self._max_s)
            now = self._clock.monotonic()
            self._failures[key] = _Failures(count, now, pause)
            if self._due.pop(key, None) is not None:
                # Something happened while it was in work: come back as after an event.
                pause = min(pause, EVENT_PAUSE_S)
            self._put(key, now + pause)
            return pause

    def failures(self, key: WorkKey) -> int:
        """Return how many times in a row a key failed."""
        with self._lock:
            found = self._failures.get(key)
            return found.times if found else 0

    def take_next(self, wait_s: float) -> WorkKey | None:
        """Wait for a key that is due and take it; None after ``wait_s`` seconds, or when the queue is closed.

        For worker threads: needs a clock that runs by itself.
        """
        deadline = self._clock.monotonic() + wait_s
        with self._lock:
            while not self._closed:
                now = self._clock.monotonic()
                key = next(iter(self._ready(now)), None)
                if key is not None:
                    self._due.pop(key)
                    self._taken.add(key)
                    return key
                if now >= deadline:
                    return None
                coming = (place.due for place in self._due.values() if place.due > now)
                self._lock.wait(min((*coming, deadline)) - now)
            return None

    def close(self) -> None:
        """Give out nothing more and wake all that wait in ``take_next``."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def in_work(self) -> frozenset[WorkKey]:
        """Return the keys that are in work now."""
        with self._lock:
            return frozenset(self._taken)

    def _put(self, key: WorkKey, due: float, *, routine: bool = False) -> None:
        rank = due + ROUTINE_S if routine else due
        old = self._due.get(key)
        if old is not None:
            if old.due <= due and old.rank <= rank:
                return
            due, rank = min(old.due, due), min(old.rank, rank)
        self._sequence += 1
        self._due[key] = _Place(rank, self._sequence, due)
        self._lock.notify()

    def _wake(self, key: WorkKey) -> None:
        """One waiting thread must look again: what was added while the key was in work may be due now."""
        if key in self._due:
            self._lock.notify()

    def _ready(self, now: float) -> list[WorkKey]:
        due = sorted((place, key) for key, place in self._due.items() if place.due <= now and key not in self._taken)
        if self._places is None:
            return [key for _, key in due]
        free = dict(self._places)
        for kind, _ in self._taken:
            free[self._place(kind)] -= 1
        return [key for _, key in due if free[self._place(key[0])] > 0]

    def _place(self, kind: str) -> str:
        assert self._places is not None
        return kind if kind in self._places else OTHER_KINDS
