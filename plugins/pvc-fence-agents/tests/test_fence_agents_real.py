"""The fence contract with agents of ClusterLabs: fence_dummy, and fence_ipmilan with a real BMC."""

import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvc_core.plugin import DriverError, FenceDriver, FenceTarget, PowerState
from pvc_core.testkit.contracts.fencing import FencingContract
from pvc_sandbox.bmc import Bmc

pytestmark = pytest.mark.real

NODES = ("node1", "node2")


class RealContract(FencingContract):
    @pytest.fixture(autouse=True)
    def _makers(self, make_driver, make_secret) -> None:
        self.makers = (make_driver, make_secret)


# --- fence_dummy: a file is the power ---------------------------------------------------------------


class DummyBackend:
    secrets = ()

    def __init__(self, directory: Path, make_driver, make_secret):
        self._directory = directory
        self._make_driver = make_driver
        for node in NODES:
            self.switch(node, on=True)

    def driver(self) -> FenceDriver:
        return self._make_driver(believed=("fence_dummy",))

    def target(self, node: str) -> FenceTarget:
        return FenceTarget(node=node, parameters={"agent": "fence_dummy", "status_file": str(self._file(node))})

    def is_on(self, node: str) -> bool:
        return self._file(node).read_text() == "on"

    def switch(self, node: str, *, on: bool) -> None:
        self._file(node).write_text("on" if on else "off")

    def break_controller(self, node: str, how: str) -> bool:
        if how == "unreadable":
            self._file(node).write_text("gibberish")
        return how == "unreadable"

    def wrong_password(self, node: str) -> None:
        return None

    def close(self) -> None:
        pass

    def _file(self, node: str) -> Path:
        return self._directory / f' the "status" of {node} '  # what the agents' parser would mangle unquoted


class TestDummy(RealContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> DummyBackend:
        return DummyBackend(tmp_path, *self.makers)


def test_dummy_proves_nothing_unless_it_is_believed(make_driver):
    with pytest.raises(Exception, match=r"fence_dummy cannot be used, .*: it switches nothing"):
        make_driver().power_off(FenceTarget(node="node1", parameters={"agent": "fence_dummy"}))


# --- fence_ipmilan: OpenIPMI's BMC ------------------------------------------------------------------

_POWER = """#!/bin/sh
[ "$1" = status ] && exec cat "$0.state"
echo "$1" >"$0.state.new" && mv "$0.state.new" "$0.state"
"""


class IpmiBackend:
    secrets = ("secret",)

    def __init__(self, directory: Path, make_driver, make_secret):
        self._directory = directory
        self._make_driver = make_driver
        self._password = make_secret("secret")
        self.bmcs = {}
        for node in NODES:
            power = directory / f"{node}.power"
            power.write_text(_POWER)
            power.chmod(0o755)
            self.switch(node, on=True)
            self.bmcs[node] = Bmc(node, directory / node, "127.0.0.1", _free_port(), (str(power),))
            self.bmcs[node].start()

    def driver(self) -> FenceDriver:
        return self._make_driver(power_timeout=20, status_timeout=8)

    def target(self, node: str) -> FenceTarget:
        bmc = self.bmcs[node]
        parameters = {"agent": "fence_ipmilan", "ip": bmc.address, "ipport": str(bmc.port), "username": "admin"}
        parameters |= {"lanplus": "true", "cipher": "3", "power_timeout": "4", "power_wait": "0"}
        return FenceTarget(node=node, parameters={**parameters, "password_file": self._password})

    def is_on(self, node: str) -> bool:
        return (self._directory / f"{node}.power.state").read_text() == "on\n"

    def switch(self, node: str, *, on: bool) -> None:
        (self._directory / f"{node}.power.state").write_text("on\n" if on else "off\n")

    def break_controller(self, node: str, how: str) -> bool:
        if how == "stuck":
            self.bmcs[node].set_stuck(stuck=True)
        elif how == "silent":
            self.bmcs[node].hang()
        else:
            return False
        return True

    def wrong_password(self, node: str) -> None:
        return None  # the agent says the same of an unreachable BMC; see below

    def close(self) -> None:
        for bmc in self.bmcs.values():
            bmc.stop()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestIpmilan(RealContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> IpmiBackend:
        return IpmiBackend(tmp_path, *self.makers)

    def test_a_wrong_password_proves_nothing(self, backend, driver, make_secret):
        good = backend.target("node1")
        wrong = replace(good, parameters={**good.parameters, "password_file": make_secret("mistaken")})
        with pytest.raises(DriverError, match="fence_ipmilan failed") as caught:
            driver.power_off(wrong)
        assert "mistaken" not in str(caught.value)
        assert backend.is_on("node1")

    def test_a_bmc_that_takes_its_time_is_waited_for(self, backend, driver):
        backend.bmcs["node1"].set_slow(7)  # longer than the agent's own patience
        assert driver.power_off(backend.target("node1")) is PowerState.OFF
        assert not backend.is_on("node1")
        assert set(backend.bmcs["node1"].received()) == {"power=0"}
