"""What the storage contract needs from the author of a driver."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from pvc_core.model.storage import PoolSpec
from pvc_core.plugin.specs.storage import StorageCapabilities, StorageDriver, VolumeInfo, VolumeRef

MIB = 1024 * 1024


class StorageBackend(Protocol):
    """A real or simulated backend for one test, empty at its start."""

    @property
    def pool(self) -> PoolSpec:
        """A pool that does not exist yet: the contract creates it."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords and keys that the driver was given: none may be seen in its ``repr``."""

    def driver(self, node: str) -> StorageDriver:
        """Return a new driver object of this node, as after a restart of its daemon."""

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        """Write to a volume that is not attached, past the driver, and make it durable."""

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        """Read from a volume that is not attached, past the driver."""

    def close(self) -> None:
        """Take everything down."""


class Workbench:
    """A backend with its pool made, two nodes, and short words for what the tests do often."""

    def __init__(self, backend: StorageBackend, directory: Path) -> None:
        self.backend = backend
        self.directory = directory
        self.pool = backend.pool
        self.first = backend.driver("node1")
        self.second = backend.driver("node2")
        self.first.storage_preflight()
        self.second.storage_preflight()
        self.first.pool_ensure(self.pool)
        self.capabilities: StorageCapabilities = self.first.storage_capabilities()

    def ref(self, name: str) -> VolumeRef:
        """Return a reference to a volume of the pool."""
        return VolumeRef(pool=self.pool, name=name)

    def make(self, name: str, size_bytes: int = 4 * MIB, contents: bytes = b"") -> VolumeRef:
        """Create a volume, with contents at its beginning."""
        volume = self.ref(name)
        self.first.volume_create(volume, size_bytes, "")
        if contents:
            self.backend.write(volume, 0, contents)
        return volume

    def head(self, volume: VolumeRef, length: int = 8) -> bytes:
        """Return the beginning of a volume."""
        return self.backend.read(volume, 0, length)

    def info(self, volume: VolumeRef) -> VolumeInfo:
        """Return a volume as another node's driver sees it, where it can."""
        return (self.second if self.capabilities.shared else self.first).volume_info(volume)

    def names(self) -> list[str]:
        """Return the names of all volumes, sorted."""
        return sorted(info.name for info in self.first.volume_list(self.pool))

    def image(self, contents: bytes, size_bytes: int = 4 * MIB) -> Path:
        """Return a raw image file with contents at its beginning."""
        path = self.directory / f"{uuid.uuid4().hex}.raw"
        with path.open("xb") as file:
            file.write(contents)
            file.truncate(size_bytes)
        return path


class Steps:
    """A progress callback that keeps what it was told; stops after ``stop_after`` calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[float] = []
        self._stop_after = stop_after

    def __call__(self, done: float) -> bool:
        self.seen.append(done)
        return self._stop_after is not None and len(self.seen) > self._stop_after


def no_progress(_done: float) -> bool:
    """Be a progress callback that never stops anything."""
    return False


class StorageSuite:
    """What all parts of the contract have in common."""

    __test__ = False

    exports: bool = True
    """The driver has ``volume_export``."""
    locks: bool = True
    """The driver keeps a volume from being attached twice."""

    def make_backend(self, tmp_path: Path) -> StorageBackend:
        """Return the backend to test against, in an empty directory of the test's own."""
        raise NotImplementedError(f"{type(self).__name__}.make_backend(tmp_path) must return a StorageBackend")

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Workbench]:
        directory = tmp_path / "files"
        directory.mkdir()
        backend = self.make_backend(tmp_path)
        try:
            yield Workbench(backend, directory)
        finally:
            backend.close()
