"""This node's lease: an ephemeral document whose existence means that the node's session is alive.

Taking it is one transaction: the generation document rises by one (compare-and-set) and the lease is
created.  So two daemons of one name can never both hold it, and every generation belongs to exactly one
daemon and one session of it.

A lease that is already there is one of three:

* this process made it in a transaction whose answer was lost, or in a session that is over: replaced at once;
* a daemon that ran before us on this host made it, and is certainly dead (``predecessor`` has the words such
  daemons left in their run directory, whose lock we hold now): replaced at once, so that a restart is not taken
  for a failure;
* anything else: it must vanish first, which a dead daemon's does within the lease time.

A lease is of a machine, too.  Another machine of the same name gets none before the one that had the last is proven dead
as a whole, or was emptied and stopped in good order: it would take over the claims of guests that may still run there,
and clean up in the name of a node that is not clean.
"""

import logging
import threading
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.errors import PvcError, Unavailable
from pvc_core.model.node import Lease, LeaseGeneration
from pvc_core.node.clock import Clock
from pvc_core.store import documents, keys
from pvc_core.store.api import Check, Operation, SessionState, Store

log = logging.getLogger(__name__)

_SAFE: Final = 0.7
"""Part of the lease time, counted from the last answered request, in which the lease is taken to stand: the servers count
from when they heard from us, which is before that answer came; the rest is for noticing it and giving up the primary role.
A server that is cut off from the others may answer for longer, so nothing rests on this alone: writes carry ``guard``, the
watchdog is fed on what ``confirm`` found."""


class LeaseLost(Unavailable):
    """This node holds no lease now, so it may not decide anything."""


class LeaseBusy(PvcError):
    """Another daemon, or one that died just now, has the lease of this node's name."""


class OtherMachine(LeaseBusy):
    """Another machine had the last lease of this node's name, and may still run its guests."""


class _Held(NamedTuple):
    generation: int
    version: int
    """Version of the generation document: no later lease has the same."""
    confirmed: float
    """When the newest transaction that found this lease in its place was sent, on the monotonic clock."""
    down_s: float = 0.0
    """What is declared of the watchdog, as in ``LeaseGeneration``."""


class NodeLease:
    """The lease of this node.  May be used from any thread."""

    def __init__(
        self,
        store: Store,
        node: str,
        clock: Clock,
        lease_s: float,
        *,
        holder: str,
        predecessor: str = "",
        machine: str = "",
    ) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._safe_s = lease_s * _SAFE
        self._lease_s = lease_s
        self._own = frozenset({holder, *predecessor.split()})
        self._holder = holder
        self._machine = machine
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """One at a time changes the generation document; held while the store is asked."""
        self._held: _Held | None = None
        self._losses = 0
        self._released = False
        store.watch_state(self._on_state)

    def limit(self, lease_s: float) -> None:
        """Take note that the servers grant sessions a shorter time than was asked for."""
        self._safe_s = min(self._safe_s, lease_s * _SAFE)

    def generation(self) -> int | None:
        """Return the generation of the lease held now, or None while none is held for certain."""
        held = self._held
        if held is None or self._store.state is not SessionState.CONNECTED or not self._fresh():
            return None
        return held.generation

    def connected(self) -> bool:
        """Return whether the store can be asked now without waiting for a connection."""
        return self._store.state is SessionState.CONNECTED

    def alive(self) -> bool:
        """Return whether the lease stands as far as we know, even if the store cannot be reached at this moment."""
        return self._held is not None and self._fresh()

    @property
    def safe_s(self) -> float:
        """Seconds for which the lease is relied on without any word from the servers."""
        return self._safe_s

    def confirmed(self) -> float | None:
        """Return when the lease last was confirmed: when the transaction that found it was sent; None without a lease."""
        held = self._held
        return None if held is None else held.confirmed

    def declared(self) -> float | None:
        """Return what is declared of the watchdog for this lease, in seconds; None without a lease."""
        held = self._held
        return None if held is None else held.down_s

    def guard(self) -> tuple[Operation, ...]:
        """Return the checks that make a transaction fail unless this very lease still stands; raises LeaseLost."""
        held = self._need()
        return self._stands(), Check(keys.generation(self._node).path, held.version)

    def confirm(self) -> None:
        """Have a majority of the servers confirm that this lease stands.

        Raises LeaseLost, StoreUnavailable, and TransactionFailed when it does not stand, or was declared anew meanwhile.
        """
        asked = self._clock.monotonic()
        held = self._need()
        self._store.commit(*self.guard())
        with self._lock:
            # A declaration of another thread may have confirmed it later than this.
            if self._held is not None and self._held.version == held.version:
                self._held = self._held._replace(confirmed=max(asked, self._held.confirmed))

    def declare(self, down_s: float) -> None:
        """Declare for this lease by when the watchdog has reset the node, as in ``LeaseGeneration``; 0: it has none.

        Raises LeaseLost, StoreUnavailable and TransactionFailed.  The lease is then given up for a new one, with
        nothing declared, as it is unknown what is written.
        """
        with self._writing:
            self._declare(down_s)

    def _declare(self, down_s: float) -> None:
        asked = self._clock.monotonic()
        held = self._need()
        last = documents.read(self._store, keys.generation(self._node))
        try:
            if last is None or last.version != held.version:
                raise LeaseLost(f"somebody else has changed the lease of node {self._node}")
            self._store.commit(self._stands(), last.put(replace(last.value, watchdog_down_s=down_s)))
        except BaseException:
            self._drop(held)
            raise
        with self._lock:
            if self._held is None or self._held.version != held.version:
                raise LeaseLost(f"the session of node {self._node} was lost while it declared its watchdog")
            self._held = _Held(held.generation, held.version + 1, asked, down_s)
        log.info("watchdog-declared node=%s generation=%d down_s=%.1f", self._node, held.generation, down_s)

    def ensure(self) -> int:
        """Take the lease unless it is held, looking at the store in any case; return its generation.

        Raises LeaseBusy while another has it, OtherMachine, StoreUnavailable, LeaseLost when the session was lost
        meanwhile or the lease was released, and TransactionFailed when another taker was faster.
        """
        with self._writing:
            return self._ensure()

    def release(self) -> bool:
        """Give the lease up on purpose: others must not take its end for a failure.

        Returns whether that is on record; it is not when the lease was lost before.  From the call on no new lease
        is taken.  Raises StoreUnavailable and TransactionFailed; may be repeated then.
        """
        self._released = True
        with self._writing:
            return self._release()

    def _ensure(self) -> int:
        if self._released:
            raise LeaseLost(f"node {self._node} has given up its lease: its daemon is stopping")
        held, losses, asked = self._held, self._losses, self._clock.monotonic()
        lease = documents.read(self._store, keys.lease(self._node))
        last = documents.read(self._store, keys.generation(self._node))
        if held is not None and lease is not None and last is not None and losses == self._losses:
            stands = lease.value.holder == self._holder and lease.value.generation == held.generation
            if stands and last.version == held.version:
                return held.generation
        operations: list[Operation] = []
        if lease is not None:
            if lease.value.holder not in self._own:
                raise LeaseBusy(
                    f"the lease of node {self._node} is held by another daemon (generation {lease.value.generation}); "
                    f"if that one is dead, it vanishes within {self._lease_s:g} s; if it does not, "
                    "two hosts have this node name: give one of them another in pvcnoded.yml"
                )
            operations.append(lease.delete())
        if last is None:
            taken = _Held(1, 0, asked)
            operations.append(documents.create(keys.generation(self._node), self._document(taken)))
        else:
            if self._machine and last.value.machine not in ("", self._machine):
                operations += self._grounds(last.value)
            taken = _Held(last.value.generation + 1, last.version + 1, asked)
            operations.append(last.put(self._document(taken)))
        new = Lease(node=self._node, generation=taken.generation, holder=self._holder)
        operations.append(documents.create(keys.lease(self._node), new, ephemeral=True))
        self._store.commit(*operations)
        with self._lock:
            if losses != self._losses:
                raise LeaseLost(f"the session of node {self._node} was lost while it took its lease: repeat")
            self._held = taken
        log.info("lease-taken node=%s generation=%d", self._node, taken.generation)
        return taken.generation

    def _release(self) -> bool:
        held = self._held
        if held is None:
            return False
        lease = documents.read(self._store, keys.lease(self._node))
        last = documents.read(self._store, keys.generation(self._node))
        released = replace(self._document(held), released=True)
        # The answer to an earlier try may have been lost.
        done = lease is None and last is not None and last.version == held.version + 1 and last.value == released
        if not done:
            if lease is None or last is None or last.version != held.version:
                self._drop(held)
                return False
            self._store.commit(last.put(released), lease.delete())
        self._drop(held)
        log.info("lease-released node=%s generation=%d", self._node, held.generation)
        return True

    def _document(self, lease: _Held) -> LeaseGeneration:
        return LeaseGeneration(node=self._node, generation=lease.generation, machine=self._machine)

    def _grounds(self, last: LeaseGeneration) -> list[Operation]:
        """Return the checks of why another machine's name may be taken over; raises OtherMachine."""
        fence = documents.read(self._store, keys.fence(self._node))
        if fence is not None and fence.value.lease == last.generation and fence.value.whole_node() is not None:
            return [Check(fence.key.path, fence.version)]
        if last.released and not self._claims():
            return []
        why = "this one gets the name when that one is proven dead, so that no guest runs twice"
        if last.released:
            why = "that one was stopped while VMs were on it: start and flush it"
        raise OtherMachine(
            f"node {self._node} was another machine until now (lease {last.generation}); {why}; if it is off for good, say so "
            f"with 'pvc fence confirm {self._node}'; if two machines have this node name, give one of them another in "
            "pvcnoded.yml"
        )

    def _claims(self) -> bool:
        """Return whether some VM may run on a node of this name."""
        claims = documents.read_all(self._store, [keys.claim(vm) for vm in self._store.children(keys.CLAIM)])
        return any(entry.value.may_execute_on(self._node) for entry in claims)

    def _need(self) -> _Held:
        held = self._held
        if held is None:
            raise LeaseLost(f"node {self._node} has no lease now: it waits for the state store")
        return held

    def _stands(self) -> Check:
        return Check(keys.lease(self._node).path)

    def _drop(self, held: _Held) -> None:
        """Rely on this lease no longer."""
        with self._lock:
            if self._held is not None and self._held.version == held.version:
                self._held = None

    def _fresh(self) -> bool:
        return self._clock.monotonic() - self._store.last_heard() < self._safe_s

    def _on_state(self, state: SessionState) -> None:
        if state in (SessionState.LOST, SessionState.CLOSED):
            with self._lock:
                self._losses += 1
                self._held = None
