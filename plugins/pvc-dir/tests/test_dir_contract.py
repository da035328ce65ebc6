"""pvc-dir keeps the storage contract, in both formats, with several nodes on one directory."""

import logging
import subprocess
import uuid
from pathlib import Path

from pvc_core.model.storage import PoolSpec
from pvc_core.plugin import Context, NodeInfo, StorageDriver, VolumeRef, run
from pvc_core.testkit.contracts.storage import StorageContract
from pvc_dir import volumes
from pvc_dir.config import DirConfig
from pvc_dir.driver import DirDriver
from pvc_dir.pool import Pool


class DirBackend:
    secrets = ()

    def __init__(self, directory: Path, format_: str):
        self.root = directory / "pool"
        self.root.mkdir()
        self._directory = directory
        self.pool = PoolSpec(
            id=str(uuid.uuid4()), name="ssd", driver="dir", parameters={"path": str(self.root), "format": format_}
        )

    def driver(self, node: str) -> StorageDriver:
        info = NodeInfo(name=node, role="hypervisor", state_directory=str(self._directory / node))
        context = Context(node=info, log=logging.getLogger("pvc_dir"), run=run, wake=lambda *_: None)
        return DirDriver(context, DirConfig())

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        path, format_ = self._image(volume)
        part = self._directory / "part"
        part.write_bytes(data)
        command = f"write -q -s {part} {offset} {len(data)}"
        subprocess.run(["qemu-io", "-f", format_, "-c", command, path], check=True, stdout=subprocess.DEVNULL)

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        path, format_ = self._image(volume)
        whole = self._directory / "whole"
        subprocess.run(["qemu-img", "convert", "-f", format_, "-O", "raw", path, whole], check=True)
        with whole.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def close(self) -> None:
        assert not list((self.root / "building").glob("*")) if (self.root / "building").exists() else True

    def _image(self, volume: VolumeRef) -> tuple[str, str]:
        pool = Pool(volume.pool.id, volume.pool.name, self.root, "raw")
        state = volumes.get(pool, volume.name)
        return str(pool.layer(state.active)), state.layer(state.active).format


class TestRawVolumes(StorageContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> DirBackend:
        return DirBackend(tmp_path, "raw")


class TestQcow2Volumes(StorageContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> DirBackend:
        return DirBackend(tmp_path, "qcow2")
