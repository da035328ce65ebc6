"""The power of simulated nodes, and the controllers that switch it: each may be slow, stuck, silent or lying.

A node's host runs while its mains are there, its chassis is switched on, and one of its outlets (if it hangs on any) is.
A management controller (``bmc``) switches the chassis, a power strip (``pdu-a``, ``pdu-b``) one outlet.
"""

import enum
from collections.abc import Callable
from typing import Final

from pvc_core.plugin.specs.fencing import PowerState

BMC: Final = "bmc"


class Mode(enum.StrEnum):
    """What a controller does when it is asked."""

    OK = "ok"
    SLOW = "slow"
    """It takes 10 to 20 s until the power is off."""
    STUCK = "stuck"
    """It accepts every command and does nothing."""
    UNREACHABLE = "unreachable"
    DARK = "dark"
    """It says that the power is off whatever it is, and does nothing: a free outlet, given by mistake."""
    GARBAGE = "garbage"
    """Nobody can tell from its answers what it did: it may have switched the power or not."""


class Power:
    """A host's power.  ``changed`` is called with each change of ``on``."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self.mains = True
        self.chassis = True
        self.outlets: dict[str, bool] = {}

    @property
    def on(self) -> bool:
        """The host runs."""
        return self.mains and self.chassis and (not self.outlets or any(self.outlets.values()))

    def switch(self, what: str, *, on: bool) -> None:
        """Switch ``mains``, the chassis (``bmc``) or an outlet."""
        before = self.on
        if what == "mains":
            self.mains = on
        elif what == BMC:
            self.chassis = on
        else:
            self.outlets[what] = on
        self._tell(before)

    def restore(self) -> None:
        """Put everything on, as somebody does who stands in front of it."""
        before = self.on
        self.mains = self.chassis = True
        self.outlets = dict.fromkeys(self.outlets, True)
        self._tell(before)

    def _tell(self, before: bool) -> None:
        if self.on is not before:
            self._changed(self.on)


class Controller:
    """A device that switches a node's power, or a part of it."""

    def __init__(self, power: Power, device: str, *, own_power: bool = True) -> None:
        """``own_power``: it answers also when the node's mains are gone."""
        self._power = power
        self.device: Final = device
        self.own_power = own_power
        self.mode = Mode.OK
        self.wrong_password: set[str] = set()
        """Coordinators that have a wrong password for it."""

    def answers(self) -> bool:
        """It can be reached at all."""
        return self.mode is not Mode.UNREACHABLE and (self.own_power or self._power.mains)

    def usable(self, coordinator: str) -> bool:
        """It switches the power when this coordinator asks it to, and says so."""
        return self.answers() and self.mode in (Mode.OK, Mode.SLOW) and coordinator not in self.wrong_password

    def read(self) -> PowerState:
        """Return what it reports."""
        if self.mode is Mode.GARBAGE:
            return PowerState.UNKNOWN
        if self.mode is Mode.DARK:
            return PowerState.OFF
        on = self._power.on if self.device == BMC else self._power.outlets[self.device]
        return PowerState.ON if on else PowerState.OFF

    def switch(self, wanted: PowerState) -> None:
        """Let a command take effect, unless it is stuck by now."""
        if self.mode not in (Mode.STUCK, Mode.DARK) and self.answers():
            self._power.switch(self.device, on=wanted is PowerState.ON)
