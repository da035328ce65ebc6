"""The state tree in memory: same rules as ZooKeeper, with faults on demand.

``MemoryTree`` is what the servers hold; each client has a session of its own, a ``MemoryStore``.
Nothing here starts a thread or reads a clock of its own, so the same calls give the same run.

The faults a session can have, and what the ZooKeeper client shows then:

=============== ==================================================================================
``silence``     no answer arrives any more (a link that is dead without a word, a stopped process): calls fail,
                CONNECTED, ``last_heard`` stands still; writes may be carried out all the same
``isolate``     the server is cut off from the others and does not know it yet: it answers reads with what it last
                knew, and pings, but carries out no writes
``suspend``     the link is cut: calls fail, SUSPENDED, ``last_heard`` stands still
``resume``      the link is back: CONNECTED, or LOST and CONNECTED when the session expired meanwhile;
                after ``silence`` alone, what was to be told meanwhile is told now
``expire``      the servers drop the session and its ephemeral nodes; LOST unless the link is cut
``reconnect``   a new session on the same object after LOST
``crash``       the client's process is dead: no call, no callback; its ephemeral nodes wait for ``expire``
=============== ==================================================================================
"""

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from pvc_core.store.api import (
    Node,
    Operation,
    SessionState,
    StateCallback,
    StoreUnavailable,
    TransactionFailed,
    WatchCallback,
)
from pvc_core.store.limits import check_path, check_transaction, parent
from pvc_core.store.memory_records import Records

log = logging.getLogger(__name__)


class MonotonicClock(Protocol):
    """A source of time; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class Moment(enum.StrEnum):
    """When a fault hook is called."""

    READ = "read"
    """Before a read is answered."""
    BEFORE = "before"
    """Before a transaction reaches the tree: an exception here leaves the tree as it was."""
    AFTER = "after"
    """After a transaction was applied, before its caller hears of it."""


FaultHook = Callable[[Moment, "MemoryStore", tuple[Operation, ...]], None]
"""Called without any lock held; what it raises is what the session's caller gets."""


ChangeHook = Callable[[str, list[str]], None]
"""Called at once with the name of the session that changed something (empty: the servers ended one) and the changed
paths in order, while the tree stands still: it may ``peek`` and nothing else."""


class MemoryTree:
    """The shared tree.  Thread-safe.

    With ``hold=False`` callbacks run inside the call that caused them, after it was applied and
    without any lock held; a callback that writes gets its own events after it has returned.  With
    ``hold=True`` they wait for ``deliver()``.
    """

    def __init__(
        self, *, hold: bool = False, fault: FaultHook | None = None, changed: ChangeHook | None = None
    ) -> None:
        self.fault = fault
        self._changed = changed
        self._hold = hold
        self._lock = threading.RLock()
        self._records = Records()
        self._watchers: dict[str, list[tuple[MemoryStore, WatchCallback]]] = {}
        self._known_paths: set[str] = set()
        self._last_session = 0
        self._pending: dict[MemoryStore, deque[tuple[int, Callable[[], None]]]] = {}
        self._queued = 0
        self._delivering = False

    def connect(self, *, name: str = "", clock: MonotonicClock = time, ping_s: float = 0.0) -> "MemoryStore":
        """Return a new client with a session of its own; ``name`` is for the messages of its errors.

        ``ping_s``: a client without requests hears from the servers this often; 0: all the time.
        """
        return MemoryStore(self, name=name, clock=clock, ping_s=ping_s)

    def deliver(self, session: "MemoryStore | None" = None) -> int:
        """Run the callbacks that wait, and those they cause, of all sessions or of one; return how many ran."""
        count = 0
        while (call := self._take(session)) is not None:
            try:
                call()
            except Exception:  # as with ZooKeeper, a callback's mistake concerns neither the writer nor other callbacks
                log.exception("store-callback-failed")
            count += 1
        return count

    def pending(self) -> int:
        """Return how many callbacks wait for ``deliver()``."""
        return sum(len(calls) for calls in self._pending.values())

    def waiting(self) -> list["MemoryStore"]:
        """Return the sessions for which callbacks wait, in the order in which they came to."""
        return list(self._pending)

    def peek(self, path: str) -> Node | None:
        """Return a node as the servers hold it, without any session: for checks."""
        return self._records.get(path)

    def names(self, path: str) -> list[str]:
        """Return the names of a node's children as the servers hold them: for checks."""
        return self._records.children(path)

    def dump(self) -> dict[str, Node]:
        """Return every node but the root, by path, at one instant."""
        with self._lock:
            return self._records.dump()

    # What sessions call.

    def _new_session(self) -> int:
        with self._lock:
            self._last_session += 1
            return self._last_session

    def _check_path(self, path: str) -> None:
        if path not in self._known_paths:
            check_path(path)
            self._known_paths.add(path)

    def _apply(self, operations: tuple[Operation, ...], owner: int, name: str) -> None:
        self._tell(name, self._records.apply(operations, owner))

    def _end_session(self, owner: int, name: str) -> None:
        self._tell(name, self._records.end_session(owner))

    def _watch(self, session: "MemoryStore", prefix: str, callback: WatchCallback) -> None:
        self._watchers.setdefault(prefix, []).append((session, callback))

    def _unwatch(self, session: "MemoryStore") -> None:
        for prefix, watchers in self._watchers.items():
            self._watchers[prefix] = [entry for entry in watchers if entry[0] is not session]

    def _queue(self, session: "MemoryStore", call: Callable[[], None]) -> None:
        self._queued += 1
        self._pending.setdefault(session, deque()).append((self._queued, call))

    def _take(self, session: "MemoryStore | None") -> Callable[[], None] | None:
        with self._lock:
            if session is None and self._pending:
                session = min(self._pending, key=lambda owner: self._pending[owner][0][0])
            if session is None or session not in self._pending:
                return None
            calls = self._pending[session]
            _, call = calls.popleft()
            if not calls:
                del self._pending[session]
            return call

    def _forget_pending(self, session: "MemoryStore") -> list[Callable[[], None]]:
        with self._lock:
            return [call for _, call in self._pending.pop(session, ())]

    def _flush(self) -> None:
        """Deliver at once unless callbacks are held, or are being delivered further up the stack or elsewhere."""
        if self._hold:
            return
        while True:
            with self._lock:
                if self._delivering or not self._pending:
                    return
                self._delivering = True
            try:
                self.deliver()
            finally:
                with self._lock:
                    self._delivering = False

    def _tell(self, name: str, paths: list[str]) -> None:
        if paths and self._changed is not None:
            self._changed(name, paths)
        for path in paths:
            above = path
            while True:
                for session, callback in self._watchers.get(above, ()):
                    session._changed(path, callback)
                if above == "/":
                    break
                above = parent(above)


class MemoryStore:
    """One client's session with a ``MemoryTree``: a ``Store``, plus the faults in the module's table."""

    def __init__(self, tree: MemoryTree, *, name: str, clock: MonotonicClock, ping_s: float) -> None:
        self.name = name
        self.tree = tree
        self._clock = clock
        self._ping_s = ping_s
        self._session = tree._new_session()
        self._expired = False
        self._crashed = False
        self._silent = False
        self._arriving = False
        """While silent: the servers get the requests all the same."""
        self._late: list[Callable[[], None]] = []
        """While silent: callbacks on their way."""
        self._stale: Records | None = None
        """While silent: what reads are answered with all the same."""
        self._state = SessionState.CONNECTED
        self._heard = clock.monotonic()
        self._watches: list[tuple[str, WatchCallback]] = []
        self._state_callbacks: list[StateCallback] = []

    @property
    def session(self) -> int:
        """Number of the session, unique in the tree; a new session has a new one."""
        return self._session

    @property
    def state(self) -> SessionState:
        """The session's state now, as the client knows it."""
        return self._state

    @property
    def expired(self) -> bool:
        """The servers dropped the session, whether the client knows it or not."""
        return self._expired

    @property
    def silent(self) -> bool:
        """The client is CONNECTED as far as it knows, and gets no answers."""
        return self._silent

    def last_heard(self) -> float:
        """Return when the store last answered on this session's clock: while the link is up now, or the last ping."""
        if self._link_up() or self._stale is not None:
            now = self._clock.monotonic()
            if self._ping_s:
                now = self._heard + (now - self._heard) // self._ping_s * self._ping_s
            self._heard = max(self._heard, now)
        return self._heard

    def get(self, path: str) -> Node | None:
        """Return the node, or None."""
        return self.get_many((path,))[0]

    def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        """Return many nodes in the order asked for."""
        for path in paths:
            self.tree._check_path(path)
        records = self._reading()
        with self.tree._lock:
            return [records.get(path) for path in paths]

    def children(self, path: str) -> list[str]:
        """Return the names of the children, sorted."""
        return self.children_many((path,))[0]

    def children_many(self, paths: Sequence[str]) -> list[list[str]]:
        """Return the children of many nodes, in the order asked for."""
        for path in paths:
            self.tree._check_path(path)
        records = self._reading()
        with self.tree._lock:
            return [records.children(path) for path in paths]

    def commit(self, *operations: Operation) -> None:
        """Carry out all operations, or none and raise TransactionFailed."""
        check_transaction(operations)
        self._fault(Moment.BEFORE, operations)
        with self.tree._lock:
            if not self._arriving:
                self._demand_connection()
            try:
                self.tree._apply(operations, self._session, self.name)
            except TransactionFailed:
                self._demand_connection()
                raise
        try:
            self._fault(Moment.AFTER, operations)
            # The answer may never arrive, also because a hook has cut this session off just now.
            self._demand_connection()
        finally:
            self.tree._flush()

    def watch(self, prefix: str, callback: WatchCallback) -> None:
        """Report every later change at or below ``prefix``."""
        self.tree._check_path(prefix)
        with self.tree._lock:
            self._watches.append((prefix, callback))
            self.tree._watch(self, prefix, callback)

    def watch_state(self, callback: StateCallback) -> None:
        """Report every later change of the session's state."""
        with self.tree._lock:
            self._state_callbacks.append(callback)

    def close(self) -> None:
        """End the session; its ephemeral nodes vanish at once, unless the link is cut."""
        with self.tree._lock:
            if self._state is SessionState.CLOSED or self._crashed:
                return
            connected = self._link_up()
            self.last_heard()
            self._no_more_watches()
            self._enter(SessionState.CLOSED)
            if connected:
                self._end(self.name)
        self.tree._flush()

    # Faults.

    def silence(self, *, arriving: bool = False) -> None:
        """Let no answer and no event reach the client; ``arriving``: its requests do reach the servers."""
        with self.tree._lock:
            if self._state is SessionState.CONNECTED and not self._crashed:
                self.last_heard()
                self._late += self.tree._forget_pending(self)
                self._silent, self._arriving, self._stale = True, arriving and not self._expired, None

    def isolate(self) -> None:
        """Let the servers of the majority not hear of the client any more, while the one it is connected to goes on."""
        with self.tree._lock:
            self.silence()
            if self._silent:
                self._stale = self.tree._records.copy()

    def suspend(self) -> None:
        """Cut the link.  Changes from now on are never reported; ``resume`` makes each watch say None instead."""
        with self.tree._lock:
            if self._state is SessionState.CONNECTED and not self._crashed:
                self.last_heard()
                self.tree._forget_pending(self)
                self._no_more_silence()
                self._enter(SessionState.SUSPENDED)
        self.tree._flush()

    def resume(self) -> None:
        """Heal the link.  If the session expired meanwhile, the client learns it now and gets a new one."""
        with self.tree._lock:
            if self._crashed:
                return
            if self._silent and not self._expired:
                self._heard = self._clock.monotonic()
                for call in self._no_more_silence():
                    self.tree._queue(self, call)
            elif self._silent or self._state is SessionState.SUSPENDED:
                if self._silent:
                    self._no_more_silence()
                    self._enter(SessionState.SUSPENDED)
                if self._expired:
                    self._enter(SessionState.LOST)
                    self._renew()
                self._connected()
        self.tree._flush()

    def expire(self) -> None:
        """Have the servers drop the session.  The client hears of it only if its link is up."""
        with self.tree._lock:
            self.last_heard()
            self._arriving = False
            linked = self._link_up()
            self._end("")
            if linked:
                self._enter(SessionState.LOST)
        self.tree._flush()

    def reconnect(self) -> None:
        """Give a client whose session was lost a new one, as the ZooKeeper client does by itself."""
        with self.tree._lock:
            if self._state is SessionState.LOST and not self._crashed:
                self._renew()
                self._connected()
        self.tree._flush()

    def crash(self) -> None:
        """Let the client's process die: no call works and no callback comes any more; ``expire`` comes later."""
        with self.tree._lock:
            self.last_heard()
            self._crashed = True
            self._no_more_silence()
            self._no_more_watches()
            self._state_callbacks.clear()
            self.tree._forget_pending(self)

    # With the tree's lock held.

    def _link_up(self) -> bool:
        return self._state is SessionState.CONNECTED and not self._silent and not self._crashed

    def _changed(self, path: str, callback: WatchCallback) -> None:
        if self._state is SessionState.CONNECTED:
            self._tell(partial(callback, path))

    def _tell(self, call: Callable[[], None]) -> None:
        if self._silent:
            self._late.append(call)
        else:
            self.tree._queue(self, call)

    def _enter(self, state: SessionState) -> None:
        self._state = state
        for callback in self._state_callbacks:
            self._tell(partial(callback, state))

    def _connected(self) -> None:
        self._enter(SessionState.CONNECTED)
        self._heard = self._clock.monotonic()
        for _, callback in self._watches:
            self.tree._queue(self, partial(callback, None))

    def _renew(self) -> None:
        self._session = self.tree._new_session()
        self._expired = False

    def _end(self, by: str) -> None:
        self._expired = True
        self.tree._end_session(self._session, by)

    def _no_more_silence(self) -> list[Callable[[], None]]:
        late, self._late = self._late, []
        self._silent = self._arriving = False
        self._stale = None
        return late

    def _no_more_watches(self) -> None:
        self._watches.clear()
        self.tree._unwatch(self)

    # Without it.

    def _reading(self) -> Records:
        """Return what a read sees."""
        self._fault(Moment.READ, ())
        if self._stale is not None and not self._crashed:
            return self._stale
        self._demand_connection()
        return self.tree._records

    def _fault(self, moment: Moment, operations: tuple[Operation, ...]) -> None:
        if self.tree.fault is not None:
            self.tree.fault(moment, self, operations)

    def _demand_connection(self) -> None:
        if self._crashed:
            raise StoreUnavailable(f"the client {self.name or self._session} of the in-memory store has crashed")
        if self._state is not SessionState.CONNECTED:
            raise StoreUnavailable(
                f"the in-memory store does not answer {self.name or self._session}: the session is {self._state.value}"
            )
        if self._silent:
            raise StoreUnavailable(f"the in-memory store does not answer {self.name or self._session}")
        if self._ping_s:
            self._heard = self._clock.monotonic()
