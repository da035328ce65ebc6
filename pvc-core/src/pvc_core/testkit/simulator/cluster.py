"""A simulated cluster: its nodes, its agenda of things to come, and one step at a time."""

import heapq
import random
import uuid
from collections.abc import Callable
from typing import Final

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.memory import MemoryWorld, Pace
from pvc_core.node.agent import Agent
from pvc_core.node.assemble import assemble
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.ops.context import Ops
from pvc_core.store import schema
from pvc_core.store.api import Operation
from pvc_core.store.memory import MemoryStore, MemoryTree, Moment
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeNetwork, FakeStorage
from pvc_core.testkit.simulator.clock import VirtualClock
from pvc_core.testkit.simulator.invariants import Invariants
from pvc_core.testkit.simulator.node import DaemonDied, SimHost, SimNode

TIMING: Final = Timing(restart_give_up=1_000_000, prepare=20.0, migration=60.0)
"""Of simulated clusters: the defaults, but a guest is never given up, so that at the end all must run."""


class Cluster:
    """Nodes ``n1``..``nN`` over one state tree and one world.  Everything random comes from ``rng``."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        *,
        timing: Timing = TIMING,
        memory_mib: int = 65536,
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311  (a seeded run, not a secret)
        self.clock = VirtualClock()
        self.timing = timing
        self.tree = MemoryTree(hold=True, fault=self._store_effect)
        self.world = MemoryWorld(self.clock, Pace(boot_s=1.0, shutdown_s=2.0, migration_s=3.0, keepalive_s=10.0))
        self.invariants = Invariants(self.tree, self.world)
        self.nodes: dict[str, SimNode] = {}
        self.trace: list[str] = []
        self._agenda: list[tuple[float, int, str, Callable[[], None]]] = []
        self._sequence = 0
        self.operator = self.tree.connect(name="operator", clock=self.clock)
        schema.initialise(self.operator)
        self.ops = Ops(self.operator, wall=self.clock.wall, monotonic=self.clock.monotonic)
        backend = FakeBackend()
        for number in range(1, nodes + 1):
            name = f"n{number}"
            self.nodes[name] = SimNode(
                name,
                f"10.0.0.{number}",
                coordinator=number <= min(nodes, 3),
                tree=self.tree,
                world=self.world,
                clock=self.clock,
                drivers=DirectDrivers(
                    storage={"fake": FakeStorage(backend, name)}, network={"fake": FakeNetwork(name)}
                ),
                timing=timing,
                assemble=self._assemble,
                memory_mib=memory_mib,
            )
        for node in self.nodes.values():
            node.start_daemon()

    def _assemble(self, node: SimNode, agent: Agent) -> None:
        """Put a daemon together as its own start does, with nothing that needs a thread."""
        ops = Ops(agent.context.store, wall=self.clock.wall, monotonic=self.clock.monotonic)
        assemble(
            agent,
            ops=ops,
            host=SimHost(node),
            coordinators=tuple(other.name for other in self.nodes.values() if other.coordinator),
            reconcilers=lambda own: {
                "vm": VmReconciler(agent.context, parked=own.parked, new_id=lambda: f"{self.rng.getrandbits(64):x}")
            },
            spawn=lambda _, function: function(),
            call=lambda _, function, __: function(),
        )

    # --- time and steps -----------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.clock.monotonic() - 1000:9.3f}  {what}")

    def later(self, delay_s: float, what: str, call: Callable[[], None]) -> None:
        """Have something happen after a delay."""
        self._sequence += 1
        heapq.heappush(self._agenda, (self.clock.monotonic() + delay_s, self._sequence, what, call))

    def step(self) -> None:
        """Let one thing happen that is due, chosen at random; when nothing is, move the clock to the next thing."""
        choices: list[Callable[[], None]] = []
        for node in self.nodes.values():
            choices.extend([lambda n=node, k=key: self._work(n, k) for key in node.ready()])  # type: ignore[misc]
        if self.tree.pending():
            choices.append(self._deliver)
        if choices:
            self.rng.choice(choices)()
        else:
            self._move_on()
        self.invariants.check()

    def run(self, seconds: float, max_steps: int = 200_000) -> int:
        """Step until so much virtual time has passed; return the number of steps."""
        end = self.clock.monotonic() + seconds
        self.later(seconds, "", lambda: None)
        steps = 0
        while self.clock.monotonic() < end:
            self.step()
            steps += 1
            if steps > max_steps:
                ready = {node.name: node.ready() for node in self.nodes.values()}
                raise AssertionError(f"no end after {max_steps} steps: a livelock; ready are {ready}")
        return steps

    def _work(self, node: SimNode, key: tuple[str, str]) -> None:
        try:
            node.step(key)
        except DaemonDied as death:
            self.note(f"daemon dies in mid-action: {death}")
            self.daemon_gone(node, self.rng.uniform(0.5, 20.0))

    def _deliver(self) -> None:
        try:
            self.tree.deliver(self.rng.choice([None, *self._sessions()]))
        except DaemonDied as death:
            raise AssertionError("a watch callback had an effect on the store or a guest") from death

    def _sessions(self) -> list[MemoryStore]:
        return [node.store for node in self.nodes.values() if node.store is not None]

    def _move_on(self) -> None:
        times = [self._agenda[0][0]] if self._agenda else []
        for node in self.nodes.values():
            due = node.agent.queue.next_due() if node.agent is not None else None
            if due is not None:
                times.append(due)
        event = self.world.next_event_time()
        if event is not None:
            times.append(event)
        self.clock.move_to(min(times))
        self.world.advance()
        while self._agenda and self._agenda[0][0] <= self.clock.monotonic():
            _, _, what, call = heapq.heappop(self._agenda)
            if what:
                self.note(what)
            call()

    def _store_effect(self, moment: Moment, session: MemoryStore, operations: tuple[Operation, ...]) -> None:
        node = self.nodes.get(session.name)
        if node is not None and moment is not Moment.READ and operations:
            node.effect(f"{moment.value} {type(operations[0]).__name__} {operations[0].path}")

    def new_id(self) -> str:
        """Return a UUID that the seed determines."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    # --- what befalls nodes -------------------------------------------------------------------------

    def daemon_gone(self, node: SimNode, back_after_s: float | None) -> None:
        """End a daemon; the servers drop its session a lease time later; its supervisor starts it again."""
        session = node.kill_daemon()
        if session is not None:
            self.later(self.timing.lease, "", session.expire)
        if back_after_s is not None:
            self.later(back_after_s, f"{node.name}: daemon starts", node.start_daemon)

    def power_cut(self, node: SimNode, back_after_s: float) -> None:
        """Cut a node's power; it comes back with an empty memory."""
        if not node.powered:
            return
        node.powered = False
        self.world.power_off(node.name)
        self.daemon_gone(node, None)

        def back() -> None:
            node.powered = True
            node.boots += 1
            self.world.power_on(node.name)
            node.start_daemon()

        self.later(back_after_s, f"{node.name}: power is back", back)

    def cut_store_link(self, node: SimNode, heal_after_s: float) -> None:
        """Cut a node off from the state store; its session ends there after the lease time, unknown to it."""
        if not node.link_up:
            return
        node.link_up = False
        session = node.store
        if session is not None:
            session.suspend()

            def expire() -> None:
                if not node.link_up or node.store is not session:
                    session.expire()

            self.later(self.timing.lease, "", expire)

        def heal() -> None:
            node.link_up = True
            if node.store is not None:
                node.store.resume()
                node.store.reconnect()

        self.later(heal_after_s, f"{node.name}: store link is back", heal)

    def expire_session(self, node: SimNode) -> None:
        """Have the servers drop a node's session while its link is up."""
        session = node.store
        if session is None or not node.link_up:
            return
        session.expire()

        def reconnect() -> None:
            if node.link_up:
                session.reconnect()

        self.later(self.rng.uniform(0.0, 2.0), "", reconnect)
