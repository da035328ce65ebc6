"""Releases what a killed daemon left attached: volumes held for VMs that are no longer this node's business."""

import logging

from pvc_core.model.errors import PvcError
from pvc_core.model.storage import PoolSpec
from pvc_core.node.context import NodeContext
from pvc_core.node.workqueue import WorkQueue
from pvc_core.plugin.specs.storage import Attachment, VolumeRef
from pvc_core.store import documents, keys

log = logging.getLogger(__name__)


class Recovery:
    """Reconciler of the key ``("recovery", "")``: done once after the start, repeated while something is left.

    An attachment is released while its VM's key is taken, so that it never happens in the middle of a start or
    of the preparation of an incoming migration.
    """

    def __init__(self, context: NodeContext, queue: WorkQueue) -> None:
        self._context = context
        self._queue = queue
        self._done: set[str] = set()

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one)
        """Look at every working storage driver that was not looked at yet.  Raises HypervisorUnavailable."""
        again: float | None = None
        for driver in self._context.drivers.storage_drivers():
            if driver in self._done:
                continue
            try:
                left = self._release_all(driver)
            except PvcError as error:
                log.warning("recovery-failed driver=%s error=%s", driver, error)
                left = True
            if left:
                again = self._context.timing.publish
            else:
                self._done.add(driver)
        return again

    def _release_all(self, driver: str) -> bool:
        attachments = self._context.drivers.storage(driver).disk_attachments()
        pools = self._pools() if attachments else {}
        left = False
        for attachment in attachments:
            key = ("vm", attachment.vm)
            if not self._queue.take(key):
                left = True
                continue
            try:
                self._release(driver, attachment, pools)
            finally:
                self._queue.done(key, 0.0)
        return left

    def _release(self, driver: str, attachment: Attachment, pools: dict[str, PoolSpec]) -> None:
        if self._needed(attachment.vm):
            return
        pool = pools.get(attachment.pool)
        if pool is None:
            log.warning(
                "attachment-kept pool=%s volume=%s vm=%s reason=pool-unknown",
                attachment.pool,
                attachment.volume,
                attachment.vm,
            )
            return
        self._context.drivers.storage(driver).disk_detach(VolumeRef(pool=pool, name=attachment.volume), attachment.vm)
        log.info("attachment-released pool=%s volume=%s vm=%s", pool.name, attachment.volume, attachment.vm)

    def _needed(self, vm: str) -> bool:
        """Return whether this node may still use the VM's volumes: domain, claim or migration."""
        claim = documents.read(self._context.store, keys.claim(vm))
        me = self._context.name
        if claim is not None:
            migration = claim.value.migration
            if claim.value.node == me or (migration is not None and migration.target == me):
                return True
        return self._context.hypervisor.domain(vm) is not None

    def _pools(self) -> dict[str, PoolSpec]:
        store = self._context.store
        wanted = [keys.pool_spec(id_) for id_ in store.children(f"{keys.SPEC}/pool")]
        pools = [entry.value for entry in documents.read_many(store, wanted) if entry is not None]
        return {pool.name: pool for pool in pools} | {pool.id: pool for pool in pools}
