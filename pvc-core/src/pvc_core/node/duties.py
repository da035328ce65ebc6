"""What the primary does for the whole cluster.

Every write carries the checks that the caller is still the primary, and where it rests on a node being gone,
the check that its lease is gone.
"""

import logging
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from pvc_core.model.errors import Conflict, NoNodeFits
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.node.context import NodeContext
from pvc_core.ops.context import Ops
from pvc_core.ops.evacuate import place_waiting
from pvc_core.ops.task import TaskPrune, task_prune
from pvc_core.ops.volume_documents import choose_volume_node
from pvc_core.store import documents, keys
from pvc_core.store.api import CheckAbsent, Operation
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

Guard = tuple[Operation, ...]
Kept = TypeVar("Kept", PoolSpec, VolumeSpec)
"""What a node takes care of."""

_PRUNE_S: Final = 3600.0


class Missing(NamedTuple):
    """Nodes without a lease."""

    beyond: frozenset[str]
    """Gone for longer than the grace time: no daemon of theirs works on anything."""
    next_s: float | None
    """Seconds until another one joins them."""


class Watch:
    """Counts, on this node's own clock, for how long other nodes have had no lease."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def missing(self) -> Missing:
        """Look at all leases."""
        store, now = self._context.store, self._context.clock.monotonic()
        gone = set(store.children(f"{keys.SPEC}/node")) - set(store.children(keys.LEASE))
        self._since = {node: self._since.get(node, now) for node in sorted(gone)}
        grace = self._context.timing.grace
        beyond = frozenset(node for node, since in self._since.items() if now - since >= grace)
        left = [since + grace - now for node, since in self._since.items() if node not in beyond]
        return Missing(beyond, min(left, default=None))

    def tell_lost(self, guard: Guard) -> float | None:
        """Duty: tell the plugins of each node that was lost without having given its lease up."""
        del guard
        missing = self.missing()
        self._told &= missing.beyond
        fresh = sorted(missing.beyond - self._told)
        for node, last in zip(
            fresh, documents.read_many(self._context.store, [keys.generation(n) for n in fresh]), strict=True
        ):
            self._told.add(node)
            if last is not None and not last.value.released:
                log.warning("node-lost node=%s lease=%d", node, last.value.generation)
                self._context.drivers.notify("node_lost", node=node)
        return missing.next_s


class LostTasks:
    """Duty: a task ends also when its node's daemon does not come back to say so."""

    def __init__(self, context: NodeContext, watch: Watch) -> None:
        self._context = context
        self._watch = watch
        self._ended: set[str] = set()
        self._members: frozenset[str] = frozenset()

    def __call__(self, guard: Guard) -> float | None:
        """Fail the unfinished tasks of nodes whose lease is gone for longer than the grace time."""
        store = self._context.store
        missing = self._watch.missing()
        members = frozenset(store.children(f"{keys.SPEC}/node"))
        if missing.beyond or members != self._members:
            ids = store.children(keys.TASK)
            self._ended &= set(ids)
            unread = [keys.task(id_) for id_ in ids if id_ not in self._ended]
            for entry in documents.read_many(store, unread):
                if entry is None:
                    continue
                if entry.value.state in FINAL:
                    self._ended.add(entry.value.id)
                elif entry.value.node in missing.beyond or entry.value.node not in members:
                    self._fail(entry, guard)
            self._members = members
        return missing.next_s

    def _fail(self, entry: Entry[Task], guard: Guard) -> None:
        task = entry.value
        did = "ran" if task.state is TaskState.RUNNING else "waited there"
        failed = replace(
            task,
            state=TaskState.FAILED,
            error=f"the daemon of node {task.node} ended while the task {did}",
            finished=self._context.clock.wall(),
        )
        absent = CheckAbsent(keys.lease(task.node).path)
        try:
            self._context.store.commit(entry.put(failed), absent, *guard)
        except Conflict as error:
            log.debug("task-not-failed task=%s error=%s", task.id, error)
            return
        log.warning("task-failed task=%s kind=%s node=%s reason=node-gone", task.id, task.kind, task.node)


class Orphans:
    """Duty: pools and volumes whose node is gone, or was removed, get another one to take care of them."""

    def __init__(self, context: NodeContext, watch: Watch, ops: Ops) -> None:
        self._context = context
        self._watch = watch
        self._ops = ops
        self._looked_at: tuple[frozenset[str], float] | None = None

    def __call__(self, guard: Guard) -> float | None:
        """Reassign; all specs are read when the working nodes have changed, and once in a resync interval."""
        store, now = self._context.store, self._context.clock.monotonic()
        missing = self._watch.missing()
        working = frozenset(store.children(f"{keys.SPEC}/node")) - missing.beyond
        last = self._looked_at
        if last is not None and last[0] == working and now - last[1] < self._context.timing.resync:
            return missing.next_s
        pool_ids = [keys.pool_spec(id_) for id_ in store.children(f"{keys.SPEC}/pool")]
        pools = [entry for entry in documents.read_many(store, pool_ids) if entry is not None]
        for pool in pools:
            if pool.value.node not in working:
                self._reassign(pool, f"pool {pool.value.name}", pool.value.driver, guard)
        drivers = {pool.value.id: pool.value.driver for pool in pools}
        volumes = [keys.volume_spec(id_) for id_ in store.children(f"{keys.SPEC}/volume")]
        for volume in documents.read_many(store, volumes):
            if volume is not None and volume.value.node not in working and volume.value.pool in drivers:
                self._reassign(volume, f"volume {volume.value.name}", drivers[volume.value.pool], guard)
        self._looked_at = working, now
        return missing.next_s

    def _reassign(self, entry: Entry[Kept], what: str, driver: str, guard: Guard) -> None:
        gone = entry.value.node
        try:
            node = choose_volume_node(self._ops, driver)
        except NoNodeFits as error:
            log.warning("orphan-kept object=%r error=%s", what, error)
            return
        absent = () if gone is None else (CheckAbsent(keys.lease(gone).path),)
        try:
            moved = replace(entry.value, node=node, generation=entry.value.generation + 1)
            self._context.store.commit(entry.put(moved), *absent, *guard)
        except Conflict as error:
            log.debug("not-reassigned object=%r error=%s", what, error)
            return
        log.info("reassigned object=%r from=%s to=%s", what, gone or "nobody", node)


class Upkeep:
    """Duties that keep the cluster tidy."""

    def __init__(self, context: NodeContext, watch: Watch, ops: Ops) -> None:
        self._context = context
        self._watch = watch
        self._ops = ops
        self._pruned: float | None = None

    def place(self, guard: Guard) -> float | None:
        """Duty: give a place to VMs that wait for one.

        Not while a node is gone for less than the grace time: its daemon is probably only started again, and
        VMs that are about to start there would be scattered.
        """
        missing = self._watch.missing()
        if missing.next_s is not None:
            return missing.next_s
        placed = place_waiting(self._ops, guard)
        for vm, node in sorted(placed.moves.items()):
            log.info("vm-placed vm=%s node=%s", vm, node)
        return self._context.timing.publish if placed.stuck else None

    def prune(self, guard: Guard) -> float | None:
        """Duty: forget tasks that ended long ago."""
        del guard
        now = self._context.clock.monotonic()
        if self._pruned is None or now - self._pruned >= _PRUNE_S:
            removed = task_prune(self._ops, TaskPrune()).removed
            self._pruned = now
            if removed:
                log.info("tasks-forgotten count=%d", removed)
        return None
