"""Volumes whose contents QEMU's tools write: made under a hidden name, and given their own when they are complete."""

from pvc_ceph.protocol import Readable
from pvc_ceph.worker import holdings, names
from pvc_ceph.worker.ceph import FEATURES, RBD, Cluster, ceph_errors
from pvc_ceph.worker.volumes import instant_of, keep_instant, opened, what
from pvc_core.plugin import ObjectExists
from pvc_core.plugin.holding import check_unused


def begin(cluster: Cluster, pool: str, name: str, size_bytes: int) -> str:
    """Create an empty image for a volume that does not exist yet; return its hidden name."""
    ioctx = cluster.pool(pool)
    with ceph_errors(what(pool, name)):
        if name in RBD().list(ioctx):
            raise ObjectExists(f"{what(pool, name)} exists already")
        hidden = names.new(cluster, pool, name)
        RBD().create(ioctx, hidden, size_bytes, old_format=False, features=FEATURES)
    return hidden


def finish(cluster: Cluster, pool: str, name: str, hidden: str) -> None:
    """Give a complete image the name of its volume."""
    with ceph_errors(what(pool, name)):
        names.rename(cluster, pool, hidden, name)


def readable(cluster: Cluster, pool: str, name: str, snapshot: str) -> Readable:
    """Return the snapshot to read, of an unused volume itself a hidden one; ``release`` it then.  Raises ObjectBusy."""
    with opened(cluster, pool, name, snapshot=snapshot or None, read_only=True) as image:
        if not snapshot:
            check_unused(holdings.get(cluster, pool, image.id()), name, "export it, or export a snapshot of it")
    base = snapshot or keep_instant(cluster, pool, name)
    return Readable(base, instant_of(cluster, pool, name, base))


def release(cluster: Cluster, pool: str, name: str, snapshot: str) -> None:
    """Let go of what ``readable`` returned."""
    if snapshot.startswith(names.HIDDEN_SNAPSHOT):
        with ceph_errors(what(pool, name)):
            names.drop_hidden(cluster, pool, name, snapshot)
