"""A simulated watchdog: hardware of a node that resets it, and the daemon's part that feeds it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvc_core.model.base import Condition
from pvc_core.node.watchdog import Watchdog

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.cluster import Cluster
    from pvc_core.testkit.simulator.daemon import SimDaemon
    from pvc_core.testkit.simulator.node import SimNode


FEEDING: Final = "before the watchdog is fed"
"""Name of the effect."""


class WatchdogTimer:
    """The hardware of one node: it goes on counting whatever becomes of the daemon."""

    def __init__(self, cluster: "Cluster", node: "SimNode", timeout_s: float) -> None:
        self._cluster = cluster
        self._node = node
        self.timeout_s = timeout_s
        self.armed = False
        self._fed = 0

    def feed(self) -> None:
        """Begin to count, or begin anew."""
        self.armed = True
        self._fed += 1
        fed, boot = self._fed, self._node.boots
        late = self._cluster.rng.uniform(0.0, 1.0)

        def bite() -> None:
            if self.armed and self._fed == fed and self._node.boots == boot and self._node.power.on:
                self._cluster.reset(self._node, "its watchdog was not fed")

        self._cluster.later(self.timeout_s * self._node.clock.rate + late, "", bite)

    def disarm(self) -> None:
        """Stop counting."""
        self.armed = False


class OpenWatchdog:
    """The device as one daemon has it open."""

    about = "the simulated watchdog"

    def __init__(self, timer: WatchdogTimer, effect: Callable[[str], None]) -> None:
        self._timer = timer
        self._effect = effect
        timer.feed()

    @property
    def timeout_s(self) -> float:
        return self._timer.timeout_s

    def feed(self) -> None:
        self._effect(FEEDING)
        self._timer.feed()

    def disarm(self) -> None:
        self._timer.disarm()


def make_watchdog(daemon: "SimDaemon", timer: WatchdogTimer) -> Watchdog:
    """Return the part of a daemon that feeds its node's watchdog; whoever has it calls ``tick``."""

    def tell(condition: Condition) -> None:
        daemon.parts.state.put_condition(condition)

    watchdog = Watchdog(daemon.agent.lease, daemon.node.clock, lambda: OpenWatchdog(timer, daemon.effect), tell)
    # As WatchdogThreads does: before any other work under a new lease.
    daemon.agent.on_lease(lambda _: watchdog.confirm())
    return watchdog
