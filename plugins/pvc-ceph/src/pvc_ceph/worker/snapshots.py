"""Snapshots of volumes."""

from typing import Final

from pvc_ceph.worker import holdings, kept, names
from pvc_ceph.worker.ceph import Cluster, Image
from pvc_ceph.worker.volumes import metadata, opened, what
from pvc_core.plugin import ObjectBusy, ObjectExists, ObjectMissing
from pvc_core.plugin.holding import check_unused

_ROLLING_BACK: Final = "pvc.rolling_back"
"""Metadata of a volume: the snapshot whose contents it is being given."""


def create(cluster: Cluster, pool: str, name: str, snapshot: str) -> None:
    """Keep the contents of this instant; there already is success.  A running guest's QEMU makes it for us."""
    with opened(cluster, pool, name) as image:
        kept.finish_removals(image)
        if kept.find(image, snapshot) is not None:
            if _is_whole(cluster, pool, name, snapshot):
                return
            image.remove_snap(snapshot)
        image.create_snap(snapshot)


def _is_whole(cluster: Cluster, pool: str, name: str, snapshot: str) -> bool:
    """Return whether a snapshot can be opened: not one whose making was killed before it had an object map."""
    try:
        with opened(cluster, pool, name, snapshot=snapshot, read_only=True):
            return True
    except ObjectMissing:
        return False


def delete(cluster: Cluster, pool: str, name: str, snapshot: str) -> None:
    """Delete a snapshot; absent is success."""
    with opened(cluster, pool, name) as image:
        kept.finish_removals(image)
        found = kept.find(image, snapshot)
        if found is None:
            return
        children = names.living_clones(cluster, pool, image, found)
        if children:
            raise ObjectBusy(
                f"snapshot {snapshot!r} of volume {name!r} is shared by {', '.join(children)}; delete that first"
            )
        if image.is_protected_snap(snapshot):
            raise ObjectBusy(f"snapshot {snapshot!r} of volume {name!r} is protected")
        image.remove_snap(snapshot)


def rename(cluster: Cluster, pool: str, name: str, snapshot: str, new_name: str) -> None:
    """Rename a snapshot; done already is success."""
    with opened(cluster, pool, name) as image:
        there = kept.find(image, new_name) is not None
        if kept.find(image, snapshot) is None:
            if there:
                return
            raise _missing(pool, name, snapshot)
        if there:
            raise ObjectExists(f"volume {name!r} has a snapshot {new_name!r} already")
        image.rename_snap(snapshot, new_name)


def protect(cluster: Cluster, pool: str, name: str, snapshot: str, protected: bool) -> None:
    """Forbid or allow deleting a snapshot."""
    with opened(cluster, pool, name) as image:
        if kept.find(image, snapshot) is None:
            raise _missing(pool, name, snapshot)
        if image.is_protected_snap(snapshot) != protected:
            if protected:
                image.protect_snap(snapshot)
            else:
                image.unprotect_snap(snapshot)


def roll_back(cluster: Cluster, pool: str, name: str, snapshot: str) -> None:
    """Give an unused volume the contents of a snapshot, its size included; nobody gets it before that is done."""
    with opened(cluster, pool, name) as image:
        if kept.find(image, snapshot) is None:
            raise _missing(pool, name, snapshot)
        unfinished = rolled_back_to(image)
        # Before it is asked who holds it: who takes it from now on sees the mark.
        image.metadata_set(_ROLLING_BACK, snapshot)
        try:
            check_unused(holdings.get(cluster, pool, image.id()), name, "roll it back")
        except ObjectBusy:
            if not unfinished:
                image.metadata_remove(_ROLLING_BACK)
            raise
        image.rollback_to_snap(snapshot)
        image.metadata_remove(_ROLLING_BACK)


def rolled_back_to(image: Image) -> str:
    """Return the snapshot to which a volume is being rolled back, or was, but not to its end; empty: none."""
    return metadata(image, _ROLLING_BACK) or ""


def _missing(pool: str, name: str, snapshot: str) -> ObjectMissing:
    return ObjectMissing(f"{what(pool, name)} has no snapshot {snapshot!r}")
