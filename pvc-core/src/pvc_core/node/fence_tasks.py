"""Task runner of core for a node's power on an operator's request: ``fence.power``.

Arguments: ``node``; ``action``: ``status``, ``off``, ``on`` or ``cycle``; ``force``: off and cycle also while the node
may be at work.  The calls go through the same ``FenceCalls`` as the fencer's, and off means the same: read back.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from pvc_core.model.errors import InUse, InvalidRequest, NotFound, PvcError
from pvc_core.model.fence import FenceLevel
from pvc_core.model.task import Task
from pvc_core.node.context import NodeContext
from pvc_core.node.fence_calls import FenceCalls, Outcome
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.lifecycle import TaskRunner
from pvc_core.plugin.specs.storage import Cancelled, Progress
from pvc_core.store import documents, keys

log = logging.getLogger(__name__)

KIND: Final = "fence.power"
ACTIONS: Final = ("status", "off", "on", "cycle")

Result = dict[str, str | int | float | bool | None]
Levels = tuple[FenceLevel, ...]


def fence_runners(context: NodeContext, calls: FenceCalls, used: Callable[[str], None]) -> dict[str, TaskRunner]:
    """Return the runners by kind; ``used`` is told the node whose devices were used, whatever came of it."""
    power = _Power(context, calls)

    def run(task: Task, progress: Progress) -> Result:
        try:
            return power.run(task, progress)
        finally:
            used(str(task.arguments.get("node")))

    return {KIND: run}


class _Power:
    def __init__(self, context: NodeContext, calls: FenceCalls) -> None:
        self._context: Final = context
        self._calls: Final = calls

    def run(self, task: Task, progress: Progress) -> Result:
        """Do what a task asks for.  Raises PvcError, or Cancelled between two levels."""
        node, action = task.arguments.get("node"), task.arguments.get("action")
        if not isinstance(node, str) or not node:
            raise InvalidRequest(f"task {task.kind} needs the argument 'node', the name of a node; it has {node!r}")
        if action not in ACTIONS:
            raise InvalidRequest(
                f"task {task.kind} needs the argument 'action', one of {', '.join(ACTIONS)}; it has {action!r}"
            )
        levels = self._levels(node)
        if action == "status":
            return self._status(node, levels)
        if action == "on":
            return self._switch("on", node, levels, progress, self._calls.on)
        if node == self._context.name:
            raise InvalidRequest(f"node {node} cannot confirm that it is off itself: ask another coordinator")
        unless = None if task.arguments.get("force") is True else lambda: self._refuse_if_used(node)
        off = self._switch("off", node, levels, progress, partial(self._calls.off, unless=unless))
        if action == "off":
            return off
        try:
            on = self._switch("on", node, levels, _uncancelled(progress), self._calls.on)
        except PvcError as error:
            raise DriverError(f"node {node} was switched off (level {off['level']}) and stays off: {error}") from error
        return {**on, "message": f"off: {off['message']}; on: {on['message']}"}

    def _levels(self, node: str) -> Levels:
        spec = documents.read(self._context.store, keys.node_spec(node))
        if spec is None:
            raise NotFound(f"there is no node {node}")
        if not spec.value.fence_levels:
            raise InvalidRequest(f"node {node} has no fence levels: add one with `pvc fence level add`")
        return spec.value.fence_levels

    def _status(self, node: str, levels: Levels) -> Result:
        return {
            f"{device.level}.{device.device}": f"{device.driver}: {device.error or device.power}"
            for device in self._calls.status(node, levels)
        }

    def _switch(
        self,
        power: str,
        node: str,
        levels: Levels,
        progress: Progress,
        call: Callable[[str, FenceLevel], Outcome],
    ) -> Result:
        """Try level after level until one is read back as wanted."""
        failed = []
        for number, level in enumerate(levels, 1):
            if progress((number - 1) / len(levels)):
                raise Cancelled
            outcome = call(node, level)
            self._log(power, node, number, outcome)
            if outcome.ok:
                return {"power": power, "level": number, "message": outcome.message}
            failed.append(f"level {number}: {outcome.message}")
        raise DriverError(f"node {node} was not confirmed {power} by any fence level: {'; '.join(failed)}")

    def _refuse_if_used(self, node: str) -> str:
        """Raise InUse when a node may be at work; else there is no reason against cutting its power, an empty string."""
        self._context.catch_up()
        last = documents.read(self._context.store, keys.generation(node))
        if documents.read(self._context.store, keys.lease(node)) is not None:
            raise InUse(f"node {node} is at work, its lease stands: evacuate it first, or use force")
        if last is not None and last.value.released and self._claims(node):
            raise InUse(
                f"the daemon of node {node} was stopped on purpose, and VMs run on it: evacuate it first, or use force"
            )
        return ""

    def _claims(self, node: str) -> bool:
        store = self._context.store
        claims = documents.read_all(store, [keys.claim(vm) for vm in store.children(keys.CLAIM)])
        return any(entry.value.node == node for entry in claims)

    def _log(self, power: str, node: str, level: int, outcome: Outcome) -> None:
        event = "power-confirmed" if outcome.ok else "power-unconfirmed"
        log.warning("%s node=%s power=%s level=%d said=%r", event, node, power, level, outcome.message)
        if not outcome.ok or power != "off":
            return
        store = self._context.store
        try:
            lost = documents.read(store, keys.lease(node)) is None
            last = documents.read(store, keys.generation(node)) if lost else None
        except PvcError as error:
            # Only for the log: the power is off all the same.
            log.info("lease-unknown node=%s error=%s", node, error)
            return
        if last is not None:
            log.warning("power-off-of-lost-node node=%s lease=%d level=%d", node, last.value.generation, level)


def _uncancelled(progress: Progress) -> Progress:
    """Report progress and do not stop: what was begun is not left half done."""

    def tell(part: float) -> bool:
        progress(part)
        return False

    return tell
