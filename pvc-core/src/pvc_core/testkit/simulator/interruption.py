"""What shall happen to a daemon in the middle of its work: it dies, is stopped, or one of its threads stands still."""

from collections.abc import Callable
from typing import NamedTuple


class DaemonDied(BaseException):
    """Raised in the middle of an action: the daemon's process is gone at this point.

    Not an Exception, so that no error boundary of the daemon can survive it.
    """


class _Death(NamedTuple):
    effects: int
    """Effects that pass before."""
    where: str
    """Only those count that begin like this."""


class Stop(NamedTuple):
    """What stops a daemon."""

    effects: int
    where: str
    whole: Callable[[], None] | None
    """Stops all of it; None: one thread alone stands still, for so many seconds."""
    seconds: float
    also: Callable[[], object]
    """Happens at that moment."""


class Interruptible:
    """Counts the effects of a daemon: writes to the store, calls of the hypervisor and of devices, each before and after.

    ``where`` chooses among them: only those count whose description begins so.
    """

    def __init__(self) -> None:
        self._dies: _Death | None = None
        self._stops: Stop | None = None

    def die_after(self, effects: int, *, where: str = "") -> None:
        """Let it die within one of its next effects."""
        self._dies = _Death(effects, where)

    def stop_after(self, effects: int, stop: Callable[[], None], *, where: str = "") -> None:
        """Let all of it be stopped, by ``stop``, within one of its next effects."""
        self._stops = Stop(effects, where, stop, 0.0, lambda: None)

    def stall_after(
        self, effects: int, seconds: float, *, where: str = "", also: Callable[[], object] = lambda: None
    ) -> None:
        """Let one thread alone stand still for a while within one of its next effects; ``also`` happens then."""
        self._stops = Stop(effects, where, None, seconds, also)

    def may_stop(self) -> bool:
        """Return whether it may be stopped at one of its next effects."""
        return self._stops is not None

    def _death_at(self, where: str) -> bool:
        """Count an effect; return whether the daemon dies there."""
        dies = self._dies
        if dies is None or not where.startswith(dies.where):
            return False
        self._dies = dies._replace(effects=dies.effects - 1) if dies.effects > 0 else None
        return dies.effects <= 0

    def _stop_at(self, where: str, *, whole_only: bool) -> Stop | None:
        """Count an effect; return what stops the daemon there, if anything.  ``whole_only``: not one thread alone."""
        stops = self._stops
        if stops is None or not where.startswith(stops.where) or (whole_only and stops.whole is None):
            return None
        self._stops = stops._replace(effects=stops.effects - 1) if stops.effects > 0 else None
        return stops if stops.effects <= 0 else None
