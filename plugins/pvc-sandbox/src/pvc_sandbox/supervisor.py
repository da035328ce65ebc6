"""The services of a node: started, reaped, started again when they end by themselves, stopped on request."""

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from pvc_sandbox.control import (
    MAX_MESSAGE,
    PROGRAMS,
    Answer,
    Request,
    Service,
    ServiceState,
    Signal,
    Start,
    Status,
    Stop,
    describe_exit,
)
from pvc_sandbox.errors import SandboxError

_ENVIRONMENT: Final = {
    "PATH": PROGRAMS,
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_REQUEST_DEADLINE_S: Final = 2.0
_LONGEST_RESTART_DELAY_S: Final = 5.0
_LONGEST_NOTE: Final = 65536
_ABORT_S: Final = 2.0
"""Between SIGABRT and SIGKILL for a service that hangs."""


class _Running:
    """One service and what has become of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.wanted = True
        self.pid = 0
        self.starts = 0
        self.ready = False
        self.said = ""
        self.given_up = False
        self.last_exit = ""
        self.delay_s = service.restart_delay_s
        self.started = 0.0
        self.heard = 0.0
        self.socket: socket.socket | None = None

    def state(self) -> ServiceState:
        return ServiceState(
            name=self.service.name,
            wanted=self.wanted,
            pid=self.pid,
            starts=self.starts,
            ready=self.ready,
            said=self.said,
            given_up=self.given_up,
            last_exit=self.last_exit,
        )


class HasDescriptor(Protocol):
    """Something that can be waited on."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Supervisor:
    """Runs in the first process of a PID namespace; one thread.

    ``listener`` takes requests (module ``control``); ``run`` is the directory of the sockets that services notify.
    """

    def __init__(self, listener: socket.socket, run: Path) -> None:
        self._listener = listener
        self._run = run
        self._services: dict[str, _Running] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._answer)
        # SIGCHLD only wakes the loop: all reaping is done there.
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._drain(reader))

    def also(self, source: HasDescriptor, handle: Callable[[], None]) -> None:
        """Call ``handle`` whenever ``source`` has something to read."""
        self._selector.register(source, selectors.EVENT_READ, handle)

    def run(self) -> None:
        """Never returns: the node is on for as long as this process lives."""
        while True:
            pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(pause):
                key.data()
            self._reap()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _drain(self, reader: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 4096):
                continue

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), act))

    def _reap(self) -> None:
        """Take the exit status of every dead child: our services, and orphans of the whole node."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for running in self._services.values():
                if running.pid == pid:
                    self._ended(running, os.waitstatus_to_exitcode(status))

    def _ended(self, running: _Running, status: int) -> None:
        running.pid = 0
        running.ready = False
        running.said = ""
        running.last_exit = describe_exit(status)
        running.given_up = running.wanted and status in running.service.final_exits
        if not running.wanted or running.given_up:
            return
        if time.monotonic() - running.started > _LONGEST_RESTART_DELAY_S:
            running.delay_s = running.service.restart_delay_s
        self._after(running.delay_s, lambda: self._begin(running))
        running.delay_s = min(running.delay_s * 2, _LONGEST_RESTART_DELAY_S)

    def _begin(self, running: _Running) -> None:
        if (
            running.pid
            or running.given_up
            or not running.wanted
            or self._services.get(running.service.name) is not running
        ):
            return
        service = running.service
        Path(service.log).parent.mkdir(parents=True, exist_ok=True)
        output = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            running.pid = os.posix_spawnp(
                service.argv[0],
                service.argv,
                _ENVIRONMENT | service.env | self._notification(running),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
            running.starts += 1
            running.started = time.monotonic()
            running.ready = not service.notifies
        except OSError as error:
            os.write(output, f"cannot start {service.argv[0]}: {error.strerror}\n".encode())
            running.last_exit = f"not started: {error.strerror}"
            self._after(_LONGEST_RESTART_DELAY_S, lambda: self._begin(running))
        finally:
            os.close(output)

    def _notification(self, running: _Running) -> dict[str, str]:
        """Return what tells a service where to report (sd_notify(3)), its socket made."""
        service = running.service
        if not service.notifies:
            return {}
        path = self._run / f"notify-{service.name}.sock"
        if running.socket is None:
            path.unlink(missing_ok=True)
            running.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            running.socket.bind(str(path))
            self.also(running.socket, lambda: self._hear(running))
        environment = {"NOTIFY_SOCKET": str(path)}
        if service.watchdog_s:
            environment["WATCHDOG_USEC"] = str(int(service.watchdog_s * 1_000_000))
        return environment

    def _hear(self, running: _Running) -> None:
        assert running.socket is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard(running, running.socket.recv(_LONGEST_NOTE).decode("utf-8", "replace"))

    def _heard(self, running: _Running, message: str) -> None:
        if not running.pid:  # the last word of one that has ended meanwhile
            return
        fields = dict(line.split("=", 1) for line in message.splitlines() if "=" in line)
        running.heard = time.monotonic()
        running.said = fields.get("STATUS", running.said)
        if fields.get("READY") == "1" and not running.ready:
            running.ready = True
            if running.service.watchdog_s:
                self._watch(running, running.pid)

    def _watch(self, running: _Running, pid: int) -> None:
        """Look again when the service has to have given a sign of life; kill it when it has not."""
        if running.pid != pid:
            return
        left = running.heard + running.service.watchdog_s - time.monotonic()
        if left > 0:
            self._after(left, lambda: self._watch(running, pid))
        else:
            # Stacks of all its threads, where it can still write them; then systemd's own signal for this.
            self._send(pid, signal.SIGABRT)
            self._after(_ABORT_S, lambda: self._kill(running, pid))

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(_REQUEST_DEADLINE_S)
            try:
                received = bytearray()
                while len(received) < MAX_MESSAGE and (part := connection.recv(65536)):
                    received += part
                self._do(msgspec.json.decode(bytes(received), type=Request))
                answer = Answer(services=tuple(running.state() for running in self._services.values()))
            except (SandboxError, msgspec.MsgspecError, OSError) as error:
                answer = Answer(error=str(error))
            with contextlib.suppress(OSError):  # whoever asked has gone away
                connection.sendall(msgspec.json.encode(answer))

    def _do(self, request: Request) -> None:
        match request:
            case Start(service):
                running = self._services.setdefault(service.name, _Running(service))
                running.service = service
                running.wanted = True
                running.given_up = False
                self._begin(running)
            case Stop(name):
                running = self._named(name)
                running.wanted = False
                if running.pid:
                    pid = running.pid
                    self._send(pid, signal.SIGTERM)
                    self._after(running.service.stop_timeout_s, lambda: self._kill(running, pid))
            case Signal(name, number):
                running = self._named(name)
                if not running.pid:
                    raise SandboxError(f"service {name!r} does not run")
                self._send(running.pid, number)
            case Status():
                pass

    def _kill(self, running: _Running, pid: int) -> None:
        if running.pid == pid:
            self._send(pid, signal.SIGKILL)

    def _send(self, pid: int, number: int) -> None:
        """Signal a child that is not reaped yet (so its PID is nobody else's), and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)

    def _named(self, name: str) -> _Running:
        try:
            return self._services[name]
        except KeyError:
            known = ", ".join(sorted(self._services)) or "none"
            raise SandboxError(f"no service named {name!r} on this node; there are: {known}") from None
