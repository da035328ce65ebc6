"""Which volumes rest on which: clones and their parents."""

from collections.abc import Mapping

from msgspec.structs import replace

from pvc_core.plugin import ObjectBusy, ObjectExists, ObjectMissing
from pvc_core.plugin.holding import check_unused
from pvc_dir import volumes
from pvc_dir.image import Images
from pvc_dir.pool import Pool
from pvc_dir.state import Child, KeptSnapshot, Layer, Parent, VolumeState

ById = Mapping[str, tuple[str, VolumeState]]
"""Volumes by id, with their names."""


def clones(pool: Pool, state: VolumeState, layer: str = "") -> list[str]:
    """Return the names of the volumes that rest on a volume (on one layer of it), those in the making included.

    A clone is noted in its parent before it exists, so each note is checked.  First whether it is in the
    making, then whether it is complete: it moves from the one to the other, never back.
    """
    noted = [child for child in state.children if layer in ("", child.layer)]
    found = {child.id: child.name for child in noted if pool.building(child.name, child.id).is_dir()}
    rest = []
    for child in noted:
        there = volumes.find(pool, child.name)
        if there is not None and there.id == child.id:
            found[child.id] = child.name
        elif child.id not in found:
            rest.append(child.id)
    if rest:  # renamed since, or gone
        found |= {clone.id: name for name, clone in volumes.all_of(pool).items() if clone.id in rest}
    return sorted(found.values())


def parent_name(pool: Pool, state: VolumeState, by_id: ById | None = None) -> str:
    """Return ``name`` or ``name@snapshot`` of what a volume rests on, as it is called now; empty: on nothing."""
    if state.parent is None:
        return ""
    found = _find(pool, state.parent) if by_id is None else by_id.get(state.parent.id)
    name, parent = found or (state.parent.name, None)
    kept = [s.name for s in parent.snapshots if s.layer == state.parent.layer] if parent else [state.parent.snapshot]
    return f"{name}@{kept[0]}" if kept and kept[0] else name


def index(everything: Mapping[str, VolumeState]) -> ById:
    """Return all volumes by id, with their names."""
    return {state.id: (name, state) for name, state in everything.items()}


def forget_child(pool: Pool, parent: Parent, child_id: str) -> None:
    """Remove the note of a clone that is gone; a note that stays is harmless."""
    found = _find(pool, parent)
    if found is None:
        return
    name, _ = found
    volumes.change(pool, name, lambda now: replace(now, children=tuple(c for c in now.children if c.id != child_id)))


def _find(pool: Pool, parent: Parent) -> tuple[str, VolumeState] | None:
    """Return a parent with its name of now: the one that was noted, or, when it was renamed since, whichever it is."""
    there = volumes.find(pool, parent.name)
    if there is not None and there.id == parent.id:
        return parent.name, there
    return index(volumes.all_of(pool)).get(parent.id)


def clone(pool: Pool, images: Images, source: str, snapshot: str, target: str, *, full_copy: bool) -> None:
    """Make a volume with the contents of another, or of its snapshot."""
    origin_state = volumes.get(pool, source)
    kept = required_snapshot(origin_state, source, snapshot) if snapshot else None
    origin = f"{origin_state.id}@{snapshot}{' copied' if full_copy else ''}"
    there = volumes.find(pool, target)
    if there is not None:
        if there.origin != origin:
            raise volumes.exists(pool, target)
        return
    if full_copy:
        _copy(pool, images, source, kept, target, origin)
    else:
        _share(pool, images, source, kept, target, origin)


def _copy(pool: Pool, images: Images, source: str, kept: KeptSnapshot | None, target: str, origin: str) -> None:
    state = volumes.get(pool, source)
    if kept is None:
        check_unused(state, source, "copy it, or copy a snapshot of it")
        state = volumes.settle_size(pool, images, source)
    layer = state.layer(kept.layer if kept else state.active)
    new = volumes.new_layer(state.format, layer.size_bytes)
    with volumes.building(pool, target, state.format, new, origin=origin) as attempt:
        images.convert(pool.layer(layer.file), layer.format, attempt.path(), new.format, lambda _: False)
        attempt.commit(size_bytes=layer.size_bytes)


def _share(pool: Pool, images: Images, source: str, kept: KeptSnapshot | None, target: str, origin: str) -> None:
    if kept is None:
        freeze(pool, images, source, "clone it, or clone a snapshot of it")
    state = volumes.get(pool, source)
    layer = state.layer(kept.layer if kept else state.layer(state.active).backing)
    parent = Parent(id=state.id, name=source, layer=layer.file, snapshot=kept.name if kept else "")
    new = volumes.new_layer("qcow2", layer.size_bytes, backing=layer.file)
    attempt = volumes.building(pool, target, state.format, new, origin=origin, parent=parent)
    with attempt:
        child = Child(id=attempt.state.id, name=target, layer=layer.file)
        volumes.change(pool, source, lambda now: _with_child(now, child, source))
        images.overlay(attempt.path(), layer.file, layer.format, layer.size_bytes)
        attempt.commit(size_bytes=layer.size_bytes)


def _with_child(now: VolumeState, child: Child, source: str) -> VolumeState:
    if now.leaving:
        raise ObjectBusy(f"volume {source!r} cannot be cloned: {now.leaving}")
    if child.layer not in {layer.file for layer in now.layers}:
        raise ObjectMissing(f"what was to be cloned of volume {source!r} has been deleted meanwhile")
    return replace(now, children=(*now.children, child))


def freeze(pool: Pool, images: Images, name: str, purpose: str, kept: KeptSnapshot | None = None) -> None:
    """Let the contents of an unused volume change no more, and put an empty active layer over them.

    ``kept`` is the snapshot to make of them; its layer and size are filled in.
    """
    check_unused(volumes.get(pool, name), name, purpose)
    state = volumes.settle_size(pool, images, name)
    frozen = state.layer(state.active)
    new = volumes.new_layer("qcow2", frozen.size_bytes, backing=frozen.file)
    with volumes.extra_layer(pool, name, new) as path:
        images.overlay(path, frozen.file, frozen.format, frozen.size_bytes)

        def covered(now: VolumeState) -> VolumeState:
            check_unused(now, name, purpose)
            if now.active != frozen.file or now.layer(now.active) != frozen or now.leaving:
                raise ObjectBusy(f"volume {name!r} was changed by somebody else meanwhile")
            now = replace(volumes.adopted(now, new), active=new.file)
            return with_snapshot(now, name, kept, frozen) if kept else now

        volumes.change(pool, name, covered)


def with_snapshot(now: VolumeState, name: str, kept: KeptSnapshot, layer: Layer) -> VolumeState:
    """Return the state with a snapshot of a layer; raise ObjectExists when the name is taken."""
    if now.snapshot(kept.name) is not None:
        raise ObjectExists(f"volume {name!r} has a snapshot {kept.name!r} already")
    return replace(now, snapshots=(*now.snapshots, replace(kept, layer=layer.file, size_bytes=layer.size_bytes)))


def required_snapshot(state: VolumeState, name: str, snapshot: str) -> KeptSnapshot:
    """Return a snapshot; raise ObjectMissing."""
    kept = state.snapshot(snapshot)
    if kept is None:
        known = ", ".join(s.name for s in state.snapshots) or "none"
        raise ObjectMissing(f"volume {name!r} has no snapshot {snapshot!r}; it has {known}")
    return kept
