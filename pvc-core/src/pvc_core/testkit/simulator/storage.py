"""Shared storage of a simulated cluster, which can be closed to a node: to one start of its host, as a client of Ceph is."""

from collections.abc import Callable
from typing import Final

from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.plugin.specs.storage import BlockResult, DiskSource, VolumeRef
from pvc_core.store import keys
from pvc_core.store.api import Create, Store
from pvc_core.store.documents import create
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.simulator.fence_driver import Caller

DRIVER: Final = "fake"
POOL: Final = "ssd"


class Closing:
    """How well closing storage works."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.fails = False
        """The storage does not answer those who ask to close it."""
        self.changed = changed
        """Called when it was closed to somebody, or opened."""


class SimStorage(FakeStorage):
    """The storage driver of one daemon."""

    def __init__(self, backend: FakeBackend, node: str, client: str, caller: Caller, closing: Closing) -> None:
        """``client`` is what the storage knows this start of the host by."""
        super().__init__(backend, node)
        self._client = client
        self._caller = caller
        self._closing = closing

    def node_identity(self) -> dict[str, str]:
        return {"client": self._client}

    def node_block(self, node: str, identity: dict[str, str], volumes: list[VolumeRef], epoch: int) -> BlockResult:
        del volumes
        self._caller.effect(f"before closing storage to {node}")
        if self._closing.fails:
            raise NotReady("the storage does not answer")
        closed = self.backend.close_to(identity["client"], epoch)
        self._closing.changed()
        self._caller.effect(f"after closing storage to {node}")
        state = "is refused" if closed else "was opened since"
        return BlockResult(blocked=closed, evidence=f"client {identity['client']} {state}")

    def node_unblock(self, node: str, identity: dict[str, str], epoch: int) -> bool:
        self._caller.effect(f"before opening storage to {node}")
        if self._closing.fails:
            raise NotReady("the storage does not answer")
        self.backend.open_to(identity["client"], epoch)
        self._closing.changed()
        self._caller.effect(f"after opening storage to {node}")
        return True

    def disk_attach(self, volume: VolumeRef, vm: str, epoch: int, incoming: bool) -> DiskSource:
        if self._client in self.backend.blocked:
            raise DriverError(f"client {self._client} is refused by the storage")
        return super().disk_attach(volume, vm, epoch, incoming)


def add_pool(store: Store, backend: FakeBackend, id_: str) -> PoolSpec:
    """Let there be a pool."""
    pool = PoolSpec(id=id_, name=POOL, driver=DRIVER)
    backend.pools.add(id_)
    store.commit(
        create(keys.pool_spec(id_), pool),
        Create(keys.name("pool", POOL), id_.encode()),
        Create(keys.ref("pool", id_), b""),
    )
    return pool


def add_volume(store: Store, backend: FakeBackend, pool: PoolSpec, id_: str, name: str) -> None:
    """Let there be a volume that is ready for use."""
    FakeStorage(backend, "").volume_create(VolumeRef(pool=pool, name=name), 1 << 30, "")
    store.commit(
        create(keys.volume_spec(id_), VolumeSpec(id=id_, name=name, pool=pool.id, size_bytes=1 << 30)),
        create(keys.volume_status(id_), VolumeStatus(id=id_, state=VolumeState.READY, name=name, size_bytes=1 << 30)),
        Create(keys.volume_name(pool.name, name), id_.encode()),
        Create(keys.ref("volume", id_), b""),
        Create(f"{keys.ref('pool', pool.id)}/{id_}", b""),
    )
