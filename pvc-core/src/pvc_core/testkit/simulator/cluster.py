"""A simulated cluster: its nodes, its agenda of things to come, and one step at a time."""

import heapq
import itertools
import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.memory import MemoryWorld, Pace
from pvc_core.node.context import Reconciler
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.node.workqueue import WorkKey
from pvc_core.ops.context import Ops
from pvc_core.store import documents, keys, schema
from pvc_core.store.api import Operation
from pvc_core.store.memory import MemoryStore, MemoryTree, Moment
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeNetwork
from pvc_core.testkit.simulator.clock import NodeClock, VirtualClock
from pvc_core.testkit.simulator.daemon import SimDaemon
from pvc_core.testkit.simulator.ensemble import Ensemble
from pvc_core.testkit.simulator.fence_driver import NAME, SimFence, Site
from pvc_core.testkit.simulator.fibres import Fibres
from pvc_core.testkit.simulator.invariants import Invariants
from pvc_core.testkit.simulator.node import NodeSetup, SimNode
from pvc_core.testkit.simulator.power import BMC, Controller, Power
from pvc_core.testkit.simulator.storage import DRIVER, Closing, SimStorage
from pvc_core.testkit.simulator.trace import Trace
from pvc_core.testkit.simulator.truth import Truth
from pvc_core.testkit.simulator.watchdog import WatchdogTimer

TIMING: Final = Timing(restart_give_up=1_000_000, prepare=20.0, migration=60.0, cold_start=60.0)
"""Of simulated clusters: a guest is never given up, so that at the end all must run; what takes minutes takes less."""


class Cluster:
    """Nodes over one state tree and one world.  Everything random comes from ``rng``."""

    def __init__(
        self, seed: int, nodes: Iterable[NodeSetup], *, timing: Timing = TIMING, verbose: bool = False
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311  (a seeded run, not a secret)
        self.clock = VirtualClock()
        self.timing = timing
        self.trace = Trace(self.clock, verbose=verbose)
        self.fibres = Fibres()
        self.backend = FakeBackend()
        self.nodes: dict[str, SimNode] = {}
        self.controllers: dict[tuple[str, str], Controller] = {}
        self._soon: list[Callable[[], None]] = []
        self._agenda: list[tuple[float, int, str, Callable[[], object]]] = []
        self._due: list[tuple[float, int, SimDaemon, tuple[float, int, WorkKey]]] = []
        self._sequence = 0
        self.world = MemoryWorld(self.clock, Pace(boot_s=1.0, shutdown_s=2.0, migration_s=3.0, keepalive_s=10.0))
        self.closing = Closing(self.world.touch)
        self.truth = Truth(self.clock, self.nodes, self.backend)
        self.tree = MemoryTree(hold=True, fault=self._store_effect, changed=self._changed)
        self.invariants = Invariants(self.tree, self.world, self.truth, self.note)
        self.ensemble = Ensemble(self.tree, self.nodes, self.later, self.rng, timing.lease)
        self.ensemble.told = self.note
        self.on_change: list[Callable[[str, list[str]], None]] = []
        """Called with each change of the tree, at once: who made it, and the paths."""
        self.operator = self.tree.connect(name="operator", clock=self.clock)
        schema.initialise(self.operator)
        self.ops = Ops(self.operator, wall=self.clock.wall, monotonic=self.clock.monotonic, new_id=self.new_id)
        self._site = Site(self.controllers, self.rng, self.truth.fencing, self.truth.switched)
        for setup in nodes:
            self._add(setup)
        for node in self.nodes.values():
            self.start_daemon(node)

    def _add(self, setup: NodeSetup) -> None:
        power = Power(lambda on: self._power_changed(node, on=on))
        address = f"10.0.0.{len(self.nodes) + 1}"
        node = SimNode(setup, address, NodeClock(self.clock, rate=setup.clock_rate), power)
        self.nodes[setup.name] = node
        for device in (device for level in setup.levels for device in level):
            self.controllers[setup.name, device] = Controller(
                power, device, own_power=setup.bmc_own_power or device != BMC
            )
            if device != BMC:
                power.outlets[device] = True
        if setup.watchdog_s:
            node.watchdog = WatchdogTimer(self, node, setup.watchdog_s)
        self.world.host(setup.name, address, memory_mib=setup.memory_mib).close()

    # --- time and steps -------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.note(what)

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the beginning."""
        return self.clock.monotonic() - 1000.0

    def later(self, delay_s: float, what: str, call: Callable[[], object]) -> None:
        """Have something happen after a delay."""
        self._sequence += 1
        heapq.heappush(self._agenda, (self.clock.monotonic() + delay_s, self._sequence, what, call))

    def at_once(self, call: Callable[[], None]) -> None:
        """Have something happen as soon as the transaction in progress is through, before its writer hears of it."""
        self._soon.append(call)

    def step(self) -> None:
        """Let one thing happen that is due, chosen at random; when nothing is, move the clock to the next thing."""
        sessions = self.tree.waiting()
        daemons = [node.daemon for node in self.nodes.values() if node.daemon is not None and not node.frozen]
        choice = len(sessions) + sum(len(daemon.queue.waiting) for daemon in daemons)
        if choice:
            self._choose(sessions, daemons, int(self.rng.random() * choice))
        else:
            self._move_on()
        self.invariants.check()
        if self.trace.defects:
            raise AssertionError(f"a defect of the code: {self.trace.defects[0]}")

    def _choose(self, sessions: list[MemoryStore], daemons: list[SimDaemon], number: int) -> None:
        """Do the thing of this number: a session's callbacks, or a daemon's work on a key."""
        if number < len(sessions):
            self.trace.actor = sessions[number].name
            self.tree.deliver(sessions[number])
            self.trace.actor = ""
            return
        number -= len(sessions)
        for daemon in daemons:
            if number < len(daemon.queue.waiting):
                daemon.step(next(itertools.islice(daemon.queue.waiting, number, None)))
                return
            number -= len(daemon.queue.waiting)

    def run(self, seconds: float, max_steps: int = 400_000) -> int:
        """Step until so much virtual time has passed; return the number of steps."""
        end = self.clock.monotonic() + seconds
        self.later(seconds, "", lambda: None)
        steps = 0
        while self.clock.monotonic() < end:
            self.step()
            steps += 1
            if steps > max_steps:
                ready = {node.name: list(node.daemon.queue.waiting) for node in self.nodes.values() if node.daemon}
                raise AssertionError(f"no end after {max_steps} steps: a livelock; ready are {ready}")
        return steps

    def close(self) -> None:
        """End what still waits."""
        self.fibres.close()

    def _move_on(self) -> None:
        times = [self._agenda[0][0]] if self._agenda else []
        while self._due:
            when, _, daemon, key = self._due[0]
            if daemon.alive and not daemon.node.frozen and daemon.queue.stands(*key):
                times.append(when)
                break
            heapq.heappop(self._due)
        event = self.world.next_event_time()
        if event is not None:
            times.append(event)
        now = min(times)
        self.clock.move_to(now)
        if event is not None and event <= now:
            self.world.advance()
        while self._due and self._due[0][0] <= now:
            _, _, daemon, _ = heapq.heappop(self._due)
            if daemon.alive and not daemon.node.frozen:
                daemon.queue.move(daemon.node.clock.monotonic())
        while self._agenda and self._agenda[0][0] <= self.clock.monotonic():
            _, _, what, call = heapq.heappop(self._agenda)
            if what:
                self.note(what)
            call()

    # --- what the parts of a cluster need of it -------------------------------------------------------

    def reconcilers(self, daemon: SimDaemon, own: NodeReconciler) -> Mapping[str, Reconciler]:
        """Return what takes care of VMs in a daemon."""
        new_id = lambda: f"{self.rng.getrandbits(64):x}"  # noqa: E731
        return {"vm": VmReconciler(daemon.agent.context, parked=own.parked, new_id=new_id)}

    def new_id(self) -> str:
        """Return a UUID that the seed determines."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def due(self, daemon: SimDaemon, when: float, sequence: int, key: WorkKey) -> None:
        """Take note of the time, on a daemon's clock, at which a key of its queue will be due."""
        self._sequence += 1
        true = daemon.node.clock.when(when)
        heapq.heappush(self._due, (true, self._sequence, daemon, (when, sequence, key)))

    def primary(self) -> SimNode | None:
        """Return the node that has the primary role."""
        found = documents.maybe(keys.PRIMARY, self.tree.peek(keys.PRIMARY.path))
        return self.nodes.get(found.value.node or "") if found is not None else None

    def start_daemon(self, node: SimNode) -> None:
        """Start a node's daemon, as its supervisor does after a crash or at boot."""
        if node.alive or not node.power.on or node.hung:
            return
        node.starts += 1
        node.frozen = False
        store = self.ensemble.connect(node)
        daemon = node.daemon = SimDaemon(self, node, store, self.world.connect(node.name), self._drivers)
        daemon.begin()
        self.ensemble.look()

    def _drivers(self, daemon: SimDaemon) -> DirectDrivers:
        name = daemon.node.name
        fencing = {NAME: SimFence(self._site, name, daemon)} if daemon.node.coordinator else {}
        storage = SimStorage(self.backend, name, daemon.node.client, daemon, self.closing)
        return DirectDrivers(storage={DRIVER: storage}, network={"fake": FakeNetwork(name)}, fencing=fencing)

    def _store_effect(self, moment: Moment, session: MemoryStore, operations: tuple[Operation, ...]) -> None:
        if moment is Moment.READ or not operations:
            return
        if moment is Moment.AFTER:
            while self._soon:
                self._soon.pop(0)()
        node = self.nodes.get(session.name)
        if node is not None and node.daemon is not None and node.daemon.store is session:
            node.daemon.effect(f"{moment.value} {type(operations[0]).__name__} {operations[0].path}")

    def _changed(self, by: str, paths: list[str]) -> None:
        self.invariants.changed(by, paths)
        for call in list(self.on_change):
            call(by, paths)

    # --- what befalls nodes -----------------------------------------------------------------------------

    def daemon_gone(self, node: SimNode, back_after_s: float | None) -> None:
        """End a daemon; its supervisor starts it again after a while, or not."""
        daemon, node.daemon = node.daemon, None
        node.frozen = False
        if daemon is not None:
            if node.watchdog is not None and node.watchdog.armed and node.power.on:
                node.watchdog.feed()  # as Linux does when a process dies that has it open
            daemon.kill()
        self.ensemble.look()
        if back_after_s is not None:
            self.later(back_after_s, f"{node.name}: daemon starts", lambda: self.start_daemon(node))

    def stop_daemon(self, node: SimNode, back_after_s: float | None) -> None:
        """Stop a daemon in good order, as ``systemctl stop`` does; its guests go on."""
        daemon = node.daemon
        if daemon is None or node.frozen:
            return
        daemon.act("stop", daemon.stop)
        if node.daemon is daemon:
            self.daemon_gone(node, back_after_s)

    def reset(self, node: SimNode, why: str) -> None:
        """Have a node start anew, as its watchdog does: its guests are gone at once."""
        self.note(f"{node.name}: reset, {why}")
        self._power_lost(node)
        self._power_back(node)

    def _power_changed(self, node: SimNode, *, on: bool) -> None:
        self.note(f"{node.name}: power is {'on' if on else 'off'}")
        if on:
            self._power_back(node)
        else:
            self._power_lost(node)

    def _power_lost(self, node: SimNode) -> None:
        self.truth.power_lost(node.name)
        if node.watchdog is not None:
            node.watchdog.disarm()
        self.world.power_off(node.name)
        node.hung = False
        self.daemon_gone(node, None)

    def _power_back(self, node: SimNode) -> None:
        node.boots += 1
        node.booted_at = node.clock.monotonic()
        node.first_start = node.starts + 1
        self.truth.power_back(node.name)
        self.world.power_on(node.name)
        boot = node.boots

        def up() -> None:
            if node.boots == boot:
                self.start_daemon(node)

        self.later(self.rng.uniform(1.0, 20.0), f"{node.name}: has booted", up)
        self.ensemble.look()
