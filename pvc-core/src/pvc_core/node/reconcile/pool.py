"""Storage pools: made, watched and deleted by the node that their spec names.

The primary names another one when that node's lease is gone.
"""

import logging
from typing import Final

from msgspec.structs import replace

from pvc_core.model.base import with_condition
from pvc_core.model.storage import PoolSpec, PoolStatus, PoolUsage
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.problems import problem, ready
from pvc_core.ops.context import Ops
from pvc_core.ops.pool import pool_forget
from pvc_core.ops.pool_space import volume_statuses
from pvc_core.plan.pool_space import made_bytes
from pvc_core.plugin.errors import DriverError
from pvc_core.store import keys
from pvc_core.store.documents import Entry, create, read

log = logging.getLogger(__name__)

_USAGE_S: Final = 60.0


class PoolReconciler:
    """Reconciler of keys ``("pool", <id>)``."""

    def __init__(self, context: NodeContext, ops: Ops) -> None:
        self._c = context
        self._ops = ops

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing for this pool; see ``node.context.Reconciler``."""
        spec = read(self._c.store, keys.pool_spec(id_))
        if spec is None or spec.value.node != self._c.name:
            return None
        status = read(self._c.store, keys.pool_status(id_))
        pool = spec.value
        try:
            if pool.deleting:
                self._c.drivers.storage(pool.driver).pool_delete(pool)
                pool_forget(self._ops, id_, self._c.lease.guard())
                log.info("pool-deleted pool=%s name=%s", id_, pool.name)
                return None
            # Before the usage is asked for: what is written in between is then counted twice, not left out.
            volumes = made_bytes(volume_statuses(self._c.store, id_))
            usage = self._look_after(pool, status.value if status is not None else None)
        except DriverError as error:
            self._failed(pool, status, error)
            if error.retryable:
                raise
            log.warning("pool-refused pool=%s name=%s error=%s", id_, pool.name, error)
            return _USAGE_S
        old = status.value if status is not None else PoolStatus(id=id_)
        conditions = with_condition(old.conditions, ready(self._c.clock.wall()))
        new = replace(
            old,
            observed_generation=pool.generation,
            usage=usage,
            volumes_bytes=volumes,
            conditions=conditions,
            created=True,
        )
        self._write(status, new)
        return _USAGE_S

    def _look_after(self, pool: PoolSpec, status: PoolStatus | None) -> PoolUsage:
        """Make the pool, or look whether it is there; return its usage.

        A pool that was made once is never made again without being found: an unmounted directory, or the wrong
        cluster, would otherwise be taken for a new one.
        """
        driver = self._c.drivers.storage(pool.driver)
        if status is None or not status.created:
            driver.pool_ensure(pool)
            log.info("pool-made pool=%s name=%s driver=%s", pool.id, pool.name, pool.driver)
            return driver.pool_usage(pool)
        usage = driver.pool_usage(pool)
        if status.observed_generation != pool.generation or not all(c.ok for c in status.conditions):
            driver.pool_ensure(pool)
        return usage

    def _failed(self, pool: PoolSpec, status: Entry[PoolStatus] | None, error: DriverError) -> None:
        old = status.value if status is not None else PoolStatus(id=pool.id)
        conditions = with_condition(old.conditions, problem(error, self._c.clock.wall()))
        observed = old.observed_generation if error.retryable else pool.generation
        self._write(status, replace(old, observed_generation=observed, conditions=conditions))

    def _write(self, status: Entry[PoolStatus] | None, new: PoolStatus) -> None:
        if status is None:
            self._c.store.commit(create(keys.pool_status(new.id), new), *self._c.lease.guard())
        elif new != status.value:
            self._c.store.commit(status.put(new), *self._c.lease.guard())
