"""Volumes: made, changed and deleted by the node that their spec names.

One step per call, and every step is idempotent or recorded first, so the daemon may die between any two:

1. The status says CREATING, and under which name.
2. The driver makes the volume (empty, or a clone); its task does when it is imported.
3. The status says READY, with what the driver reports.
4. From then on: rename, grow, and look at it again.

``status.name`` is the name in the backend.  Its index node stays reserved until the backend's rename is done, so
no other volume can be made under it meanwhile.  A volume is grown by the node where its VM runs, because the
hypervisor must be told in the same step; the spec is handed to that node first.
"""

import logging
import threading
from typing import Final

from msgspec.structs import replace

from pvc_core.hypervisor.api import HypervisorError
from pvc_core.model.base import Condition, with_condition
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.task import FINAL, TaskState
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.problems import not_ready, problem, ready
from pvc_core.node.reconcile.volume_status import clone_source, observed, write_status
from pvc_core.ops.context import Ops
from pvc_core.ops.task import TaskQuery, task_cancel
from pvc_core.ops.volume import volume_forget
from pvc_core.plugin.errors import DriverError, NotReady, ObjectExists, ObjectMissing
from pvc_core.plugin.specs.storage import StorageDriver, VolumeRef
from pvc_core.store import keys
from pvc_core.store.api import Check, Delete, Operation
from pvc_core.store.documents import Entry, read

log = logging.getLogger(__name__)

_BUSY_S: Final = 1.0
"""A task works on it: look again after this."""
_COPIES: Final = 2
"""Full copies that a node makes at the same time: each takes one of the four places for work on volumes, for hours maybe."""


class VolumeReconciler:
    """Reconciler of keys ``("volume", <id>)``.  Calls for one volume must not overlap; ``exclusive`` sees to it."""

    def __init__(self, context: NodeContext, ops: Ops, exclusive: Exclusive) -> None:
        self._c = context
        self._ops = ops
        self._exclusive = exclusive
        self._copies = threading.BoundedSemaphore(_COPIES)

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing for this volume; see ``node.context.Reconciler``."""
        spec = read(self._c.store, keys.volume_spec(id_))
        if spec is None or spec.value.node != self._c.name:
            return None
        with self._exclusive.if_free(id_) as free:
            return self._step(spec) if free else _BUSY_S

    def _step(self, spec: Entry[VolumeSpec]) -> float | None:
        volume = spec.value
        status = read(self._c.store, keys.volume_status(volume.id))
        if status is None:
            write_status(self._c, None, VolumeStatus(id=volume.id, name=volume.name), [self._check(spec)])
            return 0.0
        pool = read(self._c.store, keys.pool_spec(volume.pool))
        try:
            if pool is None:
                raise ObjectMissing(f"the storage pool {volume.pool} of volume {volume.name!r} does not exist any more")
            return self._act(spec, status, pool.value)
        except DriverError as error:
            self._failed(spec, status, error)
            if error.retryable:
                raise
            log.warning("volume-refused volume=%s name=%s error=%s", volume.id, volume.name, error)
            return None

    def _act(self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec) -> float | None:
        volume, driver = spec.value, self._c.drivers.storage(pool.driver)
        made = status.value.size_bytes > 0
        if made and status.value.name != volume.name:
            return self._rename(spec, status, pool, driver)
        if volume.deleting:
            return self._delete(spec, status, pool, driver)
        if not made:
            return (
                self._imported(spec, status, pool, driver) if volume.task else self._create(spec, status, pool, driver)
            )
        if volume.size_bytes > status.value.size_bytes:
            return self._grow(spec, status, pool, driver)
        return self._look(spec, status, pool, driver)

    # --- making -------------------------------------------------------------------------------------

    def _create(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        volume = spec.value
        ref = VolumeRef(pool=pool, name=status.value.name)
        if volume.source:
            self._clone(volume, ref, driver)
        else:
            self._create_empty(spec, ref, driver)
        log.info("volume-made volume=%s name=%s/%s source=%r", volume.id, pool.name, ref.name, volume.source)
        return self._look(spec, status, pool, driver)

    def _clone(self, volume: VolumeSpec, ref: VolumeRef, driver: StorageDriver) -> None:
        name, _, snapshot = volume.source.partition("@")
        source = clone_source(self._c.store, ref.pool, name)
        if volume.full_copy and not self._copies.acquire(blocking=False):
            raise NotReady(f"node {self._c.name} makes {_COPIES} other full copies; this one waits for them")
        try:
            driver.volume_clone(source, snapshot, ref, volume.full_copy)
        finally:
            if volume.full_copy:
                self._copies.release()

    def _create_empty(self, spec: Entry[VolumeSpec], ref: VolumeRef, driver: StorageDriver) -> None:
        volume = spec.value
        try:
            driver.volume_create(ref, volume.size_bytes, volume.format)
        except ObjectExists:
            # Made by an earlier try, and its size was raised before that try could say so: it is grown next.
            if volume.generation == 1 or driver.volume_info(ref).size_bytes >= volume.size_bytes:
                raise

    def _imported(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        """Follow the task that makes the contents."""
        volume = spec.value
        task = read(self._c.store, keys.task(volume.task))
        if task is not None and task.value.state not in FINAL:
            waiting = not_ready("Waiting", f"task {volume.task} makes its contents", self._c.clock.wall())
            said = with_condition(status.value.conditions, waiting)
            write_status(self._c, status, replace(status.value, conditions=said))
            return _BUSY_S
        if task is not None and task.value.state is TaskState.DONE:
            return self._look(spec, status, pool, driver)
        why = f"task {volume.task} is gone" if task is None else f"task {volume.task}: {task.value.error}"
        message = f"its contents were never made ({why}); remove it"
        condition = not_ready("ImportFailed", message, self._c.clock.wall())
        self._say(spec, status, VolumeState.FAILED, condition)
        return None

    # --- changing -----------------------------------------------------------------------------------

    def _rename(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        volume, old = spec.value, status.value.name
        try:
            driver.volume_rename(VolumeRef(pool=pool, name=old), volume.name)
        except ObjectMissing:
            if not volume.deleting:
                raise
        index = keys.volume_name(pool.name, old)
        node = self._c.store.get(index)
        ours = node is not None and node.value.decode() == volume.id
        free: list[Operation] = [Delete(index, node.version)] if node is not None and ours else []
        write_status(self._c, status, replace(status.value, name=volume.name), [self._check(spec), *free])
        log.info("volume-renamed volume=%s old=%s new=%s", volume.id, old, volume.name)
        return 0.0

    def _grow(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        volume = spec.value
        if status.value.state is not VolumeState.RESIZING and self._is_new(spec, status):
            write_status(self._c, status, replace(status.value, state=VolumeState.RESIZING))
            return 0.0
        ref = VolumeRef(pool=pool, name=volume.name)
        vm = self._c.store.get(keys.volume_holder(volume.id))
        where = self._running_on(vm.value.decode()) if vm is not None else ""
        if where not in ("", self._c.name):
            return self._hand_over(spec, where)
        driver.volume_resize(ref, volume.size_bytes)
        if vm is not None and where:
            self._tell_guest(vm.value.decode(), pool, volume)
        log.info("volume-grown volume=%s name=%s/%s size=%d", volume.id, pool.name, volume.name, volume.size_bytes)
        return self._look(spec, status, pool, driver)

    def _running_on(self, vm: str) -> str:
        """Return the node that runs the volume's VM; raises NotReady while it is moving."""
        claim = read(self._c.store, keys.claim(vm))
        if claim is None:
            return ""
        if claim.value.migration is not None:
            raise NotReady(f"VM {vm} is moving; its disks are grown when it has arrived")
        return claim.value.node

    def _hand_over(self, spec: Entry[VolumeSpec], node: str) -> float | None:
        if self._c.store.get(keys.lease(node).path) is None:
            raise NotReady(f"node {node}, where its VM runs, is not alive")
        new = replace(spec.value, node=node, generation=spec.value.generation + 1)
        self._c.store.commit(spec.put(new), Check(keys.lease(node).path), *self._c.lease.guard())
        log.info("volume-handed-over volume=%s to=%s", spec.value.id, node)
        return None

    def _tell_guest(self, vm: str, pool: PoolSpec, volume: VolumeSpec) -> None:
        domain = self._c.hypervisor.domain(vm)
        spec = read(self._c.store, keys.vm_spec(vm))
        if domain is None or spec is None:
            return
        path = f"{pool.name}/{volume.name}"
        targets = [disk.target for disk in domain.disks if disk.volume == path]
        if not targets and any(disk.volume is None for disk in domain.disks):
            # An earlier version started it, so its disks do not say which they are; they are as its spec has them.
            targets = [
                d.target for wanted, d in zip(spec.value.disks, domain.disks, strict=False) if wanted.path == path
            ]
        for target in targets:
            try:
                self._c.hypervisor.resize_disk(vm, target, volume.size_bytes)
            except HypervisorError as error:
                raise DriverError(f"the guest could not be told the new size: {error}") from error

    def _look(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        """Say what the backend reports; then look whether more is to be done."""
        info = driver.volume_info(VolumeRef(pool=pool, name=status.value.name))
        conditions = with_condition(status.value.conditions, ready(self._c.clock.wall()))
        new = replace(observed(status.value, info), state=VolumeState.READY, conditions=conditions)
        done = new.name == spec.value.name and new.size_bytes >= spec.value.size_bytes
        if done:
            new = replace(new, observed_generation=spec.value.generation)
        write_status(self._c, status, new)
        return None if done else 0.0

    def _delete(
        self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], pool: PoolSpec, driver: StorageDriver
    ) -> float | None:
        volume = spec.value
        if status.value.state is not VolumeState.DELETING and self._is_new(spec, status):
            write_status(self._c, status, replace(status.value, state=VolumeState.DELETING))
            return 0.0
        task = read(self._c.store, keys.task(volume.task)) if volume.task else None
        if task is not None and task.value.state not in FINAL:
            # It would make the volume again.
            if not task.value.cancel:
                task_cancel(self._ops, TaskQuery(task=volume.task))
            return _BUSY_S
        driver.volume_delete(VolumeRef(pool=pool, name=status.value.name))
        volume_forget(self._ops, volume.id, self._c.lease.guard())
        log.info("volume-deleted volume=%s name=%s/%s", volume.id, pool.name, status.value.name)
        return None

    # --- saying -------------------------------------------------------------------------------------

    def _is_new(self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus]) -> bool:
        """Whether this generation has not failed before: a repeated try does not change the state to and fro."""
        return status.value.observed_generation < spec.value.generation

    def _failed(self, spec: Entry[VolumeSpec], status: Entry[VolumeStatus], error: DriverError) -> None:
        made = status.value.size_bytes > 0
        state = status.value.state
        if not error.retryable:
            whole = made and not spec.value.deleting and not isinstance(error, ObjectMissing)
            state = VolumeState.READY if whole else VolumeState.FAILED
        self._say(spec, status, state, problem(error, self._c.clock.wall()), settled=not error.retryable)

    def _say(
        self,
        spec: Entry[VolumeSpec],
        status: Entry[VolumeStatus],
        state: VolumeState,
        condition: Condition,
        *,
        settled: bool = True,
    ) -> None:
        generation = spec.value.generation if settled else status.value.observed_generation
        conditions = with_condition(status.value.conditions, condition)
        new = replace(status.value, state=state, conditions=conditions, observed_generation=generation)
        write_status(self._c, status, new)

    def _check(self, spec: Entry[VolumeSpec]) -> Operation:
        return Check(spec.key.path, spec.version)
