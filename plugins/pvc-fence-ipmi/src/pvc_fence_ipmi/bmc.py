"""One request to a BMC: a run of ipmitool, in a session of its own.

The password is in the environment of that process only.  The cipher suite is always given: without it ipmitool
first asks for the list of suites, which takes 10 s where it is not answered.
"""

import os
from typing import Final

from pvc_core.plugin import ConfigError, DeadlineExceeded, DriverError, PowerState, Secret, run
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.diagnosis import Silent, Unreachable, Unusable, failure, shown
from pvc_fence_ipmi.parameters import Device
from pvc_fence_ipmi.presence import why_silent

_PASSWORD_BYTES: Final = 20
"""IPMI 2.0, section 22.30 (Set User Password)."""
_STATES: Final = {"Chassis Power is on": PowerState.ON, "Chassis Power is off": PowerState.OFF}


class Bmc:
    """A BMC as a coordinator reaches it.  Holds no connection and no password; stateless."""

    def __init__(self, config: FenceIpmiConfig, device: Device) -> None:
        self._config: Final = config
        self._device: Final = device
        self._name: Final = f"BMC {device.place}"

    def read(self, deadline_s: float) -> PowerState:
        """Return the power, ON or OFF.

        Raises AuthFailed, NotReady (Unreachable too), Unusable, or another DriverError when what was answered is no
        power state.
        """
        password = self._password()
        answer = self._call("status", password, deadline_s)
        state = _STATES.get(answer.strip())
        if state is None:
            said = shown(answer, password)
            raise DriverError(f"{self._name} answered {repr(said) if said else 'nothing'} instead of its power")
        return state

    def command(self, wanted: PowerState, deadline_s: float) -> None:
        """Command the power.  Only reading tells whether it changes, also after this raised, as ``read`` does."""
        self._call(wanted.value, self._password(), deadline_s)

    def _call(self, command: str, password: str, deadline_s: float) -> str:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "IPMITOOL_PASSWORD": password}
        try:
            done = run(self._argv(command), deadline_s=deadline_s, env=environment)
        except DeadlineExceeded:
            raise Unreachable(
                f"{self._name} had not answered after {deadline_s:.3g} s, when ipmitool was killed"
            ) from None
        if done.returncode == 0:
            return done.stdout
        error = failure(self._device, done, password)
        if isinstance(error, Silent):
            error = Unreachable(f"{error}: {why_silent(self._device.address, self._device.port)}")
        raise error

    def _argv(self, command: str) -> list[str]:
        config, device = self._config, self._device
        options = {
            "-I": "lanplus",
            "-H": device.address,
            "-p": str(device.port),
            "-U": device.user,
            "-C": str(device.cipher_suite),
            "-L": device.privilege.upper(),
            "-N": str(config.answer_timeout),
            "-R": str(config.answer_retries),
        }
        given = [part for option in options.items() for part in option]
        return [config.ipmitool, "-v", *given, "-E", "chassis", "power", command]

    def _password(self) -> str:
        file = self._device.password_file
        try:
            password = Secret(file).read()
        except ConfigError as error:
            raise Unusable(f"{self._name}: {error}") from None
        if len(password.encode()) > _PASSWORD_BYTES:
            raise Unusable(f"{self._name}: the password in {file} is longer than {_PASSWORD_BYTES} bytes, IPMI's limit")
        if not password.isprintable():
            raise Unusable(f"{self._name}: the password in {file} is not one line of printable characters")
        return password
