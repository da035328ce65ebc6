"""A BMC of the sandbox, asked with ipmitool."""

import os
import socket
import sys
from pathlib import Path

import pytest

from pvc_core.plugin.process import run
from pvc_core.testkit.lan import entered
from pvc_sandbox.bmc import Bmc, BmcUser
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.records import living
from pvc_sandbox.waiting import wait_until

pytestmark = pytest.mark.real

POWER = """#!/bin/sh
# The "node" is a process; its PID is in the file next to this script.
pid=$(cat "$0.pid" 2>/dev/null)
case $1 in
  status) [ -n "$pid" ] && [ -e /proc/$pid/fd/0 ] && echo on || echo off ;;
  off) [ -n "$pid" ] && kill -9 $pid 2>/dev/null; rm -f "$0.pid" ;;
  on) [ -e "$0.pid" ] || { setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $! >"$0.pid"; } ;;
esac
exit 0
"""


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def power(tmp_path):
    path = tmp_path / "power"
    path.write_text(POWER)
    path.chmod(0o755)
    yield path
    run([str(path), "off"], deadline_s=5).check()


@pytest.fixture
def bmc(tmp_path, power):
    made = Bmc("hv1", tmp_path / "bmc", "127.0.0.1", free_port(), (str(power),))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def ask(bmc, *command, user="admin", password="secret", level="OPERATOR"):
    argv = ["ipmitool", "-I", "lanplus", "-H", bmc.address, "-p", str(bmc.port), "-C", "3", "-L", level, "-N", "1"]
    argv += ["-R", "1", "-U", user, "-E", "chassis", "power", *command]
    return run(argv, deadline_s=30, env={**os.environ, "IPMITOOL_PASSWORD": password})


def reads(bmc, state):
    return ask(bmc, "status").check().stdout == f"Chassis Power is {state}\n"


def pid_of(bmc):
    return living(bmc.directory / "bmc.pid").pid


def test_it_reads_and_switches_the_power(bmc, power):
    assert reads(bmc, "off")
    ask(bmc, "on").check()
    wait_until("the power is on", lambda: reads(bmc, "on"), deadline_s=5)
    assert Path(f"{power}.pid").exists()
    ask(bmc, "off").check()
    wait_until("the power is off", lambda: reads(bmc, "off"), deadline_s=5)
    assert bmc.received() == ["power=1", "power=0"]
    assert bmc.faults() == ()


def test_one_that_runs_goes_on(bmc, tmp_path, power):
    before = pid_of(bmc)
    bmc.start()
    Bmc("hv1", tmp_path / "bmc", bmc.address, bmc.port, (str(power),)).start()
    assert pid_of(bmc) == before


def test_one_with_other_users_is_replaced(bmc, tmp_path, power):
    before = pid_of(bmc)
    Bmc("hv1", tmp_path / "bmc", bmc.address, bmc.port, (str(power),), [BmcUser("other", "changed")]).start()
    assert pid_of(bmc) != before
    assert ask(bmc, "status", user="other", password="changed").returncode == 0
    assert ask(bmc, "status").returncode != 0


def test_a_wrong_password_is_refused(bmc):
    assert "Unable to establish" in ask(bmc, "status", password="wrong").stderr


def test_a_user_may_look_but_not_switch(bmc):
    assert ask(bmc, "status", level="USER").returncode == 0
    assert "Insufficient privilege level" in ask(bmc, "off", level="USER").stderr
    assert bmc.received() == []


def test_stuck_one_says_yes_and_does_nothing(bmc):
    ask(bmc, "on").check()
    wait_until("the power is on", lambda: reads(bmc, "on"), deadline_s=5)
    bmc.set_stuck(stuck=True)
    ask(bmc, "off").check()
    assert reads(bmc, "on")
    assert bmc.received()[-1] == "power=0"
    assert bmc.faults() == ("stuck",)
    bmc.heal()
    ask(bmc, "off").check()
    wait_until("the power is off", lambda: reads(bmc, "off"), deadline_s=5)


def test_slow_one_answers_at_once_and_acts_later(bmc):
    bmc.set_slow(1.5)
    assert bmc.faults() == ("slow (1.5 s)",)
    ask(bmc, "on").check()
    assert reads(bmc, "off")
    wait_until("the power is on", lambda: reads(bmc, "on"), deadline_s=10)


def test_the_last_command_wins_on_a_slow_one(bmc):
    bmc.set_slow(0.5)
    ask(bmc, "on").check()
    ask(bmc, "off").check()
    ask(bmc, "on").check()
    wait_until("the power is on", lambda: reads(bmc, "on"), deadline_s=10)
    wait_until("no change is under way", lambda: not changes(bmc), deadline_s=10)
    assert reads(bmc, "on")


def changes(bmc):
    held = f":{(bmc.directory / 'change.lock').stat().st_ino} "
    return [line for line in Path("/proc/locks").read_text().splitlines() if held in line]


def test_hanging_one_answers_nothing_until_it_is_started(bmc):
    bmc.hang()
    assert bmc.running
    assert bmc.faults() == ("hangs",)
    assert ask(bmc, "status").returncode != 0
    bmc.start()
    assert reads(bmc, "off")


def test_stopped_one_is_gone_also_when_it_hung(bmc):
    bmc.hang()
    bmc.stop()
    bmc.stop()
    assert not bmc.running
    assert bmc.faults() == ("off",)
    with pytest.raises(SandboxError, match="cannot hang"):
        bmc.hang()
    bmc.heal()
    assert reads(bmc, "off")


def test_a_power_that_it_cannot_read_is_not_off(bmc, power):
    power.write_text("#!/bin/sh\n")
    said = ask(bmc, "status")
    assert said.returncode != 0
    assert "Chassis Power is" not in said.stdout


def test_a_promised_change_is_lost_with_the_power_of_the_bmc(bmc):
    bmc.set_slow(600)
    ask(bmc, "on").check()
    wait_until("a change is under way", lambda: changes(bmc), deadline_s=5)
    bmc.stop()
    wait_until("no change is under way", lambda: not changes(bmc), deadline_s=5)
    bmc.heal()
    assert reads(bmc, "off")


def test_the_node_goes_on_without_its_bmc_and_keeps_none_of_its_sockets(bmc, power):
    ask(bmc, "on").check()
    wait_until("the power is on", lambda: reads(bmc, "on"), deadline_s=5)
    node = int(Path(f"{power}.pid").read_text())
    held = {str(fd.readlink()) for fd in Path(f"/proc/{node}/fd").iterdir()}
    assert held == {"/dev/null"}
    bmc.stop()
    bmc.start()
    assert reads(bmc, "on")


def test_a_killed_starter_leaves_one_that_is_taken_over(tmp_path, power):
    """It is killed between starting the process and telling it to go on."""
    port = free_port()
    program = f"""
import os, pathlib, signal
import pvc_sandbox.bmc as module, pvc_sandbox.launch as launching
launching.write_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
module.Bmc("hv1", pathlib.Path({str(tmp_path / "bmc")!r}), "127.0.0.1", {port}, ({str(power)!r},)).start()
"""
    assert run([sys.executable, "-c", program], deadline_s=20).returncode == -9
    bmc = Bmc("hv1", tmp_path / "bmc", "127.0.0.1", port, (str(power),))
    wait_until("the process that was not recorded ended", lambda: not of_directory(bmc), deadline_s=5)
    bmc.start()
    assert reads(bmc, "off")
    assert of_directory(bmc) == [pid_of(bmc)]
    bmc.stop()


def of_directory(bmc):
    """PIDs of the processes whose command line names the BMC's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(bmc.directory).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_it_listens_in_the_namespace_of_its_starter(tmp_path, power):
    name = f"pvc-bmc-{os.getpid()}"
    run(["ip", "netns", "add", name], deadline_s=10).check()
    bmc = Bmc("hv1", tmp_path / "bmc", "127.0.0.1", 623, (str(power),))
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"], deadline_s=10).check()
        with entered(name):
            bmc.start()
            assert reads(bmc, "off")
        assert ask(bmc, "status").returncode != 0
    finally:
        bmc.stop()
        run(["ip", "netns", "delete", name], deadline_s=10).check()


def test_an_address_that_is_not_here_is_said(tmp_path):
    with pytest.raises(SandboxError, match="BMC hv1"):
        Bmc("hv1", tmp_path, "192.0.2.1", 623, ("true",)).start()


def test_what_its_configuration_cannot_hold_is_refused(tmp_path):
    with pytest.raises(SandboxError, match="two words"):
        Bmc("hv1", tmp_path, "127.0.0.1", 623, ("true",), [BmcUser("admin", "two words")])
