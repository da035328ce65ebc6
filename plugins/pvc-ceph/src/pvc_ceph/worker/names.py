"""Names of images that are no volumes: those in the making, and those that are being deleted.

A volume appears under its name in one step, by renaming, when it is complete, and disappears in one step.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from pvc_ceph.worker import kept, watchers
from pvc_ceph.worker.ceph import RBD, Cluster, Image, ceph_errors, forget_name, noted_id
from pvc_core.plugin import DriverError, ObjectExists, ObjectMissing

_NEW: Final = ".pvc-new."
_DOOMED: Final = ".pvc-doomed."
_LONGEST_PAUSE: Final = timedelta(hours=1)
"""An image in the making that is as old, and that no client has open, is nobody's any more."""
_LONGEST_READ: Final = timedelta(hours=25)
"""A hidden snapshot that is as old, and on which nothing rests, is read by nobody any more: a task has a day."""
HIDDEN_SNAPSHOT: Final = ".pvc-clone."
"""Begins the names of snapshots on which clones of a volume itself rest."""


def new(cluster: Cluster, pool: str, volume: str) -> str:
    """Return the name under which a volume is made; what an earlier try has left under it is removed.

    Raises ObjectBusy while a client has that open: it is being made elsewhere, or who made it is not known to be dead yet.
    """
    name = f"{_NEW}{volume}"
    with ceph_errors(f"the volume {volume!r} in the making"):
        if name in RBD().list(cluster.pool(pool)):
            remove(cluster, pool, name)
    return name


def finish(cluster: Cluster, pool: str, volume: str) -> None:
    """Give a volume the name that it was being given when the call was killed: librbd notes its id there first."""
    ioctx = cluster.pool(pool)
    ids = {each["name"]: each["id"] for each in RBD().list2(ioctx)}
    hidden = f"{_NEW}{volume}"
    if volume not in ids and hidden in ids and noted_id(ioctx, volume) == ids[hidden]:
        rename(cluster, pool, hidden, volume)


def new_hidden_snapshot(image: Image) -> str:
    """Return a name for a hidden snapshot; those that are left over are removed."""
    kept.finish_removals(image)
    for snapshot in kept.named(image):
        if snapshot.name.startswith(HIDDEN_SNAPSHOT) and datetime.now(UTC) - snapshot.created(image) > _LONGEST_READ:
            kept.remove_unless_used(image, snapshot)
    return f"{HIDDEN_SNAPSHOT}{uuid.uuid4().hex}"


def rename(cluster: Cluster, pool: str, old: str, new_name: str) -> None:
    """Rename an image; done already is success.  Raises ObjectMissing, ObjectExists.

    librbd does it in three steps: it notes the id under the new name, changes the directory, and forgets the old name.  What
    a call that was killed between them has left would look like an image of that name.
    """
    ioctx = cluster.pool(pool)
    ids = {each["name"]: each["id"] for each in RBD().list2(ioctx)}
    if old in ids and new_name not in ids:
        forget_name(ioctx, new_name, ids[old])
        RBD().rename(ioctx, old, new_name)
    elif old in ids:
        raise ObjectExists(f"there is an image {new_name!r} in Ceph's pool {pool} already")
    elif new_name in ids:
        forget_name(ioctx, old, ids[new_name])
    else:
        raise ObjectMissing(f"Ceph's pool {pool} has no image {old!r}")


def doomed(image_id: str, volume: str) -> str:
    """Return the name of an image that is being deleted."""
    return f"{_DOOMED}{image_id}.{volume}"


def doomed_of(cluster: Cluster, pool: str, volume: str) -> dict[str, str]:
    """Return the images of a volume whose deletion began, with their ids."""
    found = (name for name in RBD().list(cluster.pool(pool)) if name.startswith(_DOOMED))
    split = {name: name.removeprefix(_DOOMED).partition(".") for name in found}
    return {name: id_ for name, (id_, _, of) in split.items() if of == volume}


def is_leftover(name: str) -> bool:
    """Return whether it is the name of no volume."""
    return name.startswith((_NEW, _DOOMED))


def volumes(cluster: Cluster, pool: str) -> list[str]:
    """Return the names of a pool's volumes."""
    return [name for name in RBD().list(cluster.pool(pool)) if not is_leftover(name)]


def clear_leftovers(cluster: Cluster, pool: str) -> None:
    """Remove what calls that were killed have left.  What is in use is left for the next time."""
    ioctx = cluster.pool(pool)
    for name in RBD().list(ioctx):
        try:
            if name.startswith(_DOOMED) or (name.startswith(_NEW) and _is_abandoned(cluster, pool, name)):
                with ceph_errors(name):
                    remove(cluster, pool, name)
        except DriverError:
            # A client that died is believed to use it for half a minute.
            continue


def _is_abandoned(cluster: Cluster, pool: str, name: str) -> bool:
    with ceph_errors(name), Image(cluster.pool(pool), name, read_only=True) as image:
        made = image.create_timestamp()
    return datetime.now(UTC) - made.replace(tzinfo=UTC) > _LONGEST_PAUSE


def remove(cluster: Cluster, pool: str, name: str) -> None:
    """Remove an image with its snapshots, and the hidden snapshot that it rested on."""
    ioctx = cluster.pool(pool)
    hidden = None
    if name.startswith(_NEW):
        # It may have been about to get its name: see ``finish``.
        forget_name(ioctx, name.removeprefix(_NEW), noted_id(ioctx, name))
    try:
        with ceph_errors(name), Image(ioctx, name) as image:
            hidden = hidden_parent(image)
            watchers.others(cluster, pool, image)  # gets rid of the dead; should one be alive, librbd refuses
            for snapshot in kept.named(image):
                if image.is_protected_snap(snapshot.name):
                    image.unprotect_snap(snapshot.name)
                image.remove_snap(snapshot.name)
            kept.finish_removals(image)
    except ObjectMissing:
        pass  # its creation was killed before there was more than its name
    RBD().remove(ioctx, name)
    if hidden is not None:
        drop_hidden(cluster, pool, *hidden)


def hidden_parent(image: Image) -> tuple[str, str] | None:
    """Return volume and hidden snapshot that a clone rests on, None when it rests on none."""
    spec = parent(image)
    return spec if spec is not None and spec[1].startswith(HIDDEN_SNAPSHOT) else None


def parent(image: Image) -> tuple[str, str] | None:
    """Return the name and snapshot of what an image shares blocks with."""
    try:
        with ceph_errors("parent"):
            _, name, snapshot = image.parent_info()
    except DriverError:
        return None
    return name, snapshot


def drop_hidden(cluster: Cluster, pool: str, volume: str, snapshot: str) -> None:
    """Remove a hidden snapshot when nothing rests on it any more."""
    with Image(cluster.pool(pool), volume) as image:
        found = kept.find(image, snapshot)
        if found is not None:
            kept.remove_unless_used(image, found)


def living_clones(cluster: Cluster, pool: str, image: Image, snapshot: kept.Kept) -> list[str]:
    """Return the volumes that rest on a snapshot that is to be deleted; leftovers that do are removed.

    Nobody will complete those: what they are made from is to go, or they are half deleted themselves.
    """
    found = kept.clones(image, snapshot)
    for child in filter(is_leftover, found):
        remove(cluster, pool, child)
    return [child for child in found if not is_leftover(child)]
