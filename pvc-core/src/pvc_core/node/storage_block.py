"""Closes storage to a node that is lost, and opens it again: the way to the proof ``storage-blocked``.

``plan`` only reads.  What it returns is written into the fence record before ``close`` asks any driver, and stays there
until ``open`` has succeeded: so nothing stays closed that a primary, which died in the middle, had closed.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from pvc_core.model.errors import PvcError
from pvc_core.model.fence import Proof, ProofKind, StorageBlock
from pvc_core.model.node import NodeStatus
from pvc_core.model.storage import PoolSpec
from pvc_core.model.vm import disk_names
from pvc_core.node.context import NodeContext
from pvc_core.node.spare import why_spared
from pvc_core.plugin.specs.storage import VolumeRef
from pvc_core.runtime.api import Drivers
from pvc_core.store import documents, keys
from pvc_core.store.api import Store

log = logging.getLogger(__name__)


class _Use(NamedTuple):
    """What the guests of a node may be writing to, all of one driver."""

    driver: str
    volumes: tuple[VolumeRef, ...]

    def __str__(self) -> str:
        names = sorted({volume.pool.name for volume in self.volumes})
        return f"pool {names[0]}" if len(names) == 1 else f"pools {', '.join(names)}"

    def pools(self) -> tuple[str, ...]:
        """Return the ids of the pools."""
        return tuple(sorted({volume.pool.id for volume in self.volumes}))


def blocking_drivers(drivers: Drivers) -> list[str]:
    """Return the names of the storage drivers that work here and can keep a node from writing."""
    return [name for name in drivers.storage_drivers() if not _unable(drivers, name)]


class StorageFences:
    """The storage drivers of this coordinator, as far as they keep nodes from writing.  May be used from any thread."""

    def __init__(self, context: NodeContext) -> None:
        self._context: Final = context
        self._guard: Final = threading.Lock()
        self._locks: Final[defaultdict[str, threading.Lock]] = defaultdict(threading.Lock)

    def possible(self) -> bool:
        """Return whether some storage driver here can keep a node from writing; at once."""
        return bool(blocking_drivers(self._context.drivers))

    def plan(self, node: str, lease: int) -> tuple[StorageBlock, ...]:
        """Return what can be closed to a node that lost this lease, one per driver.  Raises StoreUnavailable."""
        found = []
        status = self._status(node)
        for use in self._uses(node)[0]:
            if status is not None and not self._obstacle(use.driver, status, node, lease):
                identity = status.identities[use.driver]
                found.append(StorageBlock(driver=use.driver, lease=lease, identity=identity, pools=use.pools()))
        return tuple(found)

    def close(self, node: str, lease: int, blocks: Iterable[StorageBlock]) -> tuple[Proof | None, str]:
        """Have each driver keep a node that lost this lease from writing, and confirm it: up to 30 s per driver.

        Returns the proof for the pools that are confirmed closed, if there are any, and what could not be closed (what
        was closed, when that is all).  A driver that fails costs the proof for its own pools only; none is asked once
        the node is to be left alone.  Raises StoreUnavailable.
        """
        with self._lock(node):
            if spared := why_spared(self._context, node, lease):
                return None, f"not tried: {spared}"
            # Those of earlier losses are in the record too: what they were confirmed for is not what this node is now.
            planned = {block.driver: block for block in blocks if block.lease == lease}
            uses, failed = self._uses(node)
            status = self._status(node)
            pools: list[str] = []
            evidence: list[str] = []
            for use in uses:
                block = planned.get(use.driver)
                if block is None:
                    why = self._obstacle(use.driver, status, node, lease) or "it was not planned yet"
                    failed.append(f"{use}: {why}")
                    continue
                closed, said = self._close(node, use, block)
                (evidence if closed else failed).append(f"{use}: {said}")
                pools += block.pools if closed else ()
        done = "; ".join(evidence)
        if not pools:
            return None, "; ".join(failed) or "none of its VMs has a disk"
        log.warning("storage-closed node=%s lease=%d pools=%s", node, lease, ",".join(sorted(pools)))
        proof = Proof(
            kind=ProofKind.STORAGE,
            evidence=done,
            by=self._context.name,
            at=self._context.clock.wall(),
            pools=tuple(sorted(pools)),
        )
        return proof, "; ".join(failed) or done

    def open(self, node: str, blocks: Iterable[StorageBlock]) -> str:
        """Let a node that is back and clean write again; returns what failed, empty: all is open.

        One call of up to 30 s per block.  Raises StoreUnavailable.
        """
        failed = []
        with self._lock(node):
            for block in blocks:
                if not self._is_back(node):
                    return "the node has no lease any more"
                try:
                    driver = self._context.drivers.storage(block.driver)
                    driver.node_unblock(node, dict(block.identity), block.lease)
                except PvcError as error:
                    failed.append(str(error))
                else:
                    log.info("storage-opened node=%s driver=%s lease=%d", node, block.driver, block.lease)
        return "; ".join(failed)

    def _close(self, node: str, use: _Use, block: StorageBlock) -> tuple[bool, str]:
        # Immediately before the call: a node that is back must not be shut out.
        if spared := why_spared(self._context, node, block.lease):
            return False, f"not tried: {spared}"
        try:
            driver = self._context.drivers.storage(use.driver)
            result = driver.node_block(node, dict(block.identity), list(use.volumes), block.lease)
        except PvcError as error:
            return False, str(error)
        return result.blocked, result.evidence or ("closed" if result.blocked else "the driver could not confirm it")

    def _is_back(self, node: str) -> bool:
        self._context.catch_up()
        return self._context.store.get(keys.lease(node).path) is not None

    def _obstacle(self, driver: str, status: NodeStatus | None, node: str, lease: int) -> str:
        """Return why a driver cannot close its storage to the node, or an empty string."""
        if reason := _unable(self._context.drivers, driver):
            return reason
        if status is None:
            return f"node {node} has never reported by what driver {driver} knows it"
        if status.lease != lease:
            return f"the last report of node {node} is of its lease {status.lease}, not of {lease}, which it lost"
        if driver not in status.identities:
            return f"node {node} could not report by what driver {driver} knows it"
        return ""

    def _status(self, node: str) -> NodeStatus | None:
        found = documents.read_all(self._context.store, [keys.node_status(node)])
        return found[0].value if found else None

    def _uses(self, node: str) -> tuple[list[_Use], list[str]]:
        """Return what the guests of a node may be writing to, by driver, and what is wrong with the rest."""
        store, wrong = self._context.store, []
        pools = {pool.name: pool for pool in _pools(store)}
        volumes: defaultdict[str, list[VolumeRef]] = defaultdict(list)
        for name, _, volume in sorted({path.partition("/") for path in _written(store, node)}):
            if name in pools:
                volumes[pools[name].driver].append(VolumeRef(pool=pools[name], name=volume))
            else:
                wrong.append(f"pool {name}: it does not exist any more")
        return [_Use(driver, tuple(found)) for driver, found in sorted(volumes.items())], wrong

    def _lock(self, node: str) -> threading.Lock:
        """Return the lock that keeps storage from being opened late to a node that was lost again."""
        with self._guard:
            return self._locks[node]


def _unable(drivers: Drivers, driver: str) -> str:
    try:
        able = drivers.storage(driver).storage_capabilities().blocks_nodes
    except PvcError as error:
        return str(error)
    return "" if able else f"storage driver {driver} has no way to keep a node from writing"


def _written(store: Store, node: str) -> set[str]:
    """Return the volumes (``pool/volume``) that guests on a node may be writing to.

    Those of their specs, and those that they were given: a guest keeps what was taken out of its spec until it lets go.
    """
    claims = documents.read_all(store, [keys.claim(vm) for vm in store.children(keys.CLAIM)])
    here = [entry.value.vm for entry in claims if entry.value.may_execute_on(node)]
    specs = documents.read_all(store, [keys.vm_spec(vm) for vm in here])
    statuses = documents.read_all(store, [keys.vm_status(vm) for vm in here])
    wanted = {volume for entry in specs for volume in disk_names(entry.value)}
    return wanted | {volume for entry in statuses for volume in entry.value.running_disks or ()}


def _pools(store: Store) -> list[PoolSpec]:
    ids = store.children(f"{keys.SPEC}/pool")
    return [entry.value for entry in documents.read_all(store, [keys.pool_spec(id_) for id_ in ids])]
