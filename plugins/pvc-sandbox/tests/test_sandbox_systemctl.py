"""A node's ``systemctl``, with a first process that is real and daemons that are not."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from pvc_sandbox import boot, systemctl
from pvc_sandbox.control import NoAnswer, Service, Status, ask
from pvc_sandbox.waiting import wait_until

FIRST_PROCESS = """
import socket, sys
from pathlib import Path
from pvc_sandbox.supervisor import Supervisor
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
Supervisor(listener, Path(sys.argv[1]).parent).run()
"""


@pytest.fixture
def run(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    process = subprocess.Popen([sys.executable, "-c", FIRST_PROCESS, made / "control.sock"], start_new_session=True)
    wait_until("it listens", lambda: answers(made), deadline_s=10)
    yield made
    for state in ask(made, Status()).values():
        if state.pid:
            os.killpg(state.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def answers(run):
    try:
        ask(run, Status())
    except NoAnswer:
        return False
    return True


@pytest.fixture
def call(run, tmp_path, monkeypatch, capsys):
    """Call it as a program; an OSD is something that sleeps."""

    def sleeping(state, name):
        plain = real(state, name)
        return Service(name=plain.name, argv=("sleep", "60"), log=plain.log, restart_delay_s=5.0)

    real = systemctl.unit
    monkeypatch.setattr(systemctl, "unit", sleeping)

    def call(*words):
        status = systemctl.main(words, str(tmp_path), run)
        out, error = capsys.readouterr()
        return status, out.strip() or error.strip()

    return call


def test_unit_is_started_and_stopped(call, run):
    assert call("is-active", "ceph-osd@0") == (3, "inactive")
    assert call("start", "ceph-osd@0") == (0, "")
    assert call("is-active", "ceph-osd@0.service") == (0, "active")
    first = ask(run, Status())["ceph-osd@0"].pid
    assert call("start", "ceph-osd@0") == (0, "")
    assert ask(run, Status())["ceph-osd@0"].pid == first
    assert call("stop", "ceph-osd@0") == (0, "")
    assert ask(run, Status())["ceph-osd@0"].pid == 0
    assert call("is-active", "ceph-osd@0") == (3, "inactive")
    assert call("stop", "ceph-osd@0") == (0, "")


def test_unit_that_was_never_started_is_stopped_already(call):
    assert call("stop", "ceph-osd@7") == (0, "")


def test_unit_that_has_died_is_about_to_be_started_again(call, run):
    call("start", "ceph-osd@0")
    os.killpg(ask(run, Status())["ceph-osd@0"].pid, signal.SIGKILL)
    wait_until("it is dead", lambda: call("is-active", "ceph-osd@0") == (3, "activating"), deadline_s=4)


def test_units_are_enabled_and_disabled_without_being_started(call, tmp_path):
    assert call("is-enabled", "ceph-osd@0") == (1, "disabled")
    assert call("enable", "ceph-osd@0", "ceph-osd@1") == (0, "")
    assert call("is-enabled", "ceph-osd@0") == (0, "enabled")
    assert [service.name for service in boot.enabled(tmp_path)] == ["ceph-osd@0", "ceph-osd@1"]
    assert call("is-active", "ceph-osd@0") == (3, "inactive")
    assert call("disable", "ceph-osd@0") == (0, "")
    assert call("disable", "ceph-osd@0") == (0, "")
    assert [service.name for service in boot.enabled(tmp_path)] == ["ceph-osd@1"]


@pytest.mark.parametrize(
    "words", [(), ("start",), ("status", "ceph-osd@0"), ("daemon-reload",), ("--now", "ceph-osd@0")]
)
def test_what_is_not_understood_is_told(call, words):
    status, said = call(*words)
    assert status == 1
    assert "start|stop|enable|disable|is-active|is-enabled UNIT..." in said


@pytest.mark.parametrize("verb", ["start", "enable", "is-active"])
def test_unknown_unit_is_told_and_nothing_is_done(call, run, tmp_path, verb):
    status, said = call(verb, "ceph-osd@0", "sshd")
    assert status == 5
    assert "unit 'sshd' is not known on a node of a sandbox" in said
    assert ask(run, Status()) == {}
    assert boot.enabled(tmp_path) == []


def test_first_process_that_does_not_answer_is_told(tmp_path, capsys):
    assert systemctl.main(["start", "ceph-osd@0"], str(tmp_path), tmp_path) == 1
    assert "systemctl: no answer on" in capsys.readouterr().err


def test_program_is_one(tmp_path):
    systemctl.install(tmp_path / "bin", tmp_path)
    program = tmp_path / "bin/systemctl"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    done = subprocess.run([program, "is-enabled", "ceph-osd@0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "disabled\n", "")


def test_damaged_unit_is_told(tmp_path):
    (tmp_path / "units").mkdir()
    (tmp_path / "units/x.json").write_text("{}")
    with pytest.raises(systemctl.PvcError, match="cannot be read"):
        boot.enabled(tmp_path)
