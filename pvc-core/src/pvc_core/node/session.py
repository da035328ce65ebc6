"""Keeps this node's lease: takes it, notices its loss, and takes it again."""

import logging
from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import Conflict
from pvc_core.node.clock import Clock
from pvc_core.node.lease import LeaseBusy, LeaseLost, NodeLease, OtherMachine
from pvc_core.store.api import StoreUnavailable

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5
_LOOK: Final = 0.1
"""The lease is looked at this often, in parts of its time: its end by silence comes without any event."""


class Session:
    """Reconciler of the key ``("session", "")``: woken by changes of the session and of the lease.

    ``taken(generation)`` runs in the caller's thread each time a new lease was taken, again until it
    succeeds; ``lost()`` once when the lease can no longer be relied on.
    """

    def __init__(
        self,
        lease: NodeLease,
        clock: Clock,
        lease_s: float,
        *,
        taken: Callable[[int], None],
        lost: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._clock = clock
        self._lease_s = lease_s
        self._taken = taken
        self._lost = lost
        self._generation: int | None = None
        self._verify = True
        self._busy_since: float | None = None
        self._retry_s = _RETRY_S
        self._looked = clock.monotonic()

    def verify(self) -> None:
        """Look at the store at the next call, even if the lease seems to stand."""
        self._verify = True

    def entered(self) -> bool:
        """Return whether all that has to be done first under the lease that is held now has been done."""
        generation = self._lease.generation()
        return generation is not None and generation == self._generation

    def looked(self) -> float:
        """Return when the lease was last looked at, on the monotonic clock: the daemon's sign of life."""
        return self._looked

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one session)
        """Take or check the lease; returns the seconds until it must be looked at again."""
        self._looked = self._clock.monotonic()
        if self._generation is not None and not self._lease.alive():
            self._generation = None
            log.warning("lease-lost action=stop-deciding guests=keep-running")
            self._lost()
        generation = self._lease.generation()
        if not self._lease.connected():
            # The connection's return is an event; asking now would only wait, and hide the lease's end meanwhile.
            return self._lease_s * _LOOK
        if generation is None or self._verify:
            generation = self._ensure()
            if generation is None:
                return self._retry_s
        if generation != self._generation:
            if self._generation is not None:
                self._lost()
            self._taken(generation)
            self._generation = generation
        return self._lease_s * _LOOK

    def _ensure(self) -> int | None:
        self._verify, self._retry_s = False, _RETRY_S
        try:
            generation = self._lease.ensure()
        except LeaseBusy as error:
            self._verify = True
            if isinstance(error, OtherMachine):
                # That takes a person, or a fencing; and to look costs more.
                self._retry_s = self._lease_s / 2
            now = self._clock.monotonic()
            if self._busy_since is None:
                self._busy_since = now
                log.warning("lease-busy error=%s", error)
            elif now - self._busy_since > 2 * self._lease_s:
                self._busy_since = now
                log.error("lease-busy error=%s", error)
            return None
        except (StoreUnavailable, LeaseLost, Conflict) as error:
            self._verify = True
            log.debug("lease-not-taken error=%s", error)
            return None
        self._busy_since = None
        return generation
