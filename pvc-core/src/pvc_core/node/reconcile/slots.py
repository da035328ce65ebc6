"""Places for live migrations: how many guests may leave this node, or come to it, at the same time."""

import threading
from collections.abc import Callable


class Slots:
    """The places of one direction.  May be used from any thread.

    ``wake`` is told each VM that was refused a place, once, when one gets free.
    """

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._refused: set[str] = set()

    def admit(self, vm: str, limit: int) -> bool:
        """Give a VM a place, which it may have already; False when ``limit`` others have one."""
        with self._lock:
            free = self._free(vm, limit)
            (self._taken if free else self._refused).add(vm)
            return free

    def is_free(self, vm: str, limit: int) -> bool:
        """Return whether ``admit`` would give this VM a place now."""
        with self._lock:
            free = self._free(vm, limit)
            if not free:
                self._refused.add(vm)
            return free

    def count(self, vm: str, *, taken: bool) -> None:
        """Take note of whether a VM has a place, as its documents and its domain say."""
        refused: set[str] = set()
        with self._lock:
            self._refused.discard(vm)
            if taken:
                self._taken.add(vm)
            elif vm in self._taken:
                self._taken.discard(vm)
                refused, self._refused = self._refused, set()
        for other in sorted(refused):
            self._wake(other)

    def _free(self, vm: str, limit: int) -> bool:
        return len(self._taken - {vm}) < limit
