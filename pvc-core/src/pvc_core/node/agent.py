"""The daemon's core: events become keys, keys are given to reconcilers.

Nothing here starts a thread.  ``pvc_core.node.daemon`` drives an agent with worker threads; the simulator
drives it step by step: ``start()``, then ``step(key)`` for keys of ``queue.ready(now)``, in any order.
"""

import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.api import Hypervisor, HypervisorUnavailable
from pvc_core.model.errors import Conflict, PvcError
from pvc_core.node.clock import Clock
from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.interest import Interest
from pvc_core.node.lease import LeaseLost, NodeLease
from pvc_core.node.session import Session
from pvc_core.node.workqueue import WorkKey, WorkQueue
from pvc_core.runtime.api import Drivers
from pvc_core.store import keys
from pvc_core.store.api import SessionState, Store, StoreUnavailable

log = logging.getLogger(__name__)

WATCHED: Final = (
    keys.SPEC,
    f"{keys.REF}/network",
    keys.CLAIM,
    keys.TASK,
    keys.LEASE,
    keys.FENCE,
    keys.PRIMARY.path,
    keys.CLUSTER.path,
)

_WITHOUT_LEASE: Final = frozenset({"session", "primary"})
"""Kinds that are looked at also while this node has no lease: they notice that and act on it."""

_UNCLEAN: Final = frozenset({"duties", "fence-health"})
"""Kinds that need a lease, but not that what comes first under it is done: the cluster's business, not this node's."""

_FULL_SCAN_EVERY: Final = 10
"""Every so many resyncs all specs are read: a safety net under the watches."""

_SMALL: Final = 1000
"""Objects that every node may read at the same moment, when all of them reconnect at once."""

_CONFLICT_PAUSE_S: Final = 0.05
"""First pause after somebody else changed a document between our read and our write."""


class Identity(NamedTuple):
    """Who this node is."""

    name: str
    role: str
    address: str
    holder: str
    """Random word of this process, in its lease."""
    predecessor: str = ""
    """The words of daemons of this node that are certainly dead, with spaces between them."""
    console_directory: str = "/var/log/pvc/console"
    machine: str = ""
    """Word of the machine, by which another one with the same name is told apart; empty: it is not."""


class Agent:
    """One node's daemon without threads."""

    def __init__(
        self,
        identity: Identity,
        *,
        store: Store,
        hypervisor: Hypervisor,
        drivers: Drivers,
        clock: Clock,
        timing: Timing,
        queue: WorkQueue | None = None,
        resource_kinds: tuple[str, ...] = (),
    ) -> None:
        self.queue = queue or WorkQueue(clock)
        self.lease = NodeLease(
            store,
            identity.name,
            clock,
            timing.lease,
            holder=identity.holder,
            predecessor=identity.predecessor,
            machine=identity.machine,
        )
        self.context = NodeContext(
            name=identity.name,
            role=identity.role,
            address=identity.address,
            store=store,
            hypervisor=hypervisor,
            drivers=drivers,
            lease=self.lease,
            clock=clock,
            timing=timing,
            wake=self.queue.add,
            console_directory=identity.console_directory,
        )
        self.interest = Interest(store, identity.name, hypervisor, resource_kinds)
        self.session = Session(self.lease, clock, timing.lease, taken=self._taken, lost=self._lost)
        self._reconcilers: dict[str, Reconciler] = {"session": self.session, "resync": _Resync(self)}
        self._on_taken: list[Callable[[int], None]] = []
        self._full_scan_at = 0.0
        self._entered = False
        """All that comes first under a lease was done at least once."""
        self._dropped = False
        """Keys were dropped for want of a lease: everything is looked at again when there is one."""

    def register(self, reconcilers: Mapping[str, Reconciler]) -> None:
        """Say who takes care of which kind of key; before ``start``."""
        self._reconcilers.update(reconcilers)

    def on_lease(self, call: Callable[[int], None]) -> None:
        """Have something done each time a lease was taken, before any other work; repeated until it succeeds."""
        self._on_taken.append(call)

    def start(self) -> None:
        """Begin to listen, and put the first key on the queue: the lease, from which all else follows."""
        self.context.store.watch_state(self._on_state)
        for prefix in WATCHED:
            self.context.store.watch(prefix, self.on_change)
        self.context.hypervisor.watch(self._on_domain)
        self.queue.add("session", "")

    def step(self, key: WorkKey) -> None:
        """Look at one object now, unless it is in work already."""
        if self.queue.take(key):
            self.work(key)

    def work(self, key: WorkKey) -> None:
        """Look at one object whose key was taken, and give the key back.  Never raises an Exception."""
        try:
            delay = self._dispatch(key)
        except StoreUnavailable as error:
            log.debug("store-unavailable kind=%s id=%s error=%s", *key, error)
            self.queue.failed(key)
        except Conflict as error:
            log.debug("conflict kind=%s id=%s error=%s", *key, error)
            self.queue.failed(key, first_s=_CONFLICT_PAUSE_S)
        except LeaseLost as error:
            log.info("work-dropped kind=%s id=%s error=%s", *key, error)
            self._dropped = True
            self.queue.done(key)
        except HypervisorUnavailable as error:
            # Told once by the connection and as a condition of the node; here it would be told for every guest.
            log.debug("hypervisor-unavailable kind=%s id=%s error=%s", *key, error)
            self.queue.failed(key)
        except PvcError as error:
            pause = self.queue.failed(key)
            failures = self.queue.failures(key)
            log.warning(
                "reconcile-failed kind=%s id=%s failures=%d retry_s=%.1f error=%s", *key, failures, pause, error
            )
        except Exception:
            # A defect in one reconciler must not end the thread that serves all objects of its kind.
            pause = self.queue.failed(key)
            log.exception("reconcile-defect kind=%s id=%s retry_s=%.1f", *key, pause)
        else:
            self.queue.done(key, delay)

    def on_change(self, path: str | None) -> None:
        """Take note of a change in the store.  Runs on the store's thread: only puts keys on the queue."""
        if path is None:
            self._scan_fully_after_disturbance()
            self.session.verify()
            self.queue.add("session", "")
            self.queue.add("resync", "")
            return
        parsed = keys.parse(path)
        if parsed is None:
            return
        kind, id_ = parsed
        own = id_ == self.context.name
        if kind == "node":
            self.queue.add("fence-health", "")
        if kind == "lease":
            if own:
                self.session.verify()
                self.queue.add("session", "")
            self.queue.add("primary", "")
            self.queue.add("duties", "")
        elif kind == "node" and not own:
            self.queue.add("duties", "")
        elif kind == "fence":
            self.queue.add("duties", "")
            if own:
                # Whether it may run VMs hangs on it.
                self.queue.add("resync", "")
        elif kind == "cluster":
            self.queue.add("node", self.context.name)
            self.queue.add("duties", "")
        elif kind == "task" and self.interest.is_foreign_task(id_):
            return
        else:
            self.queue.add(kind, id_)

    def resync(self) -> float:
        """Put everything this node has to look at on the queue; return the seconds until the next time."""
        now, interval = self.context.clock.monotonic(), self.context.timing.resync
        full = now >= self._full_scan_at
        found = self.interest.scan(full=full)
        if full:
            self._full_scan_at = now + interval * _FULL_SCAN_EVERY
        for kind, id_ in found:
            self.queue.add(kind, id_, routine=True)
        # The network without an id: what is left in the kernel of networks that are gone.
        alone = ("primary", "duties", "recovery", "network", "fence-health")
        for kind, id_ in (("node", self.context.name), *((kind, "") for kind in alone)):
            if kind in self._reconcilers:
                self.queue.add(kind, id_)
        return max(min(interval, self._full_scan_at - now), 0.0)

    def _scan_fully_after_disturbance(self) -> None:
        """Have everything read again; on a large cluster each node at another moment of the resync interval.

        When a ZooKeeper server ends, all its clients reconnect at once.  Own objects, new and vanished ones
        are looked at right away in any case.
        """
        wait = 0.0
        if self.interest.size() > _SMALL:
            wait = zlib.crc32(self.context.name.encode()) % 1000 / 1000 * self.context.timing.resync
        self._full_scan_at = min(self._full_scan_at, self.context.clock.monotonic() + wait)

    def _dispatch(self, key: WorkKey) -> float | None:
        kind, id_ = key
        reconciler = self._reconcilers.get(kind)
        if reconciler is None:
            return None
        if kind not in _WITHOUT_LEASE and not self._may_work(kind):
            self._dropped = True
            return None
        if kind == "vm" and not self.interest.concerns_vm(id_):
            return None
        try:
            delay = reconciler.reconcile(id_)
        except Exception:
            if kind == "vm":
                # What a VM that has left leaves behind here is not cleared up yet.
                self.interest.look_again(id_)
            raise
        if kind == "session" and self._dropped and self.session.entered():
            self._scan_fully_after_disturbance()
            self._look_at_everything()
        return delay

    def _may_work(self, kind: str) -> bool:
        # A report is needed to close storage to this node should it be lost again; the first one only when it is whole.
        early = kind in _UNCLEAN or (kind == "publish" and self._entered)
        return self.lease.generation() is not None if early else self.session.entered()

    def _taken(self, generation: int) -> None:
        for call in self._on_taken:
            call(generation)
        self._entered = True
        self._full_scan_at = 0.0
        # Once the session says that this is done: until then keys are dropped.
        self._dropped = True

    def _look_at_everything(self) -> None:
        self._dropped = False
        for kind in ("resync", "publish", "figures", "health", "upload"):
            if kind in self._reconcilers:
                self.queue.add(kind, "")

    def _lost(self) -> None:
        self.queue.add("primary", "")

    def _on_state(self, state: SessionState) -> None:
        log.info("session state=%s", state.value)
        self.queue.add("session", "")
        if state is not SessionState.CONNECTED:
            self.queue.add("primary", "")

    def _on_domain(self, vm: str) -> None:
        self.interest.look_again(vm)
        self.queue.add("vm", vm)


class _Resync:
    """Reconciler of the key ``("resync", "")``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one)
        return self._agent.resync()
