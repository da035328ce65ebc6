"""One simulated node: a host that may lose power, and a daemon that may die, each apart from the other."""

from collections.abc import Callable

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.api import (
    Console,
    Domain,
    DomainCallback,
    DomainPlan,
    ExitReason,
    HostFacts,
    Hypervisor,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.node import GuestUsage
from pvc_core.node.agent import Agent, Identity
from pvc_core.node.host import HostFigures
from pvc_core.node.workqueue import WorkKey
from pvc_core.store.memory import MemoryStore, MemoryTree
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.simulator.clock import VirtualClock


class DaemonDied(BaseException):
    """Raised in the middle of an action: the daemon's process is gone at this point.

    Not an Exception, so that no error boundary of the daemon can survive it.
    """


class FragileHypervisor:
    """A connection to a hypervisor whose effects may be the last thing the daemon does.

    ``around`` is called before and after each effect and may raise DaemonDied.
    """

    def __init__(self, inner: Hypervisor, around: Callable[[str], None]) -> None:
        self._inner = inner
        self._around = around

    def facts(self) -> HostFacts:
        return self._inner.facts()

    def domains(self) -> dict[str, Domain]:
        return self._inner.domains()

    def domain(self, vm: str) -> Domain | None:
        return self._inner.domain(vm)

    def exit_reason(self, vm: str) -> ExitReason:
        return self._inner.exit_reason(vm)

    def migration_stats(self, vm: str) -> MigrationStats:
        return self._inner.migration_stats(vm)

    def usage(self) -> dict[str, GuestUsage]:
        return self._inner.usage()

    def console(self, vm: str) -> Console:
        return self._inner.console(vm)

    def watch(self, callback: DomainCallback) -> None:
        self._inner.watch(callback)

    def close(self) -> None:
        self._inner.close()

    def start(self, plan: DomainPlan) -> None:
        self._around("before start")
        self._inner.start(plan)
        self._around("after start")

    def shutdown(self, vm: str) -> None:
        self._around("before shutdown")
        self._inner.shutdown(vm)
        self._around("after shutdown")

    def destroy(self, vm: str) -> None:
        self._around("before destroy")
        self._inner.destroy(vm)
        self._around("after destroy")

    def migrate(self, vm: str, options: MigrationOptions) -> None:
        self._around("before migrate")
        self._inner.migrate(vm, options)
        self._around("after migrate")

    def abort_migration(self, vm: str) -> None:
        self._around("before abort")
        self._inner.abort_migration(vm)
        self._around("after abort")

    def forget_job(self, vm: str) -> None:
        self._inner.forget_job(vm)

    def attach_device(self, vm: str, xml: str) -> None:
        self._inner.attach_device(vm, xml)

    def detach_device(self, vm: str, xml: str) -> None:
        self._inner.detach_device(vm, xml)

    def resize_disk(self, vm: str, index: int, size_bytes: int) -> None:
        self._inner.resize_disk(vm, index, size_bytes)


class SimHost:
    """The host's kernel, as far as the daemon asks it."""

    def __init__(self, node: "SimNode") -> None:
        self._node = node

    def figures(self) -> HostFigures:
        boot = f"{self._node.name}-{self._node.boots}"
        return HostFigures(kernel="simulated", architecture="x86_64", boot_id=boot, load1=0.0)


class SimNode:
    """A node and what may befall it."""

    def __init__(
        self,
        name: str,
        address: str,
        *,
        coordinator: bool,
        tree: MemoryTree,
        world: MemoryWorld,
        clock: VirtualClock,
        drivers: DirectDrivers,
        timing: Timing,
        assemble: Callable[["SimNode", Agent], None],
        memory_mib: int,
    ) -> None:
        self.name = name
        self.coordinator = coordinator
        self._address = address
        self._tree = tree
        self._world = world
        self._clock = clock
        self._drivers = drivers
        self._timing = timing
        self._assemble = assemble
        self.powered = True
        self.link_up = True
        self.agent: Agent | None = None
        self.store: MemoryStore | None = None
        self.boots = 1
        self._starts = 0
        self._effects_left: int | None = None
        world.host(name, address, memory_mib=memory_mib)

    @property
    def alive(self) -> bool:
        """The daemon runs."""
        return self.agent is not None

    def start_daemon(self) -> None:
        """Start the daemon, as its supervisor does after a crash or at boot."""
        if self.alive or not self.powered:
            return
        self._starts += 1
        self._effects_left = None
        self.store = self._tree.connect(name=self.name, clock=self._clock)
        if not self.link_up:
            self.store.suspend()
        identity = Identity(
            name=self.name,
            role="coordinator" if self.coordinator else "hypervisor",
            address=self._address,
            holder=f"{self.name}-{self._starts}",
            predecessor=f"{self.name}-{self._starts - 1}",
        )
        self.agent = Agent(
            identity,
            store=self.store,
            hypervisor=FragileHypervisor(self._world.connect(self.name), self._effect),
            drivers=self._drivers,
            clock=self._clock,
            timing=self._timing,
        )
        self._assemble(self, self.agent)
        self.agent.start()

    def die_after(self, effects: int) -> None:
        """Let the daemon die within one of its next effects (a write to the store or a hypervisor call)."""
        self._effects_left = effects

    def kill_daemon(self) -> MemoryStore | None:
        """End the daemon at once; returns its session, which the servers drop some time later."""
        session, self.store, self.agent = self.store, None, None
        if session is not None:
            session.crash()
        return session

    def ready(self) -> list[WorkKey]:
        """Return the keys the daemon could look at now."""
        return self.agent.queue.ready(self._clock.monotonic()) if self.agent is not None else []

    def step(self, key: WorkKey) -> None:
        """Let the daemon look at one key; raises DaemonDied when it did not survive."""
        if self.agent is not None:
            self.agent.step(key)

    def effect(self, where: str) -> None:
        """Count an effect of this daemon; called by the store's fault hook too."""
        self._effect(where)

    def _effect(self, where: str) -> None:
        if self._effects_left is None:
            return
        self._effects_left -= 1
        if self._effects_left < 0:
            self._effects_left = None
            raise DaemonDied(f"{self.name}: {where}")
