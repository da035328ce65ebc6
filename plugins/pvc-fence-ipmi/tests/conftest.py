"""An ipmitool whose behaviour a test sets, and the driver over it or over the real one."""

import logging
from pathlib import Path

import pytest

from pvc_core.plugin import Context, FenceTarget, NodeInfo, run
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.driver import IpmiDriver

PASSWORD = "Tr0ub4dor&3"

_FAKE = """#!/bin/sh
here={here}
printf '%s\\n' "$*" >>"$here/calls"
env >"$here/env"
on() {{ echo 'Chassis Power is on'; }}
off() {{ echo 'Chassis Power is off'; }}
fail() {{ echo "$1" >&2; echo 'Error: Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1; }}
nth() {{ grep -c " power $1\\$" "$here/calls"; }}
case "$*" in
  *' power status') {status} ;;
  *' power off') {power_off} ;;
  *' power on') {power_on} ;;
  -V) echo 'ipmitool version 1.8.19' ;;
  *) exit 99 ;;
esac
"""


class FakeIpmitool:
    """A program that stands in for ipmitool.

    What it does is sh: ``on`` and ``off`` print a power state, ``fail WORDS`` ends as a session that could not be
    opened, ``nth COMMAND`` prints how often it was called so, this time included.
    """

    def __init__(self, root: Path):
        self.root = root
        self.path = root / "ipmitool"
        self.behave()

    def behave(self, status: str = "on", power_off: str = ":", power_on: str = ":") -> None:
        new = self.path.with_suffix(".new")
        new.write_text(_FAKE.format(here=self.root, status=status, power_off=power_off, power_on=power_on))
        new.chmod(0o755)
        new.replace(self.path)

    def calls(self) -> list[str]:
        """Return the command lines of all calls."""
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def commands(self) -> list[str]:
        """Return the last word of all calls: status, off, on."""
        return [call.split()[-1] for call in self.calls()]


def driver_of(**config) -> IpmiDriver:
    info = NodeInfo(name="c1", role="coordinator")
    context = Context(node=info, log=logging.getLogger("pvc_fence_ipmi"), run=run, wake=lambda *_: None)
    return IpmiDriver(context, FenceIpmiConfig(**config))


@pytest.fixture
def make_driver():
    """Return the maker of drivers; takes settings of the plugin's section."""
    return driver_of


@pytest.fixture
def make_secret(tmp_path):
    """Return the maker of password files."""

    def make(password: str = PASSWORD, name: str = "password", mode: int = 0o600) -> str:
        path = tmp_path / name
        path.write_text(f"{password}\n")
        path.chmod(mode)
        return str(path)

    return make


@pytest.fixture
def ipmitool(tmp_path):
    return FakeIpmitool(tmp_path)


@pytest.fixture
def driver(ipmitool):
    return driver_of(
        ipmitool=str(ipmitool.path), poll_interval=0.01, power_timeout=1.5, resend_interval=0.3, status_timeout=5
    )


@pytest.fixture
def target(make_secret):
    """Return the maker of targets; the address is of a network for documentation, so that nobody is there."""

    def make(**parameters: str) -> FenceTarget:
        given = {"address": "192.0.2.1", "user": "pvc", "password_file": make_secret(), **parameters}
        return FenceTarget(node="hv1", parameters=given)

    return make
