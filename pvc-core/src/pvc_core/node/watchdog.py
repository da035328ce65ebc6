"""Feeds the watchdog while the servers confirm this node's lease, and declares by when it has reset the node otherwise.

Why that makes the declaration true is proven in ``pvc_core.plan.watchdog``.  What its proof needs of us, in this order:

1. the lease is taken, with nothing declared;
2. the device is opened, armed and fed, on a fresh confirmation;
3. the declaration is written;
4. the device is fed only right after the age of the newest confirmation was checked;
5. the lease is released on record;
6. the device is disarmed.

A process that ends between any two leaves an armed device or no declaration.  A device that cannot be fed any more is no
longer declared.  A node whose device cannot be armed goes on without one, and says so.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from pvc_core.model.base import Condition
from pvc_core.model.errors import PvcError
from pvc_core.node.clock import Clock
from pvc_core.node.lease import NodeLease
from pvc_core.node.watchdog_device import WatchdogDevice, WatchdogError
from pvc_core.plan.watchdog import confirm_interval, down_after, feed_interval, may_feed

log = logging.getLogger(__name__)

CONDITION: Final = "Watchdog"
"""Type of the node's condition that says whether a watchdog guards it."""

_REOPEN_S: Final = 10.0
"""Pause before a device that failed is opened again."""
_PATIENCE_S: Final = 2.0
"""A new lease's work waits so long for the device to be armed."""


class Watchdog:
    """The watchdog of this node.  Starts no thread: call ``tick``, or ``confirm`` and ``feed`` from a thread each."""

    def __init__(
        self,
        lease: NodeLease,
        clock: Clock,
        open_device: Callable[[], WatchdogDevice],
        tell: Callable[[Condition], None],
    ) -> None:
        """``open_device`` arms the device and raises WatchdogError; ``tell`` makes a condition of the node known."""
        self._lease = lease
        self._clock = clock
        self._open = open_device
        self._tell = tell
        self._feeding_s = lease.safe_s
        self._device: WatchdogDevice | None = None
        self._device_lock = threading.Lock()
        self._failed = False
        """The device could not be fed: it may not count any more."""
        self._open_at = 0.0
        self._confirm_at = 0.0
        self._starving = False
        self._stopped = False

    @property
    def confirm_interval_s(self) -> float:
        """Seconds between two calls of ``confirm``."""
        return confirm_interval(self._feeding_s)

    @property
    def feed_interval_s(self) -> float:
        """Seconds between two calls of ``feed``."""
        device = self._device
        return feed_interval(device.timeout_s if device is not None else self._feeding_s)

    def tick(self) -> None:
        """Do what is due: for a simulation, which calls this at least every ``feed_interval_s``."""
        if self._clock.monotonic() >= self._confirm_at:
            self.confirm()
        self.feed()

    def confirm(self) -> None:
        """Have the lease confirmed, arm the device unless it is, and see to it that what is declared is true.

        Waits for the store, and for the device when it is opened or closed.
        """
        self._confirm_at = self._clock.monotonic() + self.confirm_interval_s
        try:
            if self._stopped or self._lease.declared() is None:
                return
            self._arm()
            device, failed = self._device, self._failed
            wanted = down_after(self._feeding_s, device.timeout_s) if device is not None and not failed else 0.0
            if self._lease.declared() == wanted:
                self._lease.confirm()
            else:
                self._lease.declare(wanted)
            if failed:
                self._close_failed()
        except PvcError as error:
            log.debug("lease-not-confirmed error=%s", error)

    def feed(self) -> None:
        """Feed the device if the lease was confirmed lately."""
        # The proof begins here: the device was fed before this moment is read.
        now = self._clock.monotonic()
        device, confirmed = self._device, self._lease.confirmed()
        if device is None or self._failed:
            return
        if not may_feed(now, confirmed, self._feeding_s):
            self._starve(device)
            return
        try:
            with self._device_lock:
                if device is self._device:
                    device.feed()
        except WatchdogError as error:
            log.error("watchdog-not-fed error=%s", error)
            self._failed = True
            self._confirm_at = 0.0
            self._say(ok=False, reason="NotFed", message=f"the watchdog does not work: {error}")
            return
        if self._starving:
            self._starving = False
            log.warning("watchdog-fed-again")

    def stop(self, *, released: bool) -> None:
        """Disarm the device if the lease was released on record; else leave it to reset the node.  Feed no more.

        Raises WatchdogError when it cannot be disarmed.
        """
        with self._device_lock:
            self._stopped = True
            device, self._device = self._device, None
            if device is None:
                return
            if released:
                device.disarm()
                log.info("watchdog-disarmed")
                return
        log.error(
            "watchdog-left-armed resets_in_s=%g why=%r",
            device.timeout_s,
            "the lease could not be released, so others may rely on this node going down; "
            "only a pvcnoded that starts and gets its lease before that prevents it",
        )

    def _arm(self) -> None:
        """Open the device, if nothing is declared and the lease was confirmed just now."""
        now = self._clock.monotonic()
        if self._device is not None or self._lease.declared() or now < self._open_at:
            return
        if not may_feed(now, self._lease.confirmed(), self._feeding_s):
            return
        self._open_at = now + _REOPEN_S
        # The servers may have shortened the time of the lease since this object was made.
        self._feeding_s = self._lease.safe_s
        try:
            device = self._open()
        except WatchdogError as error:
            log.error("watchdog-not-armed error=%s", error)
            self._say(ok=False, reason="NotArmed", message=f"no watchdog guards this node: {error}")
            return
        with self._device_lock:
            if not self._stopped:
                self._device = device
        if self._stopped:
            device.disarm()
            return
        message = f"{device.about} resets this node when it was not fed for {device.timeout_s:g} s"
        log.info("watchdog-armed %s", message)
        self._say(ok=True, reason="Armed", message=message)

    def _close_failed(self) -> None:
        """Let go of a device that cannot be fed; nothing is declared any more."""
        with self._device_lock:
            device, self._device = self._device, None
        self._failed = False
        self._open_at = self._clock.monotonic() + _REOPEN_S
        if device is not None:
            try:
                device.disarm()
            except WatchdogError as error:
                log.error("watchdog-not-disarmed error=%s", error)

    def _starve(self, device: WatchdogDevice) -> None:
        if not self._starving:
            self._starving = True
            log.error("watchdog-starving resets_in_s=%g why=%r", device.timeout_s, "this node's lease is not confirmed")

    def _say(self, *, ok: bool, reason: str, message: str) -> None:
        self._tell(Condition(type=CONDITION, ok=ok, reason=reason, message=message))


class WatchdogThreads:
    """The threads of a watchdog: one asks the store, one feeds, so that neither waits for what the other waits for."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._stop = threading.Event()
        self._change = threading.Condition()
        self._asked = 0
        self._done = 0
        self._threads = [
            threading.Thread(target=self._confirm, name="watchdog-confirm", daemon=True),
            threading.Thread(target=self._feed, name="watchdog-feed", daemon=True),
        ]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def taken(self, generation: int) -> None:  # noqa: ARG002  (each lease is declared for)
        """Have the device armed and declared for a new lease; waits for that, but not for long."""
        with self._change:
            self._asked += 1
            wanted = self._asked
            self._change.notify_all()
            if not self._change.wait_for(lambda: self._done >= wanted, _PATIENCE_S):
                log.warning("watchdog-slow action=go-on-without")

    def stop(self, *, released: bool) -> None:
        """Stop the watchdog as its ``stop`` says, and have both threads end, without waiting for them."""
        self._stop.set()
        with self._change:
            self._change.notify_all()
        self._watchdog.stop(released=released)

    def _confirm(self) -> None:
        while not self._stop.is_set():
            with self._change:
                self._change.wait_for(
                    lambda: self._asked > self._done or self._stop.is_set(), self._watchdog.confirm_interval_s
                )
                asked = self._asked
            _guarded(self._watchdog.confirm)
            with self._change:
                self._done = asked
                self._change.notify_all()

    def _feed(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(due - time.monotonic(), 0.0)):
            due = time.monotonic() + self._watchdog.feed_interval_s
            _guarded(self._watchdog.feed)


def _guarded(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
        # A defect must not end the thread: the node would be reset for it.
        log.exception("watchdog-defect")
