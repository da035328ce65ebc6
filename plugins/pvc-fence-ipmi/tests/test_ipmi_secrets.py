"""A password is in its file, in the memory of the two processes that need it, and nowhere else."""

import logging
import threading
from pathlib import Path

import pytest

from pvc_core.plugin import DriverError
from pvc_core.testkit.waiting import eventually

PASSWORD = "Tr0ub4dor&3"


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue


def test_no_command_line_shows_it_during_a_call(ipmitool, driver, target, tmp_path):
    ipmitool.behave(status='touch "$here/asked"; until [ -e "$here/go" ]; do sleep 0.01; done; on')
    call = threading.Thread(target=driver.power_status, args=(target(),))
    call.start()
    try:
        eventually((tmp_path / "asked").exists, "ipmitool runs")
        lines = list(command_lines())
    finally:
        (tmp_path / "go").touch()
        call.join()
    assert [line for line in lines if str(ipmitool.path) in line]
    assert not [line for line in lines if PASSWORD in line]
    assert f"IPMITOOL_PASSWORD={PASSWORD}\n" in (tmp_path / "env").read_text()


def test_the_environment_of_ipmitool_has_nothing_else(ipmitool, driver, target, tmp_path, monkeypatch):
    monkeypatch.setenv("IPMI_KGKEY", "inherited")
    driver.power_status(target())
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "OLDPWD", "_"} == {"PATH", "LC_ALL", "IPMITOOL_PASSWORD"}


@pytest.mark.parametrize(
    "behaviour",
    [
        {"status": 'echo "$IPMITOOL_PASSWORD"'},
        {"status": 'echo "$IPMITOOL_PASSWORD" >&2; exit 1'},
        {"status": 'echo "$IPMITOOL_PASSWORD"; exit 1'},
        {"power_off": 'echo "Set Chassis Power Control to Down/Off failed: $IPMITOOL_PASSWORD" >&2; exit 1'},
        {"status": 'fail "> RAKP 2 HMAC is invalid $IPMITOOL_PASSWORD"'},
        {"status": 'echo "$IPMITOOL_PASSWORD"; sleep 600'},
    ],
)
def test_no_error_and_no_log_shows_it_whatever_ipmitool_says(ipmitool, make_driver, target, caplog, capfd, behaviour):
    caplog.set_level(logging.DEBUG)
    ipmitool.behave(**behaviour)
    driver = make_driver(
        ipmitool=str(ipmitool.path), poll_interval=0.01, power_timeout=0.5, status_timeout=0.3, resend_interval=0.1
    )
    for call in (driver.power_status, driver.power_off):
        try:
            call(target())
        except DriverError as error:
            shown = f"{error} {error!r} {error.args} {error.__dict__} {error.__cause__!r} {error.__context__!r}"
            assert PASSWORD not in shown
    assert PASSWORD not in caplog.text
    assert not [text for text in capfd.readouterr() if PASSWORD in text]
    assert PASSWORD not in f"{driver!r} {driver.__dict__!r}"
