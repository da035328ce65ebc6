"""The fence driver ``ipmi``: commands a BMC, and believes only what it read back.

A BMC may say yes and do nothing, take half a minute, or lose its network for a while when the host's power changes
(one that shares a NIC with the host).  ipmitool repeats a request that is answered late, so a command may arrive
several times: that is why there is only "off" and "on", which may, and never "cycle" or "reset", which may not.
"""

import time
from typing import Final

from pvc_core.plugin import Context, DriverError, FenceDriver, FenceTarget, NotReady, PowerState
from pvc_fence_ipmi.bmc import Bmc
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.diagnosis import Unreachable
from pvc_fence_ipmi.parameters import device

_PREFLIGHT_S: Final = 5.0
_SHORTEST_CALL_S: Final = 5.0
_UNREAD_MAX: Final = 5
"""So many readings one after the other that came to nothing end the waiting.  Those that were not answered count until a
command was given."""


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

        Raises at once what only a person can mend.  A BMC that cannot be got at is not told anything; after a command
        an unanswered reading is repeated until the time is over.
        """
        config = self._config
        end = time.monotonic() + config.power_timeout
        given = device(target.parameters)
        bmc = Bmc(config, given)
        told, unread, next_command, refusal = 0, 0, 0.0, ""
        while True:
            try:
                state = bmc.read(self._call_s(end))
            except DriverError as error:
                answers = not isinstance(error, NotReady)
                unread += answers or not told
                hopeless = isinstance(error, Unreachable) or time.monotonic() >= end
                if _final(error) or unread == _UNREAD_MAX or (not told and hopeless):
                    raise
                found = f"it could not be read: {error}"
            else:
                if state is wanted:
                    return wanted
                answers, unread = True, 0
                found = f"it still reads {state.value}"
            now = time.monotonic()
            if told and now >= end:
                said = f"the last time: {refusal}" if refusal else "and it said yes"
                raise DriverError(
                    f"BMC {given.place} was told {'once' if told == 1 else f'{told} times'} to switch the power "
                    f"{wanted.value}, {said}; after {config.power_timeout:g} s {found}"
                )
            if answers and now >= next_command:
                self._log.info("power-commanded node=%s power=%s bmc=%s", target.node, wanted.value, given.place)
                refusal = _command(bmc, wanted, self._call_s(end))
                told += 1
                next_command = time.monotonic() + config.resend_interval
            else:
                time.sleep(min(config.poll_interval, max(0.0, end - now)))

    def _call_s(self, end: float) -> float:
        return min(self._config.status_timeout, max(_SHORTEST_CALL_S, end - time.monotonic()))


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
    """Say whether only a person can mend it: AuthFailed, Unusable, and an ipmitool that is not there."""
    return not error.retryable
