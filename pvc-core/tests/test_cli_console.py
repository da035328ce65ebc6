"""`pvc vm log` and `pvc vm console`: what the guest wrote, and the terminal as it was afterwards."""

import http.server
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc_core.cli.commands import vm_console
from pvc_core.client.service import LogPart
from pvc_core.config.schema import Service
from pvc_core.model.errors import NotFound, Unavailable
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, Ran, add_node

DEADLINE_S = 20.0

RELAY = """
import socket, sys
from pvc_core.cli.raw_terminal import Terminal
connection = socket.socket(fileno=int(sys.argv[1]))
with Terminal() as terminal:
    ended = terminal.relay(connection)
print("BY-PERSON" if ended else "BY-NODE")
"""


class Joined:
    """A child that joins its terminal, of which the test holds the other side, to a socket of the test."""

    def __init__(self) -> None:
        self.person, self._slave = os.openpty()
        self.guest, theirs = socket.socketpair()
        self.guest.settimeout(DEADLINE_S)
        self.before = termios.tcgetattr(self._slave)
        self.child = subprocess.Popen(
            [sys.executable, "-c", RELAY, str(theirs.fileno())],
            stdin=self._slave,
            stdout=self._slave,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.seen = b""

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def wait_raw(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self.attributes()[3] & termios.ICANON:  # type: ignore[operator]
            assert time.monotonic() < deadline, "the terminal never became raw"
            time.sleep(0.01)

    def see(self, wanted: bytes) -> None:
        while wanted not in self.seen:
            assert select.select([self.person], [], [], DEADLINE_S)[0], f"{wanted!r} never came, only {self.seen!r}"
            self.seen += os.read(self.person, 4096)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self.guest.close()
        os.close(self.person)
        os.close(self._slave)


@pytest.fixture
def joined() -> Iterator[Joined]:
    pair = Joined()
    pair.wait_raw()
    yield pair
    pair.close()


def test_bytes_go_both_ways_untouched_and_the_escape_ends(joined: Joined) -> None:
    joined.guest.sendall(b"login: ")
    joined.see(b"login: ")
    os.write(joined.person, b"root\r\x03")
    received = b""
    while len(received) < 6:
        received += joined.guest.recv(100)
    assert received == b"root\r\x03"
    os.write(joined.person, b"bye\x1dnot sent")
    joined.see(b"BY-PERSON")
    assert joined.child.wait(DEADLINE_S) == 0
    assert joined.guest.recv(100) == b"bye"
    assert joined.guest.recv(100) == b""
    assert joined.attributes() == joined.before


def test_the_terminal_is_restored_when_the_node_ends_it(joined: Joined) -> None:
    joined.guest.sendall(b"last words")
    joined.guest.close()
    joined.see(b"BY-NODE")
    assert b"last words" in joined.seen
    assert joined.child.wait(DEADLINE_S) == 0
    assert joined.attributes() == joined.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_the_command_is_killed(joined: Joined, number: signal.Signals) -> None:
    joined.child.send_signal(number)
    assert joined.child.wait(DEADLINE_S) == 128 + number
    assert joined.attributes() == joined.before


class LogServer:
    """A node's service that has one console log."""

    def __init__(self, log: bytes) -> None:
        outer = self
        self.log = log
        self.asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.headers.get("Authorization", ""))
                query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
                lines = outer.log.splitlines(keepends=True)
                data = b"".join(lines[-int(query["tail"][0]) :])
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Next-Offset", str(len(outer.log)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[LogServer]:
    log = LogServer(b"".join(b"line %d\n" % number for number in range(1, 6)))
    yield log
    log.close()


@pytest.fixture
def pvc(server: LogServer, tmp_path: Path) -> CommandLine:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    tree = MemoryTree()
    command = CommandLine(tree, service=Service(token_file=str(token)))
    add_node(tree, "node1", address="127.0.0.1", service_port=server.server.server_address[1])
    add_node(tree, "node2", alive=False)
    for name, node in (("web1", "node1"), ("web2", "node2")):
        assert command("vm", "define", "-", input=f"name: {name}\nmemory: 1G\nnode: {node}\n").status == 0
    assert command("vm", "define", "-", input="name: nowhere\nmemory: 1G\n").status == 0
    return command


def test_the_last_lines_of_the_log_are_printed_as_they_are(pvc: CommandLine, server: LogServer) -> None:
    assert pvc("vm", "log", "web1", "--lines", "2") == (0, "line 4\nline 5\n", "")
    assert server.asked == ["Bearer secret"]


@pytest.mark.parametrize(
    ("vm", "status", "said"),
    [
        ("web2", 1, "node node2 is not alive"),
        ("nowhere", 2, "VM nowhere has never been on a node"),
    ],
)
def test_a_log_that_cannot_be_read_is_told(pvc: CommandLine, vm: str, status: int, said: str) -> None:
    ran = pvc("vm", "log", vm)
    assert said in ran.err
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (status, "", 1)


def test_without_a_token_it_is_told_that_the_service_is_off(tmp_path: Path) -> None:
    tree = MemoryTree()
    command = CommandLine(tree)
    add_node(tree, "node1")
    command("vm", "define", "-", input="name: web1\nmemory: 1G\nnode: node1\n")
    ran = command("vm", "log", "web1")
    assert "set service.token_file" in ran.err
    assert ran.status == 2


class FakeService:
    """Gives tails and parts of a log, one for each call; an exception among them is raised."""

    def __init__(self, tails: list[bytes | BaseException], parts: list[bytes | BaseException]) -> None:
        self.tails = tails
        self.parts = parts

    def console_tail(self, _vm: str, _lines: int) -> LogPart:
        return self._next(self.tails, 0)

    def console_log(self, _vm: str, *, offset: int) -> LogPart:
        return self._next(self.parts, offset)

    def _next(self, answers: list[bytes | BaseException], offset: int) -> LogPart:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return LogPart(answer, offset + len(answer))


def follow(
    pvc: CommandLine, monkeypatch: pytest.MonkeyPatch, here: FakeService, there: FakeService, where: list[str]
) -> Ran:
    """Follow the log of a VM that is found on these nodes, one after the other: `here` is node1, `there` is node2."""
    places = iter(where)
    view = vm_console._place

    def place(session: object, vm: str) -> object:
        return view(session, vm)[0], next(places)  # type: ignore[arg-type]

    monkeypatch.setattr(vm_console, "_place", place)
    monkeypatch.setattr(vm_console, "_POLL_S", 0.0)
    monkeypatch.setattr(vm_console, "_LOOK_S", 0.0)
    services = {"node1": here, "node2": there}
    monkeypatch.setattr("pvc_core.client.local.Client.service", lambda _self, node: services[node])
    return pvc("vm", "log", "web1", "--follow")


def test_following_goes_on_over_a_silent_node_and_after_a_move(
    pvc: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = FakeService([b"zero\n"], [b"one\n", Unavailable("gone"), b""])
    there = FakeService([b"two\n"], [b"three\n", KeyboardInterrupt()])
    ran = follow(pvc, monkeypatch, here, there, ["node1", "node2"])
    assert ran == (0, "zero\none\ntwo\nthree\n", "pvc: VM web1 is on node2 now\n")


@pytest.mark.parametrize("error", [NotFound("no log yet"), Unavailable("gone")], ids=["no log", "no answer"])
def test_following_stays_with_the_old_log_until_the_new_one_can_be_read(
    pvc: CommandLine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    here = FakeService([b"zero\n"], [b"", b"last\n", b""])
    there = FakeService([error, b"one\n"], [KeyboardInterrupt()])
    ran = follow(pvc, monkeypatch, here, there, ["node1", "node2", "node2"])
    assert ran == (0, "zero\nlast\none\n", "pvc: VM web1 is on node2 now\n")
