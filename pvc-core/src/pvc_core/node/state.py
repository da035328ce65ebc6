"""What this daemon says of its node, put together by several parts and published by one."""

import threading
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from pvc_core.model.base import Condition, with_condition, without_condition
from pvc_core.node.clock import Clock

DaemonState = Literal["starting", "running", "stopping", "stopped"]
SchedulingState = Literal["ready", "draining", "drained", "returning"]


class NodeState:
    """The changing part of this node's status.  May be used from any thread.

    ``changed`` is called after every real change: it asks for a report at once.
    """

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._daemon: DaemonState = "starting"
        self._scheduling: SchedulingState = "ready"
        self._observed = 0
        self._conditions: tuple[Condition, ...] = ()

    @property
    def daemon(self) -> DaemonState:
        """What the daemon is doing."""
        return self._daemon

    @daemon.setter
    def daemon(self, value: DaemonState) -> None:
        with self._lock:
            changed, self._daemon = self._daemon != value, value
        if changed:
            self._changed()

    @property
    def scheduling(self) -> SchedulingState:
        """Whether the node takes VMs."""
        return self._scheduling

    @property
    def observed_generation(self) -> int:
        """Generation of the node's spec that the scheduling state answers."""
        return self._observed

    def set_scheduling(self, value: SchedulingState, observed_generation: int) -> None:
        """Say whether the node takes VMs, in answer to this generation of its spec."""
        with self._lock:
            new = (value, observed_generation)
            changed = (self._scheduling, self._observed) != new
            self._scheduling, self._observed = new
        if changed:
            self._changed()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions, in the order they were first set."""
        return self._conditions

    def set_condition(self, type_: str, *, ok: bool, reason: str = "", message: str = "") -> None:
        """Say whether something is right with this node."""
        self.put_condition(Condition(type=type_, ok=ok, reason=reason, message=message))

    def put_condition(self, condition: Condition) -> None:
        """Set a condition; its time is when it became so."""
        with self._lock:
            old = self._conditions
            self._conditions = with_condition(old, replace(condition, since=self._clock.wall()))
            changed = old != self._conditions
        if changed:
            self._changed()

    def clear_condition(self, type_: str) -> None:
        """Take back what was said about something."""
        with self._lock:
            old = self._conditions
            self._conditions = without_condition(old, type_)
            changed = old != self._conditions
        if changed:
            self._changed()
