"""The services of a node, supervised by a process like its first one (without its namespaces)."""

import os
import signal
import subprocess
import sys

import pytest

from pvc_sandbox.control import NoAnswer, Service, Signal, Start, Status, Stop, ask
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.waiting import wait_until

PROGRAM = """
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
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path / "control.sock"], start_new_session=True)
    wait_until("the supervisor listens", lambda: _answers(tmp_path), deadline_s=10)
    yield tmp_path
    for state in ask(tmp_path, Status()).values():
        if state.pid:
            os.killpg(state.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _answers(run):
    try:
        ask(run, Status())
    except NoAnswer:
        return False
    return True


def service(run, *argv, **fields):
    fields = {"restart_delay_s": 0.05, "stop_timeout_s": 0.3} | fields
    return Service(name="s", argv=argv or ("sleep", "60"), log=str(run / "log/s.log"), **fields)


def state(run):
    return ask(run, Status())["s"]


def test_service_runs_and_is_started_once(run):
    ask(run, Start(service=service(run)))
    first = state(run)
    ask(run, Start(service=service(run)))
    assert state(run) == first
    assert first.starts == 1
    assert os.getsid(first.pid) == first.pid


def test_service_that_ends_is_started_again(run):
    ask(run, Start(service=service(run)))
    first = state(run).pid
    ask(run, Signal(name="s", number=signal.SIGKILL))
    wait_until("it runs again", lambda: state(run).pid not in (0, first), deadline_s=5)
    assert state(run).last_exit == "SIGKILL"
    assert state(run).starts == 2


def test_stopped_service_stays_stopped_until_it_is_wanted(run):
    ask(run, Start(service=service(run)))
    ask(run, Stop(name="s"))
    wait_until("it is gone", lambda: not state(run).pid, deadline_s=5)
    assert not state(run).wanted
    ask(run, Start(service=service(run)))
    assert state(run).pid


def test_service_that_ignores_sigterm_is_killed(run):
    deaf = service(run, "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 60; done")
    ask(run, Start(service=deaf))
    wait_until("it is deaf", lambda: "deaf" in (run / "log/s.log").read_text(), deadline_s=5)
    ask(run, Stop(name="s"))
    wait_until("it is gone", lambda: not state(run).pid, deadline_s=5)
    assert state(run).last_exit == "SIGKILL"


def test_service_stopped_and_wanted_again_at_once_comes_back(run):
    ask(run, Start(service=service(run)))
    first = state(run).pid
    ask(run, Stop(name="s"))
    ask(run, Start(service=service(run)))
    wait_until("it runs again", lambda: state(run).pid not in (0, first), deadline_s=5)


def test_program_that_does_not_exist_is_told(run):
    ask(run, Start(service=service(run, "/no/such/program")))
    assert "No such file" in state(run).last_exit
    assert "cannot start /no/such/program" in (run / "log/s.log").read_text()


def test_output_and_environment(run):
    ask(run, Start(service=service(run, "sh", "-c", "echo $HOME $MORE; echo bad >&2; sleep 60", env={"MORE": "x"})))
    wait_until("it wrote", lambda: (run / "log/s.log").read_text() == "/root x\nbad\n", deadline_s=5)


def test_orphans_are_reaped(run):
    ask(run, Start(service=service(run, "sh", "-c", "exit 0", restart_delay_s=60)))
    wait_until("it ended", lambda: state(run).last_exit == "exit status 0", deadline_s=5)


def test_unknown_service_is_refused_by_name(run):
    ask(run, Start(service=service(run)))
    with pytest.raises(SandboxError, match="no service named 'x' on this node; there are: s"):
        ask(run, Stop(name="x"))


def test_nonsense_is_refused_and_the_supervisor_lives(run):
    import socket

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(run / "control.sock"))
        connection.sendall(b"{nonsense")
        connection.shutdown(socket.SHUT_WR)
        assert b"error" in connection.recv(4096)
    assert ask(run, Status()) == {}


NOTIFIER = """
import os, socket, sys, time
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
notify("STATUS=looking around")
sys.stdin.read()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
notify("READY=1\\nSTATUS=at work")
while len(sys.argv) > 2:
    notify("WATCHDOG=1")
    time.sleep(0.05)
time.sleep(60)
"""


def notifier(run, *more, **fields):
    return service(run, sys.executable, "-c", NOTIFIER, str(run / "go"), *more, notifies=True, **fields)


def test_service_is_ready_when_it_says_so(run):
    ask(run, Start(service=notifier(run)))
    wait_until("it said something", lambda: state(run).said == "looking around", deadline_s=5)
    assert not state(run).ready
    (run / "go").touch()
    wait_until("it is ready", lambda: state(run).ready, deadline_s=5)
    assert state(run).said == "at work"
    (run / "go").unlink()
    ask(run, Signal(name="s", number=signal.SIGKILL))
    wait_until("its successor runs", lambda: state(run).starts == 2, deadline_s=5)
    assert not state(run).ready


def test_service_that_does_not_notify_is_ready_when_it_runs(run):
    ask(run, Start(service=service(run)))
    assert state(run).ready


def test_service_that_hangs_is_killed_by_the_watchdog(run):
    (run / "go").touch()
    ask(run, Start(service=notifier(run, watchdog_s=0.3)))
    wait_until("it was started again", lambda: state(run).starts == 2, deadline_s=10)
    assert state(run).last_exit == "SIGABRT"


def test_service_that_shows_signs_of_life_is_left_alone(run):
    (run / "go").touch()
    ask(run, Start(service=notifier(run, "alive", watchdog_s=0.3)))
    wait_until("it is ready", lambda: state(run).ready, deadline_s=5)
    with pytest.raises(SandboxError, match="it was started again"):
        wait_until("it was started again", lambda: state(run).starts == 2, deadline_s=1)


def test_service_with_a_final_exit_is_given_up_until_it_is_asked_for(run):
    ask(run, Start(service=service(run, "sh", "-c", "exit 78", final_exits=(78,))))
    wait_until("it is given up", lambda: state(run).given_up, deadline_s=5)
    assert state(run).starts == 1
    ask(run, Start(service=service(run)))
    assert state(run).pid
