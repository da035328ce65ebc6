"""Real ZooKeeper servers for tests, that can be killed, hung and cut off."""

import contextlib
import itertools
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec

from pvc_core.config.schema import Tls
from pvc_core.store.api import Delete, Store
from pvc_core.store.connect import tls_context
from pvc_core.store.zookeeper import Login, ZooKeeperStore
from pvc_core.testkit.certificates import Authority
from pvc_core.testkit.lan import Lan, entered
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper_server import Member, ServerOptions, ServerTls, write_server

START_S: Final = 40.0
"""Time for all servers to serve, on a busy machine."""
STOP_S: Final = 5.0
"""Time for a server to end after SIGTERM."""

_ensembles: Final = itertools.count()


class ZooKeeperEnsemble:
    """``servers`` real servers, numbered from 1, with their files in ``directory``.

    They end with the thread that started them, even if that is killed.  Use as a context manager, or call ``close``.
    """

    def __init__(
        self,
        directory: Path,
        servers: int = 1,
        *,
        tick_ms: int = 250,
        sync_ticks: int = 6,
        heap_mib: int = 64,
        login: Login | None = None,
        login_required: bool = False,
        tls: bool = False,
        lan: Lan | None = None,
    ) -> None:
        """``tls``: clients need a certificate of ``authority``.  ``lan``: server i runs on its host i."""
        self.directory = directory
        self.lan = lan
        self.authority = Authority(directory / "tls") if tls else None
        self._address = _own_address()
        self._login = login
        self._options = ServerOptions(
            tick_ms=tick_ms, sync_ticks=sync_ticks, heap_mib=heap_mib, login=login, login_required=login_required
        )
        self.members = [self._member(number) for number in range(1, servers + 1)]
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._client_tls = self.authority.issue("client", "127.0.0.1") if self.authority else None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hosts(self) -> list[str]:
        """``address:port`` of each server, for clients."""
        return [f"{member.address}:{member.client_port}" for member in self.members]

    @property
    def client_tls(self) -> Tls | None:
        """TLS files for a client, when the ensemble speaks TLS."""
        return self._client_tls

    def number(self, host: str) -> int:
        """Return the number of the server at ``address:port``."""
        return self.hosts.index(host) + 1

    def start(self) -> None:
        """Start every server that does not run, and wait until all serve."""
        for member in self.members:
            self.up(member.id)
        self.wait_serving()

    def up(self, number: int) -> None:
        """Start one server, if it does not run; returns before it serves."""
        if number in self._children:
            return
        directory = self.directory / str(number)
        argv = write_server(directory, number, self.members, self._server_options(number))
        prefix = ["setpriv", "--pdeathsig", "KILL"]
        if self.lan is not None:
            prefix += ["ip", "netns", "exec", self.lan.namespace(number)]
        with (directory / "output.log").open("ab") as output:
            self._children[number] = subprocess.Popen(
                [*prefix, *argv],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_serving(self, *numbers: int) -> None:
        """Wait until these servers, or all, serve clients, which in an ensemble takes a quorum."""
        for number in numbers or [member.id for member in self.members]:
            eventually(lambda number=number: self._serves(number), f"server {number} serves", within_s=START_S)  # type: ignore[misc]

    def kill(self, number: int) -> None:
        """Let a server crash."""
        child = self._children.pop(number)
        child.kill()
        child.wait()

    def pause(self, number: int) -> None:
        """Let a server hang: its kernel still takes connections and data."""
        self._children[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a hung server go on."""
        self._children[number].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop every server that runs; ``start`` brings them back with their data."""
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        while self._children:
            _, child = self._children.popitem()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def close(self) -> None:
        """Stop every server."""
        self.stop()

    def connect(
        self,
        *,
        session_timeout_s: float = 4.0,
        patience_s: float | None = None,
        hosts: list[str] | None = None,
        wait_s: float = START_S,
        at: int = 0,
    ) -> ZooKeeperStore:
        """Return a connected client with the ensemble's login and certificate; ``at`` is its host, if there is a LAN."""
        with self.reachable(at):
            store = ZooKeeperStore(
                hosts or self.hosts,
                session_timeout_s=session_timeout_s,
                patience_s=patience_s,
                auth=self._login,
                tls=tls_context(self._client_tls) if self._client_tls else None,
            )
        try:
            store.wait_connected(wait_s)
        except BaseException:
            store.close()
            raise
        return store

    def connect_to(self, number: int) -> ZooKeeperStore:
        """Return a client that knows all servers and is connected to this one."""
        while True:
            store = self.connect()
            if store.server == self.hosts[number - 1]:
                return store
            store.close()

    def leader(self) -> int:
        """Return the number of the server that leads the others."""
        numbers = [member.id for member in self.members]
        return eventually(lambda: next((n for n in numbers if self._mode(n) == "leader"), None), "one leads") or 0

    @contextmanager
    def reachable(self, host: int = 0) -> Iterator[None]:
        """Have sockets and threads that are made inside on a host of the LAN (0: its switch), if there is a LAN."""
        with entered(self.lan.namespace(host)) if self.lan else contextlib.nullcontext():
            yield

    def expire(self, store: ZooKeeperStore) -> None:
        """Have the servers end a client's session, as they do when it was silent for too long.

        A second connection takes the session over and closes it (ZooKeeper's FAQ on testing expiry).
        """
        session, password = store._client.client_id
        with self._talk(1) as link:
            # ConnectRequest: protocol version, last zxid, time-out, session, password, read-only.
            link.send(struct.pack("!iqiqi16s?", 0, 0, 4000, session, 16, password, False))
            link.receive()
            link.send(struct.pack("!ii", 1, -11))
            link.receive()

    def _serves(self, number: int) -> bool:
        child = self._children[number]
        if child.poll() is not None:
            log = self.directory / str(number) / "output.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise AssertionError(f"ZooKeeper server {number} ended with status {child.returncode}:\n{tail}")
        return bool(self._mode(number))

    def _mode(self, number: int) -> str:
        try:
            with self._talk(number) as link:
                lines = link.ask(b"srvr").decode().splitlines()
        except OSError:
            return ""
        return next((line.removeprefix("Mode: ") for line in lines if line.startswith("Mode: ")), "")

    def _talk(self, number: int) -> "_Link":
        member = self.members[number - 1]
        with self.reachable():
            link = socket.create_connection((member.address, member.client_port), 2.0)
            if self._client_tls is not None:
                link = tls_context(self._client_tls).wrap_socket(link, server_hostname=member.address)
        return _Link(link)

    def _member(self, number: int) -> Member:
        if self.lan is not None:
            return Member(number, self.lan.address(number), 2181, 2888, 3888)
        return Member(number, self._address, 2180 + number, 2280 + number, 2380 + number)

    def _server_options(self, number: int) -> ServerOptions:
        if self.authority is None:
            return self._options
        identity = self.directory / "tls" / f"server{number}.both"
        if not identity.exists():
            files = self.authority.issue(f"server{number}", self.members[number - 1].address)
            identity.write_text(Path(files.key).read_text() + Path(files.certificate).read_text())
        tls = ServerTls(identity=identity, ca=self.authority.certificate)
        return msgspec.structs.replace(self._options, tls=tls)


class _Link:
    """A connection that speaks ZooKeeper's frames, or one of its four letter words."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._stream: IO[bytes] = link.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()
        self._link.close()

    def send(self, frame: bytes) -> None:
        self._link.sendall(struct.pack("!i", len(frame)) + frame)

    def receive(self) -> bytes:
        header = self._stream.read(4)
        return self._stream.read(struct.unpack("!i", header)[0]) if len(header) == 4 else b""

    def ask(self, word: bytes) -> bytes:
        self._link.sendall(word)
        return self._stream.read()


def wipe(store: Store, path: str = "/pvc") -> None:
    """Delete a node and everything below it."""
    levels = [[path]] if store.get(path) else []
    while levels and levels[-1]:
        below = store.children_many(levels[-1])
        levels.append([f"{parent}/{name}" for parent, names in zip(levels[-1], below, strict=True) for name in names])
    for level in reversed(levels):
        for start in range(0, len(level), 500):
            store.commit(*(Delete(each) for each in level[start : start + 500]))


def _own_address() -> str:
    """Return a loopback address that nobody else uses, so that fixed ports are free, also after a server's death."""
    pid = os.getpid()
    return f"127.{64 + next(_ensembles) % 64}.{pid >> 8 & 255}.{pid & 255}"


def unique_name(prefix: str) -> str:
    """Return a name for this process's own things on the machine."""
    return f"{prefix}{os.getpid()}"
