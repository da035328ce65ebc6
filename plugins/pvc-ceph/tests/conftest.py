"""A Ceph cluster, its hosts, and the drivers of nodes on them."""

import contextlib
import functools
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

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


class Ceph(NamedTuple):
    """A cluster whose hosts are the nodes of a sandbox; no daemon of PVC runs there."""

    sandbox: Any
    conf: Path
    cluster: rados.Rados

    def host(self, node: str) -> Any:
        return self.sandbox.host(node.replace("node", "hv"))

    def namespace(self, node: str) -> Path:
        """Return the network namespace of ``node1`` to ``node3``."""
        return Path("/proc", str(self.host(node).pid), "ns/net")

    def address(self, node: str) -> str:
        return str(self.host(node).address)

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Ask the monitors."""
        status, body, said = self.cluster.mon_command(
            json.dumps({"prefix": prefix, "format": "json", **arguments}), b""
        )
        assert status == 0, f"{prefix}: {said}"
        return json.JSONDecoder().raw_decode(body.decode())[0] if body.strip() else None

    def blocked(self) -> set[str]:
        return {entry["addr"] for entry in self.command("osd blocklist ls")}


class Site:
    """One pool on the cluster; reads and writes volumes past the driver."""

    def __init__(self, directory: Path, ceph: Ceph):
        self.directory = directory
        self.ceph = ceph
        self.pool = PoolSpec(
            id=str(uuid.uuid4()), name=f"t{uuid.uuid4().hex[:8]}", driver="ceph-rbd", parameters={"pgs": 4}
        )
        self.drivers = []

    def driver(self, node: str = "node1", *, host: str = "", **settings: Any):
        info = NodeInfo(
            name=node,
            role="hypervisor",
            state_directory=str(self.directory / node),
            run_directory=str(self.directory / f"run-{node}"),
            hypervisor_uri="test:///default",
        )
        context = Context(node=info, log=logging.getLogger("pvc_ceph"), run=self.run, wake=lambda *_: None)
        made = OnHost(
            CephDriver(context, CephConfig(**({"conf": str(self.ceph.conf), "state_pool": self.pool.name} | settings))),
            self.ceph.namespace(host or node),
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
        ioctx = self.ceph.cluster.open_ioctx(self.pool.name)
        with contextlib.closing(ioctx), rbd.Image(ioctx, name) as image:
            yield image

    def close(self) -> None:
        for driver in self.drivers:
            driver.storage_close()
        if self.ceph.cluster.pool_exists(self.pool.name):
            self.ceph.command("osd pool set", pool=self.pool.name, var="nodelete", val="false")
            self.ceph.cluster.delete_pool(self.pool.name)
        for entry in self.ceph.command("osd blocklist ls"):
            self.ceph.command("osd blocklist", blocklistop="rm", addr=entry["addr"])


@pytest.fixture(scope="session")
def ceph():
    from pvc_sandbox.ceph import client_conf
    from pvc_sandbox.sandbox import Sandbox

    sandbox = Sandbox(f"pytest-{os.getpid()}-hosts")
    try:
        sandbox.up(nodes=3, bmc=False, storage="ceph")
        for node in sandbox.nodes():
            sandbox.host(node).stop_service("pvcnoded")
        conf = client_conf(sandbox.layout)
        with entered(sandbox.layout.switch):
            cluster = rados.Rados(name="client.admin", conffile=str(conf))
            cluster.connect()
        yield Ceph(sandbox, conf, cluster)
        cluster.shutdown()
    finally:
        sandbox.down()


@pytest.fixture
def new_site(ceph):
    """Return the maker of sites whose pool does not exist yet."""
    return functools.partial(Site, ceph=ceph)


@pytest.fixture
def site(tmp_path, new_site):
    made = new_site(tmp_path)
    with contextlib.closing(made):
        made.driver().pool_ensure(made.pool)
        yield made
