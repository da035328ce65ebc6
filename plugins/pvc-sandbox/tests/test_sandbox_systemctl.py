"""A node's ``systemctl``, with a first process that is real and daemons that are not."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from pvc_sandbox import boot, systemctl
from pvc_sandbox.control import NoAnswer, Service, Start, Status, ask
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.units.frr import configuration
from pvc_sandbox.units.known import unit
from pvc_sandbox.units.unit import Unit
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


SAYS_READY = """
import os, socket, time
time.sleep(0.3)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(60)
"""
OTHERS = {
    "ceph-mon@slow": ((sys.executable, "-c", SAYS_READY), {"notifies": True}, ("true",)),
    "ceph-mon@broken": (("false",), {"notifies": True}, ()),
    "ceph-mon@stubborn": (("sleep", "60"), {}, ("sh", "-c", "echo not like this >&2; exit 3")),
}


@pytest.fixture
def call(run, tmp_path, monkeypatch, capsys):
    """Call it as a program; an OSD is something that sleeps, monitors say when they are ready: ``OTHERS``."""

    def sleeping(state, name):
        plain = unit(state, name).service
        argv, more, reload = OTHERS.get(plain.name, (("sleep", "60"), {}, ()))
        service = Service(name=plain.name, argv=argv, log=plain.log, restart_delay_s=5.0, **more)
        return Unit(service=service, reload=reload)

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


def test_start_returns_when_the_unit_is_ready(call, run):
    assert call("start", "ceph-mon@slow") == (0, "")
    assert ask(run, Status())["ceph-mon@slow"].ready
    assert call("start", "ceph-mon@slow") == (0, "")
    assert call("reload", "ceph-mon@slow") == (0, "")


def test_unit_that_is_not_ready_yet_is_activating(call, run):
    ask(run, Start(service=systemctl.unit(run, "ceph-mon@slow").service))
    assert call("is-active", "ceph-mon@slow") == (3, "activating")


def test_unit_that_ends_at_its_start_is_told(call):
    status, said = call("start", "ceph-mon@broken")
    assert status == 1
    assert "ceph-mon@broken did not start (exit status 1); see " in said


def test_restart_is_another_process(call, run):
    call("start", "ceph-osd@0")
    first = ask(run, Status())["ceph-osd@0"].pid
    assert call("restart", "ceph-osd@0") == (0, "")
    assert ask(run, Status())["ceph-osd@0"].pid not in (0, first)
    assert call("restart", "ceph-osd@9") == (0, "")
    assert call("is-active", "ceph-osd@9") == (0, "active")


def test_reload_that_cannot_be_is_told(call):
    assert call("reload", "ceph-osd@0") == (1, "systemctl: ceph-osd@0 cannot be reloaded; restart it")
    status, said = call("reload", "ceph-mon@stubborn")
    assert (status, said) == (1, "systemctl: ceph-mon@stubborn is not active, so it cannot be reloaded")
    call("start", "ceph-mon@stubborn")
    status, said = call("reload", "ceph-mon@stubborn")
    assert (status, said) == (1, "systemctl: ceph-mon@stubborn did not reload (exit status 3): not like this")


def test_failures_are_forgotten_without_a_word(call):
    assert call("reset-failed", "ceph-osd@0") == (0, "")


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
    assert "start|stop|restart|reload|enable|disable|is-active|is-enabled|reset-failed UNIT..." in said


@pytest.mark.parametrize("verb", ["start", "enable", "is-active"])
def test_unknown_unit_is_told_and_nothing_is_done(call, run, tmp_path, verb):
    status, said = call(verb, "ceph-osd@0", "sshd")
    assert status == 5
    assert "unit 'sshd' is not known on a node of a sandbox" in said
    assert ask(run, Status()) == {}
    assert boot.enabled(tmp_path) == []


def test_frr_is_a_unit_only_where_it_is(tmp_path):
    with pytest.raises(SandboxError, match=r"unit 'frr\.service' is not known on a node of a sandbox"):
        unit(tmp_path, "frr.service")
    configuration(tmp_path).mkdir(parents=True)
    found = unit(tmp_path, "frr.service")
    assert (found.service.name, found.service.notifies) == ("frr", True)
    assert found.reload[-2:] == ("/usr/lib/frr/frrinit.sh", "reload")


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
