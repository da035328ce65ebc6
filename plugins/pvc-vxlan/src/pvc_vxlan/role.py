"""The gateways as a service of the primary: where the role is, they are."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pvc_core.plugin import RoleService


class GatewayRole(RoleService):
    """Says whether this node has the gateways; each network's own is made and removed in that network's turn.

    ``acquire`` returns at once: ``begin`` has every network looked at.  ``relinquish`` returns when ``end`` has removed all
    gateways; it then goes through all turns, so that one whose making had begun before is removed too.
    """

    name = "network-gateways"
    order = 100

    def __init__(self, *, begin: Callable[[], None], end: Callable[[], None], end_one: Callable[[str], None]) -> None:
        self._begin = begin
        self._end = end
        self._end_one = end_one
        self._held = False
        self._lock = threading.Lock()
        self._networks: dict[str, threading.Lock] = {}

    def acquire(self, term: int) -> None:
        """Have the gateways here; ``term`` is not needed, as the store refuses what a node writes that is not alive."""
        del term
        self._held = True
        self._begin()

    def relinquish(self) -> None:
        """Have no gateways here."""
        self._held = False
        self._end()
        with self._lock:
            networks = list(self._networks)
        for network_id in networks:
            with self.turn(network_id):
                self._end_one(network_id)

    @property
    def held(self) -> bool:
        """Whether the gateways are to be here."""
        return self._held

    @contextmanager
    def turn(self, network_id: str) -> Iterator[bool]:
        """Wait for the turn to work on a network's gateway; gives whether it is to be here."""
        with self._lock:
            lock = self._networks.setdefault(network_id, threading.Lock())
        with lock:
            yield self._held
