"""What the primary does for the whole cluster.

Every write carries the checks that the caller is still the primary, and where it rests on a node being gone,
the check that its lease is gone.
"""

import logging
from typing import Final, TypeVar

from msgspec.structs import replace

from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import Conflict, NoNodeFits
from pvc_core.model.node import NodeSpec
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.model.vm import VmState, VmStatus
from pvc_core.node.context import NodeContext
from pvc_core.node.watch import Watch
from pvc_core.ops.context import Ops
from pvc_core.ops.evacuate import place_waiting
from pvc_core.ops.task import TaskPrune, task_prune
from pvc_core.ops.volume_documents import choose_volume_node
from pvc_core.plan.backoff import least
from pvc_core.store import documents, keys
from pvc_core.store.api import Check, CheckAbsent, Operation
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

Guard = tuple[Operation, ...]
Kept = TypeVar("Kept", PoolSpec, VolumeSpec)
"""What a node takes care of."""

Maintained = TypeVar("Maintained", Cluster, NodeSpec)
"""What can be in maintenance."""

_TOLD: Final = 5
"""So many nodes are named in a reason; more are counted."""
_PRUNE_S: Final = 3600.0


class TellLost:
    """Duty: tell the plugins of each node that was lost without having given its lease up."""

    def __init__(self, context: NodeContext, watch: Watch) -> None:
        self._context = context
        self._watch = watch
        self._told: dict[str, int] = {}
        """Node -> generation of the lease whose loss was told."""

    def __call__(self, guard: Guard) -> float | None:
        """Tell each loss once."""
        del guard
        missing, gone = self._watch.missing(), self._watch.gone()
        for node in sorted(missing.beyond & set(gone)):
            last = gone[node].last.value
            if self._told.get(node) != last.generation and not last.released:
                self._told[node] = last.generation
                log.warning("node-lost node=%s lease=%d", node, last.generation)
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
            for entry in documents.read_all(store, unread):
                if entry.value.state in FINAL:
                    self._ended.add(entry.value.id)
                elif entry.value.node in missing.beyond or entry.value.node not in members:
                    self._fail(entry, guard)
            self._members = members
        return missing.next_s

    def _fail(self, entry: Entry[Task], guard: Guard) -> None:
        task = entry.value
        did = "ran: what it had begun may go on there" if task.state is TaskState.RUNNING else "waited there"
        failed = replace(
            task,
            state=TaskState.FAILED,
            error=f"node {task.node} lost its lease while the task {did}",
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
        pools = documents.read_all(store, pool_ids)
        for pool in pools:
            if pool.value.node not in working:
                self._reassign(pool, f"pool {pool.value.name}", pool.value.driver, guard)
        drivers = {pool.value.id: pool.value.driver for pool in pools}
        volumes = [keys.volume_spec(id_) for id_ in store.children(f"{keys.SPEC}/volume")]
        for volume in documents.read_all(store, volumes):
            if volume.value.node not in working and volume.value.pool in drivers:
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


class Placing:
    """Duty: VMs that have no place get one, or a reason why not."""

    def __init__(self, context: NodeContext, watch: Watch, ops: Ops) -> None:
        self._context = context
        self._watch = watch
        self._ops = ops

    def __call__(self, guard: Guard) -> float | None:
        """Place all of them together.

        But for those whose node is gone for less than the grace time: its daemon is probably only started again, and
        VMs that are about to start there would be scattered.
        """
        missing = self._watch.missing()
        placed = place_waiting(self._ops, guard, keep=missing.within)
        for vm, node in sorted(placed.moves.items()):
            log.info("vm-placed vm=%s node=%s", vm, node)
        for vm, reasons in sorted(placed.stuck.items()):
            self._tell_stuck(vm, reasons, guard)
        return least(missing.next_s, self._context.timing.publish if placed.stuck else None)

    def _tell_stuck(self, vm: str, reasons: dict[str, str], guard: Guard) -> None:
        """Let the status of a VM that fits nowhere say so."""
        store = self._context.store
        claim, status = keys.claim(vm), documents.read(store, keys.vm_status(vm))
        told = [f"{node}: {reason}" for node, reason in sorted(reasons.items())]
        more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        reason = f"no node can take it: {'; '.join(told[:_TOLD]) or 'the cluster has no nodes'}{more}"
        old = status.value if status is not None else VmStatus(id=vm)
        if (old.state, old.reason) == (VmState.WAITING, reason):
            return
        waiting = replace(old, state=VmState.WAITING, node=None, reason=reason)
        say = status.put(waiting) if status is not None else documents.create(keys.vm_status(vm), waiting)
        held = documents.read(store, claim)
        vacant = CheckAbsent(claim.path) if held is None else Check(claim.path, held.version)
        if held is not None and held.value.node:
            return
        try:
            # Nor does it outlive its VM.
            store.commit(say, vacant, Check(keys.vm_spec(vm).path), *guard)
        except Conflict as error:
            log.debug("stuck-not-told vm=%s error=%s", vm, error)
        else:
            log.warning("vm-waits vm=%s reason=%r", vm, reason)


class EndMaintenance:
    """Duty: maintenance that was given an end ends then."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    def __call__(self, guard: Guard) -> float | None:
        """End what is over by this node's wall clock; that clock decides only when fencing is allowed again."""
        store = self._context.store
        specs = [keys.node_spec(node) for node in store.children(f"{keys.SPEC}/node")]
        cluster = self._end(documents.read(store, keys.CLUSTER), guard)
        return least(cluster, *(self._end(entry, guard) for entry in documents.read_all(store, specs)))

    def _end(self, entry: Entry[Maintained] | None, guard: Guard) -> float | None:
        """End one maintenance that is over; return the seconds until it must be looked at again."""
        if entry is None or not (entry.value.maintenance and entry.value.maintenance_until):
            return None
        left = entry.value.maintenance_until - self._context.clock.wall()
        if left > 0:
            return min(left, self._context.timing.resync)
        value = entry.value
        over = replace(value, maintenance=False, maintenance_until=0.0, generation=value.generation + 1)
        try:
            self._context.store.commit(entry.put(over), *guard)
        except Conflict as error:
            log.debug("maintenance-not-ended key=%s error=%s", entry.key.path, error)
            return 1.0
        log.info("maintenance-ended of=%s", entry.key.path.rpartition("/")[2])
        return None


class Prune:
    """Duty: forget tasks that ended long ago."""

    def __init__(self, context: NodeContext, ops: Ops) -> None:
        self._context = context
        self._ops = ops
        self._pruned: float | None = None

    def __call__(self, guard: Guard) -> float | None:
        """Forget them, once an hour."""
        del guard
        now = self._context.clock.monotonic()
        if self._pruned is None or now - self._pruned >= _PRUNE_S:
            removed = task_prune(self._ops, TaskPrune()).removed
            self._pruned = now
            if removed:
                log.info("tasks-forgotten count=%d", removed)
        return None
