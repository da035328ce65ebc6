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
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_REQUEST_DEADLINE_S: Final = 2.0
_LONGEST_RESTART_DELAY_S: Final = 5.0


class _Running:
    """One service and what has become of it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.wanted = True
        self.pid = 0
        self.starts = 0
        self.last_exit = ""
        self.delay_s = service.restart_delay_s
        self.started = 0.0

    def state(self) -> ServiceState:
        return ServiceState(
            name=self.service.name, wanted=self.wanted, pid=self.pid, starts=self.starts, last_exit=self.last_exit
        )


class HasDescriptor(Protocol):
    """Something that can be waited on."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Supervisor:
    """Runs in the first process of a PID namespace; one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
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
        running.last_exit = describe_exit(status)
        if not running.wanted:
            return
        if time.monotonic() - running.started > _LONGEST_RESTART_DELAY_S:
            running.delay_s = running.service.restart_delay_s
        self._after(running.delay_s, lambda: self._begin(running))
        running.delay_s = min(running.delay_s * 2, _LONGEST_RESTART_DELAY_S)

    def _begin(self, running: _Running) -> None:
        if running.pid or not running.wanted or self._services.get(running.service.name) is not running:
            return
        service = running.service
        Path(service.log).parent.mkdir(parents=True, exist_ok=True)
        output = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            running.pid = os.posix_spawnp(
                service.argv[0],
                service.argv,
                _ENVIRONMENT | service.env,
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
        except OSError as error:
            os.write(output, f"cannot start {service.argv[0]}: {error.strerror}\n".encode())
            running.last_exit = f"not started: {error.strerror}"
            self._after(_LONGEST_RESTART_DELAY_S, lambda: self._begin(running))
        finally:
            os.close(output)

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
                self._begin(running)
            case Stop(name):
                running = self._named(name)
                running.wanted = False
                if running.pid:
                    pid = running.pid
                    self._send(pid, signal.SIGTERM)
                    self._after(running.service.stop_timeout_s, lambda: self._give_up(running, pid))
            case Signal(name, number):
                running = self._named(name)
                if not running.pid:
                    raise SandboxError(f"service {name!r} does not run")
                self._send(running.pid, number)
            case Status():
                pass

    def _give_up(self, running: _Running, pid: int) -> None:
        if running.pid == pid and not running.wanted:
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
