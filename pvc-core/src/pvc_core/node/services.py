"""The services that only the primary runs: acquired in ascending order, relinquished in reverse."""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from pvc_core.node.bounded import BoundedCall, call_with_deadline
from pvc_core.node.clock import Clock
from pvc_core.node.state import NodeState
from pvc_core.plan.backoff import backoff
from pvc_core.plugin.specs.lifecycle import RoleService

log = logging.getLogger(__name__)

DEADLINE_S: Final = 30.0
"""For each acquire and each relinquish."""

_RETRY_FIRST_S: Final = 1.0
_RETRY_MAX_S: Final = 60.0


class RoleServices:
    """All role services of this node.  Used by one thread at a time: the one that looks at the primary role.

    A service that cannot be acquired is a condition of the node and tried again with growing pauses; the
    later ones are acquired all the same.  One that cannot be relinquished is tried again too, as long as this node is not
    the primary: else what only one node may have (an address) would be on two.
    """

    def __init__(
        self,
        services: Iterable[RoleService],
        state: NodeState,
        clock: Clock,
        *,
        call: BoundedCall = call_with_deadline,
    ) -> None:
        self._services = sorted(services, key=lambda service: (service.order, service.name))
        self._state = state
        self._clock = clock
        self._call = call
        self._running: dict[str, RoleService] = {}
        self._term = 0
        self._held: int | None = None
        """The term in which services are to run now; read by threads of acquires that take too long."""
        self._failures: dict[str, tuple[int, float]] = {}
        self._owed: dict[str, tuple[int, float]] = {}
        """Services that could not be relinquished: how often, and when to try again."""
        self._begun = False
        """What an earlier daemon of this node has left running is not this one's any more."""

    def names(self) -> list[str]:
        """Return the names of all services, in the order they are acquired."""
        return [service.name for service in self._services]

    def acquire(self, term: int, still_ours: Callable[[], bool]) -> float | None:
        """Acquire what does not run yet in this term; return the seconds after which to try failed ones again.

        Stops between two services when ``still_ours`` says that the role is gone.
        """
        self._begun, self._held = True, term
        if term != self._term:
            self._term = term
            self._running.clear()
            self._failures.clear()
            self._owed.clear()
        for service in self._services:
            if service.name in self._running or not self._due(service):
                continue
            if not still_ours():
                return None
            self._acquire(service)
        return self._next(self._failures)

    def relinquish(self) -> None:
        """End all services, the last acquired first; one that fails is told and does not keep the others."""
        self._held = None
        for service in reversed(self._services):
            if service.name in self._running or service.name in self._failures:
                self._relinquish(service)
        self._running.clear()
        self._failures.clear()

    def relinquish_owed(self, *, elsewhere: bool) -> float | None:
        """Relinquish what could not be before, as far as it is due; return the seconds until it is to be tried again.

        ``elsewhere``: another node is the primary for certain, so that what a daemon before this one may have left is
        relinquished as well, once.
        """
        if elsewhere and not self._begun:
            self._begun = True
            self._owed = {service.name: (0, 0.0) for service in self._services}
        for service in reversed(self._services):
            if service.name in self._owed and self._owed[service.name][1] <= self._clock.monotonic():
                self._relinquish(service)
        return self._next(self._owed)

    def _relinquish(self, service: RoleService) -> None:
        try:
            self._call(f"relinquish {service.name}", service.relinquish, DEADLINE_S)
        except Exception as error:
            # The others must be given up all the same: the next primary is about to run them.
            pause = self._put_off(self._owed, service)
            log.warning("role-service-relinquish-failed service=%s retry_s=%.0f error=%s", service.name, pause, error)
            self._tell(service, ok=False, reason="RelinquishFailed", message=str(error))
        else:
            self._owed.pop(service.name, None)
            log.info("role-service-relinquished service=%s", service.name)
            self._state.clear_condition(_condition(service))

    def _due(self, service: RoleService) -> bool:
        failed = self._failures.get(service.name)
        return failed is None or self._clock.monotonic() >= failed[1]

    def _acquire(self, service: RoleService) -> None:
        term = self._term

        def begin() -> None:
            service.acquire(term)
            if self._held != term:
                # It took so long that the role is gone.
                service.relinquish()

        try:
            self._call(f"acquire {service.name}", begin, DEADLINE_S)
        except Exception as error:
            # One service that fails must not keep the later ones from running.
            pause = self._put_off(self._failures, service)
            log.warning("role-service-failed service=%s retry_s=%.0f error=%s", service.name, pause, error)
            self._tell(service, ok=False, reason="AcquireFailed", message=str(error))
        else:
            self._failures.pop(service.name, None)
            self._running[service.name] = service
            log.info("role-service-acquired service=%s term=%d", service.name, term)
            self._tell(service, ok=True)

    def _put_off(self, failed: dict[str, tuple[int, float]], service: RoleService) -> float:
        """Note one more failure, and when to try again; return the seconds until then."""
        count = failed.get(service.name, (0, 0.0))[0] + 1
        pause = backoff(count, _RETRY_FIRST_S, _RETRY_MAX_S)
        failed[service.name] = (count, self._clock.monotonic() + pause)
        return pause

    def _next(self, failed: dict[str, tuple[int, float]]) -> float | None:
        """Return the seconds until the first of these is to be tried again."""
        pauses = [due - self._clock.monotonic() for _, due in failed.values()]
        return max(min(pauses), 0.0) if pauses else None

    def _tell(self, service: RoleService, *, ok: bool, reason: str = "", message: str = "") -> None:
        text = f"service {service.name} of the primary: {message}" if message else ""
        self._state.set_condition(_condition(service), ok=ok, reason=reason, message=text)


def _condition(service: RoleService) -> str:
    return f"RoleService/{service.name}"
