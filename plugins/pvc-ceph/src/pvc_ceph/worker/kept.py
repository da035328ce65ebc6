"""Snapshots of an image, as librbd has them.

It removes one in steps, of which the first takes its name away.  What a call that was killed after that has left is no
snapshot of the volume any more, keeps its blocks, and is for ``finish_removals``.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pvc_ceph.worker.ceph import Image, ImageNotFound

_USER: Final = 0
"""``RBD_SNAP_NAMESPACE_TYPE_USER``: those that somebody made, and nobody removed."""
_TRASH: Final = 2
"""``RBD_SNAP_NAMESPACE_TYPE_TRASH``: those whose removal began.  Others are of groups and mirrors, and not ours."""


class Kept(NamedTuple):
    """A snapshot."""

    id: int
    name: str
    size_bytes: int

    def created(self, image: Image) -> datetime:
        """Return when it was made, to the second."""
        return image.get_snap_timestamp(self.id).replace(tzinfo=UTC)


def named(image: Image) -> list[Kept]:
    """Return an image's snapshots, oldest first."""
    return list(_all(image, _USER))


def all_of(image: Image) -> list[Kept]:
    """Return an image's snapshots, those of whatever kind that have no name of a user's too."""
    return list(_all(image))


def has_others(image: Image) -> bool:
    """Return whether an image has snapshots of groups or mirrors."""
    return any(found["namespace"] not in (_USER, _TRASH) for found in image.list_snaps())


def find(image: Image, name: str) -> Kept | None:
    """Return the snapshot of this name."""
    return next((kept for kept in named(image) if kept.name == name), None)


def clones(image: Image, kept: Kept) -> list[str]:
    """Return the names of the images that rest on a snapshot."""
    image.set_snap_by_id(kept.id)
    try:
        return [child["image"] for child in image.list_children2()]
    finally:
        image.set_snap(None)


def remove_unless_used(image: Image, kept: Kept) -> None:
    """Remove a snapshot when no image rests on it."""
    if not clones(image, kept):
        image.remove_snap_by_id(kept.id)


def finish_removals(image: Image) -> None:
    """Remove what is left of snapshots whose removal began.  Ceph itself does it when the last clone of one goes."""
    for kept in list(_all(image, _TRASH)):
        with contextlib.suppress(ImageNotFound):  # somebody else has just removed it
            remove_unless_used(image, kept)


def _all(image: Image, kind: int | None = None) -> Iterator[Kept]:
    for found in image.list_snaps():
        if kind in (None, found["namespace"]):
            yield Kept(found["id"], found["name"], found["size"])
