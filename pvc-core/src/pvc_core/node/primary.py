"""The primary role: one coordinator has it, and keeps it until it is gone or asked for by an operator.

Invariant: the document ``primary`` names at most one holder, and each new holder raises its term.  It is only
replaced by compare-and-set, by its holder, or by a coordinator that proves inside the same transaction that it
has its own lease and that the holder's is gone (or the role is vacant).  So at most one node believes for
good that it is primary; a holder that was cut off relinquishes its services when its own lease may be over,
on its own clock, which is before others can take the role.

Moving the role on request (``wanted``): the holder relinquishes its services, then writes the role vacant with
``wanted`` kept; the wanted coordinator takes it.  Others leave it the time of a lease, then take the role
themselves, so that a wanted node that died meanwhile leaves no gap for long.
"""

import logging
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from pvc_core.model.errors import PvcError
from pvc_core.model.node import Primary
from pvc_core.node.context import NodeContext
from pvc_core.node.lease import NodeLease
from pvc_core.node.services import RoleServices
from pvc_core.plan.backoff import least
from pvc_core.store import documents, keys
from pvc_core.store.api import Check, CheckAbsent, Operation, StoreUnavailable
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

ANY_OTHER: Final = "*"

_DUTY_RETRY_S: Final = 15.0
_SOON_S: Final = 0.01


class Election:
    """Reconciler of the key ``("primary", "")``.

    ``coordinators`` are the names of all coordinators.  ``relinquish_all`` ends the services at once, also
    without the store.
    """

    def __init__(
        self, context: NodeContext, lease: NodeLease, services: RoleServices, coordinators: tuple[str, ...]
    ) -> None:
        self._context = context
        self._lease = lease
        self._services = services
        self._coordinators = coordinators
        self._serving: int | None = None
        """Term in which this node runs the services; None: it runs none."""
        self._version: int | None = None
        self._vacant_since: float | None = None
        self._told: tuple[str | None, int] | None = None
        self._stopping = False

    def guard(self) -> tuple[Operation, ...] | None:
        """Return the checks that make a transaction fail unless this node still is the primary; None: it is not."""
        if self._serving is None or self._version is None or self._lease.generation() is None:
            return None
        return Check(keys.PRIMARY.path, self._version), *self._lease.guard()

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one role)
        """Do the next thing about the role; returns the seconds until it must be looked at again."""
        if self._serving is not None and not self._lease.alive():
            self._give_up_services("this node's lease may be over")
        generation = self._lease.generation()
        if generation is None or self._stopping:
            return self._services.relinquish_owed(elsewhere=False)
        store = self._context.store
        entry = documents.read(store, keys.PRIMARY)
        if entry is None:
            store.commit(documents.create(keys.PRIMARY, Primary()), *self._lease.guard())
            return 0.0
        self._tell(entry.value)
        if self._context.role != "coordinator":
            return None
        return self._decide(entry, generation)

    def stop(self) -> None:
        """Give the role up on purpose: services first, then the document.  Raises StoreUnavailable."""
        self._stopping = True
        if self._serving is not None:
            self._give_up_services("the daemon is stopping")
        if self._lease.generation() is None:
            return
        entry = documents.read(self._context.store, keys.PRIMARY)
        if entry is not None and entry.value.node == self._context.name:
            self._context.store.commit(self._vacated(entry), *self._lease.guard())

    def _decide(self, entry: Entry[Primary], generation: int) -> float | None:
        primary, me = entry.value, self._context.name
        if primary.node == me and primary.lease == generation:
            self._vacant_since = None
            return self._hold(entry)
        if self._serving is not None:
            self._give_up_services(f"the role is with {primary.node or 'nobody'} now")
        if primary.node == me:
            # Ours under an older lease: nobody took it meanwhile, so go on under this one.
            return self._take(entry, generation)
        if primary.node is None:
            return self._fill_vacancy(entry, generation)
        lease = documents.read(self._context.store, keys.lease(primary.node))
        if lease is None:
            return self._fill_vacancy(entry, generation, CheckAbsent(keys.lease(primary.node).path))
        if lease.value.generation != primary.lease:
            return self._outwait(entry, generation)
        self._vacant_since = None
        return self._services.relinquish_owed(elsewhere=True)

    def _hold(self, entry: Entry[Primary]) -> float | None:
        primary, me = entry.value, self._context.name
        self._version = entry.version
        if primary.wanted in (None, me):
            if self._serving != primary.term:
                log.info("primary-acquiring term=%d services=%s", primary.term, ",".join(self._services.names()))
            self._serving = primary.term
            again = self._services.acquire(primary.term, self._lease.alive)
            if not self._lease.alive():
                return 0.0
            if primary.stage != "active" or primary.wanted is not None:
                self._write(entry, stage="active", wanted=None)
                log.info("primary-active term=%d", primary.term)
                self._context.wake("duties", "", 0.0)
            return again
        target = self._successor(primary.wanted)
        if target is None:
            log.warning("primary-move-refused wanted=%s reason=not-alive", primary.wanted)
            self._write(entry, wanted=None)
            return 0.0
        if primary.stage != "relinquishing" or primary.wanted != target:
            self._write(entry, stage="relinquishing", wanted=target)
            return 0.0
        self._give_up_services(f"the role moves to {target}")
        self._context.store.commit(self._vacated(entry), *self._lease.guard())
        return 0.0

    def _fill_vacancy(self, entry: Entry[Primary], generation: int, *proof: Operation) -> float | None:
        wanted = entry.value.wanted
        if wanted in (None, ANY_OTHER, self._context.name) or not self._alive(str(wanted)):
            return self._take(entry, generation, *proof)
        return self._outwait(entry, generation, *proof)

    def _outwait(self, entry: Entry[Primary], generation: int, *proof: Operation) -> float | None:
        """Leave the one whose turn it is the time of a lease, then take the role."""
        now, patience = self._context.clock.monotonic(), self._context.timing.lease
        if self._vacant_since is None:
            self._vacant_since = now
        left = self._vacant_since + patience - now
        if left > 0:
            return left
        log.warning("primary-overdue node=%s wanted=%s", entry.value.node, entry.value.wanted)
        return self._take(entry, generation, *proof)

    def _take(self, entry: Entry[Primary], generation: int, *proof: Operation) -> float | None:
        me, old = self._context.name, entry.value
        new = Primary(node=me, lease=generation, term=old.term + 1, stage="acquiring")
        self._context.store.commit(entry.put(new), *proof, *self._lease.guard())
        self._vacant_since = None
        log.info("primary-taken node=%s term=%d from=%s", me, new.term, old.node or "nobody")
        return 0.0

    def _vacated(self, entry: Entry[Primary]) -> Operation:
        return entry.put(replace(entry.value, node=None, lease=0, stage="vacant"))

    def _write(self, entry: Entry[Primary], **changes: object) -> None:
        self._context.store.commit(entry.put(replace(entry.value, **changes)), *self._lease.guard())
        self._version = entry.version + 1

    def _successor(self, wanted: str | None) -> str | None:
        others = [name for name in self._coordinators if name != self._context.name]
        if wanted != ANY_OTHER:
            others = [name for name in others if name == wanted]
        return next((name for name in others if self._alive(name)), None)

    def _alive(self, node: str) -> bool:
        return self._context.store.get(keys.lease(node).path) is not None

    def _give_up_services(self, why: str) -> None:
        log.info("primary-relinquishing term=%s reason=%s", self._serving, why)
        self._serving = None
        self._version = None
        self._services.relinquish()

    def _tell(self, primary: Primary) -> None:
        holder = (primary.node, primary.term)
        if self._told != holder:
            self._told = holder
            self._context.drivers.notify("primary_changed", node=primary.node, term=primary.term)


Duty = Callable[[tuple[Operation, ...]], float | None]
"""Something the primary does for the whole cluster.

Gets the checks to put into every transaction of it, so that a deposed primary's late writes fail.  Returns the
seconds after which it wants to be called again, or None; it is called again anyway at each resync and
whenever a lease comes or goes.
"""


class Duties:
    """Reconciler of the key ``("duties", "")``: runs the cluster-wide duties while this node is primary."""

    def __init__(
        self, election: Election, duties: list[tuple[str, Duty]], *, look: Callable[[], object] = lambda: None
    ) -> None:
        """``look`` is called each time, also while another node is primary: to see when leases go."""
        self._election = election
        self._duties = duties
        self._look = look

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one list)
        """Do each duty once; one that fails is told and does not keep the others."""
        self._look()
        pauses: list[float | None] = []
        for name, duty in self._duties:
            guard = self._election.guard()
            if guard is None:
                return None
            try:
                pause = duty(guard)
            except StoreUnavailable:
                raise
            except PvcError as error:
                log.warning("duty-failed duty=%s error=%s", name, error)
                pause = _DUTY_RETRY_S
            except Exception:
                # A defect in one duty must not cost the cluster the others.
                log.exception("duty-defect duty=%s", name)
                pause = _DUTY_RETRY_S
            pauses.append(pause)
        pause = least(*pauses)
        # What is left of a time may be too little to move a clock by.
        return None if pause is None else max(pause, _SOON_S)
