"""A watchdog in memory, on any clock: the hardware of one host, which outlives the daemons that open it."""

from collections.abc import Callable
from typing import Final

from pvc_core.node.clock import Clock
from pvc_core.node.watchdog_device import WatchdogError


class FakeWatchdog:
    """The hardware.  It counts by ``due``; whoever moves the clock looks there and resets the host."""

    def __init__(
        self, clock: Clock, *, granted_s: float | None = None, moment: Callable[[str], None] | None = None
    ) -> None:
        """``granted_s`` is the time-out that it uses whatever is asked for; ``moment`` is called before each operation."""
        self._clock: Final = clock
        self._granted_s: Final = granted_s
        self._moment: Final = moment or (lambda _: None)
        self._open = False
        self._timeout_s = 0.0
        self._fed: float | None = None
        self.broken = ""
        """Why it can be neither opened nor fed."""
        self.nowayout = False
        """It cannot be disarmed."""
        self.feedings = 0

    def due(self) -> float | None:
        """Return when it resets the host unless it is fed before, on the clock; None while it does not count."""
        return None if self._fed is None else self._fed + self._timeout_s

    def open(self, timeout_s: float) -> "FakeDevice":
        """Arm it, as ``open_device`` does.  Raises WatchdogError."""
        self._moment("open")
        self.check()
        if self._open:
            raise WatchdogError("the fake watchdog cannot be opened: Device or resource busy")
        self._open = True
        self._timeout_s = self._granted_s or timeout_s
        self.feed()
        return FakeDevice(self, self._timeout_s)

    def feed(self) -> None:
        """Start the countdown anew."""
        self._moment("feed")
        self.check()
        self._fed = self._clock.monotonic()
        self.feedings += 1

    def disarm(self) -> None:
        """Stop the countdown."""
        self._moment("disarm")
        self._open = False
        if self.nowayout:
            raise WatchdogError("the fake watchdog cannot be disarmed: nowayout is set")
        self._fed = None

    def process_died(self) -> None:
        """Let the process end that has it open: the kernel then feeds it once more."""
        if self._open and self._fed is not None:
            self._fed = self._clock.monotonic()
        self._open = False

    def reset(self) -> None:
        """Be as after a start of the host: it does not count."""
        self._open = False
        self._fed = None

    def check(self) -> None:
        """Raise WatchdogError when it is broken."""
        if self.broken:
            raise WatchdogError(f"the fake watchdog {self.broken}")


class FakeDevice:
    """The watchdog as its daemon has it open."""

    def __init__(self, hardware: FakeWatchdog, timeout_s: float) -> None:
        self._hardware: Final = hardware
        self.timeout_s: Final = timeout_s
        self.about: Final = "the fake watchdog"

    def feed(self) -> None:
        self._hardware.feed()

    def disarm(self) -> None:
        self._hardware.disarm()
