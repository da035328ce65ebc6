"""A small pool of daemon threads between core and one plugin, with a circuit breaker.

Invariant: a caller is free again at its deadline, whatever the plugin does.  A Python thread cannot be
stopped, so a call that is late is left behind ("stuck"): its thread no longer counts as one of the pool,
and what it returns is thrown away.  Two stuck calls open the circuit: no further call is let in until a
stuck one comes back, or a probe does.  A probe is one ordinary call, let in after a back-off that doubles
with each probe that gets stuck too.  The number of threads left behind is bounded, and nothing ever waits
for one: they are daemon threads, which the interpreter drops when it ends (it joins those of a
``ThreadPoolExecutor``, which is why that is not used here).

Thread-safe.  Calls wait in line for a free thread; the wait counts against their deadline.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from pvc_core.plugin.errors import CircuitOpen, DeadlineExceeded, DriverError, NotReady

THREADS: Final = 4
OPEN_AFTER: Final = 2
PROBE_AFTER_S: Final = 30.0
PROBE_AFTER_MAX_S: Final = 300.0
STUCK_MAX: Final = 8


class Outcome(NamedTuple):
    """How a call ended by itself."""

    value: Any
    error: BaseException | None


class Pending:
    """A call that was handed over."""

    def __init__(self, bulkhead: "Bulkhead", function: Callable[[], Any], *, probe: bool) -> None:
        self._bulkhead = bulkhead
        self.function = function
        self.probe: Final = probe
        self.started: Final = time.monotonic()
        self.running = False
        self.abandoned = False
        self.outcome: Outcome | None = None
        self.ended = threading.Event()

    def wait(self, deadline_s: float, *, slow_s: float = 0.0, slow: Callable[[], None] | None = None) -> Outcome:
        """Return how the call ended; ``deadline_s`` runs from when it was handed over.

        ``slow`` is called once when it takes longer than ``slow_s``.  Raises DeadlineExceeded; the call
        is then left behind, or taken out of the line if it had not begun.
        """
        if slow is not None and slow_s < deadline_s and not self.ended.wait(self._left(slow_s)):
            slow()
        self.ended.wait(self._left(deadline_s))
        return self._bulkhead._expire(self, deadline_s)

    def _left(self, deadline_s: float) -> float:
        return max(0.0, self.started + deadline_s - time.monotonic())


class Bulkhead:
    """Runs calls of one plugin.  ``changed`` is called, without a lock held, when the circuit opens or closes."""

    def __init__(
        self,
        name: str,
        *,
        threads: int = THREADS,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] | None = None,
    ) -> None:
        self.name: Final = name
        self._size = threads
        self._clock = clock
        self._changed = changed
        self._lock = threading.Condition()
        self._line: deque[Pending] = deque()
        self._threads = 0
        self._idle = 0
        self._started = 0
        self._stuck = 0
        self._stuck_since_closed = 0
        self._open = False
        self._probing = False
        self._backoff_s = PROBE_AFTER_S
        self._probe_at = 0.0
        self._shut = False

    @property
    def state(self) -> Literal["closed", "open"]:
        """Return whether calls are let in ("closed", as of an electric circuit)."""
        return "open" if self._open else "closed"

    @property
    def stuck(self) -> int:
        """Return the number of calls that were left behind and are still running."""
        return self._stuck

    def submit(self, function: Callable[[], Any]) -> Pending:
        """Hand a call over; returns at once.  Raises CircuitOpen, or NotReady after ``shut``."""
        with self._lock:
            if self._shut:
                raise NotReady(f"{self.name} is shut down")
            pending = Pending(self, function, probe=self._open)
            if self._open:
                self._claim_probe()
            self._line.append(pending)
            try:
                self._staff()
            except RuntimeError as error:  # the system has no threads left
                self._line.remove(pending)
                self._probing = self._probing and not pending.probe
                raise DriverError(f"{self.name}: {error}") from error
            self._lock.notify()
        return pending

    def run(self, function: Callable[[], Any], deadline_s: float) -> Outcome:
        """Run a call and return how it ended.  Raises DeadlineExceeded, CircuitOpen, NotReady."""
        return self.submit(function).wait(deadline_s)

    def shut(self) -> None:
        """Let in no more calls and dismiss the idle threads; never waits.  May be called twice."""
        with self._lock:
            self._shut = True
            self._lock.notify_all()

    def _claim_probe(self) -> None:
        if self._stuck >= STUCK_MAX:
            raise CircuitOpen(f"{self._stuck} calls hang; restart the node's daemon once the cause is gone")
        wait_s = self._probe_at - self._clock()
        if self._probing or wait_s > 0:
            when = "being tried" if self._probing else f"tried again in {wait_s:.0f} s"
            raise CircuitOpen(f"{self._stuck} calls hang, so it gets no more; it is {when}")
        self._probing = True

    def _staff(self) -> None:
        if self._threads < self._size and self._idle < len(self._line):
            self._started += 1
            thread = threading.Thread(target=self._work, name=f"{self.name}-{self._started}", daemon=True)
            thread.start()
            self._threads += 1

    def _work(self) -> None:
        while (pending := self._next()) is not None:
            try:
                outcome = Outcome(pending.function(), None)
            except BaseException as error:  # also SystemExit and KeyboardInterrupt raised by a plugin
                outcome = Outcome(None, error)
            if not self._finish(pending, outcome):
                return
            # Hold neither the result nor a traceback's frames while idle.
            del pending, outcome

    def _next(self) -> Pending | None:
        with self._lock:
            self._idle += 1
            while not self._line and not self._shut:
                self._lock.wait()
            self._idle -= 1
            if not self._line:
                self._threads -= 1
                return None
            pending = self._line.popleft()
            pending.running = True
            return pending

    def _finish(self, pending: Pending, outcome: Outcome) -> bool:
        """Record an end; return whether the thread still belongs to the pool."""
        with self._lock:
            changed = False
            if pending.abandoned:
                self._stuck -= 1
                self._stuck_since_closed = max(0, self._stuck_since_closed - 1)
                changed = self._close()
            else:
                pending.outcome = outcome
                if pending.probe:
                    self._probing = False
                    changed = self._close()
                pending.ended.set()
        self._tell(changed)
        return not pending.abandoned

    def _expire(self, pending: Pending, deadline_s: float) -> Outcome:
        """Return the outcome, or give the call up."""
        with self._lock:
            if pending.outcome is not None:
                return pending.outcome
            pending.abandoned = True
            changed = False
            if pending.probe:
                self._probing = False
            if pending.running:
                self._threads -= 1
                self._stuck += 1
                self._stuck_since_closed += 1
                changed = self._open_up(pending)
                message = f"it did not come back within {deadline_s:g} s; what it did is unknown"
            else:
                self._line.remove(pending)
                message = f"all {self._size} threads were busy for {deadline_s:g} s; it was not begun"
            if self._line:
                self._staff()
        self._tell(changed)
        raise DeadlineExceeded(message)

    def _open_up(self, pending: Pending) -> bool:
        if pending.probe:
            self._backoff_s = min(2 * self._backoff_s, PROBE_AFTER_MAX_S)
        elif self._open or self._stuck_since_closed < OPEN_AFTER:
            return False
        was, self._open = self._open, True
        self._probe_at = self._clock() + self._backoff_s
        return not was

    def _close(self) -> bool:
        if not self._open:
            return False
        self._open = False
        self._stuck_since_closed = 0
        self._backoff_s = PROBE_AFTER_S
        return True

    def _tell(self, changed: bool) -> None:
        if changed and self._changed is not None:
            self._changed()
