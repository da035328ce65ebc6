"""Threads that take keys from the work queue."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from pvc_core.node.workqueue import OTHER_KINDS, WorkKey, WorkQueue

log = logging.getLogger(__name__)

PLACES: Final[Mapping[str, int]] = {
    "session": 1,
    "resync": 1,
    "publish": 1,
    "figures": 1,
    "primary": 1,
    "duties": 1,
    "node": 1,
    "vm": 8,
    "volume": 4,
    "pool": 2,
    "network": 6,
    "task": 1,
    OTHER_KINDS: 2,
}
"""Keys of each kind that may be in work at once.  There is a thread for every place, so no kind waits for another."""

_POLL_S: Final = 5.0


class Workers:
    """One daemon thread per place; a thread that is stuck in a driver does not keep the process from ending."""

    def __init__(self, queue: WorkQueue, work: Callable[[WorkKey], None], count: int = sum(PLACES.values())) -> None:
        self._queue = queue
        self._work = work
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, deadline_s: float) -> frozenset[WorkKey]:
        """Take no more keys, wait for those in work; return the ones still in work after the deadline."""
        self._stop.set()
        self._queue.close()
        deadline = time.monotonic() + deadline_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        stuck = self._queue.in_work()
        if stuck:
            log.warning("workers-stuck keys=%s", ",".join("/".join(key) for key in sorted(stuck)))
        return stuck

    def _run(self) -> None:
        while not self._stop.is_set():
            key = self._queue.take_next(_POLL_S)
            if key is not None:
                self._work(key)
