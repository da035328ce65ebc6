"""What every part of the node daemon works with, and what a reconciler is."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.api import Hypervisor
from pvc_core.node.clock import Clock
from pvc_core.runtime.api import Drivers
from pvc_core.store.api import Operation, Store


class LeaseView(Protocol):
    """This node's lease, as the reconcilers see it."""

    def generation(self) -> int | None:
        """Return the generation of the lease held now, or None while none is held for certain."""

    def guard(self) -> tuple[Operation, ...]:
        """Return the checks that make a transaction fail unless this very lease still stands.

        Raises LeaseLost when none is held.
        """


class NodeContext(NamedTuple):
    """One node's daemon.  Immutable; the parts have their own state."""

    name: str
    role: str
    address: str
    store: Store
    hypervisor: Hypervisor
    drivers: Drivers
    lease: LeaseView
    clock: Clock
    timing: Timing
    wake: Callable[[str, str, float], None]
    """``wake(kind, id, delay_s)``: put a key on the work queue."""
    console_directory: str = "/var/log/pvc/console"

    def catch_up(self) -> None:
        """Let everything that is read after this be at least as new as this call.

        A server that was cut off from the others goes on answering reads for some seconds; a transaction needs the
        majority, and the server that brings its result has seen all that came before.  Raises LeaseLost,
        StoreUnavailable, Conflict when this node has another lease by now.
        """
        self.store.commit(*self.lease.guard())


class Reconciler(Protocol):
    """Brings one kind of object to what its spec wants, one action per call.

    Level-triggered and idempotent: it reads everything it needs itself, so a lost, merged or repeated
    call is harmless, and so is the death of the daemon between any two actions.
    """

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing for this object.

        Returns the seconds after which it wants to be called again without any event (0: at once), or
        None.  Raises PvcError when the action failed; the queue then retries with back-off.
        """
