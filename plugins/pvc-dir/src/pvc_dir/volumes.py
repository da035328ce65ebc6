"""Volumes: finding, making, changing and deleting them.

Everything that changes a volume is one compare-and-set of its state, or the renaming of its directory.
Image files are made before the state names them as layers, and removed after it has let go of them; in
between it lists them as planned or doomed.  So a daemon that dies at any point leaves nothing that the next
change does not clear away.
"""

import contextlib
import errno
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec.structs import replace

from pvc_core.model.storage import Snapshot
from pvc_core.plugin import DriverError, ObjectBusy, ObjectExists, ObjectMissing, VolumeInfo
from pvc_core.plugin.holding import check_unused
from pvc_dir import versions
from pvc_dir.image import Images, image_size
from pvc_dir.pool import Pool
from pvc_dir.state import Layer, VolumeState

_TRIES: Final = 50
_SECTOR: Final = 512

Change = Callable[[VolumeState], VolumeState]


def find(pool: Pool, name: str) -> VolumeState | None:
    """Return a volume's state, or None when there is none."""
    version = versions.read(pool.volume(name))
    return None if version is None else _decode(version.data)


def get(pool: Pool, name: str) -> VolumeState:
    """Return a volume's state; raise ObjectMissing."""
    state = find(pool, name)
    if state is None:
        raise ObjectMissing(f"pool {pool.name} has no volume {name!r}")
    return state


def change(pool: Pool, name: str, wanted: Change) -> VolumeState:
    """Replace a volume's state by ``wanted`` of it and return it; ``wanted`` may raise, and may be called again.

    Raises ObjectMissing, and ObjectBusy when others change it all the time.
    """
    directory = pool.volume(name)
    for _ in range(_TRIES):
        version = versions.read(directory)
        if version is None:
            raise ObjectMissing(f"pool {pool.name} has no volume {name!r}")
        old = _decode(version.data)
        new = wanted(old)
        if new == old:
            return old
        with contextlib.suppress(FileNotFoundError):
            if versions.replace(directory, version, msgspec.json.encode(new)):
                return new
    raise ObjectBusy(f"volume {name!r} of pool {pool.name} is changed by others all the time")


def info(pool: Pool, name: str, state: VolumeState, parent: str) -> VolumeInfo:
    """Return what core is told of a volume."""
    return VolumeInfo(
        name=name,
        size_bytes=state.size_bytes,
        used_bytes=sum(_blocks(pool.layer(layer.file)) for layer in state.layers),
        format=state.format,
        snapshots=tuple(
            Snapshot(name=kept.name, protected=kept.protected, size_bytes=kept.size_bytes, created=kept.created)
            for kept in state.snapshots
        ),
        parent=parent,
    )


def all_of(pool: Pool) -> dict[str, VolumeState]:
    """Return all volumes by name: one directory listing, then one small file each."""
    found = ((name, find(pool, name)) for name in pool.names())
    return {name: state for name, state in found if state is not None}


# --- making -----------------------------------------------------------------------------------------


def new_layer(format_: str, size_bytes: int, backing: str = "") -> Layer:
    """Return a layer with a file name of its own; the file does not exist yet."""
    return Layer(file=f"{uuid.uuid4().hex}.{format_}", format=format_, size_bytes=size_bytes, backing=backing)


def check_size(size_bytes: int) -> None:
    """Raise DriverError unless a disk can have this size."""
    if size_bytes <= 0 or size_bytes % _SECTOR:
        raise DriverError(f"a volume cannot have {size_bytes} bytes: give a multiple of {_SECTOR}", retryable=False)


class Building:
    """A volume in the making: invisible until ``commit``.  Leaving the ``with`` block without it undoes everything."""

    def __init__(self, pool: Pool, name: str, state: VolumeState) -> None:
        self.state = state
        self._pool: Final = pool
        self._name: Final = name
        self._directory: Final = pool.building(name, state.id)
        self._committed = False

    def __enter__(self) -> Self:
        discard_attempts(self._pool, self._name)
        self._directory.mkdir()
        # Before the image exists, so that whoever clears up later knows its name.
        versions.create(self._directory, msgspec.json.encode(self.state))
        return self

    def __exit__(self, *_: object) -> None:
        if not self._committed:
            _remove_layers(self._pool, self.state)
            shutil.rmtree(self._directory, ignore_errors=True)

    def path(self) -> Path:
        """Return where the image is to be made."""
        return self._pool.layer(self.state.active)

    def commit(self, *, size_bytes: int) -> None:
        """Make the volume visible, complete.

        Raises ObjectExists when there is one of this name, ObjectBusy when a later attempt took over.
        """
        version = versions.read(self._directory)
        layer = replace(self.state.layer(self.state.active), size_bytes=size_bytes)
        done = replace(self.state.with_layer(layer), size_bytes=size_bytes)
        try:
            if version is not None and done != self.state:
                versions.replace(self._directory, version, msgspec.json.encode(done))
            target = self._pool.volume(self._name)
            self._directory.rename(target)
        except FileNotFoundError:
            raise ObjectBusy(
                f"another attempt to make volume {self._name!r} of pool {self._pool.name} took over"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise exists(self._pool, self._name) from None
            raise
        self._committed = True
        versions.sync_directory(target.parent)


def building(pool: Pool, name: str, format_: str, layer: Layer, **more: object) -> Building:
    """Begin to make a volume whose contents are one own layer."""
    state = VolumeState(
        id=uuid.uuid4().hex, format=format_, size_bytes=layer.size_bytes, active=layer.file, layers=(layer,)
    )
    return Building(pool, name, replace(state, **more))


def exists(pool: Pool, name: str) -> ObjectExists:
    """Return the error for a name that is taken."""
    return ObjectExists(f"pool {pool.name} has a volume {name!r} already")


def discard_attempts(pool: Pool, name: str) -> None:
    """Remove what killed or overtaken attempts to make a volume left.

    One that still runs on a node that lost its lease finds its directory gone when it wants to commit.
    """
    for attempt in pool.attempts(name):
        version = versions.read(attempt)
        if version is not None:
            _remove_layers(pool, _decode(version.data))
        shutil.rmtree(attempt, ignore_errors=True)


def create(pool: Pool, images: Images, name: str, size_bytes: int, format_: str) -> None:
    """Make an empty volume; one of this size and format is taken as made by an earlier try."""
    check_size(size_bytes)
    there = find(pool, name)
    if there is not None:
        if there.size_bytes != size_bytes or (format_ and there.format != format_):
            raise ObjectExists(
                f"pool {pool.name} has a volume {name!r} with {there.size_bytes} bytes ({there.format}), "
                f"not {size_bytes}{f' ({format_})' if format_ else ''}"
            )
        return
    layer = new_layer(format_ or pool.format, size_bytes)
    with building(pool, name, layer.format, layer) as attempt:
        images.create(attempt.path(), layer.format, size_bytes)
        attempt.commit(size_bytes=size_bytes)


# --- changing ---------------------------------------------------------------------------------------


def resize(pool: Pool, images: Images, name: str, size_bytes: int) -> None:
    """Grow a volume.  While a VM has a qcow2 image open only QEMU can grow it: then the size is noted.

    The hypervisor is told the new size next, and grows the image; should it never come to that,
    ``settle_size`` does at the next attach.
    """
    check_size(size_bytes)
    state = get(pool, name)
    if size_bytes < state.size_bytes:
        raise DriverError(
            f"volume {name!r} has {state.size_bytes} bytes and cannot shrink to {size_bytes}", retryable=False
        )
    if size_bytes == state.size_bytes:
        return

    def grown(now: VolumeState) -> VolumeState:
        _check_same_active(now, state, name)
        return replace(now, size_bytes=max(size_bytes, now.size_bytes))

    state = change(pool, name, grown)
    if not state.holders or state.layer(state.active).format == "raw":
        settle_size(pool, images, name)


def settle_size(pool: Pool, images: Images, name: str) -> VolumeState:
    """Give the active image the volume's size, if it is smaller, and return the state."""
    state = get(pool, name)
    layer = state.layer(state.active)
    if layer.size_bytes >= state.size_bytes:
        return state
    path = pool.layer(layer.file)
    if image_size(path, layer.format) < state.size_bytes:
        images.resize(path, layer.format, state.size_bytes)
    size_bytes = image_size(path, layer.format)

    def settled(now: VolumeState) -> VolumeState:
        _check_same_active(now, state, name)
        return now.with_layer(replace(now.layer(now.active), size_bytes=size_bytes))

    return change(pool, name, settled)


def rename(pool: Pool, name: str, new_name: str) -> None:
    """Rename an unused volume."""
    if find(pool, name) is None and find(pool, new_name) is not None:
        _stay(pool, new_name)
        return
    if name == new_name:
        return
    if find(pool, new_name) is not None:
        raise exists(pool, new_name)
    _leave(pool, name, f"it is being renamed to {new_name!r}")
    target = pool.volume(new_name)
    try:
        pool.volume(name).rename(target)
    except OSError as error:
        _stay(pool, name)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise exists(pool, new_name) from None
        raise
    versions.sync_directory(target.parent)
    _stay(pool, new_name)


def delete(pool: Pool, name: str, clones: Callable[[VolumeState], list[str]]) -> VolumeState | None:
    """Delete an unused volume without clones, and return what it was; None when there is none."""
    discard_attempts(pool, name)
    state = find(pool, name)
    if state is None:
        return None
    found = clones(state)
    if found:
        raise ObjectBusy(f"volume {name!r} has the clone {found[0]!r}, which rests on it; delete that first")
    state = _leave(pool, name, "it is being deleted")
    # A clone that was begun in between noted itself before the state said that no more are taken.
    found = clones(state)
    if found:
        _stay(pool, name)
        raise ObjectBusy(f"volume {name!r} has the clone {found[0]!r}, which rests on it; delete that first")
    pool.volume(name).rename(pool.trash() / state.id)
    versions.sync_directory(pool.trash())
    versions.sync_directory(pool.volume(name).parent)
    return state


def empty_trash(pool: Pool) -> None:
    """Remove deleted volumes for good; also those of a daemon that died while it did."""
    for directory in sorted(pool.trash().iterdir()):
        version = versions.read(directory)
        if version is not None:
            _remove_layers(pool, _decode(version.data))
        shutil.rmtree(directory, ignore_errors=True)


# --- garbage ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def extra_layer(pool: Pool, name: str, layer: Layer) -> Iterator[Path]:
    """Plan a file for an existing volume, to be made and then ``adopted``; otherwise it is removed."""
    change(pool, name, lambda now: replace(now, planned=(*now.planned, layer.file)))
    try:
        yield pool.layer(layer.file)
    finally:
        change(pool, name, lambda now: _doom(now, (layer.file,)))
        _reap(pool, name)


def adopted(now: VolumeState, layer: Layer) -> VolumeState:
    """Return the state with a planned file as a layer; raise ObjectBusy when somebody cleared it away meanwhile."""
    if layer.file not in now.planned:
        raise ObjectBusy("the volume was changed by somebody else meanwhile")
    return now.with_layer(layer)


def sweep(pool: Pool, name: str) -> None:
    """Remove what killed calls left.  One that still runs finds its plan gone when it wants to be adopted."""
    change(pool, name, lambda now: _doom(now, now.planned))
    _reap(pool, name)


def _doom(now: VolumeState, files: tuple[str, ...]) -> VolumeState:
    dropped = tuple(file for file in files if file in now.planned)
    return replace(
        now,
        planned=tuple(file for file in now.planned if file not in dropped),
        doomed=(*now.doomed, *dropped),
    )


def _reap(pool: Pool, name: str) -> None:
    doomed = get(pool, name).doomed
    if not doomed:
        return
    for file in doomed:
        pool.layer(file).unlink(missing_ok=True)
    versions.sync_directory(pool.layer("x").parent)
    change(pool, name, lambda now: replace(now, doomed=tuple(f for f in now.doomed if f not in doomed)))


def _leave(pool: Pool, name: str, why: str) -> VolumeState:
    def leaving(now: VolumeState) -> VolumeState:
        check_unused(now, name, "rename or delete it")
        return replace(now, leaving=why)

    return change(pool, name, leaving)


def _stay(pool: Pool, name: str) -> None:
    change(pool, name, lambda now: replace(now, leaving=""))


def _check_same_active(now: VolumeState, before: VolumeState, name: str) -> None:
    if now.active != before.active:
        raise ObjectBusy(f"volume {name!r} was changed by somebody else meanwhile")


def _decode(data: bytes) -> VolumeState:
    return msgspec.json.decode(data, type=VolumeState)


def _remove_layers(pool: Pool, state: VolumeState) -> None:
    for file in (*(layer.file for layer in state.layers), *state.planned, *state.doomed):
        pool.layer(file).unlink(missing_ok=True)


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
