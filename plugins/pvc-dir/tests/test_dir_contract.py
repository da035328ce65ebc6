"""pvc-dir keeps the storage contract, in both formats, with several nodes on one directory."""

from pathlib import Path

import pytest

from pvc_core.plugin import StorageDriver, VolumeRef
from pvc_core.testkit.contracts.storage import StorageContract


class DirBackend:
    secrets = ()

    def __init__(self, site):
        self._site = site
        self.pool = site.pool

    def driver(self, node: str) -> StorageDriver:
        return self._site.driver(node)

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        self._site.write(volume.name, data, offset)

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        return self._site.read(volume.name, offset, length)

    def close(self) -> None:
        building = self._site.root / "building"
        assert not list(building.glob("*")) if building.exists() else True


class DirContract(StorageContract):
    format = ""

    @pytest.fixture(autouse=True)
    def _maker(self, make_site) -> None:
        self._make_site = make_site

    def make_backend(self, tmp_path: Path) -> DirBackend:
        return DirBackend(self._make_site(tmp_path, self.format))


class TestRawVolumes(DirContract):
    __test__ = True
    format = "raw"


class TestQcow2Volumes(DirContract):
    __test__ = True
    format = "qcow2"
