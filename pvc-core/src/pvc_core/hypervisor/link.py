"""One connection that is opened again for as long as somebody wants it."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from pvc_core.hypervisor.api import HypervisorUnavailable
from pvc_core.plan.backoff import backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0


class Link(Generic[T]):
    """Keeps a connection up on a thread of its own, because opening one may hang.

    ``open_`` opens a connection, ``up`` is called when ``get`` has begun to return it, ``close`` lets go of one,
    dead or alive; all three on that thread.  ``get`` never waits longer than ``patience_s``, and not at all once
    an attempt has taken that long or failed.
    """

    def __init__(
        self,
        what: str,
        open_: Callable[[], T],
        close: Callable[[T], None],
        *,
        up: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._what = what
        self._open = open_
        self._close = close
        self._up = up
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._connection: T | None = None
        self._began = time.monotonic()
        self._failure = ""
        self._closed = False
        self._thread = threading.Thread(target=self._keep_up, name=f"link {what}", daemon=True)
        self._thread.start()

    def get(self) -> T:
        """Return the connection; raise HypervisorUnavailable while there is none."""
        with self._changed:
            while self._closed or self._connection is None:
                if self._closed:
                    raise HypervisorUnavailable(f"this connection to {self._what} was closed")
                left = self._began + self._patience_s - time.monotonic()
                if self._failure or left <= 0:
                    raise HypervisorUnavailable(f"{self._what} does not answer: {self._failure or 'no reply yet'}")
                self._changed.wait(left)
            return self._connection

    def lost(self, connection: T, reason: str) -> None:
        """Give up a connection: a new one is opened.  One that was given up before is ignored; never waits."""
        with self._changed:
            if self._connection is connection:
                self._connection = None
                self._failure = reason
                self._changed.notify_all()

    def close(self) -> None:
        """Close the connection and open no more; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _keep_up(self) -> None:
        failures = 0
        while not self._closed:
            self._began = time.monotonic()
            try:
                connection = self._open()
            except Exception as error:  # whatever it is, another attempt follows
                failures += 1
                with self._changed:
                    if str(error) != self._failure:
                        log.warning("hypervisor-unreachable hypervisor=%s error=%s", self._what, error)
                    self._failure = str(error) or repr(error)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed, backoff(failures, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))
                continue
            failures = 0
            self._hold(connection)

    def _hold(self, connection: T) -> None:
        with self._changed:
            self._connection = connection
            self._failure = ""
            self._changed.notify_all()
        log.info("hypervisor-connected hypervisor=%s", self._what)
        self._up()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._connection is not connection)
            self._connection = None
            if not self._closed:
                log.warning("hypervisor-connection-lost hypervisor=%s reason=%s", self._what, self._failure)
                self._failure = self._failure or "the connection was lost"
        self._close(connection)
