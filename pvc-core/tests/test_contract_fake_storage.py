"""The fake storage driver keeps the contract, with all capabilities and with none."""

from pathlib import Path

from pvc_core.model.storage import PoolSpec
from pvc_core.plugin.specs.storage import StorageCapabilities, StorageDriver, VolumeRef
from pvc_core.testkit.contracts.storage import StorageContract
from pvc_core.testkit.fakes import FakeBackend, FakeStorage


class Backend:
    secrets = ()

    def __init__(self, capabilities: StorageCapabilities | None = None):
        self.pool = PoolSpec(id="0d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01", name="ssd", driver="fake")
        self.shared = FakeBackend()
        self.capabilities = capabilities

    def driver(self, node: str) -> StorageDriver:
        return FakeStorage(self.shared, node, capabilities=self.capabilities)

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        self.shared.write(volume, offset, data)

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        return self.shared.read(volume, offset, length)

    def close(self) -> None:
        pass


class TestFakeStorage(StorageContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> Backend:
        return Backend()


class TestFakeStorageThatCanDoLittle(StorageContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> Backend:
        return Backend(StorageCapabilities())
