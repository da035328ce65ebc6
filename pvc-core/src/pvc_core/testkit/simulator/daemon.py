"""One life of a node's daemon: it ends with ``kill``, and the next one knows nothing of it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from pvc_core.hypervisor.api import Hypervisor
from pvc_core.model.errors import PvcError
from pvc_core.node.agent import Agent, Identity
from pvc_core.node.assemble import assemble
from pvc_core.node.context import Reconciler
from pvc_core.node.fence_calls import FenceCalls
from pvc_core.node.fence_health import KIND as HEALTH
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.watchdog import Watchdog
from pvc_core.node.workqueue import WorkKey
from pvc_core.ops.context import Ops
from pvc_core.store.memory import MemoryStore
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.simulator.fibres import Fibre, FibreLock
from pvc_core.testkit.simulator.fragile import FragileHypervisor
from pvc_core.testkit.simulator.interruption import DaemonDied, Interruptible, Stop
from pvc_core.testkit.simulator.watchdog import make_watchdog
from pvc_core.testkit.simulator.workqueue import SimQueue

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.cluster import Cluster
    from pvc_core.testkit.simulator.node import SimNode

_LOCK_FREE: Final = frozenset({"vm", "node", "duties", "fence-call", "task"})
"""Kinds of work that hold no lock of the daemon at their effects, so that others may go on while one of them waits."""


class SimDaemon(Interruptible):
    """The daemon's own code, on this node's store session, hypervisor, drivers and clock."""

    def __init__(
        self,
        cluster: "Cluster",
        node: "SimNode",
        store: MemoryStore,
        hypervisor: Hypervisor,
        make_drivers: Callable[["SimDaemon"], DirectDrivers],
    ) -> None:
        super().__init__()
        self._cluster = cluster
        self.node = node
        self.store = store
        self.alive = True
        self._held: list[Fibre] = []
        """What waits until it is not stopped any more."""
        clock, starts = node.clock, node.starts
        self.drivers = make_drivers(self)
        self.queue = SimQueue(clock, lambda *what: cluster.due(self, *what))
        self.agent = Agent(
            Identity(
                name=node.name,
                role="coordinator" if node.coordinator else "hypervisor",
                address=node.address,
                holder=f"{node.name}-{starts}",
                # The words in the run directory, which does not survive a reboot.
                predecessor=" ".join(f"{node.name}-{before}" for before in range(node.first_start, starts)),
            ),
            store=store,
            hypervisor=FragileHypervisor(hypervisor, self.effect),
            drivers=self.drivers,
            clock=clock,
            timing=cluster.timing,
            queue=self.queue,
        )
        self.watchdog = make_watchdog(self, node.watchdog) if node.watchdog is not None else None
        self.parts = assemble(
            self.agent,
            ops=Ops(store, wall=clock.wall, monotonic=clock.monotonic, new_id=cluster.new_id),
            host=node,
            coordinators=tuple(other.name for other in cluster.nodes.values() if other.coordinator),
            reconcilers=self._reconcilers,
            fence_calls=FenceCalls(self.drivers, clock, lock=lambda: FibreLock(cluster.fibres, self._go_on_soon)),
            spawn=self.spawn,
            call=lambda _, function, __: function(),
        )

    def _reconcilers(self, own: NodeReconciler) -> Mapping[str, Reconciler]:
        return self._cluster.reconcilers(self, own)

    def begin(self) -> None:
        """Begin to work."""
        self.agent.start()
        if self.watchdog is not None:
            self._tick(self.watchdog)

    def _tick(self, watchdog: Watchdog) -> None:
        if self.alive:
            if not self.node.frozen:
                self.act("watchdog", watchdog.tick)
            pause = watchdog.feed_interval_s * self._cluster.rng.uniform(0.8, 1.0)
            self._cluster.later(pause, "", lambda: self._tick(watchdog))

    def stop(self) -> None:
        """Give up role and lease in good order; what fails is for others to find out."""
        released: list[bool] = []
        self.parts.state.daemon = "stopping"
        steps: list[Callable[[], object]] = [
            self.parts.election.stop,
            self.parts.publisher.publish,
            lambda: released.append(self.agent.lease.release()),
        ]
        if self.watchdog is not None:
            watchdog = self.watchdog
            steps.append(lambda: watchdog.stop(released=released == [True]))
        steps.append(self.store.close)
        for step in steps:
            try:
                step()
            except PvcError as error:
                self._cluster.note(f"{self.node.name}: a step of its stop failed: {error}")

    # --- work ---------------------------------------------------------------------------------------

    def step(self, key: WorkKey) -> None:
        """Look at one object."""
        self.act(key[0], lambda: self.agent.step(key))

    def act(self, kind: str, function: Callable[[], None]) -> None:
        """Do something in one of its threads; it may die of it, or be stopped in the middle."""
        stoppable = self.may_stop() or (kind == "duties" and bool(self._cluster.on_change))
        self._guarded((lambda: self._start(kind, function)) if stoppable else function)

    def spawn(self, name: str, function: Callable[[], None]) -> None:
        """Run something that blocks in a thread of its own."""

        def begin() -> None:
            if self.node.frozen and self.alive:
                self._cluster.later(0.5, "", begin)
            elif self.alive:
                if not name.startswith(HEALTH):
                    self._cluster.note(f"{self.node.name}: {name} begins")
                kind = "task" if name.startswith("task") else "fence-call"
                self._guarded(lambda: self._start(kind, function))

        self._cluster.later(self._cluster.rng.uniform(0.0, 0.05), "", begin)

    def _start(self, kind: str, function: Callable[[], None]) -> None:
        self._cluster.fibres.start(function, kind)

    def _guarded(self, function: Callable[[], None]) -> None:
        trace = self._cluster.trace
        trace.actor = self.node.name
        try:
            function()
        except DaemonDied as death:
            if self.alive:
                self._cluster.note(f"daemon dies in mid-action: {death}")
                self._cluster.daemon_gone(self.node, self._cluster.rng.uniform(0.5, 20.0))
        finally:
            trace.actor = ""

    @property
    def on_request(self) -> bool:
        """What is being done was asked for by an operator."""
        fibre = self._cluster.fibres.current
        return fibre is not None and fibre.label == "task"

    # --- waiting ------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Let virtual time pass for the calling thread; it does not return if the daemon is dead by then."""
        fibre = self._cluster.fibres.current
        assert fibre is not None, "a worker of the daemon waits for a device"
        self._cluster.later(seconds, "", partial(self.go_on, fibre))
        self._cluster.fibres.wait()

    def go_on(self, fibre: Fibre) -> None:
        """Let a thread that waits go on; when the daemon is stopped, as soon as it is not."""
        if not self.alive:
            self._guarded(lambda: self._cluster.fibres.resume(fibre, DaemonDied(self.node.name)))
        elif self.node.frozen:
            self._held.append(fibre)
        else:
            self._guarded(lambda: self._cluster.fibres.resume(fibre))

    def send(self, delay_s: float, effect: Callable[[], None]) -> None:
        """Have something happen elsewhere; if the daemon dies meanwhile, perhaps it had been asked for, perhaps not."""

        def arrive() -> None:
            if self.alive or self._cluster.rng.random() < 0.5:
                effect()

        self._cluster.later(delay_s, "", arrive)

    def thaw(self) -> None:
        """Go on after it was stopped; what was interrupted does so at once, or after others."""
        self.queue.move(self.node.clock.monotonic())
        held, self._held = self._held, []
        for fibre in held:
            if fibre.label in _LOCK_FREE and self._cluster.rng.random() < 0.5:
                self._cluster.later(self._cluster.rng.uniform(0.0, 2.0), "", partial(self.go_on, fibre))
            elif self._cluster.fibres.current is None:
                self.go_on(fibre)
            else:
                self._go_on_soon(fibre)

    def _go_on_soon(self, fibre: Fibre) -> None:
        self._cluster.later(0.0, "", partial(self.go_on, fibre))

    # --- dying and being stopped ----------------------------------------------------------------------

    def effect(self, where: str) -> None:
        """Mark an effect of this daemon: here it may die, or be stopped."""
        if not self.alive or self._death_at(where):
            raise DaemonDied(f"{self.node.name}: {where}")
        fibre = self._cluster.fibres.current
        if fibre is None:
            return
        # One thread alone stands still only where the others do not wait for a lock that it holds.
        stop = self._stop_at(where, whole_only=fibre.label not in _LOCK_FREE)
        if stop is not None:
            self._stand_still(fibre, stop, where)

    def _stand_still(self, fibre: Fibre, stop: Stop, where: str) -> None:
        self._cluster.note(f"{self.node.name}: is stopped in its work on {fibre.label}, {where}")
        if stop.whole is not None:
            stop.whole()
            self._held.append(fibre)
        else:
            self._cluster.later(stop.seconds, f"{self.node.name}: goes on", partial(self.go_on, fibre))
        stop.also()
        self._cluster.fibres.wait()

    def kill(self) -> None:
        """End the process at once."""
        self.alive = False
        self.store.crash()
        for fibre in self._held:
            self._go_on_soon(fibre)
        self._held.clear()
