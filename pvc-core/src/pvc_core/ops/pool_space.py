"""The room in a pool, held until the transaction that uses it.

Each addition to a pool raises the version of the node that holds the references to it (``keys.ref("pool", id)``), and
demands the version it decided on.  So of several at once each decides on what the others added.
"""

from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import PvcError
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeStatus
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.plan.pool_space import PoolSpace, Wanted, over_limit, pool_space, refusal
from pvc_core.store import keys
from pvc_core.store.api import Operation, Put, Store
from pvc_core.store.documents import read, read_many


class NoSpace(PvcError):
    """The pool has no room for it."""


def require_space(store: Store, pool: PoolSpec, wanted: Wanted, *, force: bool) -> list[Operation]:
    """Return the operations that keep this decision true until the transaction; raises NoSpace.

    A pool of which no figures are known takes everything: its node has not made it yet, or its driver cannot tell, and
    a guess would refuse what there is room for.
    """
    parent = keys.ref("pool", pool.id)
    node = store.get(parent)
    space = read_space(store, pool)
    if space is not None and (why := refusal(pool.name, space, wanted, _limit(store), force=force)):
        raise NoSpace(why)
    # Missing, the transaction fails: the pool is being removed.
    return [Put(parent, node.value, node.version) if node is not None else Put(parent, b"", 0)]


def read_space(store: Store, pool: PoolSpec) -> PoolSpace | None:
    """Return a pool's space as it is now; None while no figures of it are known."""
    status = read(store, keys.pool_status(pool.id))
    if status is None or status.value.usage.total_bytes <= 0:
        return None
    return pool_space(status.value, _volumes(store, pool))


def volume_statuses(store: Store, pool: str) -> list[VolumeStatus]:
    """Return the statuses of a pool's (id) volumes, as far as there are any."""
    ids = store.children(keys.ref("pool", pool))
    entries = read_many(store, [keys.volume_status(id_) for id_ in ids])
    return [entry.value for entry in entries if entry is not None]


def space_warning(ops: Ops, pool: str) -> str:
    """Return what to warn of after something was forced into a pool (name or id); empty: nothing.  Raises NotFound."""
    found = resolve.pool(ops, pool).value
    space = read_space(ops.store, found)
    return over_limit(found.name, space, _limit(ops.store)) if space is not None else ""


def _volumes(store: Store, pool: PoolSpec) -> list[tuple[VolumeSpec, VolumeStatus | None]]:
    ids = store.children(keys.ref("pool", pool.id))
    specs = read_many(store, [keys.volume_spec(id_) for id_ in ids])
    statuses = read_many(store, [keys.volume_status(id_) for id_ in ids])
    return [
        (spec.value, status.value if status is not None else None)
        for spec, status in zip(specs, statuses, strict=True)
        if spec is not None
    ]


def _limit(store: Store) -> int:
    entry = read(store, keys.CLUSTER)
    return (entry.value if entry is not None else Cluster()).pool_full_percent
