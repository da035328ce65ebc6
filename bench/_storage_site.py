"""A sandbox with Ceph and a pool, as a node of it sees them."""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import _cluster
import rados
import rbd

from pvc_ceph.config import CephConfig
from pvc_ceph.driver import CephDriver
from pvc_core.client.local import Client
from pvc_core.config.load import load_client
from pvc_core.model.storage import PoolSpec
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.ops.wait import ObjectGoal, wait_volume
from pvc_core.plugin import Context, NodeInfo, VolumeRef, run
from pvc_core.store.connect import open_store
from pvc_core.testkit.lan import entered
from pvc_sandbox.ceph import client_conf
from pvc_sandbox.sandbox import Sandbox

POOL: Final = "ssd"
MIB: Final = 1 << 20
GIB: Final = 1 << 30
WAIT_S: Final = 120.0
_OBJECT: Final = 4 * MIB


class Site(NamedTuple):
    """One node's view; everything in it is used by the thread that made it, which is in that node's network."""

    sandbox: Sandbox
    node: str
    client: Client
    pool: PoolSpec
    driver: CephDriver
    ioctx: rados.Ioctx
    """Of the pool: what librbd itself works with."""

    @property
    def ops(self) -> Ops:
        """What operations work with."""
        return self.client.ops

    def ref(self, name: str) -> VolumeRef:
        """Return a volume as the driver is told of it."""
        return VolumeRef(pool=self.pool, name=name)

    def program(self, *argv: str, deadline_s: float = WAIT_S) -> str:
        """Run a program on the node, which must succeed; return what it said."""
        return self.sandbox.exec(self.node, argv, deadline_s=deadline_s).check().stdout

    def add_volume(self, name: str, size_bytes: int, *, filled: bool = False) -> None:
        """Add a volume, and return when it is there; ``filled``: with all its objects, so that writes make none."""
        # Guests may write what sandboxes of this size have not got; none here does.
        view = volume_add(self.ops, VolumeAdd(pool=POOL, name=name, size=size_bytes, force=True))
        wait_volume(self.ops, view.id, ObjectGoal.READY, timeout_s=WAIT_S)
        if filled:
            with rbd.Image(self.ioctx, name) as image:
                for offset in range(0, size_bytes, _OBJECT):
                    image.write(os.urandom(min(_OBJECT, size_bytes - offset)), offset)


@contextmanager
def site() -> Iterator[Site]:
    """Make the sandbox, and remove it at the end."""
    with _cluster.own_sandbox("storage", 3, storage="ceph", bmc=False) as sandbox, contextlib.ExitStack() as ending:
        sandbox.pvc("storage", "pool", "add", POOL, "-d", "ceph-rbd", "-p", "pgs=32")
        host = sandbox.host(sandbox.nodes()[0])
        ending.enter_context(entered(Path("/proc", str(host.pid), "ns/net")))
        config = load_client(str(sandbox.client_config))
        client = Client(
            lambda: open_store(config.cluster, 10.0, wait_s=WAIT_S, patience_s=WAIT_S), service=config.service
        )
        ending.callback(client.close)
        conf = str(client_conf(sandbox.layout))
        # As the driver has it: clones of snapshots that are not protected.
        options = {"rbd_default_clone_format": "2"}
        cluster = rados.Rados(name="client.admin", conffile=conf, conf=options)
        cluster.connect()
        ending.callback(cluster.shutdown)
        ioctx = cluster.open_ioctx(POOL)
        ending.callback(ioctx.close)
        directory = Path(sandbox.layout.state, "bench")
        driver = CephDriver(_context(directory), CephConfig(conf=conf))
        ending.callback(driver.storage_close)
        yield Site(sandbox, host.name, client, resolve.pool(client.ops, POOL).value, driver, ioctx)


def tell(name: str, value: float, **more: Any) -> None:
    """Print one figure."""
    _cluster.tell("storage", name, value, **more)


def _context(directory: Path) -> Context:
    node = NodeInfo(
        name="bench",
        role="hypervisor",
        state_directory=str(directory),
        run_directory=str(directory),
        hypervisor_uri="test:///default",
    )
    return Context(node=node, log=logging.getLogger("pvc_ceph"), run=run, wake=lambda *_: None)
