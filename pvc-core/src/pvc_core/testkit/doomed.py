"""Daemons that die at a chosen moment, and at every moment in turn.

``every_death`` runs a scenario again and again: first the daemon dies before its first effect (a write to the
store, a driver's call), then after it, then before the second one, and so on until it survives.  After each
death the daemon is started again and has to bring the scenario to the same end.
"""

from collections.abc import Callable
from typing import Final, Protocol

from pvc_core.testkit.faults import Faults


class Died(BaseException):
    """The daemon's process is gone at this point.

    Not an Exception, so that no error boundary of the daemon can survive it.
    """


class Doom:
    """Counts effects.  The chosen one is the last thing that the daemon does."""

    def __init__(self) -> None:
        self._left: int | None = None
        self.struck = False

    def after(self, count: int) -> None:
        """Let the daemon die at the moment number ``count`` from now; moments lie before and after each effect."""
        self._left = count
        self.struck = False

    def spare(self) -> None:
        """Let the daemon live from now on."""
        self._left = None

    def moment(self) -> None:
        """Pass a moment; raises Died when it is the chosen one."""
        if self._left is None:
            return
        if self._left == 0:
            self._left = None
            self.struck = True
            raise Died
        self._left -= 1


class DoomedFaults(Faults):
    """Faults of a fake driver, each of whose calls is an effect."""

    def __init__(self, doom: Doom) -> None:
        super().__init__()
        self._doom: Final = doom

    def before(self, hook: str) -> None:
        """Pass the moment before a call."""
        super().before(hook)
        self._doom.moment()

    def after(self, hook: str) -> None:
        """Pass the moment after a call, whose effect is there."""
        super().after(hook)
        self._doom.moment()


class DoomedSite(Protocol):
    """What ``every_death`` needs of a scenario's site."""

    @property
    def doom(self) -> Doom:
        """The daemon's doom."""

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until a condition holds; raises AssertionError in the end, and Died."""

    def revive(self) -> None:
        """Start the dead daemon again."""


def every_death(
    make: Callable[[], DoomedSite],
    act: Callable[[DoomedSite], Callable[[], bool]],
    check: Callable[[DoomedSite], None],
    *,
    most: int = 500,
) -> int:
    """Run a scenario with a death at every moment, and return how many moments there were.

    ``act`` asks for something, as an operator does, and returns the condition that says that it is done.
    """
    for count in range(most):
        site = make()
        done = act(site)
        site.doom.after(count)
        try:
            site.until(done)
        except Died:
            site.revive()
            site.until(done)
        site.doom.spare()
        check(site)
        if not site.doom.struck:
            return count
    raise AssertionError(f"the scenario still has new moments after {most}")
