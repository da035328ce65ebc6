"""Snapshots: named layers.

Where the file system can share blocks between files (XFS, Btrfs, NFS 4.2 over them) a snapshot is such a
copy of the active image: instant, also while a VM writes to it (as after a power cut), and it slows nothing
down.  Elsewhere the image itself becomes the snapshot and an empty qcow2 layer is put over it: instant too,
but only while no VM uses the volume, and each layer costs reads a lookup.  Layers that no snapshot names any
more are merged when a snapshot is deleted and no VM uses the volume; that copies the upper layer's data.
"""

import logging

from msgspec.structs import replace

from pvc_core.plugin import DriverError, ObjectBusy, ObjectExists, ObjectMissing
from pvc_core.plugin.holding import check_unused
from pvc_dir import lineage, volumes
from pvc_dir.image import Images, image_size, reflink
from pvc_dir.pool import Pool, file_errors
from pvc_dir.state import KeptSnapshot, Layer, VolumeState

log = logging.getLogger(__name__)

_MERGE_S = 12 * 3600.0
"""Bound of one merge; deleting a snapshot has a day."""


def create(pool: Pool, images: Images, name: str, snapshot: str, now: float) -> None:
    """Keep the volume's contents under a name; there already is success."""
    state = volumes.get(pool, name)
    if state.snapshot(snapshot) is not None:
        return
    volumes.sweep(pool, name)
    kept = KeptSnapshot(name=snapshot, layer="", size_bytes=0, created=now)
    if not _create_shared(pool, images, name, kept):
        lineage.freeze(
            pool, images, name, "take a snapshot: the file system of this pool cannot share blocks between files", kept
        )


def _create_shared(pool: Pool, images: Images, name: str, kept: KeptSnapshot) -> bool:
    state = volumes.get(pool, name)
    if not state.holders:
        state = volumes.settle_size(pool, images, name)
    active = state.layer(state.active)
    new = volumes.new_layer(active.format, active.size_bytes, active.backing)
    with volumes.extra_layer(pool, name, new) as path:
        if not reflink(pool.layer(active.file), path):
            return False
        # QEMU may have grown it since it was attached.
        new = replace(new, size_bytes=image_size(path, new.format))

        def with_copy(now: VolumeState) -> VolumeState:
            if now.active != active.file or now.leaving:
                raise ObjectBusy(f"volume {name!r} was changed by somebody else meanwhile")
            return lineage.with_snapshot(volumes.adopted(now, new), name, kept, new)

        volumes.change(pool, name, with_copy)
    return True


def delete(pool: Pool, images: Images, name: str, snapshot: str) -> None:
    """Delete a snapshot; absent is success."""

    def without(now: VolumeState) -> VolumeState:
        kept = now.snapshot(snapshot)
        if kept is None:
            return now
        if kept.protected:
            raise ObjectBusy(f"snapshot {name}@{snapshot} is protected; unprotect it first")
        found = lineage.clones(pool, now, kept.layer)
        if found:
            raise ObjectBusy(f"snapshot {name}@{snapshot} has the clone {found[0]!r}, which rests on it")
        return replace(now, snapshots=tuple(s for s in now.snapshots if s.name != snapshot))

    volumes.change(pool, name, without)
    tidy(pool, images, name)


def rename(pool: Pool, name: str, snapshot: str, new_name: str) -> None:
    """Rename a snapshot; done already is success."""

    def renamed(now: VolumeState) -> VolumeState:
        if now.snapshot(snapshot) is None and now.snapshot(new_name) is not None:
            return now
        lineage.required_snapshot(now, name, snapshot)
        if snapshot != new_name and now.snapshot(new_name) is not None:
            raise ObjectExists(f"volume {name!r} has a snapshot {new_name!r} already")
        return replace(
            now, snapshots=tuple(replace(s, name=new_name) if s.name == snapshot else s for s in now.snapshots)
        )

    volumes.change(pool, name, renamed)


def protect(pool: Pool, name: str, snapshot: str, *, protected: bool) -> None:
    """Forbid or allow deleting a snapshot."""

    def marked(now: VolumeState) -> VolumeState:
        lineage.required_snapshot(now, name, snapshot)
        return replace(
            now, snapshots=tuple(replace(s, protected=protected) if s.name == snapshot else s for s in now.snapshots)
        )

    volumes.change(pool, name, marked)


def roll_back(pool: Pool, images: Images, name: str, snapshot: str) -> None:
    """Give an unused volume the contents and size of a snapshot: an empty layer over it becomes the active one."""
    state = volumes.get(pool, name)
    check_unused(state, name, "roll it back")
    kept = lineage.required_snapshot(state, name, snapshot)
    layer = state.layer(kept.layer)
    new = volumes.new_layer("qcow2", layer.size_bytes, backing=layer.file)
    with volumes.extra_layer(pool, name, new) as path:
        images.overlay(path, layer.file, layer.format, layer.size_bytes)

        def rolled_back(now: VolumeState) -> VolumeState:
            check_unused(now, name, "roll it back")
            if now.active != state.active or now.leaving or now.snapshot(snapshot) != kept:
                raise ObjectBusy(f"volume {name!r} was changed by somebody else meanwhile")
            now = volumes.adopted(now, new).without_layer(now.active)
            return replace(now, active=new.file, size_bytes=layer.size_bytes)

        volumes.change(pool, name, rolled_back)
    tidy(pool, images, name)


# --- layers that nothing names any more -------------------------------------------------------------


def tidy(pool: Pool, images: Images, name: str) -> None:
    """Remove and merge layers that no snapshot names; what cannot be done now stays for the next time.

    A layer is needed by its snapshot, by clones, and by the layers over it.  One that only a single layer
    needs takes up that layer's data and replaces it.  At every step the volume reads the same, because until the
    state changes the upper layer still covers what is written into the lower one.
    """
    try:
        with file_errors(f"merging layers of volume {name!r}"):
            while _step(pool, images, name):
                pass
            volumes.sweep(pool, name)
    except ObjectMissing:
        return
    except DriverError as error:
        log.warning("layers-not-merged pool=%s volume=%s error=%s", pool.name, name, error)


def _step(pool: Pool, images: Images, name: str) -> bool:
    state = volumes.get(pool, name)
    named = {kept.layer for kept in state.snapshots}
    for layer in state.layers:
        if layer.file == state.active or layer.file in named or lineage.clones(pool, state, layer.file):
            continue
        over = [other for other in state.layers if other.backing == layer.file]
        if not over:
            _drop(pool, name, state, layer)
            return True
        if len(over) == 1 and not state.holders and not lineage.clones(pool, state, over[0].file):
            _merge(pool, images, name, state, lower=layer, upper=over[0])
            return True
    return False


def _drop(pool: Pool, name: str, state: VolumeState, layer: Layer) -> None:
    def dropped(now: VolumeState) -> VolumeState:
        _check_same(now, state, name)
        return now.without_layer(layer.file)

    volumes.change(pool, name, dropped)


def _merge(pool: Pool, images: Images, name: str, state: VolumeState, *, lower: Layer, upper: Layer) -> None:
    # A merge that was killed may have left it resting on a file further down, which reads the same.
    images.point_to(pool.layer(upper.file), lower.file, lower.format)
    images.commit(pool.layer(upper.file), _MERGE_S)
    moved = [layer for layer in state.layers if layer.backing == upper.file]
    for layer in moved:
        images.point_to(pool.layer(layer.file), lower.file, lower.format)

    def merged(now: VolumeState) -> VolumeState:
        _check_same(now, state, name)
        active = lower.file if now.active == upper.file else now.active
        named = tuple(replace(s, layer=lower.file) if s.layer == upper.file else s for s in now.snapshots)
        for layer in (*(replace(la, backing=lower.file) for la in moved), replace(lower, size_bytes=upper.size_bytes)):
            now = now.with_layer(layer)
        return replace(now.without_layer(upper.file), active=active, snapshots=named)

    volumes.change(pool, name, merged)


def _check_same(now: VolumeState, before: VolumeState, name: str) -> None:
    """Raise ObjectBusy unless everything the decision rested on is still so."""
    if (now.layers, now.active, now.snapshots, now.children, now.holders, now.leaving) != (
        before.layers,
        before.active,
        before.snapshots,
        before.children,
        before.holders,
        before.leaving,
    ):
        raise ObjectBusy(f"volume {name!r} was changed by somebody else meanwhile")
