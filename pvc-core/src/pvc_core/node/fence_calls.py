"""Calls of fence drivers: one at a time per node, and all devices of a level together.

Everything that switches or reads a node's power on this coordinator goes through one ``FenceCalls``, so that an
operator's request and the fencer never talk to one controller at the same time.  The calls block.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from pvc_core.model.errors import PvcError
from pvc_core.model.fence import DeviceHealth, FenceDevice, FenceLevel
from pvc_core.node.clock import Clock
from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState
from pvc_core.runtime.api import Drivers

_Call = Callable[[FenceDriver, FenceTarget], PowerState]


class Outcome(NamedTuple):
    """What came of switching a level's devices."""

    ok: bool
    """Every device was read back as wanted, after the last of them was switched."""
    message: str
    """What each device said, one sentence."""


class FenceCalls:
    """The fence drivers of this coordinator.  May be used from any thread."""

    def __init__(
        self, drivers: Drivers, clock: Clock, *, lock: Callable[[], AbstractContextManager[object]] = threading.Lock
    ) -> None:
        """``lock`` makes what is held while a node's devices are asked; the simulator has its own."""
        self._drivers: Final = drivers
        self._clock: Final = clock
        self._guard: Final = threading.Lock()
        self._locks: Final[defaultdict[str, AbstractContextManager[object]]] = defaultdict(lock)

    def off(self, node: str, level: FenceLevel, *, unless: Callable[[], str] | None = None) -> Outcome:
        """Switch all devices of a level off; ok only when at the end each of them reads off.

        ``unless`` is asked when every device has just answered, and immediately before each of them is told: what it
        returns, if anything, is why no more is done, and what it raises is raised.  A device that cannot be reached for
        a while would else cut the power of a node that came back within reach together with it.
        """
        return self._switch(node, level, PowerState.OFF, lambda driver, target: driver.power_off(target), unless)

    def on(self, node: str, level: FenceLevel, *, unless: Callable[[], str] | None = None) -> Outcome:
        """Switch all devices of a level on; ok only when at the end each of them reads on.  ``unless`` as in ``off``."""
        return self._switch(node, level, PowerState.ON, lambda driver, target: driver.power_on(target), unless)

    def status(self, node: str, levels: tuple[FenceLevel, ...]) -> tuple[DeviceHealth, ...]:
        """Ask every device; never raises PvcError."""
        with self._lock(node):
            return tuple(
                self._health(node, device, level_number, device_number)
                for level_number, level in enumerate(levels, 1)
                for device_number, device in enumerate(level.devices, 1)
            )

    def _switch(
        self, node: str, level: FenceLevel, wanted: PowerState, call: _Call, unless: Callable[[], str] | None = None
    ) -> Outcome:
        with self._lock(node):
            if unless is not None and (silent := self._unreadable(node, level)):
                return Outcome(ok=False, message=silent)
            said: list[tuple[PowerState, str]] = []
            for device in level.devices:
                if unless is not None and (why_not := unless()):
                    return Outcome(ok=False, message=why_not)
                said.append(self._call(node, device, call))
            if len(level.devices) > 1 and all(state is wanted for state, _ in said):
                # The first may have been switched back while the last was switched.
                said = [self._call(node, device, _read) for device in level.devices]
        messages = [
            f"{device.driver}: {error or state.value}"
            for device, (state, error) in zip(level.devices, said, strict=True)
        ]
        return Outcome(all(state is wanted for state, _ in said), ", ".join(messages))

    def _unreadable(self, node: str, level: FenceLevel) -> str:
        """Return what is wrong with the devices that cannot be read, or an empty string."""
        answers = [(device.driver, self._call(node, device, _read)[1]) for device in level.devices]
        return ", ".join(f"{driver}: {error}" for driver, error in answers if error)

    def _health(self, node: str, device: FenceDevice, level_number: int, device_number: int) -> DeviceHealth:
        began = self._clock.monotonic()
        state, error = self._call(node, device, _read)
        if state is PowerState.UNKNOWN and not error:
            error = "it answers, but cannot tell whether the power is on"
        return DeviceHealth(
            level=level_number,
            device=device_number,
            driver=device.driver,
            power=state.value,
            error=error,
            took_s=round(self._clock.monotonic() - began, 3),
            checked=self._clock.wall(),
        )

    def _call(self, node: str, device: FenceDevice, call: _Call) -> tuple[PowerState, str]:
        """Return what a device said: unknown, with the reason, when it could not be asked."""
        try:
            driver = self._drivers.fencing(device.driver)
            return call(driver, FenceTarget(node=node, parameters=device.parameters)), ""
        except PvcError as error:
            return PowerState.UNKNOWN, str(error)

    def _lock(self, node: str) -> AbstractContextManager[object]:
        with self._guard:
            return self._locks[node]


def _read(driver: FenceDriver, target: FenceTarget) -> PowerState:
    return driver.power_status(target)
