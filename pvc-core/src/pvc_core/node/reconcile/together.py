"""Calls that are made at the same time, and waited for no longer than somebody can."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

Call = Callable[[], object]

_LOOK_S: Final = 0.05


class Calls(Protocol):
    """Calls that were begun."""

    def done_within(self, limit_s: float, stop: Callable[[], bool]) -> bool:
        """Wait for all of them; False when that takes longer than ``limit_s``, or ``stop`` says so: they go on."""

    def failures(self) -> list[Exception]:
        """Wait for all of them, as long as each takes, and return what they raised."""


Together = Callable[[Sequence[Call]], Calls]


class Threads:
    """Implements ``Calls``: each in a daemon thread of its own, which keeps nobody from ending."""

    def __init__(self, calls: Sequence[Call]) -> None:
        """Begin all of them."""
        self._failures: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(call,), name=f"together-{index}", daemon=True)
            for index, call in enumerate(calls)
        ]
        for thread in self._threads:
            thread.start()

    def done_within(self, limit_s: float, stop: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + limit_s
        while any(thread.is_alive() for thread in self._threads):
            left = deadline - time.monotonic()
            if left <= 0 or stop():
                return False
            for thread in self._threads:
                thread.join(min(_LOOK_S, left) if thread.is_alive() else 0)
                if thread.is_alive():
                    break
        return True

    def failures(self) -> list[Exception]:
        for thread in self._threads:
            thread.join()
        return list(self._failures)

    def _run(self, call: Call) -> None:
        try:
            call()
        except Exception as error:  # carried over to whoever waits
            self._failures.append(error)
