"""The contract of a fence driver: subclass it, and your driver is tested as core's own are.

::

    class TestMyDriver(FencingContract):
        __test__ = True

        def make_backend(self, tmp_path):
            return MyBackend()              # see FencingBackend

A fence driver is believed: what it calls off is taken for dead, and its guests are started elsewhere.  So the
rules are mostly about what it must not claim.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import PvcError
from pvc_core.plugin.errors import AuthFailed, DriverError
from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState


class FencingBackend(Protocol):
    """Two nodes, ``node1`` and ``node2``, whose power controllers work; both are on at the start."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords that the driver was given: none may be seen in its ``repr`` or its errors."""

    def driver(self) -> FenceDriver:
        """Return a new driver object."""

    def target(self, node: str) -> FenceTarget:
        """Return how the controller of a node is reached."""

    def is_on(self, node: str) -> bool:
        """Say whether a node has power, known otherwise than through its controller."""

    def switch(self, node: str, *, on: bool) -> None:
        """Set a node's power otherwise than through its controller."""

    def break_controller(self, node: str, how: str) -> bool:
        """Let a controller be "stuck" (accepts commands, does nothing), "silent" (does not answer) or "unreadable".

        Returns False when this backend cannot be broken so.
        """

    def wrong_password(self, node: str) -> FenceTarget | None:
        """Return a target with a wrong password; None when there are no passwords."""

    def close(self) -> None:
        """Take everything down."""


class FencingContract:
    """All rules for a fence driver."""

    __test__ = False

    def make_backend(self, tmp_path: Path) -> FencingBackend:
        """Return the backend to test against."""
        raise NotImplementedError(f"{type(self).__name__}.make_backend(tmp_path) must return a FencingBackend")

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[FencingBackend]:
        backend = self.make_backend(tmp_path)
        try:
            yield backend
        finally:
            backend.close()

    @pytest.fixture
    def driver(self, backend: FencingBackend) -> FenceDriver:
        driver = backend.driver()
        assert driver.fence_preflight()
        return driver

    def test_the_power_is_read(self, backend: FencingBackend, driver: FenceDriver) -> None:
        assert driver.power_status(backend.target("node1")) is PowerState.ON
        backend.switch("node1", on=False)
        assert driver.power_status(backend.target("node1")) is PowerState.OFF
        assert driver.power_status(backend.target("node2")) is PowerState.ON

    def test_off_is_off_when_the_call_returns(self, backend: FencingBackend, driver: FenceDriver) -> None:
        assert driver.power_off(backend.target("node1")) is PowerState.OFF
        assert not backend.is_on("node1")
        assert backend.is_on("node2")

    def test_a_dark_node_is_off_already(self, backend: FencingBackend, driver: FenceDriver) -> None:
        driver.power_off(backend.target("node1"))
        assert driver.power_off(backend.target("node1")) is PowerState.OFF
        assert backend.driver().power_off(backend.target("node1")) is PowerState.OFF
        assert not backend.is_on("node1")

    def test_on_is_on_when_the_call_returns(self, backend: FencingBackend, driver: FenceDriver) -> None:
        driver.power_off(backend.target("node1"))
        assert driver.power_on(backend.target("node1")) is PowerState.ON
        assert driver.power_on(backend.target("node1")) is PowerState.ON
        assert backend.is_on("node1")

    def test_a_controller_that_does_nothing_is_not_believed(self, backend: FencingBackend, driver: FenceDriver) -> None:
        if backend.break_controller("node1", "stuck"):
            assert self._off(driver, backend.target("node1")) is not PowerState.OFF
            assert backend.is_on("node1")

    def test_a_silent_controller_proves_nothing(self, backend: FencingBackend, driver: FenceDriver) -> None:
        if backend.break_controller("node1", "silent"):
            for call in (driver.power_status, driver.power_off, driver.power_on):
                with pytest.raises(DriverError):
                    call(backend.target("node1"))
            assert backend.is_on("node1")

    def test_a_silent_controller_of_a_dark_node_proves_nothing(
        self, backend: FencingBackend, driver: FenceDriver
    ) -> None:
        """A node that lost power together with its controller looks just like one whose controller's cable is out."""
        backend.switch("node1", on=False)
        if backend.break_controller("node1", "silent"):
            with pytest.raises(DriverError):
                driver.power_off(backend.target("node1"))

    def test_what_cannot_be_read_back_is_not_off(self, backend: FencingBackend, driver: FenceDriver) -> None:
        if backend.break_controller("node1", "unreadable"):
            assert self._off(driver, backend.target("node1")) is not PowerState.OFF

    def test_a_wrong_password_is_said_to_be_wrong(self, backend: FencingBackend, driver: FenceDriver) -> None:
        target = backend.wrong_password("node1")
        if target is None:
            return
        with pytest.raises(AuthFailed) as caught:
            driver.power_off(target)
        assert not [secret for secret in backend.secrets if secret in str(caught.value)]
        assert backend.is_on("node1")

    def test_several_nodes_are_fenced_at_the_same_time(self, backend: FencingBackend, driver: FenceDriver) -> None:
        targets = [backend.target("node1"), backend.target("node2")]
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(driver.power_off, targets)) == [PowerState.OFF, PowerState.OFF]
        assert not backend.is_on("node1")
        assert not backend.is_on("node2")

    def test_a_misspelt_parameter_is_refused(self, backend: FencingBackend, driver: FenceDriver) -> None:
        good = backend.target("node1")
        with pytest.raises(PvcError, match="no_such_parameter"):
            driver.power_status(replace(good, parameters={**good.parameters, "no_such_parameter": "1"}))

    def test_a_target_without_parameters_is_not_off(self, backend: FencingBackend, driver: FenceDriver) -> None:
        bare = replace(backend.target("node1"), node="no-such-node", parameters={})
        assert self._off(driver, bare) is not PowerState.OFF

    def test_a_driver_can_be_closed_twice(self, backend: FencingBackend) -> None:
        driver = backend.driver()
        assert driver.fence_close()
        assert driver.fence_close()

    def test_no_secret_is_seen_in_the_driver(self, backend: FencingBackend, driver: FenceDriver) -> None:
        shown = f"{driver!r} {driver.__dict__!r}"
        assert not [secret for secret in backend.secrets if secret in shown]

    def _off(self, driver: FenceDriver, target: FenceTarget) -> PowerState:
        try:
            return driver.power_off(target)
        except PvcError:
            return PowerState.UNKNOWN
