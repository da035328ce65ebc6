"""What a state store must do.

The tree is ZooKeeper's: nodes have a value, a version that each write raises by one, and children.
Two implementations pass the same contract suite: ``zookeeper`` and ``memory``.  All methods may be
called from any thread.  A call that gets no answer raises ``StoreUnavailable``: whether a write was
applied is then unknown, so the caller reads again before it decides anything.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from pvc_core.model.errors import Conflict, Unavailable

ANY: Final = -1
"""Version that every node has: no compare-and-set."""


class Node(NamedTuple):
    """A node as read."""

    value: bytes
    version: int
    ephemeral: bool = False


class Create(NamedTuple):
    """Create a node.  Fails ``EXISTS`` when it is there, ``NO_NODE`` when its parent is not."""

    path: str
    value: bytes
    ephemeral: bool = False


class Put(NamedTuple):
    """Replace a node's value.  Fails ``NO_NODE`` or ``BAD_VERSION``."""

    path: str
    value: bytes
    version: int


class Delete(NamedTuple):
    """Delete a node.  Fails ``NO_NODE``, ``BAD_VERSION`` or ``NOT_EMPTY``."""

    path: str
    version: int = ANY


class Check(NamedTuple):
    """Demand that a node exists, with this version.  Fails ``NO_NODE`` or ``BAD_VERSION``."""

    path: str
    version: int = ANY


class CheckAbsent(NamedTuple):
    """Demand that a node does not exist (its parent must).  Fails ``EXISTS``."""

    path: str


Operation = Create | Put | Delete | Check | CheckAbsent


class Failure(enum.StrEnum):
    """Why an operation of a transaction failed."""

    EXISTS = "exists"
    NO_NODE = "no node"
    BAD_VERSION = "bad version"
    NOT_EMPTY = "not empty"
    EPHEMERAL_PARENT = "its parent is ephemeral"


class TransactionFailed(Conflict):
    """A transaction was refused whole; ``operation`` is the first that failed, ``failure`` says how."""

    def __init__(self, operation: Operation, failure: Failure) -> None:
        super().__init__(f"{type(operation).__name__.lower()} {operation.path}: {failure.value}")
        self.operation = operation
        self.failure = failure


class StoreUnavailable(Unavailable):
    """The store did not answer, or the session is over."""


class StoreRefused(StoreUnavailable):
    """The store answers but refuses this client: its login failed, or the tree is closed to it."""


class SessionState(enum.StrEnum):
    """What is known of the session."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    """No connection now: reads and writes fail, ephemeral nodes may or may not still be there."""
    LOST = "lost"
    """The session is over: its ephemeral nodes are gone.  A new session follows by itself."""
    CLOSED = "closed"


WatchCallback = Callable[[str | None], None]
"""Gets the path of a node that was created, changed or deleted, or None for "something may have been missed: read
everything again".  Runs on the store's thread: it must put the path on a queue and return."""

StateCallback = Callable[[SessionState], None]
"""Gets each new session state.  Runs on the store's thread."""


class Store(Protocol):
    """One session with the state tree."""

    def get(self, path: str) -> Node | None:
        """Return the node, or None when there is none."""

    def get_many(self, paths: Sequence[str]) -> list[Node | None]:
        """Return many nodes in the order asked for, in a fixed small number of round trips.

        Not a snapshot: nodes of one answer may be of different moments.
        """

    def children(self, path: str) -> list[str]:
        """Return the names of the children, sorted; an absent node has none."""

    def children_many(self, paths: Sequence[str]) -> list[list[str]]:
        """Return the children of many nodes, as ``children`` and ``get_many`` do."""

    def commit(self, *operations: Operation) -> None:
        """Carry out all operations, or none and raise TransactionFailed."""

    def watch(self, prefix: str, callback: WatchCallback) -> None:
        """Report every later change at or below ``prefix``, for the life of this object.

        After a reconnection or a new session the callback gets None once.
        """

    def watch_state(self, callback: StateCallback) -> None:
        """Report every later change of the session's state."""

    @property
    def state(self) -> SessionState:
        """The session's state now."""

    def last_heard(self) -> float:
        """Return when the store last answered, on the monotonic clock in seconds.

        A node that must stop by itself counts from here: the loss of a session is only told after
        the link is back.
        """

    def close(self) -> None:
        """End the session: its ephemeral nodes vanish at once.  May be called twice."""
