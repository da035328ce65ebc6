"""The ZooKeeper servers, as far as their clients notice: who can reach whom, and when sessions end.

Invariant: the servers end a session only when they form a majority and have heard nothing of its client for the session
time, counted on their clock; never because a connection was closed.
"""

import enum
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from pvc_core.store.api import SessionState
from pvc_core.store.memory import MemoryStore, MemoryTree

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.node import SimNode

Later = Callable[[float, str, Callable[[], object]], None]

_TICK_S: Final = 2.0
"""Sessions end at the servers' ticks: up to so much later than they might."""
_PINGS: Final = 3
"""A client without requests sends so many pings in a session time."""
_PATIENCE: Final = 2 / 3
"""Part of the session time after which a client drops a connection without answers."""


class Link(enum.StrEnum):
    """Between a node's client and the servers."""

    UP = "up"
    CUT = "cut"
    NO_ANSWERS = "one-way: no answers"
    """Requests reach the servers; nothing comes back."""
    NO_REQUESTS = "one-way: no requests"
    """Nothing reaches the servers."""
    ISOLATED = "isolated server"
    """The server it talks to is cut off from the others, and has not noticed."""


class _Client:
    """A session, as the servers and this model see it."""

    def __init__(self, node: "SimNode", store: MemoryStore) -> None:
        self.node = node
        self.store = store
        self.silent_since: float | None = None
        """True time since when the servers hear nothing; None: they hear it."""
        self.arriving = False
        self.turn = 0
        """Raised with each change: what was planned before it is void."""


class Ensemble:
    """All servers.  One runs on each coordinator; ``look`` must be called after each change of a node."""

    def __init__(
        self, tree: MemoryTree, nodes: Mapping[str, "SimNode"], later: Later, rng: random.Random, session_s: float
    ) -> None:
        self._tree = tree
        self._nodes = nodes
        self._later = later
        self._rng = rng
        self._session_s = session_s
        self._clients: list[_Client] = []
        self._was_majority = True
        self.told: Callable[[str], None] = lambda _: None

    @property
    def ping_s(self) -> float:
        """Seconds between two signs of life of an idle client."""
        return self._session_s / _PINGS

    def majority(self) -> bool:
        """Enough servers see each other."""
        servers = [node for node in self._nodes.values() if node.coordinator]
        return sum(node.serves for node in servers) > len(servers) / 2

    def connect(self, node: "SimNode") -> MemoryStore:
        """Return the session of a daemon that starts."""
        store = self._tree.connect(name=node.name, clock=node.clock, ping_s=self.ping_s)
        if not self.majority() or node.link is not Link.UP:
            store.suspend()
        self._clients.append(_Client(node, store))
        return store

    def look(self) -> None:
        """Take note of what changed about nodes, links and servers."""
        majority = self.majority()
        if majority is not self._was_majority:
            self._was_majority = majority
            self.told("the ZooKeeper servers have a majority again" if majority else "ZooKeeper has lost its majority")
            for client in self._clients:
                if client.silent_since is not None:
                    # A new leader gives every session its full time.
                    self._silent(client, self._now(client))
        for client in list(self._clients):
            self._look(client)

    def expire(self, node: "SimNode") -> bool:
        """Have the servers drop the session of a node that they hear; returns whether there was one."""
        for client in self._clients:
            if client.store is node.store and client.silent_since is None and not client.store.expired:
                client.store.expire()
                self._look(client)
                return True
        return False

    # --- one client ---------------------------------------------------------------------------------

    def _look(self, client: _Client) -> None:
        node, store = client.node, client.store
        alive = node.store is store
        if not alive and store.expired:
            self._clients.remove(client)
            return
        runs = alive and not node.frozen
        reached = self._was_majority and node.link in (Link.UP, Link.NO_ANSWERS)
        answered = self._answered(client)
        if not answered:
            self._part(client, alive=alive, runs=runs, arriving=runs and reached)
        heard = runs and reached and store.state is SessionState.CONNECTED and not store.expired
        if heard:
            client.silent_since = None
        elif client.silent_since is None and not store.expired:
            self._silent(client, self._now(client) if client.arriving else node.clock.when(store.last_heard()))
        client.arriving = heard and not answered
        if answered and (store.silent or store.state in (SessionState.SUSPENDED, SessionState.LOST)):
            wait = (0.0, 0.3) if store.silent else (0.05, 1.0)
            self._plan(client, self._rng.uniform(*wait), self._meet)

    def _answered(self, client: _Client) -> bool:
        node = client.node
        runs = node.store is client.store and not node.frozen
        return runs and self._was_majority and node.link is Link.UP

    def _part(self, client: _Client, *, alive: bool, runs: bool, arriving: bool) -> None:
        """No answers come to the client."""
        store = client.store
        if not alive or store.state is not SessionState.CONNECTED:
            return
        isolated = runs and self._was_majority and client.node.link is Link.ISOLATED
        if isolated and not store.silent:
            store.isolate()
            return
        if not isolated:
            store.silence(arriving=arriving)
        if runs and not isolated:
            left = self._session_s * _PATIENCE - (client.node.clock.monotonic() - store.last_heard())
            if not self._was_majority:
                # Servers that lose the others soon drop their clients.
                left = min(left, self._rng.uniform(0.2, 4.0))
            self._plan(client, max(left, 0.0), self._give_up)

    def _give_up(self, client: _Client) -> None:
        """The client drops its connection, and looks for another."""
        if client.store.silent:
            if client.arriving:
                client.silent_since = None
            client.store.suspend()
            self._look(client)

    def _meet(self, client: _Client) -> None:
        """The client and the servers talk again."""
        if not self._answered(client):
            return
        store = client.store
        if store.state is SessionState.LOST:
            store.reconnect()
        else:
            store.resume()
        self._look(client)

    def _silent(self, client: _Client, since: float) -> None:
        """The servers hear nothing of it from this true time on."""
        client.silent_since = since
        wait = max(0.0, since + self._session_s - self._now(client)) + self._rng.uniform(0.0, _TICK_S)

        def end() -> None:
            if client.silent_since != since or not self._was_majority or client.store.expired:
                return
            client.store.expire()
            self._look(client)

        self._later(wait, "", end)

    def _plan(self, client: _Client, wait: float, call: Callable[[_Client], None]) -> None:
        client.turn += 1
        turn = client.turn

        def act() -> None:
            node = client.node
            if client.turn == turn and node.store is client.store and not node.frozen:
                call(client)

        self._later(wait, "", act)

    @staticmethod
    def _now(client: _Client) -> float:
        return client.node.clock.when(client.node.clock.monotonic())
