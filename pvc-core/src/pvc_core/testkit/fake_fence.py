"""A fence driver in memory: power controllers that may be stuck, slow, silent or lying."""

import threading
from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.errors import NotReady
from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState
from pvc_core.testkit.faults import Faults, faulty


class FakePower:
    """The power of all nodes, shared by the drivers of all coordinators.

    ``changed`` is called with the node and its new power, under no lock: the simulator stops or starts
    the node there.
    """

    def __init__(self, changed: Callable[[str, PowerState], None] | None = None) -> None:
        self._changed: Final = changed
        self._lock: Final = threading.Lock()
        self._power: Final[dict[str, PowerState]] = {}
        self.stuck: Final[set[str]] = set()
        """Nodes whose controller accepts every command and does nothing."""
        self.silent: Final[set[str]] = set()
        """Nodes whose controller does not answer."""
        self.unreadable: Final[set[str]] = set()
        """Nodes whose controller carries out commands and cannot tell the state."""

    def add(self, node: str, power: PowerState = PowerState.ON) -> None:
        """Let a node have a controller."""
        with self._lock:
            self._power[node] = power

    def read(self, node: str) -> PowerState:
        """Return a node's power as its controller reports it; raise NotReady when it is silent or not there."""
        with self._lock:
            if node in self.silent or node not in self._power:
                raise NotReady(f"the power controller of node {node} does not answer")
            return PowerState.UNKNOWN if node in self.unreadable else self._power[node]

    def write(self, node: str, power: PowerState) -> None:
        """Command a node's power; raise NotReady as ``read`` does."""
        with self._lock:
            if node in self.silent or node not in self._power:
                raise NotReady(f"the power controller of node {node} does not answer")
            if node in self.stuck or self._power[node] is power:
                return
            self._power[node] = power
        if self._changed is not None:
            self._changed(node, power)


class FakeFence(FenceDriver):
    """The driver of one coordinator over shared ``FakePower``."""

    def __init__(self, power: FakePower, *, faults: Faults | None = None) -> None:
        self.power: Final = power
        self.faults: Final = faults or Faults()

    @faulty
    def fence_preflight(self) -> bool:
        return True

    @faulty
    def fence_close(self) -> bool:
        return True

    @faulty
    def power_status(self, target: FenceTarget) -> PowerState:
        _check(target)
        return self.power.read(target.node)

    @faulty
    def power_off(self, target: FenceTarget) -> PowerState:
        _check(target)
        self.power.write(target.node, PowerState.OFF)
        return self.power.read(target.node)

    @faulty
    def power_on(self, target: FenceTarget) -> PowerState:
        _check(target)
        self.power.write(target.node, PowerState.ON)
        return self.power.read(target.node)


def _check(target: FenceTarget) -> None:
    if unknown := sorted(set(target.parameters) - {"address", "password_file"}):
        raise InvalidRequest(f"node {target.node}: driver fake has no parameter {unknown[0]!r}")
