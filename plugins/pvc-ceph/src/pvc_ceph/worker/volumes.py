"""Volumes: images of a pool."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from pvc_ceph.worker import holdings, kept, names, watchers
from pvc_ceph.worker.ceph import FEATURES, RBD, Cluster, Image, ImageExists, NoSpace, ceph_errors
from pvc_core.model.storage import Snapshot
from pvc_core.plugin import DriverError, ObjectBusy, ObjectExists, ObjectMissing, VolumeInfo
from pvc_core.plugin.holding import check_unused

_AT_ONCE: Final = 16
"""Images that are opened at the same time for a list."""


def what(pool: str, name: str) -> str:
    """Return a volume as errors name it."""
    return f"volume {name!r} of Ceph's pool {pool}"


@contextmanager
def opened(
    cluster: Cluster, pool: str, name: str, *, snapshot: str | None = None, read_only: bool = False
) -> Iterator[Image]:
    """Open a volume; errors name it."""
    ioctx = cluster.pool(pool)
    with ceph_errors(what(pool, name)), Image(ioctx, name, snapshot, read_only=read_only) as image:
        yield image


def metadata(image: Image, key: str) -> str | None:
    """Return what is noted under a key with a volume, None when nothing is."""
    try:
        return str(image.metadata_get(key))
    except KeyError:
        return None


def all_of(cluster: Cluster, pool: str) -> list[VolumeInfo]:
    """Return all volumes of a pool: a handful of requests for each, many at the same time."""

    def look(name: str) -> VolumeInfo | None:
        try:
            return info(cluster, pool, name)
        except ObjectMissing:
            if _exists(cluster, pool, name):
                raise
            return None  # deleted meanwhile, or half made

    with ceph_errors(f"Ceph's pool {pool}"):
        volumes = names.volumes(cluster, pool)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return [found for found in threads.map(look, volumes) if found is not None]


def info(cluster: Cluster, pool: str, name: str) -> VolumeInfo:
    """Return one volume."""
    with opened(cluster, pool, name, read_only=True) as image:
        size = image.size()
        used = 0

        def count(_offset: int, length: int, exists: bool) -> None:
            nonlocal used
            used += length if exists else 0

        # With the feature fast-diff this reads the image's object map only.
        image.diff_iterate(0, size, None, count, include_parent=False, whole_object=True)
        above = names.parent(image)
        return VolumeInfo(
            name=name,
            size_bytes=size,
            used_bytes=min(used, size),
            snapshots=tuple(_snapshots(image)),
            parent="" if above is None else above[0] if above[1].startswith(names.HIDDEN_SNAPSHOT) else "@".join(above),
        )


def _snapshots(image: Image) -> Iterator[Snapshot]:
    for found in kept.named(image):
        if not found.name.startswith(names.HIDDEN_SNAPSHOT):
            yield Snapshot(
                name=found.name,
                protected=image.is_protected_snap(found.name),
                size_bytes=found.size_bytes,
                created=found.created(image).timestamp(),
            )


def create(cluster: Cluster, pool: str, name: str, size_bytes: int) -> None:
    """Create an empty volume; one of this name and size is success."""
    ioctx = cluster.pool(pool)
    with ceph_errors(what(pool, name)):
        try:
            RBD().create(ioctx, name, size_bytes, old_format=False, features=FEATURES)
        except ImageExists:
            pass
        else:
            return
    try:
        found = _size(cluster, pool, name)
    except ObjectMissing:
        # A call that was killed in the middle of its creation: the name is there, the image is not.
        with ceph_errors(what(pool, name)):
            RBD().remove(ioctx, name)
            RBD().create(ioctx, name, size_bytes, old_format=False, features=FEATURES)
        return
    if found != size_bytes:
        raise ObjectExists(f"{what(pool, name)} exists already, with {found} bytes, not {size_bytes}")


def delete(cluster: Cluster, pool: str, name: str) -> None:
    """Delete a volume with its snapshots; an absent one is success."""
    ioctx = cluster.pool(pool)
    with ceph_errors(what(pool, name)):
        names.finish(cluster, pool, name)
    try:
        with opened(cluster, pool, name) as image:
            id_ = image.id()
            check_unused(holdings.get(cluster, pool, id_), name, "delete it")
            _check_no_clones(cluster, pool, image, name)
            _check_not_open(cluster, pool, image, name)
            _check_only_own_snapshots(image, name)
    except ObjectMissing:
        if name not in RBD().list(ioctx):
            _finish_deletion(cluster, pool, name)
            return
        id_ = ""  # half made, or half deleted
    with ceph_errors(what(pool, name)):
        if not id_:
            RBD().remove(ioctx, name)
            return
        doomed = _doom(cluster, pool, name, id_)
        holdings.forget(cluster, pool, id_)
        names.remove(cluster, pool, doomed)


def _finish_deletion(cluster: Cluster, pool: str, name: str) -> None:
    """Go on with a deletion that took longer than a call may: what is gone of the data is gone."""
    with ceph_errors(what(pool, name)):
        for doomed, id_ in names.doomed_of(cluster, pool, name).items():
            holdings.forget(cluster, pool, id_)
            names.remove(cluster, pool, doomed)


def _doom(cluster: Cluster, pool: str, name: str, id_: str) -> str:
    """Take a volume's name away; return the one that it has then."""
    doomed = names.doomed(id_, name)
    try:
        names.rename(cluster, pool, name, doomed)
    except NoSpace:
        # In a full pool not even another name has room; what is deleted under its own is half there for a moment.
        return name
    return doomed


def resize(cluster: Cluster, pool: str, name: str, size_bytes: int) -> None:
    """Grow a volume, also one that a guest uses: its QEMU does it then, and tells us."""
    with opened(cluster, pool, name) as image:
        found = image.size()
        if size_bytes < found:
            raise DriverError(
                f"{what(pool, name)} has {found} bytes; it cannot shrink to {size_bytes}", retryable=False
            )
        if size_bytes > found:
            image.resize(size_bytes, allow_shrink=False)


def rename(cluster: Cluster, pool: str, name: str, new_name: str) -> None:
    """Rename a volume that nobody uses; done already is success."""
    with ceph_errors(f"{what(pool, name)} cannot be renamed to {new_name!r}"):
        ids = {each["name"]: each["id"] for each in RBD().list2(cluster.pool(pool))}
        if name in ids:
            check_unused(holdings.get(cluster, pool, ids[name]), name, "rename it")
        names.rename(cluster, pool, name, new_name)


def instant_of(cluster: Cluster, pool: str, name: str, snapshot: str) -> str:
    """Return what tells a snapshot that is about to be read from any other, of this name too.  Raises ObjectMissing."""
    with opened(cluster, pool, name, read_only=True) as image:
        found = kept.find(image, snapshot)
        if found is None:
            raise ObjectMissing(f"{what(pool, name)} has no snapshot {snapshot!r}")
        return f"{image.id()}@{found.id}"


def check_instant(cluster: Cluster, pool: str, name: str, instant: str) -> None:
    """Raise DriverError when a snapshot that was read is gone.

    Reading one keeps nobody from removing it, and what is removed reads as zeros: what came of it may be wrong.
    """
    with opened(cluster, pool, name, read_only=True) as image:
        if instant not in {f"{image.id()}@{found.id}" for found in kept.named(image)}:
            raise DriverError(f"{what(pool, name)}: the snapshot was removed while it was read", retryable=False)


def keep_instant(cluster: Cluster, pool: str, name: str) -> str:
    """Return a hidden snapshot of a volume as it is now, for what takes longer than an instant; see ``drop_hidden``."""
    with opened(cluster, pool, name) as image:
        snapshot = names.new_hidden_snapshot(image)
        image.create_snap(snapshot)
    return snapshot


def drop(cluster: Cluster, pool: str, name: str) -> None:
    """Remove an image that will not be completed."""
    try:
        with ceph_errors(what(pool, name)):
            names.remove(cluster, pool, name)
    except DriverError:
        # It is invisible, and goes with the other leftovers: a program that was stopped is believed to use it for half a minute.
        return


def _exists(cluster: Cluster, pool: str, name: str) -> bool:
    try:
        with opened(cluster, pool, name, read_only=True):
            return True
    except ObjectMissing:
        return False


def _size(cluster: Cluster, pool: str, name: str) -> int:
    with opened(cluster, pool, name, read_only=True) as image:
        return image.size()


def _check_no_clones(cluster: Cluster, pool: str, image: Image, name: str) -> None:
    for found in kept.all_of(image):
        children = names.living_clones(cluster, pool, image, found)
        if children:
            raise ObjectBusy(
                f"volume {name!r}: {children[0]!r} shares its blocks"
                + (f", as {len(children) - 1} others do" if len(children) > 1 else "")
                + "; delete them first"
            )


def _check_only_own_snapshots(image: Image, name: str) -> None:
    if kept.has_others(image):
        raise ObjectBusy(
            f"volume {name!r} has snapshots that were made of a group of images, or for a mirror; remove those with rbd first"
        )


def _check_not_open(cluster: Cluster, pool: str, image: Image, name: str) -> None:
    others = watchers.others(cluster, pool, image)
    if others:
        raise ObjectBusy(f"volume {name!r} is open by a client at {', '.join(others)}")
