"""pvc-ceph keeps the storage contract, with nodes on several hosts of a real Ceph cluster."""

from pathlib import Path

import pytest

from pvc_core.plugin import StorageDriver, VolumeRef
from pvc_core.testkit.contracts.storage import StorageContract

pytestmark = [pytest.mark.real, pytest.mark.ceph]


class CephBackend:
    def __init__(self, site):
        self._site = site
        self.pool = site.pool
        self.secrets = (site.ceph.command("auth get", entity="client.admin")[0]["key"],)

    def driver(self, node: str) -> StorageDriver:
        return self._site.driver(node)

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        self._site.write(volume.name, data, offset)

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        return self._site.read(volume.name, offset, length)

    def close(self) -> None:
        self._site.close()


class TestCephVolumes(StorageContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _maker(self, new_site) -> None:
        self._new_site = new_site

    def make_backend(self, tmp_path: Path) -> CephBackend:
        return CephBackend(self._new_site(tmp_path))
