"""Waiting for the cluster: progress, time-out, Ctrl-C, and what is said in the end."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from msgspec.structs import replace

from pvc_core.cli.output import Output
from pvc_core.cli.progress import Interrupted, NotFinished, watching
from pvc_core.cli.session import Session
from pvc_core.model.task import Task
from pvc_core.model.vm import VmClaim, VmState, VmStatus
from pvc_core.ops.wait import Progress, WaitFailed, WaitTimeout
from pvc_core.store import keys
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_network, add_node


def test_each_new_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(Session(), "VM web1", later="pvc vm info web1") as report:
        for message in ("starting", "starting", "running"):
            report(Progress(message))
    assert capsys.readouterr() == ("", "VM web1: starting\nVM web1: running\n")


def test_quiet_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session()
    session.out = Output(quiet=True)
    with watching(session, "VM web1", later="pvc vm info web1") as report:
        report(Progress("starting"))
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_ends_the_waiting_only_and_says_so() -> None:
    with pytest.raises(Interrupted) as caught, watching(Session(), "VM web1", later="pvc vm info web1"):
        raise KeyboardInterrupt
    assert caught.value.exit_status == 130
    assert str(caught.value) == "VM web1: stopped waiting; it goes on in the cluster, see: pvc vm info web1"


def test_a_time_out_says_what_it_was_doing_and_that_it_goes_on() -> None:
    with pytest.raises(NotFinished) as caught, watching(Session(), "VM web1", later="pvc vm info web1") as report:
        report(Progress("starting"))
        raise WaitTimeout("whatever")
    assert str(caught.value) == (
        "VM web1: not finished in time (still: starting); it goes on in the cluster, see: pvc vm info web1"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [("no node fits", "VM web1: no node fits"), ("VM web1 was removed meanwhile", "VM web1 was removed meanwhile")],
)
def test_a_failure_names_its_subject_once(error: str, said: str) -> None:
    with pytest.raises(NotFinished) as caught, watching(Session(), "VM web1", later="pvc vm info web1"):
        raise WaitFailed(error)
    assert str(caught.value) == said


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def pvc(tree: MemoryTree) -> CommandLine:
    command = CommandLine(tree)
    add_node(tree, "node1")
    add_network(tree, "lan")
    command("vm", "define", "-", input="name: web1\nmemory: 1G\nid: 11111111-1111-4111-8111-111111111111\n")
    command("vm", "start", "web1", "--no-wait")
    return command


VM = "11111111-1111-4111-8111-111111111111"


def runs(tree: MemoryTree, **status: object) -> None:
    """Do what node1 would do: take the claim and report."""
    store = tree.connect()
    spec = read(store, keys.vm_spec(VM))
    assert spec is not None
    seen = VmStatus(
        id=VM,
        state=VmState.RUNNING,
        node="node1",
        observed_generation=spec.value.generation,
    )
    claim = VmClaim(vm=VM, node="node1", lease=1, epoch=1)
    store.commit(create(keys.vm_status(VM), replace(seen, **status)), create(keys.claim(VM), claim))


def test_a_vm_that_runs_is_told_with_its_node(pvc: CommandLine, tree: MemoryTree) -> None:
    runs(tree)
    ran = pvc("vm", "start", "web1")
    assert (ran.status, ran.out) == (0, "VM web1 is running on node1\n")


def test_a_vm_that_failed_is_told_with_the_reason(pvc: CommandLine, tree: MemoryTree) -> None:
    runs(tree, state=VmState.FAILED, reason="it crashed 6 times")
    ran = pvc("vm", "start", "web1", "--timeout", "5")
    assert ran.status == 1
    assert "it crashed 6 times" in ran.err.splitlines()[-1]


def test_a_wait_that_takes_too_long_ends_with_1(pvc: CommandLine) -> None:
    ran = pvc("vm", "start", "web1", "--timeout", "0.2")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith("pvc: VM web1: not finished in time")
    assert "see: pvc vm info web1" in ran.err.splitlines()[-1]


def test_no_time_at_all_is_a_time_out_also_where_there_is_no_limit_by_default(
    pvc: CommandLine, tree: MemoryTree
) -> None:
    tree.connect().commit(create(keys.task("0123456789"), Task(id="0123456789", kind="x", node="node1")))
    ran = pvc("task", "wait", "0123456789", "--timeout", "0")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith("pvc: x: not finished in time (still: waiting for its turn)")


def test_stopping_a_running_vm_asks_first(pvc: CommandLine, tree: MemoryTree) -> None:
    runs(tree)
    ran = pvc("vm", "stop", "web1", "--no-wait")
    assert ran.status == 2
    assert "Cut the power of VM web1, which is running on node1" in ran.err
    assert pvc("vm", "stop", "web1", "--no-wait", "--yes").out == "VM web1 will be stopped\n"


def test_a_change_that_needs_a_restart_asks_whether_to(pvc: CommandLine, tree: MemoryTree) -> None:
    runs(tree)
    ran = pvc("vm", "modify", "web1", "--set", "vcpus=2", input="n\n", interactive=True)
    assert "Restart it now?" in ran.err
    assert ran.err.endswith("VM web1 runs with the old definition until: pvc vm restart web1\n")
    ran = pvc("vm", "modify", "web1", "--set", "vcpus=3", "--restart", "--no-wait")
    assert ran.out == "VM web1 is changed and will be restarted\n"
    ran = pvc("vm", "modify", "web1", "--set", "vcpus=4", "--no-restart")
    assert "until: pvc vm restart web1" in ran.err


LIVE = """
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session
from pvc_core.ops.wait import Progress
import time
with watching(Session(), "node node1", later="x") as report:
    report(Progress("looking"))
    report(Progress("1 of 2 VMs moved", 0.5))
    time.sleep(0.3)  # the display draws ten times a second
print("done")
"""


def test_on_a_terminal_one_line_moves_and_is_gone_at_the_end() -> None:
    person, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm-256color"}
    child = subprocess.Popen(
        [sys.executable, "-c", LIVE], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            part = os.read(person, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(person)
    assert child.wait(20) == 0
    text = seen.decode()
    assert "node node1" in text
    assert "1 of 2 VMs moved" in text
    assert "━" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert text.rstrip().endswith("done")
