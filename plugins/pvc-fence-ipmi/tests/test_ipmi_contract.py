"""The contract of fence drivers, and its outcomes, against real BMCs (OpenIPMI's simulator)."""

import socket
import time

import pytest

from pvc_core.plugin import AuthFailed, DriverError, FenceTarget, NotReady, PowerState
from pvc_core.testkit.contracts.fencing import FencingContract
from pvc_fence_ipmi.bmc import Bmc as OneBmc
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.parameters import device
from pvc_sandbox.bmc import Bmc, BmcUser

pytestmark = pytest.mark.real

PASSWORD = "Tr0ub4dor-3"
POWER = """#!/bin/sh
case $1 in
  status) [ -e "$0.unreadable" ] || cat "$0.state" ;;
  *) echo $1 >"$0.new" && mv "$0.new" "$0.state" ;;
esac
"""


def free_port(address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class Site:
    """Nodes whose power is a line in a file, each with a BMC."""

    def __init__(self, root, make_driver, nodes=("node1", "node2"), address="127.0.0.1"):
        self._root = root
        self._make_driver = make_driver
        self._bmcs = {}
        try:
            for node in nodes:
                self._add(node, address)
        except BaseException:
            self.close()
            raise

    def _add(self, node, address):
        power = self._root / f"{node}-power"
        power.write_text(POWER)
        power.chmod(0o755)
        self.switch(node, on=True)
        users = [BmcUser("pvc", PASSWORD, "operator")]
        bmc = Bmc(node, self._root / node, address, free_port(address), (str(power),), users)
        self._bmcs[node] = bmc
        bmc.start()

    @property
    def secrets(self):
        return (PASSWORD,)

    def bmc(self, node):
        return self._bmcs[node]

    def driver(self, **config):
        return self._make_driver(**({"answer_retries": 1, "power_timeout": 4, "poll_interval": 0.1} | config))

    def target(self, node, **parameters):
        if node not in self._bmcs:
            return FenceTarget(node=node)
        file = self.password_file(PASSWORD)
        bmc = self._bmcs[node]
        given = {"address": bmc.address, "port": str(bmc.port), "user": "pvc", "password_file": file}
        return FenceTarget(node=node, parameters={**given, "cipher_suite": "3", **parameters})

    def password_file(self, password):
        path = self._root / f"password-{len(password)}"
        path.write_text(f"{password}\n")
        path.chmod(0o600)
        return str(path)

    def is_on(self, node):
        return (self._root / f"{node}-power.state").read_text().strip() == "on"

    def switch(self, node, *, on):
        (self._root / f"{node}-power.state").write_text("on\n" if on else "off\n")

    def break_controller(self, node, how):
        if how == "stuck":
            self._bmcs[node].set_stuck(stuck=True)
        elif how == "silent":
            self._bmcs[node].hang()
        else:
            (self._root / f"{node}-power.unreadable").touch()
        return True

    def wrong_password(self, node):
        return self.target(node, password_file=self.password_file(f"{PASSWORD}x"))

    def close(self):
        for bmc in self._bmcs.values():
            bmc.stop()


class TestIpmiDriver(FencingContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _maker(self, make_driver):
        self._make_driver = make_driver

    def make_backend(self, tmp_path):
        return Site(tmp_path, self._make_driver)


@pytest.fixture
def site(tmp_path, make_driver):
    made = Site(tmp_path, make_driver, nodes=("node1",))
    yield made
    made.close()


def refusal(call, target, kind=DriverError):
    with pytest.raises(kind) as caught:
        call(target)
    return str(caught.value)


def test_a_wrong_password_and_an_unknown_user_are_told_apart(site):
    driver = site.driver()
    assert "refuses the password of user pvc" in refusal(driver.power_status, site.wrong_password("node1"), AuthFailed)
    assert "has no user nobody" in refusal(driver.power_status, site.target("node1", user="nobody"), AuthFailed)


def test_a_cipher_suite_that_it_lacks_is_named(site):
    said = refusal(site.driver().power_status, site.target("node1", cipher_suite="17"))
    assert "refuses cipher suite 17: try cipher_suite=3" in said


def test_a_bmc_that_hangs_and_one_that_is_gone_are_told_apart(site):
    driver = site.driver()
    site.bmc("node1").hang()
    hanging = refusal(driver.power_off, site.target("node1"), NotReady)
    assert "does not answer: nothing comes back" in hanging
    site.bmc("node1").stop()
    assert "does not answer: its host says that nothing listens" in refusal(
        driver.power_off, site.target("node1"), NotReady
    )
    assert site.is_on("node1")


def test_a_bmc_that_says_yes_and_does_nothing(site):
    site.bmc("node1").set_stuck(stuck=True)
    said = refusal(site.driver(resend_interval=1).power_off, site.target("node1"))
    assert "to switch the power off, and it said yes; after 4 s it still reads on" in said
    assert site.bmc("node1").received().count("power=0") >= 2


def test_a_power_off_that_takes_20_seconds(site):
    site.bmc("node1").set_slow(20)
    began = time.monotonic()
    assert site.driver(power_timeout=45).power_off(site.target("node1")) is PowerState.OFF
    assert time.monotonic() - began < 55
    assert not site.is_on("node1")


def test_a_session_without_the_privilege_may_not_switch(site):
    """The driver refuses such a parameter beforehand; a BMC may still limit the account."""
    weak = device(site.target("node1").parameters)._replace(privilege="user")
    bmc = OneBmc(FenceIpmiConfig(), weak)
    assert bmc.read(10) is PowerState.ON
    with pytest.raises(AuthFailed, match="look, but not switch the power, with the privilege user"):
        bmc.command(PowerState.OFF, 10)
    assert site.is_on("node1")


def test_a_bmc_that_cannot_read_its_power_says_why(site):
    site.break_controller("node1", "unreadable")
    assert "refuses the command" in refusal(site.driver().power_status, site.target("node1"))


def test_only_hard_off_and_on_ever_reach_a_bmc(site):
    driver = site.driver()
    driver.power_off(site.target("node1"))
    driver.power_on(site.target("node1"))
    assert set(site.bmc("node1").received()) == {"power=0", "power=1"}


def test_a_bmc_with_an_ipv6_address(tmp_path, make_driver):
    site = Site(tmp_path, make_driver, nodes=("node1",), address="::1")
    try:
        assert site.driver().power_off(site.target("node1")) is PowerState.OFF
    finally:
        site.close()
