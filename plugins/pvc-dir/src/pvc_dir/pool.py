"""A pool's directory: where things are in it, and how it is told from an empty mount point.

::

    pvc-pool.json        marker: which pool this is.  No marker, no pool: nothing is read or written
    volumes/NAME/        a volume: its state (``versions``).  Exists only when the volume is complete
    layers/ID.FORMAT     image files, named for ever: a clone's layer names the one below it
    building/NAME@ID/    a volume in the making; renamed to volumes/NAME when it is complete
    trash/ID/            a volume being deleted
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from pvc_core.model.names import check_name
from pvc_core.model.storage import PoolSpec, PoolUsage
from pvc_core.plugin import DriverError, NotReady, ObjectBusy
from pvc_dir.parameters import Format, PoolParameters, pool_parameters
from pvc_dir.versions import sync_directory, write_new

_MARKER: Final = "pvc-pool.json"
_LAYOUT: Final = 1
_PARTS: Final = {"volumes": 0o700, "layers": 0o711, "building": 0o700, "trash": 0o700}
"""With their modes: QEMU, as another user, must get at the images, whose names nobody can guess or list."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of the marker file."""

    pool: str
    layout: int


class Pool(NamedTuple):
    """A pool whose marker was seen."""

    id: str
    name: str
    root: Path
    format: Format

    def volume(self, name: str) -> Path:
        """Return the directory of a volume; raise InvalidRequest when the name could leave the pool."""
        return self.root / "volumes" / check_name(name, "volume")

    def layer(self, file: str) -> Path:
        """Return the path of an image file."""
        return self.root / "layers" / file

    def building(self, name: str, id_: str) -> Path:
        """Return the directory of one attempt to make a volume."""
        return self.root / "building" / f"{check_name(name, 'volume')}@{id_}"

    def attempts(self, name: str) -> list[Path]:
        """Return the directories of all attempts to make a volume."""
        return sorted((self.root / "building").glob(f"{check_name(name, 'volume')}@*"))

    def trash(self) -> Path:
        """Return the directory of volumes being deleted."""
        return self.root / "trash"

    def names(self) -> list[str]:
        """Return the names of all volumes."""
        return sorted(path.name for path in (self.root / "volumes").iterdir())


class Registry:
    """Remembers on this node which pools it has seen, and where: in a file each, not in memory."""

    def __init__(self, directory: Path, roots: tuple[str, ...] = ()) -> None:
        self._directory: Final = directory
        self._roots: Final = roots

    def open(self, spec: PoolSpec) -> Pool:
        """Return a pool; raise NotReady when its directory, or the marker in it, is not there."""
        parameters = pool_parameters(spec)
        pool = Pool(spec.id, spec.name, Path(parameters.path), parameters.format)
        self._check_place(spec, parameters)
        _check_marker(pool, _read_marker(pool))
        self._remember(pool)
        return pool

    def ensure(self, spec: PoolSpec) -> None:
        """Make an empty directory a pool, or check the pool that is there."""
        parameters = pool_parameters(spec)
        pool = Pool(spec.id, spec.name, Path(parameters.path), parameters.format)
        self._check_place(spec, parameters)
        if _read_marker(pool) is None:
            if self._path(pool.id).exists():
                raise NotReady(_unmounted(pool))
            _check_empty(pool)
            _make_parts(pool)
            _check_links(pool)
            _write_marker(pool)
        _check_marker(pool, _read_marker(pool))
        _make_parts(pool)
        self._remember(pool)

    def delete(self, spec: PoolSpec) -> None:
        """Make a pool without volumes an empty directory again; nothing there is success."""
        pool = Pool(spec.id, spec.name, Path(pool_parameters(spec).path), "raw")
        if pool.root.is_dir() and _read_marker(pool) is not None:
            _check_marker(pool, _read_marker(pool))
            left = pool.names() if (pool.root / "volumes").is_dir() else []
            if left:
                raise ObjectBusy(f"pool {pool.name} still holds {len(left)} volumes, such as {left[0]!r}")
            for part in ("building", "trash", "layers"):
                if (pool.root / part).exists():
                    shutil.rmtree(pool.root / part)
            # rmdir, not rmtree: a volume that somebody just made is not lost.
            if (pool.root / "volumes").exists():
                (pool.root / "volumes").rmdir()
            (pool.root / _MARKER).unlink(missing_ok=True)
            sync_directory(pool.root)
        self._path(pool.id).unlink(missing_ok=True)

    def known(self) -> list[Pool]:
        """Return the pools that this node has seen and whose marker is there now."""
        if not self._directory.is_dir():
            return []
        pools = []
        for path in sorted(self._directory.glob("*.json")):
            entry = json.loads(path.read_bytes())
            pool = Pool(entry["id"], entry["name"], Path(entry["path"]), "raw")
            marker = _read_marker(pool)
            if marker is not None and marker.pool == pool.id:
                pools.append(pool)
        return pools

    def _check_place(self, spec: PoolSpec, parameters: PoolParameters) -> None:
        root = Path(parameters.path)
        if self._roots and not any(root.is_relative_to(allowed) for allowed in self._roots):
            raise DriverError(
                f"pool {spec.name}: this node's configuration (plugins.dir.roots) allows pools in "
                f"{', '.join(self._roots)}, not in {root}",
                retryable=False,
            )
        if not root.is_dir():
            raise NotReady(f"pool {spec.name}: there is no directory {root} on this node; make or mount it")
        if parameters.mounted and root.stat().st_dev == Path("/").stat().st_dev:
            raise NotReady(f"pool {spec.name}: no file system is mounted for {root} on this node")

    def _path(self, pool_id: str) -> Path:
        return self._directory / f"{pool_id}.json"

    def _remember(self, pool: Pool) -> None:
        data = json.dumps({"id": pool.id, "name": pool.name, "path": str(pool.root)}).encode()
        path = self._path(pool.id)
        if path.exists() and path.read_bytes() == data:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f".{uuid.uuid4().hex}"
        write_new(temporary, data)
        temporary.replace(path)
        sync_directory(self._directory)


def usage(pool: Pool) -> PoolUsage:
    """Return the bytes of the pool's file system."""
    found = os.statvfs(pool.root)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return PoolUsage(total_bytes=total, used_bytes=total - free, free_bytes=free)


@contextmanager
def file_errors(doing: str) -> Iterator[None]:
    """Tell what was being done when the file system refused."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DriverError(f"{doing}: {error.strerror or error}{where}") from error


def _unmounted(pool: Pool) -> str:
    return f"pool {pool.name}: {pool.root} has no marker {_MARKER}; is its file system mounted on this node?"


def _read_marker(pool: Pool) -> Marker | None:
    try:
        return msgspec.json.decode((pool.root / _MARKER).read_bytes(), type=Marker)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise DriverError(
            f"pool {pool.name}: {pool.root / _MARKER} is damaged: {error}; restore it, its text is "
            f'{{"pool": "{pool.id}", "layout": {_LAYOUT}}}',
            retryable=False,
        ) from error


def _check_marker(pool: Pool, marker: Marker | None) -> None:
    if marker is None:
        raise NotReady(_unmounted(pool))
    if marker.pool != pool.id:
        raise DriverError(f"pool {pool.name}: {pool.root} belongs to another pool ({marker.pool})", retryable=False)
    if marker.layout != _LAYOUT:
        raise DriverError(
            f"pool {pool.name}: {pool.root} has layout {marker.layout}, this pvc-dir knows {_LAYOUT}; update it",
            retryable=False,
        )


def _check_empty(pool: Pool) -> None:
    # Our own directories without a marker are what a killed daemon left.
    # File servers and mkfs have names of their own in an otherwise empty directory (.snapshot, lost+found).
    names = {path.name for path in pool.root.iterdir()}
    others = sorted(n for n in names - {*_PARTS, "lost+found"} if not n.startswith("."))
    others += [part for part in _PARTS if part in names and any((pool.root / part).iterdir())]
    if others:
        raise DriverError(
            f"pool {pool.name}: {pool.root} is not empty (it has {others[0]!r}) and has no pool's marker; "
            "give an empty directory",
            retryable=False,
        )


def _make_parts(pool: Pool) -> None:
    for part, mode in _PARTS.items():
        path = pool.root / part
        path.mkdir(exist_ok=True)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def _check_links(pool: Pool) -> None:
    """Find out before the first volume whether the file system has what ``versions`` needs."""
    first, second = (pool.root / "building" / f".{uuid.uuid4().hex}" for _ in range(2))
    try:
        first.touch()
        os.link(first, second)
    except OSError as error:
        raise DriverError(
            f"pool {pool.name}: the file system of {pool.root} has no hard links ({error.strerror}), which locks need",
            retryable=False,
        ) from error
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def _write_marker(pool: Pool) -> None:
    """Write the marker unless another node just did; ``_check_marker`` tells whose it is."""
    temporary = pool.root / f".{uuid.uuid4().hex}"
    write_new(temporary, msgspec.json.encode(Marker(pool=pool.id, layout=_LAYOUT)))
    try:
        os.link(temporary, pool.root / _MARKER)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(pool.root)
