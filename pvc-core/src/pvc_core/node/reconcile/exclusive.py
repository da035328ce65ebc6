"""One thing at a time for each object: reconcilers and tasks of one node share volumes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pvc_core.plugin.specs.storage import Cancelled

_LOOK_S = 0.2


class Exclusive:
    """Which objects are in work in this process.  May be used from any thread."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def if_free(self, id_: str) -> Iterator[bool]:
        """Take an object unless it is in work; the value says whether it was taken."""
        with self._free:
            taken = id_ not in self._taken
            if taken:
                self._taken.add(id_)
        try:
            yield taken
        finally:
            if taken:
                self._give_back(id_)

    @contextmanager
    def when_free(self, id_: str, stop: Callable[[], bool]) -> Iterator[None]:
        """Wait until an object is free and take it; raises Cancelled when ``stop`` says so meanwhile."""
        with self._free:
            while id_ in self._taken:
                if stop():
                    raise Cancelled("stopped before it began")
                self._free.wait(_LOOK_S)
            self._taken.add(id_)
        try:
            yield
        finally:
            self._give_back(id_)

    def _give_back(self, id_: str) -> None:
        with self._free:
            self._taken.discard(id_)
            self._free.notify_all()
