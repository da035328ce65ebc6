"""One simulated node: a host that may lose its power, and a daemon that may die, be stopped, or be cut off, each apart."""

import math
from typing import TYPE_CHECKING, NamedTuple

from pvc_core.model.fence import FenceDevice, FenceLevel
from pvc_core.node.host import HostFigures
from pvc_core.store.memory import MemoryStore
from pvc_core.testkit.simulator.clock import NodeClock
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.fence_driver import NAME
from pvc_core.testkit.simulator.power import BMC, Power

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.daemon import SimDaemon
    from pvc_core.testkit.simulator.watchdog import WatchdogTimer


class NodeSetup(NamedTuple):
    """What a simulated node is made of."""

    name: str
    coordinator: bool = False
    memory_mib: int = 65536
    levels: tuple[tuple[str, ...], ...] = ((BMC,),)
    """Devices of each fence level: ``bmc``, or outlets such as ``pdu-a``."""
    bmc_own_power: bool = True
    """The management controller answers also when the node's mains are gone."""
    watchdog_s: float = 0.0
    """Time-out of its watchdog; 0: it has none."""
    clock_rate: float = 1.0
    """Seconds of its clock per true second."""

    def fence_levels(self) -> tuple[FenceLevel, ...]:
        """Return the levels as they are configured."""
        return tuple(
            FenceLevel(devices=tuple(FenceDevice(driver=NAME, parameters={"device": device}) for device in level))
            for level in self.levels
        )


class SimNode:
    """The state of a node; ``failures`` change it, with the cluster's help."""

    def __init__(self, setup: NodeSetup, address: str, clock: NodeClock, power: Power) -> None:
        self.name = setup.name
        self.setup = setup
        self.coordinator = setup.coordinator
        self.address = address
        self.clock = clock
        self.power = power
        self.link = Link.UP
        self.frozen = False
        """Its daemon is stopped (SIGSTOP), or the whole node hangs."""
        self.hung = False
        """The whole node hangs: also the ZooKeeper server on it, while its guests may execute or not."""
        self.server_down = False
        """The ZooKeeper server on it does not run."""
        self.boots = 1
        self.booted_at = -math.inf
        """On its own monotonic clock; it has run for long when the simulation begins."""
        self.starts = 0
        """Of its daemon."""
        self.first_start = 1
        """Number of its daemon's first start since the host's."""
        self.daemon: SimDaemon | None = None
        self.watchdog: WatchdogTimer | None = None

    @property
    def alive(self) -> bool:
        """Its daemon runs, or is stopped and may go on."""
        return self.daemon is not None

    @property
    def store(self) -> MemoryStore | None:
        """The session of its daemon."""
        return self.daemon.store if self.daemon is not None else None

    @property
    def client(self) -> str:
        """What shared storage knows this start of the host by."""
        return f"{self.name}-{self.boots}"

    @property
    def serves(self) -> bool:
        """A ZooKeeper server runs on it that the others can reach."""
        return self.coordinator and self.power.on and not self.hung and not self.server_down and self.link is Link.UP

    def figures(self) -> HostFigures:
        """Return what its kernel says."""
        uptime_s = self.clock.monotonic() - self.booted_at
        return HostFigures(kernel="simulated", architecture="x86_64", boot_id=self.client, load1=0.0, uptime_s=uptime_s)
