"""Bad input: one line on standard error, exit status 1 or 2, and nothing changed."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc_core.cli import main
from pvc_core.cli.main import build
from pvc_core.cli.session import Session
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, Ran, add_network, add_node

GOOD = "name: web1\nmemory: 1G\nnics: [{network: lan}]\n"


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def pvc(tree: MemoryTree, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.delenv("PVC_DEBUG", raising=False)
    command = CommandLine(tree)
    add_node(tree, "node1")
    add_node(tree, "node2", memory_mib=4096)
    add_network(tree, "lan")
    assert command("vm", "define", "-", input=GOOD).status == 0
    return command


def one_line(ran: Ran) -> str:
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("pvc: ")
    return line.removeprefix("pvc: ")


DEFINE = ("vm", "define", "-")
BAD = [
    (("vm", "info", "wbe1"), "", 1, "no VM named 'wbe1'; did you mean 'web1'?"),
    (("vm", "start", "other"), "", 1, "no VM named 'other'"),
    (("vm", "remove", "other", "--yes"), "", 1, "no VM named 'other'"),
    (("vm", "log", "other"), "", 1, "no VM named 'other'"),
    (("vm", "list", "(["), "", 2, "regular expression"),
    (("vm", "list", "--state", "runing"), "", 2, "'runing' is not one of"),
    (("node", "info", "nod1"), "", 1, "did you mean 'node1'?"),
    (("node", "flush", "node9"), "", 1, "node9"),
    (("network", "info", "lna"), "", 1, "did you mean 'lan'?"),
    (("network", "remove", "lan", "--yes"), "", 1, "web1"),
    (("storage", "pool", "info", "ssd"), "", 1, "ssd"),
    (("storage", "volume", "add", "web1", "1G"), "", 2, "write pool/volume"),
    (("storage", "volume", "add", "ssd/web1", "big"), "", 2, "'big' is not a size"),
    (("storage", "volume", "info", "ssd/web1"), "", 1, "ssd"),
    (("task", "info", "abc"), "", 1, "abc"),
    (DEFINE, "name: [x\n", 2, "this is not valid YAML"),
    (DEFINE, "name: big\nmemory: 16G\nstart: true\n", 2, "16"),
    (DEFINE, "name: big\nmemory: 16G\n", 2, "16"),
    (DEFINE, "name: a\nmemory: 1G\nnics: [{network: lann}]\n", 1, "did you mean 'lan'?"),
    (DEFINE, "name: a\nmemory: 1G\ndisks: [{pool: ssd, volume: x}]\n", 1, "ssd"),
    (DEFINE, "name: a\nmemroy: 1G\nmemory: 1G\n", 2, "standard input:2: memroy: unknown key; did you mean 'memory'?"),
    (DEFINE, "name: web1\nmemory: 1G\n", 1, "web1"),
    (DEFINE, "name: a b\nmemory: 1G\n", 2, "not a valid name"),
    (DEFINE, "name: a\nmemory: lots\n", 2, "'lots' is not a size"),
    (DEFINE, "<domain><name>a</name>", 2, "not valid XML"),
    ((*DEFINE, "--node", "node7"), "name: a\nmemory: 1G\n", 1, "node7"),
    (("vm", "define", "/no/such/file"), "", 2, "cannot read /no/such/file: No such file or directory"),
    (("vm", "modify", "web1"), "", 2, "say what to change"),
    (("vm", "modify", "web1", "--set", "memry=2G"), "", 2, "did you mean 'memory'?"),
    (("vm", "modify", "web1", "--set", "memory=64G"), "", 2, "64"),
    (("vm", "modify", "web1", "--edit"), "", 2, "--edit needs a terminal"),
    (("vm", "modify", "web1", "-"), "name: web2\nmemory: 1G\n", 2, "web2"),
    (("vm", "rename", "web1", "x-"), "", 2, "not a valid name"),
    (("vm", "tag", "web1", "--remove", "prod"), "", 1, "prod"),
    (("vm", "unmigrate", "web1"), "", 2, "home"),
    (("vm", "console", "web1"), "", 2, "needs a terminal"),
    (("vm", "start", "web1", "--timeout", "soon"), "", 2, "'soon' is not a duration"),
    (("vm", "start"), "", 2, "Missing argument"),
    (("vm", "start", "web1", "--nod", "x"), "", 2, "No such option"),
    (("vm", "list", "-q"), "", 2, "No such option '-q' (it stands before the command: pvc -q ...)"),
    (("cluster", "settings", "--migrations-per-source", "0"), "", 2, "migrations_per_source"),
    (("cluster", "restore", "/no/such/file", "--yes"), "", 2, "/no/such/file"),
    (("network", "modify", "lan"), "", 2, "nothing to change"),
    (("network", "modify", "lan", "--mtu", "big"), "", 2, "'big' is neither a number nor 'auto'"),
    (("network", "add", "dmz", "-d", "bridge", "-p", "novalue"), "", 2, "not of the form key=value"),
    (("config", "check", "/no/such/file"), "", 2, "/no/such/file"),
    (("plugin", "show", "no-such-plugin"), "", 1, "no plugin named 'no-such-plugin' is installed"),
]


@pytest.mark.parametrize(("args", "text", "status", "said"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_one_clear_line_and_changes_nothing(
    pvc: CommandLine, tree: MemoryTree, args: tuple[str, ...], text: str, status: int, said: str
) -> None:
    before = tree.dump()
    ran = pvc(*args, input=text)
    assert said in one_line(ran)
    assert ran.status == status
    assert tree.dump() == before


@pytest.mark.parametrize(
    "args",
    [
        ("vm", "list"),
        ("node", "list"),
        ("cluster", "status"),
        ("vm", "start", "x"),
        ("cluster", "init"),
        ("vm", "log", "x"),
    ],
    ids=" ".join,
)
def test_without_a_state_store_there_is_one_clear_line(args: tuple[str, ...]) -> None:
    ran = CommandLine(None)(*args)
    assert "no state store answered within 5 s" in one_line(ran)
    assert ran.status == 1


DESTRUCTIVE = [
    ("vm", "remove", "web1"),
    ("network", "remove", "lan"),
    ("node", "remove", "node2"),
    ("cluster", "restore", __file__),
    ("cluster", "upgrade"),
    ("storage", "snapshot", "rollback", "ssd/x", "s"),
    ("storage", "snapshot", "remove", "ssd/x", "s"),
]


@pytest.mark.parametrize("args", DESTRUCTIVE, ids=" ".join)
def test_a_destructive_command_is_refused_where_nobody_can_be_asked(
    pvc: CommandLine, tree: MemoryTree, args: tuple[str, ...]
) -> None:
    before = tree.dump()
    ran = pvc(*args)
    assert "not done without confirmation; repeat it with --yes" in one_line(ran)
    assert ran.status == 2
    assert tree.dump() == before


@pytest.mark.parametrize("args", DESTRUCTIVE, ids=" ".join)
def test_a_destructive_command_is_not_done_when_the_answer_is_no(
    pvc: CommandLine, tree: MemoryTree, args: tuple[str, ...]
) -> None:
    before = tree.dump()
    ran = pvc(*args, input="n\n", interactive=True)
    assert ran.err.endswith("pvc: cancelled: nothing was changed\n")
    assert (ran.status, ran.out) == (1, "")
    assert tree.dump() == before


def test_yes_and_the_answer_yes_do_it(pvc: CommandLine) -> None:
    assert pvc("vm", "remove", "web1", input="y\n", interactive=True).out == "VM web1 is removed\n"
    assert pvc("network", "remove", "lan", "--yes", "--no-wait").out == "network lan will be removed\n"


def test_several_documents_are_all_read_before_the_first_is_defined(pvc: CommandLine, tree: MemoryTree) -> None:
    before = tree.dump()
    ran = pvc(*DEFINE, input="name: a\nmemory: 1G\n---\nname: b\n")
    assert ran.status == 2
    assert "standard input:4" in one_line(ran)
    assert tree.dump() == before


def test_what_was_defined_before_an_error_is_told(pvc: CommandLine) -> None:
    ran = pvc(*DEFINE, input="name: a\nmemory: 1G\n---\nname: b\nmemory: 1G\nnics: [{network: no}]\n")
    assert ran.status == 1
    assert ran.err.splitlines()[0] == "pvc: warning: these were defined before the error: a"
    assert pvc("--format", "json", "vm", "list", "^a$").json() != []


def test_an_unforeseen_exception_is_one_line_and_debug_shows_where(
    pvc: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("pvc_core.cli.commands.vm_show.vm_list", explode)
    ran = pvc("vm", "list")
    assert one_line(ran) == "internal error: ZeroDivisionError: division by zero; PVC_DEBUG=1 shows where"
    assert ran.status == 1
    ran = pvc("--debug", "vm", "list")
    assert "Traceback" in ran.err
    assert ran.status == 1


def test_every_wrong_thing_of_a_file_has_its_line(pvc: CommandLine) -> None:
    ran = pvc(*DEFINE, input="nam: a\nmemory: 1G\n")
    assert ran.status == 2
    assert all(line.startswith("pvc: standard input:1: ") for line in ran.err.splitlines())
    assert len(ran.err.splitlines()) == 2


def test_nothing_is_told_while_words_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_PVC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "pvc vm info ")
    monkeypatch.setenv("COMP_CWORD", "3")

    def refuse(config: str | None, /, *, timeout_s: float | None = None) -> object:
        raise OSError(f"no {config} within {timeout_s}")

    with pytest.raises(SystemExit):
        build().main([], obj=Session(connect=refuse))  # type: ignore[arg-type]
    assert capsys.readouterr() == ("\n", "")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def client_file(path: Path, port: int) -> Path:
    file = path / "pvc.yml"
    file.write_text(
        f"cluster:\n  name: lab\n  coordinators: [{{name: n1, address: 127.0.0.1}}]\n  zookeeper: {{port: {port}}}\n"
    )
    return file


def test_a_real_store_that_is_down_is_told_within_the_time_out(tmp_path: Path) -> None:
    port = free_port()
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pvc_core.cli", "--config", str(client_file(tmp_path, port)), "vm", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert time.monotonic() - start < 30
    assert ran.returncode == 1
    lines = [line for line in ran.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1
    assert f"127.0.0.1:{port}" in lines[0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also where a shell in the background made its own ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    """A server that accepts and says nothing keeps the command waiting until it is interrupted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        file = client_file(tmp_path, server.getsockname()[1])
        child = subprocess.Popen(
            [sys.executable, "-m", "pvc_core.cli", "--config", str(file), "vm", "list"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.settimeout(30)
        connection, _ = server.accept()
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=30)
        connection.close()
    assert child.returncode == main.INTERRUPTED
    assert out == ""
    assert "Traceback" not in err
