"""Asks every node's fence devices now and then, so that one that cannot be used is seen before it is needed.

Each coordinator asks for itself: a controller may be reachable from one and not from another.  A node is asked every
``timing.fence_check`` seconds, and soon after its levels or this coordinator's drivers have changed; never while it is
being fenced.  The calls are made by at most ``AT_ONCE`` threads, so a controller that hangs costs the others one of
them, until its driver's deadline.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.errors import PvcError
from pvc_core.model.fence import DeviceHealth, FenceLevel, FenceStage
from pvc_core.node.context import NodeContext
from pvc_core.node.fence_calls import FenceCalls
from pvc_core.node.fence_findings import FenceFindings, Health
from pvc_core.node.state import NodeState
from pvc_core.node.tasks import Spawn
from pvc_core.plan.backoff import least
from pvc_core.store import documents, keys

log = logging.getLogger(__name__)

KIND: Final = "fence-health"
CONDITION: Final = "Fencing"
"""Type of a coordinator's condition: a driver that fence levels need does not work on it."""
AT_ONCE: Final = 4
"""Nodes that are asked at the same time."""

_STAGGER_S: Final = 3.0
"""Pause between the first questions of two coordinators: many controllers serve only a few sessions at a time."""
_SOON_S: Final = 1.0

_MISLEADING: Final = "it says off, but the node is alive: it is not this node's, and proves nothing"

Levels = tuple[FenceLevel, ...]
_BEING_FENCED: Final = (FenceStage.SUSPECTED, FenceStage.FENCING)


class _Seen(NamedTuple):
    """A node's signs of life."""

    lease: int
    """Generation."""
    report: int
    """Version of its status document, which only the node writes."""


class _Node:
    """A node with fence levels."""

    def __init__(self, levels: Levels, health: Health, due: float) -> None:
        self.levels = levels
        self.health = health
        self.due = due
        self.asking = False
        self.dark: dict[int, _Seen] = {}
        """Level whose devices all said off of a node with a lease -> what was seen of it right after that."""

    def uses(self, drivers: set[str]) -> bool:
        return any(device.driver in drivers for level in self.levels for device in level.devices)


class FenceHealthCheck:
    """Reconciler of the key ``("fence-health", "")``.  It never waits for a device."""

    def __init__(
        self,
        context: NodeContext,
        state: NodeState,
        calls: FenceCalls,
        *,
        coordinators: tuple[str, ...],
        primary: Callable[[], bool],
        spawn: Spawn,
    ) -> None:
        """``primary``: whether this node has the primary role now; it asks first."""
        self._context: Final = context
        self._state: Final = state
        self._calls: Final = calls
        self._primary: Final = primary
        self._spawn: Final = spawn
        place = coordinators.index(context.name) + 1 if context.name in coordinators else len(coordinators)
        self._wait_s = place * min(_STAGGER_S, context.timing.fence_check / (len(coordinators) + 1))
        self._findings: Final = FenceFindings(context)
        self._missing: set[str] = set()
        self._lock: Final = threading.Lock()
        self._nodes: Final[dict[str, _Node]] = {}
        self._told: Final[dict[tuple[str, int, int], str]] = {}
        """Node, level and device -> the error that was logged last."""
        self._threads = 0

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one)
        """See what is to be asked, have it asked, publish what is known; returns when there is more to do."""
        if self._context.role != "coordinator":
            self._findings.withdraw()
            return None
        levels = self._read_levels()
        missing = self._tell_missing(levels)
        published = self._findings.published()
        now = self._context.clock.monotonic()
        self._follow(levels, published, missing, now)
        self._ask(now)
        with self._lock:
            known = {name: node.health for name, node in sorted(self._nodes.items()) if node.health}
            busy = self._threads > 0
            # What is due already is taken by the threads, as soon as one is free.
            coming = [node.due - now for node in self._nodes.values() if node.due > now and not node.asking]
        again = self._findings.publish(known, busy=busy)
        return least(again, *coming)

    def soon(self, node: str) -> None:
        """Ask a node's devices again now: something was done about them.  May be called from any thread."""
        with self._lock:
            known = self._nodes.get(node)
            if known is not None:
                known.due = min(known.due, self._context.clock.monotonic())
        self._context.wake(KIND, "", 0.0)

    # --- what is to be asked ------------------------------------------------------------------------

    def _read_levels(self) -> dict[str, Levels]:
        store = self._context.store
        specs = documents.read_all(store, [keys.node_spec(name) for name in store.children(f"{keys.SPEC}/node")])
        return {spec.value.id: spec.value.fence_levels for spec in specs if spec.value.fence_levels}

    def _tell_missing(self, levels: Mapping[str, Levels]) -> set[str]:
        """Say as a condition of this node which drivers that are needed do not work here; return their names."""
        users: dict[str, list[str]] = {}
        for node, wanted in levels.items():
            for number, level in enumerate(wanted, 1):
                for driver in {device.driver for device in level.devices}:
                    users.setdefault(driver, []).append(f"level {number} of node {node}")
        problems = {}
        for driver, used in sorted(users.items()):
            try:
                self._context.drivers.fencing(driver)
            except PvcError as error:
                more = f" and {len(used) - 1} more" if len(used) > 1 else ""
                problems[driver] = f"driver {driver}, which {used[0]}{more} needs, does not work here: {error}"
        if problems:
            message = "; ".join(problems.values())
            self._state.set_condition(CONDITION, ok=False, reason="DriverMissing", message=message)
        else:
            self._state.clear_condition(CONDITION)
        return set(problems)

    def _follow(self, levels: Mapping[str, Levels], known: Mapping[str, Health], missing: set[str], now: float) -> None:
        """Take note of which nodes have which levels; ``known``: what this coordinator published last."""
        soon = now if self._primary() else now + self._wait_s
        with self._lock:
            for name in self._nodes.keys() - levels.keys():
                del self._nodes[name]
            for name, wanted in levels.items():
                node = self._nodes.get(name)
                if node is None:
                    health = known.get(name, ())
                    self._nodes[name] = _Node(wanted, health if _fits(health, wanted) else (), soon)
                elif node.levels != wanted:
                    node.levels, node.health, node.due = wanted, (), soon
                elif node.uses(missing ^ self._missing):
                    node.due = min(node.due, soon)
            devices = {(name, *place) for name, wanted in levels.items() for place, _ in _devices(wanted)}
            for place in self._told.keys() - devices:
                del self._told[place]
        self._missing = missing

    # --- asking -------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        with self._lock:
            due = sum(node.due <= now and not node.asking for node in self._nodes.values())
            fresh = min(AT_ONCE - self._threads, due)
            self._threads += fresh
        for number in range(fresh):
            try:
                self._spawn(f"{KIND}-{number}", self._work)
            except RuntimeError as error:  # no more threads
                with self._lock:
                    self._threads -= 1
                log.warning("fence-check-put-off error=%s", error)

    def _work(self) -> None:
        """Ask one node after the other, as long as one is due."""
        while (taken := self._take()) is not None:
            name, node, levels = taken
            health = None
            try:
                if not self._being_fenced(name):
                    health = self._doubted(name, node, self._calls.status(name, levels))
            except PvcError as error:
                log.debug("fence-check-put-off node=%s error=%s", name, error)
            except Exception:
                # It must not cost the other nodes this thread.
                log.exception("fence-check-defect node=%s", name)
            self._note(name, node, levels, health)
            self._context.wake(KIND, "", _SOON_S)
        self._context.wake(KIND, "", 0.0)

    def _take(self) -> tuple[str, _Node, Levels] | None:
        """Return the node that has been due for the longest; when there is none, this thread is done."""
        with self._lock:
            now = self._context.clock.monotonic()
            due = [(node.due, name) for name, node in self._nodes.items() if node.due <= now and not node.asking]
            if not due:
                self._threads -= 1
                return None
            name = min(due)[1]
            node = self._nodes[name]
            node.asking = True
            return name, node, node.levels

    def _doubted(self, name: str, node: _Node, health: Health) -> Health:
        """Mark the devices of levels that said off of a node which has reported since, under the same lease.

        The lease alone shows nothing: it outlives a node by its time, and by that of a lost majority.  What was found
        once stands until a device of the level says on: that a dead node's power is off is no news.
        """
        lease = documents.read(self._context.store, keys.lease(name))
        report = documents.read(self._context.store, keys.node_status(name))
        dark = {device.level for device in health} - {device.level for device in health if device.power != "off"}
        before, node.dark = node.dark, {}
        wrong = {device.level for device in node.health if device.misleading}
        wrong -= {device.level for device in health if device.power == "on"}
        if lease is not None and report is not None:
            seen = _Seen(lease.value.generation, report.version)
            node.dark = {level: before.get(level, seen) for level in dark}
            node.dark = {level: first if first.lease == seen.lease else seen for level, first in node.dark.items()}
            # One report may have been under way when the power went.
            wrong |= {level for level, first in node.dark.items() if seen.report > first.report + 1}
        return tuple(replace(d, misleading=True, error=_MISLEADING) if d.level in wrong else d for d in health)

    def _being_fenced(self, node: str) -> bool:
        # Whoever fences it has to wait for each question that is under way.
        record = documents.read(self._context.store, keys.fence(node))
        return record is not None and record.value.stage in _BEING_FENCED

    def _note(self, name: str, node: _Node, levels: Levels, health: Health | None) -> None:
        with self._lock:
            node.asking = False
            if node.levels != levels or self._nodes.get(name) is not node:
                return
            node.due = self._context.clock.monotonic() + self._context.timing.fence_check
            if health is None:
                return
            node.health = health
            for device in health:
                self._log(name, device)

    def _log(self, node: str, device: DeviceHealth) -> None:
        place = (node, device.level, device.device)
        said = self._told.get(place, "")
        if device.error == said:
            return
        if device.error:
            self._told[place] = device.error
            log.warning(
                "fence-device-bad node=%s level=%d device=%d driver=%s error=%s", *place, device.driver, device.error
            )
        else:
            del self._told[place]
            log.info("fence-device-good node=%s level=%d device=%d driver=%s", *place, device.driver)


def _devices(levels: Levels) -> list[tuple[tuple[int, int], str]]:
    """Return (level, device) and driver of each device."""
    return [
        ((level_number, number), device.driver)
        for level_number, level in enumerate(levels, 1)
        for number, device in enumerate(level.devices, 1)
    ]


def _fits(health: Health, levels: Levels) -> bool:
    return [((found.level, found.device), found.driver) for found in health] == _devices(levels)
