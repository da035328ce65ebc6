"""Threads that do something again and again, each in a boundary of its own."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import PvcError

_STOP_S: Final = 2.0


class Repeated:
    """Calls a function every ``interval_s`` in a thread of its own, from ``start`` to ``stop``.

    What it raises is logged once, until it says something else or succeeds.
    """

    def __init__(self, name: str, interval_s: float, call: Callable[[], None], log: logging.Logger) -> None:
        self._name: Final = name
        self._interval_s: Final = interval_s
        self._call: Final = call
        self._log: Final = log
        self._stop: Final = threading.Event()
        self._now: Final = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""

    def start(self) -> None:
        """Begin; once begun it goes on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def soon(self) -> None:
        """Do it now, without waiting for the interval's end."""
        self._now.set()

    def stop(self) -> None:
        """End, after the call that is under way; not waiting for one that hangs."""
        self._stop.set()
        self._now.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._once()
            self._now.wait(self._interval_s)
            self._now.clear()

    def _once(self) -> None:
        try:
            self._call()
        except PvcError as error:
            self._complain(str(error))
        except Exception as error:
            # A defect in one round must not end all later ones.
            if repr(error) != self._said:
                self._log.exception("%s", self._name)
            self._said = repr(error)
        else:
            self._said = ""

    def _complain(self, text: str) -> None:
        if text != self._said:
            self._log.warning("%s: %s", self._name, text)
        self._said = text
