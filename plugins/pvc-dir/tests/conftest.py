"""A pool directory and the drivers of its nodes."""

import logging
import subprocess
import uuid
from pathlib import Path

import pytest

from pvc_core.model.storage import PoolSpec
from pvc_core.plugin import Context, NodeInfo, VolumeRef, run
from pvc_dir import volumes
from pvc_dir.config import DirConfig
from pvc_dir.driver import DirDriver
from pvc_dir.pool import Pool
from pvc_dir.state import VolumeState

MIB = 1024 * 1024


class Site:
    """One pool and its nodes; reads and writes images past the driver, as a guest would."""

    def __init__(self, directory: Path, format_: str = "raw"):
        self.root = directory / "pool"
        self.root.mkdir()
        self.directory = directory
        self.pool = PoolSpec(
            id=str(uuid.uuid4()), name="ssd", driver="dir", parameters={"path": str(self.root), "format": format_}
        )

    def driver(self, node: str = "node1", config: DirConfig | None = None) -> DirDriver:
        info = NodeInfo(name=node, role="hypervisor", state_directory=str(self.directory / node))
        context = Context(node=info, log=logging.getLogger("pvc_dir"), run=run, wake=lambda *_: None)
        return DirDriver(context, config or DirConfig())

    def ref(self, name: str) -> VolumeRef:
        return VolumeRef(pool=self.pool, name=name)

    def here(self) -> Pool:
        return Pool(self.pool.id, self.pool.name, self.root, "raw")

    def state(self, name: str) -> VolumeState:
        return volumes.get(self.here(), name)

    def image(self, name: str) -> tuple[Path, str]:
        state = self.state(name)
        return self.here().layer(state.active), state.layer(state.active).format

    def write(self, name: str, data: bytes, offset: int = 0) -> None:
        path, format_ = self.image(name)
        part = self.directory / "part"
        part.write_bytes(data)
        command = f"write -q -s {part} {offset} {len(data)}"
        subprocess.run(["qemu-io", "-f", format_, "-c", command, path], check=True, stdout=subprocess.DEVNULL)

    def read(self, name: str, offset: int, length: int) -> bytes:
        path, format_ = self.image(name)
        whole = self.directory / "whole"
        subprocess.run(["qemu-img", "convert", "-f", format_, "-O", "raw", path, whole], check=True)
        with whole.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def head(self, name: str, length: int) -> bytes:
        return self.read(name, 0, length)

    def files(self) -> set[str]:
        """Return all image files of the pool."""
        return {path.name for path in (self.root / "layers").iterdir()}

    def used_files(self) -> set[str]:
        """Return the image files that volumes name."""
        return {layer.file for state in volumes.all_of(self.here()).values() for layer in state.layers}

    def leftovers(self) -> list[str]:
        """Return what should not be there while nothing is being done."""
        parts = [path for part in ("building", "trash") for path in (self.root / part).iterdir()]
        return sorted([*map(str, parts), *(self.files() - self.used_files())])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.driver().pool_ensure(made.pool)
    return made


@pytest.fixture
def bare_site(tmp_path: Path) -> Site:
    """Return a site whose directory is not a pool yet."""
    return Site(tmp_path)


@pytest.fixture
def make_site() -> type[Site]:
    """Return the maker of sites, for tests that need several."""
    return Site
