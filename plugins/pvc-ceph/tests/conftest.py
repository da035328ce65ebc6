"""A Ceph cluster, its hosts, and the drivers of nodes on them."""

import contextlib
import json
import logging
import uuid
from pathlib import Path

import pytest
import rados
import rbd
from pvc_ceph.config import CephConfig
from pvc_ceph.driver import CephDriver

from pvc_core.model.storage import PoolSpec
from pvc_core.plugin import Context, NodeInfo, VolumeRef, run
from pvc_core.testkit.lan import entered

MIB = 1024 * 1024


class OnHost:
    """A driver whose worker processes are on a host: they inherit the calling thread's network."""

    def __init__(self, driver, namespace):
        self.__dict__["_driver"] = driver
        self.__dict__["_namespace"] = namespace

    def __getattr__(self, name):
        inner = getattr(self._driver, name)
        if not callable(inner):
            return inner

        def call(*args, **kwargs):
            with entered(self._namespace):
                return inner(*args, **kwargs)

        return call

    def __repr__(self):
        return repr(self._driver)


class Site:
    """One pool on the cluster; reads and writes volumes past the driver."""

    cluster: rados.Rados

    def __init__(self, directory: Path):
        self.directory = directory
        self.conf = Path("/tmp/cephdev/w/ceph.conf")
        self.pool = PoolSpec(
            id=str(uuid.uuid4()), name=f"t{uuid.uuid4().hex[:8]}", driver="ceph-rbd", parameters={"pgs": 4}
        )
        self.drivers = []

    def namespace(self, node: str) -> str:
        return "cd" + node.removeprefix("node")

    def driver(self, node: str = "node1"):
        info = NodeInfo(
            name=node,
            role="hypervisor",
            state_directory=str(self.directory / node),
            run_directory=str(self.directory / f"run-{node}"),
            hypervisor_uri="test:///default",
        )
        context = Context(node=info, log=logging.getLogger("pvc_ceph"), run=self.run, wake=lambda *_: None)
        made = OnHost(
            CephDriver(context, CephConfig(conf=str(self.conf), state_pool=self.pool.name)), self.namespace(node)
        )
        self.drivers.append(made)
        return made

    def run(self, argv, *, deadline_s, stdin=b""):
        if argv[0] == "virsh":
            argv = ["true"]
        return run(argv, deadline_s=deadline_s, stdin=stdin)

    def ref(self, name: str) -> VolumeRef:
        return VolumeRef(pool=self.pool, name=name)

    def write(self, name: str, data: bytes, offset: int = 0) -> None:
        with self.image(name) as image:
            image.write(data, offset)

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self.image(name) as image:
            return image.read(offset, length)

    @contextlib.contextmanager
    def image(self, name: str):
        ioctx = self.cluster.open_ioctx(self.pool.name)
        with contextlib.closing(ioctx), rbd.Image(ioctx, name) as image:
            yield image

    def command(self, prefix: str, **arguments):
        """Ask the monitors."""
        status, body, said = self.cluster.mon_command(
            json.dumps({"prefix": prefix, "format": "json", **arguments}), b""
        )
        assert status == 0, f"{prefix}: {said}"
        return json.JSONDecoder().raw_decode(body.decode())[0] if body.strip() else None

    def close(self) -> None:
        for driver in self.drivers:
            driver.storage_close()
        if self.cluster.pool_exists(self.pool.name):
            self.command("osd pool set", pool=self.pool.name, var="nodelete", val="false")
            self.cluster.delete_pool(self.pool.name)
        for entry in self.command("osd blocklist ls"):
            self.command("osd blocklist", blocklistop="rm", addr=entry["addr"])


@pytest.fixture
def site(tmp_path, make_site):
    made = make_site(tmp_path)
    with contextlib.closing(made):
        made.driver().pool_ensure(made.pool)
        yield made


@pytest.fixture(scope="session")
def ceph():
    with entered("cd0"):
        cluster = rados.Rados(name="client.admin", conffile="/tmp/cephdev/w/ceph.conf")
        cluster.connect()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def make_site(ceph):
    Site.cluster = ceph
    return Site
