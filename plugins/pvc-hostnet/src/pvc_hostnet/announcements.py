"""Announcements of floating addresses that go on in the background, and end before the address does."""

import logging
import threading
from typing import Final

import msgspec

from pvc_core.plugin import DriverError
from pvc_netdev.announce import announce

_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Between the times: one frame may be lost, and a switch's port may have come up a moment ago."""


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses on a device."""

    device: str
    mac: str
    addresses: tuple[str, ...]
    router: bool = False
    """The host forwards IPv6 there."""


class Announcements:
    """Tells the neighbours where addresses are: at once, and some times more in a thread.

    After ``stop`` nothing is told any more: the next holder of the address tells other things.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._series: threading.Event | None = None
        """Set when the series that goes on now is over."""

    def begin(self, wanted: list[Announced]) -> None:
        """Announce now, and go on in the background; a series that goes on ends.

        What cannot be announced (the device went down) is logged: the address is there all the same.
        """
        over = threading.Event()
        with self._lock:
            if self._series is not None:
                self._series.set()
            self._series = over
            self._send(wanted)
        threading.Thread(target=self._go_on, args=(wanted, over), name="pvc-hostnet-announce", daemon=True).start()

    def stop(self) -> None:
        """End the series: when this returns, no frame follows."""
        with self._lock:
            if self._series is not None:
                self._series.set()
            self._series = None

    def _go_on(self, wanted: list[Announced], over: threading.Event) -> None:
        for pause in _PAUSES_S:
            if over.wait(pause):
                return
            with self._lock:
                if not over.is_set():
                    self._send(wanted)

    def _send(self, wanted: list[Announced]) -> None:
        for one in wanted:
            try:
                announce(one.device, one.addresses, one.mac, times=1, router=one.router)
            except DriverError as error:
                self._log.warning("announcement-failed device=%s error=%s", one.device, error)
