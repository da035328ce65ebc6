"""The state tree in memory: same rules as ZooKeeper, with faults on demand.

``MemoryTree`` is what the servers hold; each client has a session of its own, a ``MemoryStore``.
Nothing here starts a thread or reads a clock of its own, so the same calls give the same run.

The faults a session can have, and what the ZooKeeper client shows then:

=============== ==================================================================================
``suspend``     the link is cut: calls fail, SUSPENDED, ``last_heard`` stands still
``resume``      the link is back: CONNECTED, or LOST and CONNECTED when the session expired meanwhile
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
    WatchCallback,
)
from pvc_core.store.limits import at_or_below, check_path, check_transaction
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


class MemoryTree:
    """The shared tree.  Thread-safe.

    With ``hold=False`` callbacks run inside the call that caused them, after it was applied and
    without any lock held; a callback that writes gets its own events after it has returned.  With
    ``hold=True`` they wait for ``deliver()``.
    """

    def __init__(self, *, hold: bool = False, fault: FaultHook | None = None) -> None:
        self.fault = fault
        self._hold = hold
        self._lock = threading.RLock()
        self._records = Records()
        self._sessions: list[MemoryStore] = []
        self._last_session = 0
        self._pending: deque[tuple[MemoryStore, Callable[[], None]]] = deque()
        self._delivering = False

    def connect(self, *, name: str = "", clock: MonotonicClock = time) -> "MemoryStore":
        """Return a new client with a session of its own; ``name`` is for the messages of its errors."""
        return MemoryStore(self, name=name, clock=clock)

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
        return len(self._pending)

    def dump(self) -> dict[str, Node]:
        """Return every node but the root, by path, at one instant."""
        with self._lock:
            return self._records.dump()

    # What sessions call.

    def _new_session(self) -> int:
        with self._lock:
            self._last_session += 1
            return self._last_session

    def _get(self, path: str) -> Node | None:
        with self._lock:
            return self._records.get(path)

    def _get_children(self, path: str) -> list[str]:
        with self._lock:
            return self._records.children(path)

    def _apply(self, operations: tuple[Operation, ...], owner: int) -> None:
        with self._lock:
            self._tell(self._records.apply(operations, owner))

    def _end_session(self, owner: int) -> None:
        with self._lock:
            self._tell(self._records.end_session(owner))

    def _queue(self, session: "MemoryStore", call: Callable[[], None]) -> None:
        self._pending.append((session, call))

    def _take(self, session: "MemoryStore | None") -> Callable[[], None] | None:
        with self._lock:
            for index, (owner, call) in enumerate(self._pending):
                if session is None or owner is session:
                    del self._pending[index]
                    return call
        return None

    def _forget_pending(self, session: "MemoryStore") -> None:
        with self._lock:
            kept = [entry for entry in self._pending if entry[0] is not session]
            self._pending.clear()
            self._pending.extend(kept)

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

    def _tell(self, paths: list[str]) -> None:
        for path in paths:
            for session in self._sessions:
                session._changed(path)


class MemoryStore:
    """One client's session with a ``MemoryTree``: a ``Store``, plus the faults in the module's table."""

    def __init__(self, tree: MemoryTree, *, name: str, clock: MonotonicClock) -> None:
        self.name = name
        self.tree = tree
        self._clock = clock
        self._session = tree._new_session()
        self._expired = False
        self._crashed = False
        self._state = SessionState.CONNECTED
        self._heard = clock.monotonic()
        self._watches: list[tuple[str, WatchCallback]] = []
        self._state_callbacks: list[StateCallback] = []
        with tree._lock:
            tree._sessions.append(self)

    @property
    def session(self) -> int:
        """Number of the session, unique in the tree; a new session has a new one."""
        return self._session

    @property
    def state(self) -> SessionState:
        """The session's state now, as the client knows it."""
        return self._state

    def last_heard(self) -> float:
        """Return when the store last answered on this session's clock: now, while the link is up."""
        if self._state is SessionState.CONNECTED and not self._crashed:
            self._heard = self._clock.monotonic()
        return self._heard

    def get(self, path: str) -> Node | None:
        """Return the node, or None."""
        check_path(path)
        self._reading()
        return self.tree._get(path)

    def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        """Return many nodes in the order asked for."""
        for path in paths:
            check_path(path)
        self._reading()
        return [self.tree._get(path) for path in paths]

    def children(self, path: str) -> list[str]:
        """Return the names of the children, sorted."""
        check_path(path)
        self._reading()
        return self.tree._get_children(path)

    def children_many(self, paths: Sequence[str]) -> list[list[str]]:
        """Return the children of many nodes, in the order asked for."""
        for path in paths:
            check_path(path)
        self._reading()
        return [self.tree._get_children(path) for path in paths]

    def commit(self, *operations: Operation) -> None:
        """Carry out all operations, or none and raise TransactionFailed."""
        check_transaction(operations)
        self._fault(Moment.BEFORE, operations)
        with self.tree._lock:
            self._demand_connection()
            self.tree._apply(operations, self._session)
        try:
            self._fault(Moment.AFTER, operations)
            # A hook may have cut this session off: then the answer never arrives.
            self._demand_connection()
        finally:
            self.tree._flush()

    def watch(self, prefix: str, callback: WatchCallback) -> None:
        """Report every later change at or below ``prefix``."""
        check_path(prefix)
        with self.tree._lock:
            self._watches.append((prefix, callback))

    def watch_state(self, callback: StateCallback) -> None:
        """Report every later change of the session's state."""
        with self.tree._lock:
            self._state_callbacks.append(callback)

    def close(self) -> None:
        """End the session; its ephemeral nodes vanish at once, unless the link is cut."""
        with self.tree._lock:
            if self._state is SessionState.CLOSED or self._crashed:
                return
            connected = self._state is SessionState.CONNECTED
            self.last_heard()
            self._watches.clear()
            self._enter(SessionState.CLOSED)
            if connected:
                self._end()
        self.tree._flush()

    # Faults.

    def suspend(self) -> None:
        """Cut the link.  Changes from now on are never reported; ``resume`` makes each watch say None instead."""
        with self.tree._lock:
            if self._state is SessionState.CONNECTED and not self._crashed:
                self.last_heard()
                self.tree._forget_pending(self)
                self._enter(SessionState.SUSPENDED)
        self.tree._flush()

    def resume(self) -> None:
        """Heal the link.  If the session expired meanwhile, the client learns it now and gets a new one."""
        with self.tree._lock:
            if self._state is SessionState.SUSPENDED and not self._crashed:
                if self._expired:
                    self._enter(SessionState.LOST)
                    self._renew()
                self._connected()
        self.tree._flush()

    def expire(self) -> None:
        """Have the servers drop the session.  The client hears of it only if its link is up."""
        with self.tree._lock:
            self.last_heard()
            self._end()
            if self._state is SessionState.CONNECTED and not self._crashed:
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
            self._watches.clear()
            self._state_callbacks.clear()
            self.tree._forget_pending(self)

    # With the tree's lock held.

    def _changed(self, path: str) -> None:
        if self._state is not SessionState.CONNECTED:
            return
        for prefix, callback in self._watches:
            if at_or_below(path, prefix):
                self.tree._queue(self, partial(callback, path))

    def _enter(self, state: SessionState) -> None:
        self._state = state
        for callback in self._state_callbacks:
            self.tree._queue(self, partial(callback, state))

    def _connected(self) -> None:
        self._enter(SessionState.CONNECTED)
        self._heard = self._clock.monotonic()
        for _, callback in self._watches:
            self.tree._queue(self, partial(callback, None))

    def _renew(self) -> None:
        self._session = self.tree._new_session()
        self._expired = False

    def _end(self) -> None:
        self._expired = True
        self.tree._end_session(self._session)
        if self._state is SessionState.CLOSED or self._crashed:
            self.tree._sessions = [session for session in self.tree._sessions if session is not self]

    # Without it.

    def _reading(self) -> None:
        self._fault(Moment.READ, ())
        self._demand_connection()

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
