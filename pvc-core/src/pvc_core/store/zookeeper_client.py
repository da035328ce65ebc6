"""kazoo's client with the gaps closed that matter to a cluster (kazoo 2.11.0; its private parts are used).

- kazoo takes each request it sends for a ping, and looks for a missing answer only when a ping is due:
  while the application keeps sending, a server that hangs or is cut off goes unnoticed until the session
  is lost.  Here a connection without an answer for two thirds of the session time-out is dropped.
- kazoo lets one TCP connection take the whole session time-out, and one handshake a third of it.  Here
  each attempt has a small budget that grows from round to round, and the server that failed last comes last.
- kazoo calls itself connected before it has logged in, and gives up for good when a login fails or its
  loop hits an unknown error.  Here it is ready after the login, and never gives up.
- kazoo does not see answers that TLS has already decrypted until the socket has new ones.
- kazoo has no persistent watches (ZooKeeper's operation 106).
"""

import errno
import logging
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, ConnectionDropped
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.connection import PING_XID, STOP_CONNECTING, ConnectionHandler
from kazoo.protocol.serialization import Watch
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry

from pvc_core.plan.backoff import backoff

log = logging.getLogger(__name__)

TCP_BUDGET_S: Final = 0.5
"""Time for one TCP connection in the first round; a LAN needs a thousandth of it."""
MAX_BUDGET_S: Final = 5.0
"""Longest time for one attempt, however often all servers failed."""
RESTART_PAUSE_S: Final = 1.0
"""Pause before kazoo's loop is started again after an error that it does not know."""

# kazoo tells of every attempt as a warning; what matters of it is logged here.
_kazoo_log = logging.getLogger(f"{__name__}.kazoo")
_kazoo_log.setLevel(logging.ERROR)


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Sockets: connects within the budget, sees decrypted bytes, and notices a silent server."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._tls = tls
        self.connection: Connection | None = None

    def create_connection(self, address: tuple[str, int], hostname: str = "", **_kazoo: Any) -> socket.socket:
        assert self.connection is not None
        stage, budget_s = "connection", self.connection.tcp_budget_s
        link: socket.socket | None = None
        try:
            link = socket.create_connection(address, budget_s)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                stage, budget_s = "TLS handshake", self.connection.handshake_budget_s
                link.settimeout(budget_s)
                link = self._tls.wrap_socket(link, server_hostname=hostname)
        except OSError as error:
            if link is not None:
                link.close()
            if isinstance(error, TimeoutError):
                raise OSError(errno.ETIMEDOUT, f"no {stage} within {budget_s:.1f} s") from None
            raise
        return link

    def select(
        self, rlist: Sequence[Any], wlist: Sequence[Any], _xlist: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait as ``select`` does; raise ConnectionDropped when the server has been silent for too long."""
        connection = self.connection
        if any(isinstance(link, ssl.SSLSocket) and link.pending() for link in rlist):
            timeout = 0.0
        elif connection is not None:
            timeout = connection.until_silent(timeout)
        poll = select.poll()
        for link in rlist:
            poll.register(link, select.POLLIN)
        for link in wlist:
            poll.register(link, select.POLLOUT)
        ready = {number for number, _ in poll.poll(None if timeout is None else max(0.0, timeout) * 1000)}
        readable = [
            link for link in rlist if link.fileno() in ready or (isinstance(link, ssl.SSLSocket) and link.pending())
        ]
        if connection is not None and connection.socket not in readable:
            connection.demand_answers()
        return readable, [link for link in wlist if link.fileno() in ready], []


class Connection(ConnectionHandler):  # type: ignore[misc]  # kazoo has no types
    """One client's connection, to one server after another.  Everything runs on its own thread."""

    client: "Client"

    def __init__(self, client: "Client", retry: KazooRetry, sasl_options: dict[str, str] | None) -> None:
        super().__init__(client, retry, logger=_kazoo_log, sasl_options=sasl_options)
        self.problems: dict[str, str] = {}
        """Server -> why the last attempt failed."""
        self.server = ""
        """The server connected to now, or last."""
        self.last_heard = time.monotonic()
        self.session_timeout_s = client.asked_timeout_s
        self._round = 0
        self._established = False
        self._answered = 0.0
        self._sent: deque[float] = deque()
        self._ping_sent = 0.0
        self._failed: tuple[str, int] | None = None

    @property
    def socket(self) -> Any:
        """The socket to the server, or None."""
        return self._socket

    @property
    def handshake_budget_s(self) -> float:
        """Time that a server has to answer the opening of a connection, in this round."""
        return backoff(self._round, self.client.asked_timeout_s / 6, MAX_BUDGET_S)

    @property
    def tcp_budget_s(self) -> float:
        """Time for one TCP connection, in this round."""
        return backoff(self._round, TCP_BUDGET_S, min(MAX_BUDGET_S, self.client.asked_timeout_s))

    def cut(self) -> None:
        """Drop the connection, from any thread; the loop then goes on to the next server."""
        link = self._socket
        if link is None:
            return
        try:
            link.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("store-cut-needless server=%s error=%r", self.server, error)

    def until_silent(self, timeout: float | None) -> float | None:
        """Return how long to wait at most, so that silence is noticed in time."""
        if not self._waiting():
            return timeout
        left = max(0.01, self._answered + self._patience_s() - time.monotonic())
        return left if timeout is None else min(timeout, left)

    def demand_answers(self) -> None:
        """Raise ConnectionDropped when requests wait and no answer came for two thirds of the session time-out."""
        if not self._waiting():
            return
        silent = time.monotonic() - self._answered
        if silent > self._patience_s():
            self._note(f"silent for {silent:.1f} s")
            raise ConnectionDropped(f"{self.server} is silent for {silent:.1f} s")

    def _waiting(self) -> bool:
        return self._established and bool(self._sent or self._ping_sent)

    def _patience_s(self) -> float:
        return self.session_timeout_s * 2 / 3

    def _note(self, problem: str) -> None:
        log.info("store-connection-failed server=%s problem=%r round=%d", self.server, problem, self._round)
        self.problems[self.server] = problem

    # What kazoo calls.

    def zk_loop(self) -> None:
        """Run kazoo's loop, again after an error that ended it: a daemon must come back by itself."""
        while True:
            try:
                super().zk_loop()
            except Exception:  # kazoo ends the loop on what it does not know; it logged a connection's own errors
                log.exception("store-loop-failed server=%s", self.server)
            if self.client.stopping.wait(RESTART_PAUSE_S):
                return

    def _expand_client_hosts(self) -> list[tuple[str, str, int]]:
        hosts: list[tuple[str, str, int]] = super()._expand_client_hosts()
        for unresolved in {host for host, _ in self.client.hosts} - {host for host, _, _ in hosts}:
            port = next(port for host, port in self.client.hosts if host == unresolved)
            self.problems[server_name(unresolved, port)] = "the name does not resolve"
        return sorted(hosts, key=lambda host: host[1:] == self._failed)

    def _connect_loop(self, retry: KazooRetry) -> Any:
        self._round += 1
        return super()._connect_loop(retry)

    def _connect_attempt(self, host: str, hostip: str, port: int, retry: KazooRetry) -> Any:
        self.server = server_name(host, port)
        self.problems.pop(self.server, None)
        try:
            status = super()._connect_attempt(host, hostip, port, retry)
        finally:
            self._established = False
            self._failed = (hostip, port)
        if status is not STOP_CONNECTING and self.server not in self.problems:
            self._note("it closed the connection")
        return status

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        self._established = False
        self._sent.clear()
        self._ping_sent = 0.0
        started = time.monotonic()
        try:
            read_timeout, connect_timeout = super()._connect(host, hostip, port)
        except self.handler.timeout_exception:
            self._note(f"no answer within {self.handshake_budget_s:.1f} s")
            raise
        except Exception as error:
            self._note(_plain(error))
            raise
        # kazoo keeps the negotiated time-out to itself; its read time-out is two thirds of it.
        self.session_timeout_s = read_timeout * 1.5 / 1000
        self._round = 0
        self._answered = time.monotonic()
        self.last_heard = started
        self._established = True
        self.client.became_ready()
        return read_timeout, connect_timeout

    def _invoke(self, timeout: float, request: Any, xid: int | None = None) -> Any:
        return super()._invoke(min(timeout, self.handshake_budget_s), request, xid)

    def _authenticate_with_sasl(self, host: str, timeout: float) -> None:
        try:
            super()._authenticate_with_sasl(host, min(timeout, self.handshake_budget_s))
        except AuthFailedError as error:
            if isinstance(error.__cause__, ConnectionDropped):
                # Either the server died just now, or it is one that refuses without a word.
                raise ConnectionDropped("closed the connection during the login") from error
            self.client.was_refused(f"{self.server} refused the login of user {self.sasl_options['username']!r}")
            # kazoo would stop for good; a daemon goes on, as the password may be put right.
            raise ConnectionDropped("refused the login") from error
        self.client.refused = ""

    def _submit(self, request: Any, timeout: float, xid: int | None = None) -> None:
        now = time.monotonic()
        super()._submit(request, timeout, xid)
        if xid == PING_XID:
            self._ping_sent = now
        elif xid is not None:
            self._sent.append(now)

    def _read_header(self, timeout: float) -> tuple[Any, bytes, int]:
        header, buffer, offset = super()._read_header(timeout)
        # The session lives on from when the server got the request, so when it was sent is the safe bound.
        sent = 0.0
        if header.xid == PING_XID:
            sent, self._ping_sent = self._ping_sent, 0.0
        elif header.xid >= 0 and self._sent:
            sent = self._sent.popleft()
        if sent:
            self._answered = time.monotonic()
            self.last_heard = max(self.last_heard, sent)
        return header, buffer, offset

    def _read_watch_event(self, buffer: bytes, offset: int) -> None:
        event, _ = Watch.deserialize(buffer, offset)
        self.client.changed(event.path)


class Client(KazooClient):  # type: ignore[misc]  # kazoo has no types
    """A kazoo client that tells what happens through callbacks, which run on the connection's thread and must not wait."""

    def __init__(
        self,
        hosts: str,
        timeout_s: float,
        *,
        sasl_options: dict[str, str] | None,
        tls: ssl.SSLContext | None,
        on_ready: Callable[[], None],
        on_state: Callable[[str], None],
        on_change: Callable[[str], None],
        on_refusal: Callable[[], None],
    ) -> None:
        self.asked_timeout_s = timeout_s
        self.stopping = threading.Event()
        self.refused = ""
        """Why the last login was refused; empty when it was not."""
        self._on_ready = on_ready
        self._on_refusal = on_refusal
        self.changed = on_change
        handler = _Handler(tls)
        retry = KazooRetry(max_tries=-1, delay=0.05, backoff=2, max_jitter=0.4, max_delay=min(1.0, timeout_s / 10))
        super().__init__(hosts, timeout=timeout_s, handler=handler, connection_retry=retry, logger=_kazoo_log)
        self._connection = handler.connection = Connection(self, self._conn_retry.copy(), sasl_options)
        self.add_listener(on_state)

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    def became_ready(self) -> None:
        """Called by the connection when it is logged in, before it sends any request."""
        self._on_ready()

    def was_refused(self, why: str) -> None:
        """Called by the connection when its login was refused."""
        self.refused = why
        self._on_refusal()

    def send(self, request: Any) -> Any:
        """Queue a request; return kazoo's result object, which gets the answer or an exception."""
        result = self.handler.async_result()
        self._call(request, result)
        return result

    def end(self, deadline_s: float) -> None:
        """Close the session and free everything; a server that does not answer is given ``deadline_s``."""
        self.stopping.set()
        cut = threading.Timer(deadline_s, self.connection.cut)
        cut.daemon = True
        cut.start()
        try:
            self.stop()
        finally:
            cut.cancel()
            self.close()


LOST: Final[str] = KazooState.LOST
SUSPENDED: Final[str] = KazooState.SUSPENDED


def _plain(error: Exception) -> str:
    text = str(error).removeprefix("socket connection error: ")
    return text[:1].lower() + text[1:] if text else type(error).__name__


def server_name(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
