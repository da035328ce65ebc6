"""Nodes driven step by step over in-memory parts, on a virtual clock: for tests that need a daemon without threads.

Unlike the simulator nothing is random here, and nothing goes wrong unless the test makes it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.memory import MemoryHypervisor, MemoryWorld
from pvc_core.node.agent import Agent, Identity
from pvc_core.node.assemble import Parts, assemble
from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.host import HostFigures
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.workqueue import WorkKey
from pvc_core.ops.context import Ops
from pvc_core.store import schema
from pvc_core.store.memory import MemoryStore, MemoryTree
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.simulator.clock import VirtualClock
from pvc_core.testkit.simulator.fragile import FragileHypervisor

MakeReconcilers = Callable[[NodeContext, NodeReconciler], Mapping[str, Reconciler]]
"""From the node's context and its own reconciler to those of other kinds."""


Around = Callable[[str], None]
"""Gets a word about an effect, before it and after it."""


class FixedHost:
    """Host figures that a test sets."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.load1 = 0.25
        self.uptime_s = math.inf

    def figures(self) -> HostFigures:
        """Return the figures."""
        return HostFigures(
            kernel="6.1.0", architecture="x86_64", boot_id=self.boot_id, load1=self.load1, uptime_s=self.uptime_s
        )


class SteppedNode:
    """One node.  ``start`` makes a new daemon over the same host; ``kill`` ends it without a word."""

    def __init__(
        self,
        cluster: "SteppedCluster",
        name: str,
        *,
        role: str,
        memory_mib: int,
        drivers: DirectDrivers,
        assembly: dict[str, Any],
        reconcilers: MakeReconcilers,
        machine: str = "",
        around: Around | None = None,
    ) -> None:
        """``machine`` is the host's name, where that is not the node's: another host has that name too.

        ``around`` is called before and after each effect on the hypervisor, and may end the daemon.
        """
        self._around = around
        self.name = name
        self.machine = machine or name
        self.host = FixedHost()
        self.drivers = drivers
        self._cluster = cluster
        self._role = role
        self._address = f"10.0.0.{len(cluster.nodes) + 1}"
        self._assembly = assembly
        self._reconcilers = reconcilers
        self._starts = 0
        self.hypervisor: MemoryHypervisor = cluster.world.host(self.machine, self._address, memory_mib=memory_mib)
        self.running = False
        self.start()

    def start(self) -> None:
        """Start the daemon; it finds the lease of the one before, if that was killed, as a successor does."""
        cluster = self._cluster
        self._starts += 1
        self.store: MemoryStore = cluster.tree.connect(name=self.machine, clock=cluster.clock)
        if self._starts > 1:
            self.hypervisor.close()
            self.hypervisor = cluster.world.connect(self.machine)
        self.agent = Agent(
            Identity(
                name=self.name,
                role=self._role,
                address=self._address,
                holder=f"{self.machine}-{self._starts}",
                predecessor=f"{self.machine}-{self._starts - 1}",
                machine=self.machine,
            ),
            store=self.store,
            hypervisor=self.hypervisor if self._around is None else FragileHypervisor(self.hypervisor, self._around),
            drivers=self.drivers,
            clock=cluster.clock,
            timing=cluster.timing,
            resource_kinds=self._assembly.get("resource_kinds", ()),
        )
        self.parts: Parts = assemble(
            self.agent,
            ops=Ops(self.store, wall=cluster.clock.wall, monotonic=cluster.clock.monotonic),
            host=self.host,
            coordinators=cluster.coordinators,
            reconcilers=lambda node: self._reconcilers(self.agent.context, node),
            **{"spawn": lambda _, function: function(), "call": lambda _, function, __: function(), **self._assembly},
        )
        self.running = True
        self.agent.start()

    def kill(self) -> MemoryStore:
        """End the daemon at once; returns its session, which the servers drop when ``expire`` is called on it."""
        self.running = False
        self.store.crash()
        return self.store

    def ready(self) -> list[WorkKey]:
        """Return the keys it could look at now."""
        return self.agent.queue.ready(self._cluster.clock.monotonic()) if self.running else []


class SteppedCluster:
    """Nodes over one tree, one world and one clock."""

    def __init__(self, coordinators: tuple[str, ...] = ("hv1",), timing: Timing | None = None) -> None:
        self.clock = VirtualClock()
        self.timing = timing or Timing()
        self.tree = MemoryTree()
        self.world = MemoryWorld(self.clock)
        self.coordinators = coordinators
        self.nodes: dict[str, SteppedNode] = {}
        self.operator = self.tree.connect(name="operator", clock=self.clock)
        schema.initialise(self.operator)
        self.ops = Ops(self.operator, wall=self.clock.wall, monotonic=self.clock.monotonic)

    def add(
        self,
        name: str,
        *,
        memory_mib: int = 16384,
        drivers: DirectDrivers | None = None,
        reconcilers: MakeReconcilers = lambda *_: {},
        machine: str = "",
        around: Around | None = None,
        **assembly: Any,
    ) -> SteppedNode:
        """Add a node and start its daemon; ``assembly`` goes to ``node.assemble``, the rest as in ``SteppedNode``."""
        node = SteppedNode(
            self,
            name,
            role="coordinator" if name in self.coordinators else "hypervisor",
            memory_mib=memory_mib,
            drivers=drivers or DirectDrivers(),
            assembly=assembly,
            reconcilers=reconcilers,
            machine=machine,
            around=around,
        )
        self.nodes[node.machine] = node
        return node

    def settle(self, *, max_steps: int = 2000) -> None:
        """Let the daemons do everything that is due now."""
        for _ in range(max_steps):
            work = [(node, key) for node in self.nodes.values() for key in node.ready()]
            if not work:
                return
            node, key = work[0]
            node.agent.step(key)
        raise AssertionError(f"no rest after {max_steps} steps; still to do: {work[:10]}")

    def run(self, seconds: float) -> None:
        """Let so much time pass, with everything that happens in it."""
        self.until(lambda: False, seconds, demand=False)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0, *, demand: bool = True) -> float:
        """Let time pass until a condition holds; return the seconds it took.

        Raises AssertionError when it does not come to hold in time.
        """
        begin = self.clock.monotonic()
        end = begin + seconds
        while True:
            self.settle()
            if condition():
                return self.clock.monotonic() - begin
            now = self.clock.monotonic()
            if now >= end:
                break
            due = [node.agent.queue.next_due() for node in self.nodes.values() if node.running]
            event = self.world.next_event_time()
            coming = [time for time in (*due, event, end) if time is not None]
            self.clock.move_to(max(min(coming), now))
            self.world.advance()
        if demand:
            raise AssertionError(f"it did not come to hold within {seconds:g} s")
        return seconds
