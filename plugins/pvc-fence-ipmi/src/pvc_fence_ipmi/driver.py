"""The fence driver ``ipmi``: commands a BMC, and believes only what it read back.

A BMC may say yes and do nothing, take half a minute, or lose its network for a while when the host's power changes
(one that shares a NIC with the host).  ipmitool repeats a request that is answered late, so a command may arrive
several times: that is why there is only "off" and "on", which may, and never "cycle" or "reset", which may not.
"""

import time
from typing import Final

from pvc_core.plugin import (
    AuthFailed,
    Context,
    DriverError,
    FenceDriver,
    FenceTarget,
    NotReady,
    PowerState,
)
from pvc_fence_ipmi.bmc import Bmc
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.parameters import device

_PREFLIGHT_S: Final = 5.0
_SHORTEST_CALL_S: Final = 1.0
_NONSENSE_MAX: Final = 5
"""So many readings one after the other that make no sense end the waiting."""


class IpmiDriver(FenceDriver):
    """Power switched by BMCs.  Keeps nothing of a device: may be used from any thread."""

    def __init__(self, context: Context, config: FenceIpmiConfig) -> None:
        self._run: Final = context.run
        self._log: Final = context.log
        self._config: Final = config

    def fence_preflight(self) -> bool:
        try:
            self._run([self._config.ipmitool, "-V"], deadline_s=_PREFLIGHT_S).check()
        except DriverError as error:
            raise NotReady(f"ipmitool does not work here: {error}; install it: apt-get install ipmitool") from None
        return True

    def power_status(self, target: FenceTarget) -> PowerState:
        return Bmc(self._config, device(target.parameters)).read(self._config.status_timeout)

    def power_off(self, target: FenceTarget) -> PowerState:
        return self._switch(target, PowerState.OFF)

    def power_on(self, target: FenceTarget) -> PowerState:
        return self._switch(target, PowerState.ON)

    def _switch(self, target: FenceTarget, wanted: PowerState) -> PowerState:
        """Read the power until it is as wanted, giving the command now and then.

        Raises at once what only a person can mend (AuthFailed), and NotReady while nothing was commanded yet; after
        that an unanswered reading is tried again until the time is over.
        """
        end = time.monotonic() + self._config.power_timeout
        bmc = Bmc(self._config, device(target.parameters))
        told = 0
        next_command = 0.0
        nonsense = 0
        refusal = ""
        while True:
            try:
                state = bmc.read(self._call_s(end))
            except DriverError as error:
                nonsense = 0 if isinstance(error, NotReady) else nonsense + 1
                if _final(error) or (told == 0 and isinstance(error, NotReady)) or nonsense == _NONSENSE_MAX:
                    raise
                found = f"it could not be read: {error}"
            else:
                nonsense = 0
                if state is wanted:
                    return wanted
                found = f"it still reads {state.value}"
            now = time.monotonic()
            if now >= end:
                raise DriverError(_gave_up(bmc.place, wanted, told, self._config.power_timeout, found, refusal))
            if now >= next_command:
                self._log.info("power-commanded node=%s power=%s place=%s", target.node, wanted.value, bmc.place)
                refusal = _command(bmc, wanted, self._call_s(end))
                told += 1
                next_command = time.monotonic() + self._config.resend_interval
            else:
                time.sleep(min(self._config.poll_interval, end - now))

    def _call_s(self, end: float) -> float:
        return max(_SHORTEST_CALL_S, min(self._config.status_timeout, end - time.monotonic()))


def _command(bmc: Bmc, wanted: PowerState, deadline_s: float) -> str:
    """Command the power; return what went wrong, which need not mean that nothing happens."""
    try:
        bmc.command(wanted, deadline_s)
    except DriverError as error:
        if _final(error):
            raise
        return str(error)
    return ""


def _final(error: DriverError) -> bool:
    return isinstance(error, AuthFailed) or not error.retryable


def _gave_up(place: str, wanted: PowerState, told: int, seconds: float, found: str, refusal: str) -> str:
    times = "once" if told == 1 else f"{told} times"
    said = f"the last time: {refusal}" if refusal else "and it said yes"
    return f"{place} was told {times} to switch the power {wanted.value}, {said}; after {seconds:g} s {found}"
