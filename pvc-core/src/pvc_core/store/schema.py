"""The layout of the state tree: made at the first start, checked at every start, brought up to date on demand.

Daemons of two versions run side by side while a cluster is updated node by node.  So a daemon takes any
layout from ``OLDEST`` to ``SCHEMA``, and the tree is only brought up to date by ``upgrade``, which an
operator calls when every node has the new version.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import PvcError, Unavailable
from pvc_core.model.node import Primary
from pvc_core.store import keys
from pvc_core.store.api import Create, Failure, Operation, Store, TransactionFailed
from pvc_core.store.documents import Entry, create, read

log = logging.getLogger(__name__)

SCHEMA: Final = 1
"""The layout that this version writes."""
OLDEST: Final = 1
"""The oldest layout that this version works with."""
RESTORING: Final = f"{keys.ROOT}/restoring"
"""Exists while a restore is going on, or was interrupted; holds the digest of its file."""

Step = Callable[[Store], None]
"""Brings a tree from one layout to the next.  May be interrupted and repeated, so it must be idempotent."""

UPGRADES: Final[Mapping[int, Step]] = {}
"""Layout -> the step from it to the next one."""


class SchemaMismatch(PvcError):
    """The state tree has a layout that this version does not know."""


def initialise(store: Store, *, name: str = "pvc") -> Cluster:
    """Make what is missing of the tree's base and return the cluster's settings.  Idempotent, safe in a race.

    ``name`` is given to a cluster that is made now.  Raises SchemaMismatch when the tree is of a layout that this
    version does not work with, Unavailable while a restore is unfinished.
    """
    if store.get(RESTORING) is not None:
        raise Unavailable(
            "the state tree is being restored from a backup, or the restore was interrupted: wait, or repeat the restore "
            "with the same file"
        )
    _create_missing(store, [Create(path, b"") for path in keys.BASE])
    _create_missing(store, [create(keys.CLUSTER, Cluster(name=name, schema=SCHEMA)), create(keys.PRIMARY, Primary())])
    cluster = _cluster(store).value
    if not OLDEST <= cluster.schema <= SCHEMA:
        todo = "update PVC on this machine" if cluster.schema > SCHEMA else "update by way of an older version of PVC"
        raise SchemaMismatch(
            f"the state tree of cluster {cluster.name!r} has layout {cluster.schema}, and this version of PVC works with "
            f"{OLDEST} to {SCHEMA}: {todo}"
        )
    return cluster


def upgrade(store: Store, *, steps: Mapping[int, Step] = UPGRADES, target: int = SCHEMA) -> int:
    """Bring the tree to layout ``target``, step by step; return the layout it had.  Repeat after an interruption."""
    before = _cluster(store).value.schema
    while True:
        entry = _cluster(store)
        schema = entry.value.schema
        if schema >= target:
            return before
        if schema not in steps:
            raise SchemaMismatch(f"there is no way from layout {schema} of the state tree to {target}")
        steps[schema](store)
        store.commit(entry.put(msgspec.structs.replace(entry.value, schema=schema + 1)))
        log.info("schema-upgraded from=%d to=%d", schema, schema + 1)


def _cluster(store: Store) -> Entry[Cluster]:
    entry = read(store, keys.CLUSTER)
    if entry is None:
        raise SchemaMismatch(f"the state tree has no {keys.CLUSTER.path}: no node of this cluster was ever started")
    return entry


def _create_missing(store: Store, wanted: list[Create]) -> None:
    while True:
        found = store.get_many([operation.path for operation in wanted])
        missing: list[Operation] = [op for op, node in zip(wanted, found, strict=True) if node is None]
        if not missing:
            return
        try:
            store.commit(*missing)
        except TransactionFailed as error:
            # Another node did some of it at the same moment: look again.
            if error.failure is not Failure.EXISTS:
                raise
