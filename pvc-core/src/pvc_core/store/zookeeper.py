"""The state tree in ZooKeeper 3.6 or later, through kazoo."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    InvalidACLError,
    KazooException,
    MarshallingError,
    NoAuthError,
    NoNodeError,
    SessionClosedRequireSaslError,
    UnimplementedError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.serialization import GetACL, GetChildren, GetData, SetACL
from kazoo.security import OPEN_ACL_UNSAFE, make_acl

from pvc_core.model.errors import InvalidRequest
from pvc_core.store.api import (
    Node,
    Operation,
    SessionState,
    StateCallback,
    StoreRefused,
    StoreUnavailable,
    TransactionFailed,
    WatchCallback,
)
from pvc_core.store.limits import at_or_below, check_path, check_transaction
from pvc_core.store.zookeeper_client import LOST, SUSPENDED, Client
from pvc_core.store.zookeeper_wire import (
    BESIDE_FAILURE,
    FAILURES,
    NO_AUTH,
    NO_NODE,
    AddWatch,
    Multi,
    MultiRead,
    requests_for,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

READ_BATCH: Final = 500
"""Reads in one request: few round trips, and no request keeps a server busy for long."""
CLOSE_DEADLINE_S: Final = 2.0
"""Time that a server has to confirm the end of a session."""


class Login(NamedTuple):
    """A SASL DIGEST-MD5 login.  Nodes that it creates are closed to everybody else."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


class ZooKeeperStore:
    """One session with ZooKeeper: a ``Store``.

    It connects in the background from its creation on, for ever, and gets a new session by itself
    when the old one is lost.  A read that finds no connection, or loses it, is repeated for up to
    ``patience_s``.  A transaction waits so long for a connection, but is sent once only: when its
    answer does not come, StoreUnavailable is raised and whether it was applied is unknown.

    Callbacks run one after another on one thread of the store; they must not call ``close``.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        session_timeout_s: float,
        auth: Login | None = None,
        tls: ssl.SSLContext | None = None,
        patience_s: float | None = None,
    ) -> None:
        """``hosts`` are ``address:port``; ``patience_s`` is ``session_timeout_s`` unless given."""
        self._hosts = tuple(hosts)
        self._asked_timeout_s = session_timeout_s
        self._patience_s = session_timeout_s if patience_s is None else patience_s
        self._login = auth
        self._acl = [make_acl("sasl", auth.username, all=True)] if auth else OPEN_ACL_UNSAFE
        self._change = threading.Condition()
        self._state = SessionState.SUSPENDED
        self._watches: list[tuple[str, WatchCallback]] = []
        self._state_callbacks: list[StateCallback] = []
        self._multi_read = True
        self._had_session = False
        sasl = None
        if auth is not None:
            sasl = {"mechanism": "DIGEST-MD5", "username": auth.username, "password": auth.password}
        self._client = Client(
            ",".join(hosts),
            session_timeout_s,
            sasl_options=sasl,
            tls=tls,
            on_ready=self._ready,
            on_state=self._kazoo_state,
            on_change=self._changed,
            on_refusal=self._tell_waiting,
        )
        self._client.start_async()

    def wait_connected(self, timeout_s: float) -> None:
        """Wait for the first connection; raise StoreRefused at once when the login is refused, or StoreUnavailable."""
        with self._change:
            self._change.wait_for(self._settled, timeout_s)
        self._demand_connection()

    @property
    def state(self) -> SessionState:
        """The session's state now; SUSPENDED before the first connection."""
        return self._state

    @property
    def session_timeout_s(self) -> float:
        """The session time-out that the servers granted, in seconds; they bound it by their tick time."""
        return self._client.connection.session_timeout_s

    @property
    def server(self) -> str:
        """The server connected to now, or last."""
        return self._client.connection.server

    def last_heard(self) -> float:
        """Return when the last request that was answered had been sent, on ``time.monotonic``.

        The servers keep the session at least its time-out longer than this, but for a server that is cut off from
        the others: it answers pings until it notices.  Before the first connection: when this object was made.
        """
        return self._client.connection.last_heard

    def get(self, path: str) -> Node | None:
        """Return the node, or None."""
        check_path(path)
        return self._repeat(partial(self._get, path))

    def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        """Return many nodes in the order asked for: one request for each 500 of them, all sent at once."""
        for path in paths:
            check_path(path)
        return self._repeat(partial(self._read_many, paths, self._get_pipelined))

    def children(self, path: str) -> list[str]:
        """Return the names of the children, sorted."""
        check_path(path)
        return self.children_many([path])[0]

    def children_many(self, paths: Sequence[str]) -> list[list[str]]:
        """Return the children of many nodes in the order asked for, in as few requests as ``get_many``."""
        for path in paths:
            check_path(path)
        found = self._repeat(partial(self._read_many, paths, self._children_pipelined, children=True))
        return [sorted(names or ()) for names in found]

    def commit(self, *operations: Operation) -> None:
        """Carry out all operations, or none and raise TransactionFailed; not repeated when unanswered."""
        check_transaction(operations)
        if not operations:
            return
        requests: list[Any] = []
        owners: list[Operation] = []
        for operation in operations:
            for request in requests_for(operation, self._acl):
                requests.append(request)
                owners.append(operation)
        self._wait_ready(time.monotonic() + self._patience_s)
        try:
            codes = self._ask(Multi(requests))
        except KazooException as error:
            raise self._explain(error) from error
        for owner, code in zip(owners, codes, strict=True):
            if code in FAILURES:
                raise TransactionFailed(owner, FAILURES[code])
            if code not in BESIDE_FAILURE:
                raise self._refusal(owner.path, code)
        if any(codes):
            raise StoreUnavailable(f"ZooKeeper undid a transaction without a reason: codes {codes}")

    def watch(self, prefix: str, callback: WatchCallback) -> None:
        """Report every later change at or below ``prefix``; returns when the watch is set, if there is a connection."""
        check_path(prefix)
        with self._change:
            self._watches.append((prefix, callback))
            ready = self._state is SessionState.CONNECTED
        if ready:
            try:
                self._ask(AddWatch(prefix))
            except (KazooException, StoreUnavailable) as error:
                # The next connection sets all watches, and tells them that something may have been missed.
                log.info("store-watch-delayed prefix=%s error=%r", prefix, error)

    def watch_state(self, callback: StateCallback) -> None:
        """Report every later change of the session's state."""
        with self._change:
            self._state_callbacks.append(callback)

    def protect(self, prefix: str) -> int:
        """Close every node at or below ``prefix`` to all but this login; return how many were open before.

        For a tree that was made before logins were switched on.  Raises InvalidRequest without a login.
        """
        if self._login is None:
            raise InvalidRequest("this client has no login that the tree could be closed for: configure one first")
        changed, todo = 0, [check_path(prefix)]
        while todo:
            path = todo.pop()
            try:
                acl, _ = self._repeat(partial(self._ask, GetACL(path)))
                if acl != self._acl:
                    self._repeat(partial(self._ask, SetACL(path, self._acl, -1)))
                    changed += 1
            except NoNodeError:
                continue
            todo += [f"{path.rstrip('/')}/{child}" for child in self.children(path)]
        return changed

    def close(self) -> None:
        """End the session; its ephemeral nodes vanish at once if a server answers, else with its time-out."""
        with self._change:
            if self._state is SessionState.CLOSED:
                return
            self._state = SessionState.CLOSED
            self._change.notify_all()
            callbacks = list(self._state_callbacks)
        self._client.end(CLOSE_DEADLINE_S)
        for callback in callbacks:
            callback(SessionState.CLOSED)

    # Requests.

    def _get(self, path: str) -> Node | None:
        return _node(self._answer_or_none(self._send(GetData(path, None))))

    def _read_many(
        self, paths: Sequence[str], pipelined: Callable[[Sequence[str]], list[Any]], *, children: bool = False
    ) -> list[Any]:
        if not self._multi_read:
            return pipelined(paths)
        batches = [paths[start : start + READ_BATCH] for start in range(0, len(paths), READ_BATCH)]
        results = [self._send(MultiRead(batch, children)) for batch in batches]
        found: list[Any] = []
        try:
            for batch, result in zip(batches, results, strict=True):
                for path, answer in zip(batch, self._answer(result), strict=True):
                    if not isinstance(answer, int):
                        found.append(answer)
                    elif answer == NO_NODE:
                        found.append(None)
                    else:
                        raise self._refusal(path, answer)
        except (UnimplementedError, MarshallingError) as error:
            log.warning("store-multi-read-refused server=%s error=%r", self.server, error)
            self._multi_read = False
            return pipelined(paths)
        return found

    def _get_pipelined(self, paths: Sequence[str]) -> list[Node | None]:
        results = [self._send(GetData(path, None)) for path in paths]
        return [_node(answer) for answer in map(self._answer_or_none, results)]

    def _children_pipelined(self, paths: Sequence[str]) -> list[list[str] | None]:
        return [self._answer_or_none(result) for result in [self._send(GetChildren(path, None)) for path in paths]]

    def _answer_or_none(self, result: Any) -> Any:
        try:
            return self._answer(result)
        except NoNodeError:
            return None

    def _send(self, request: Any) -> Any:
        self._demand_connection()
        return self._client.send(request)

    def _answer(self, result: Any) -> Any:
        try:
            # The connection is dropped well before, which ends every wait; this is for what nobody foresaw.
            return result.get(timeout=2 * self.session_timeout_s)
        except KazooTimeoutError:
            raise self._unavailable() from None

    def _ask(self, request: Any) -> Any:
        return self._answer(self._send(request))

    def _repeat(self, read: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_s
        while True:
            self._wait_ready(deadline)
            try:
                return read()
            except NoNodeError:
                raise
            except StoreRefused:
                raise
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
            except KazooException as error:
                explained = self._explain(error)
                final = isinstance(explained, StoreRefused | InvalidRequest)
                if final or time.monotonic() > deadline:
                    raise explained from error

    # Connection.

    def _settled(self) -> bool:
        return self._state in (SessionState.CONNECTED, SessionState.CLOSED) or bool(self._client.refused)

    def _wait_ready(self, deadline: float) -> None:
        if self._state is not SessionState.CONNECTED:
            with self._change:
                self._change.wait_for(self._settled, max(0.0, deadline - time.monotonic()))
            self._demand_connection()

    def _demand_connection(self) -> None:
        if self._state is SessionState.CONNECTED:
            return
        if self._client.refused:
            raise StoreRefused(f"{self._client.refused}; check cluster.zookeeper.auth and its password file")
        raise self._unavailable()

    def _tell_waiting(self) -> None:
        with self._change:
            self._change.notify_all()

    def _ready(self) -> None:
        """On the connection's thread: it is logged in.  Watches live with a connection, so all are set again."""
        granted = self.session_timeout_s
        if abs(granted - self._asked_timeout_s) > 0.01:
            log.warning("store-session-timeout-bounded asked_s=%g granted_s=%g", self._asked_timeout_s, granted)
        with self._change:
            if self._state is SessionState.CLOSED:
                return
            self._enter(SessionState.CONNECTED)
            callbacks: dict[str, list[WatchCallback]] = {}
            for prefix, callback in self._watches:
                callbacks.setdefault(prefix, []).append(callback)
        for prefix, listeners in callbacks.items():
            self._client.send(AddWatch(prefix)).rawlink(partial(self._armed, prefix, listeners))

    def _armed(self, prefix: str, listeners: list[WatchCallback], result: Any) -> None:
        if not result.successful():
            log.info("store-watch-delayed prefix=%s error=%r", prefix, result.exception)
            return
        for callback in listeners:
            self._call_later(callback, None)

    def _kazoo_state(self, state: str) -> None:
        with self._change:
            if state == SUSPENDED and self._state is SessionState.CONNECTED:
                self._enter(SessionState.SUSPENDED)
            elif (
                state == LOST and self._state in (SessionState.CONNECTED, SessionState.SUSPENDED) and self._had_session
            ):
                self._enter(SessionState.LOST)

    def _enter(self, state: SessionState) -> None:
        level = logging.INFO if state is SessionState.CONNECTED else logging.WARNING
        log.log(level, "store-session state=%s server=%s", state.value, self.server)
        self._state = state
        self._had_session = self._had_session or state is SessionState.CONNECTED
        self._change.notify_all()
        for callback in self._state_callbacks:
            self._call_later(callback, state)

    def _changed(self, path: str) -> None:
        for prefix, callback in self._watches:
            if at_or_below(path, prefix):
                self._call_later(callback, path)

    def _call_later(self, callback: Callable[[Any], None], argument: object) -> None:
        self._client.handler.callback_queue.put(partial(callback, argument))

    # Errors.

    def _explain(self, error: KazooException) -> StoreUnavailable | InvalidRequest:
        match error:
            case NoAuthError() | AuthFailedError() | InvalidACLError() | SessionClosedRequireSaslError():
                return self._refused()
            case BadArgumentsError():
                return InvalidRequest(f"ZooKeeper does not take the request: {error!r}")
        lost = f"the connection to {self.server} was lost before the answer came ({type(error).__name__})"
        return StoreUnavailable(f"the state store did not answer: {lost}; if this was a change, it may have been made")

    def _refused(self) -> StoreRefused:
        found = f"as {self._login.username!r}" if self._login else "without a login"
        return StoreRefused(
            f"the state store refused this client, which came {found}: the state tree is closed to it; "
            "check cluster.zookeeper.auth, and that the servers have SASL switched on"
        )

    def _refusal(self, path: str, code: int) -> StoreUnavailable:
        if code == NO_AUTH:
            return self._refused()
        return StoreUnavailable(f"ZooKeeper answered error {code} for {path}")

    def _unavailable(self) -> StoreUnavailable:
        if self._state is SessionState.CLOSED:
            return StoreUnavailable("this session with the state store was closed")
        problems = dict(self._client.connection.problems)
        tried = [f"{host} ({problems.pop(host, 'not tried yet')})" for host in self._hosts]
        tried += [f"{host} ({problem})" for host, problem in problems.items()]
        return StoreUnavailable(
            f"the state store does not answer; tried {', '.join(tried)}; check that ZooKeeper runs on the coordinators "
            "and that this machine reaches them"
        )


def _node(answer: Any) -> Node | None:
    if answer is None:
        return None
    value, stat = answer
    return Node(value or b"", stat.version, stat.ephemeralOwner != 0)
