"""Events reach plugins from a thread of their own, so that telling never delays or breaks what is told about."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

log = logging.getLogger(__name__)

_WAITING_MAX: Final = 1000
_DRAIN_S: Final = 5.0

Tell = Callable[[str, Mapping[str, Any]], None]
"""Tells all plugins of one event, each in its own boundary."""


class EventThread:
    """Hands events to ``tell`` one after the other, in the order they came."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._waiting: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(_WAITING_MAX)
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, event: str, arguments: Mapping[str, Any]) -> None:
        """Queue an event; returns at once.  When a thousand wait already, it is dropped, and that is logged."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pvc-events", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((event, arguments))
        except queue.Full:
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: the log stays readable
                log.error("event-dropped event=%s dropped=%d waiting=%d", event, self._dropped, _WAITING_MAX)

    def close(self) -> None:
        """Take no more events and wait a few seconds for those that are queued to be told."""
        with self._lock:
            self._closed, thread = True, self._thread
        if thread is None:
            return
        try:
            self._waiting.put(None, timeout=_DRAIN_S)
        except queue.Full:
            log.warning("events-left waiting=%d", self._waiting.qsize())
            return
        thread.join(_DRAIN_S)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._tell(*item)
