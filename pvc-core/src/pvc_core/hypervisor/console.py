"""A console's bytes between the thread that has them from the guest and the one that reads them."""

import collections
import threading
from typing import Final

_LIMIT: Final = 256 * 1024
"""Bytes kept for a reader that does not come: then the oldest are dropped, as a terminal's would be."""


class ConsoleBuffer:
    """A pipe whose writer never waits."""

    def __init__(self) -> None:
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._ended = False
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        """Add bytes; beyond the limit the oldest are lost."""
        with self._changed:
            self._chunks.append(data)
            self._size += len(data)
            while self._size > _LIMIT and len(self._chunks) > 1:
                self._size -= len(self._chunks.popleft())
            self._changed.notify_all()

    def end(self) -> None:
        """Let the reader read what is there, then the end."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def get(self) -> bytes:
        """Return the bytes that are there; wait for some; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._ended)
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            return data
