"""Who holds the volumes of a pool: one object of the pool, a key for each volume that was ever attached.

A key is replaced by compare-and-set on the object's OSD (``omap_cmp``), so of two nodes only one gets a volume.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from pvc_ceph.worker.ceph import Cluster, ceph_errors, read_omap, read_omap_key, write_omap
from pvc_core.plugin.holding import Holding

_OBJECT: Final = "pvc.holders"
_DECODER: Final = msgspec.json.Decoder(Holding)


def get(cluster: Cluster, pool: str, id_: str) -> Holding:
    """Return who holds the image with this id."""
    return _read(cluster, pool, id_)[0]


def change(cluster: Cluster, pool: str, id_: str, next_: Callable[[Holding], Holding]) -> Holding:
    """Replace who holds an image, by what ``next_`` makes of it; what that raises changes nothing."""
    while True:
        now, body = _read(cluster, pool, id_)
        new = next_(now)
        if new == now:
            return now
        with ceph_errors(f"Ceph's pool {pool}"):
            if write_omap(cluster.pool(pool), _OBJECT, id_, body, msgspec.json.encode(new)):
                return new


def forget(cluster: Cluster, pool: str, id_: str) -> None:
    """Forget an image that is deleted."""
    while True:
        _, body = _read(cluster, pool, id_)
        with ceph_errors(f"Ceph's pool {pool}"):
            if not body or write_omap(cluster.pool(pool), _OBJECT, id_, body, b""):
                return


def every(cluster: Cluster, pool: str) -> dict[str, Holding]:
    """Return all, by the id of the image."""
    with ceph_errors(f"Ceph's pool {pool}"):
        found = read_omap(cluster.pool(pool), _OBJECT)
    return {id_: _DECODER.decode(body) for id_, body in found.items()}


def _read(cluster: Cluster, pool: str, id_: str) -> tuple[Holding, bytes]:
    with ceph_errors(f"Ceph's pool {pool}"):
        body = read_omap_key(cluster.pool(pool), _OBJECT, id_)
    return (_DECODER.decode(body) if body else Holding()), body
