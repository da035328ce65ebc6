"""A stepped cluster of three coordinators with power controllers: for tests of fencing and of what comes after it."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from pvc_core.model.base import Document
from pvc_core.model.fence import FenceDevice, FenceLevel, FenceRecord, FenceStage
from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcilers import core
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm
from pvc_core.ops.pool import PoolAdd, pool_add
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.plugin.specs.storage import StorageCapabilities
from pvc_core.store import documents, keys
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fake_fence import FakeFence, FakePower
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.stepped import SteppedCluster

T = TypeVar("T", bound=Document)

COORDINATORS: Final = ("hv1", "hv2", "hv3")
LEVEL: Final = FenceLevel(devices=(FenceDevice(driver="fake"),))
OTHER: Final = FenceLevel(devices=(FenceDevice(driver="other"),))


class FenceSite:
    """``hv1`` is primary, ``hv3`` is to be lost; what blocks runs at once, or when ``answer`` lets it."""

    def __init__(self) -> None:
        self.cluster = SteppedCluster(COORDINATORS)
        self.power, self.other = FakePower(self._switched), FakePower(self._switched)
        self.held = False
        """Calls of fence and storage drivers wait for ``answer``."""
        self.pending: list[Callable[[], None]] = []
        for name in COORDINATORS:
            self.power.add(name)
            self.other.add(name)
            self._add(name)
        self.cluster.settle()
        primary = self.read(keys.PRIMARY)
        assert primary is not None
        assert primary.node == "hv1"
        for name in COORDINATORS:
            self.change(keys.node_spec(name), fence_levels=(LEVEL,))
        self.cluster.settle()

    def _drivers(self, name: str) -> DirectDrivers:
        del name
        return DirectDrivers(fencing={"fake": FakeFence(self.power), "other": FakeFence(self.other)})

    def _add(self, name: str, machine: str = "") -> None:
        def reconcilers(context: NodeContext, node: NodeReconciler) -> Mapping[str, Reconciler]:
            return core(context, self.cluster.ops).reconcilers(node)

        self.cluster.add(name, drivers=self._drivers(name), reconcilers=reconcilers, spawn=self._spawn, machine=machine)

    def _spawn(self, name: str, function: Callable[[], None]) -> None:
        if self.held and name.startswith("fence-"):
            self.pending.append(function)
        else:
            function()

    def answer(self) -> None:
        """Let the calls that were held end."""
        pending, self.pending = self.pending, []
        for function in pending:
            function()
        self.cluster.settle()

    def _switched(self, node: str, power: PowerState) -> None:
        if power is PowerState.OFF:
            self.dies(node)
        else:
            self.cluster.world.power_on(node)

    # --- what befalls a node ------------------------------------------------------------------------

    def dies(self, node: str) -> None:
        """Let a node lose its power."""
        if self.cluster.nodes[node].running:
            self.cluster.nodes[node].kill()
        self.cluster.world.power_off(node)

    def loses_lease(self, node: str) -> None:
        """Let the servers drop a dead node's session."""
        self.cluster.nodes[node].store.expire()
        self.cluster.settle()

    def lost(self, node: str) -> None:
        """Let a node lose its power, and its lease a while later."""
        self.dies(node)
        self.loses_lease(node)

    def isolated(self, node: str) -> None:
        """Cut a node off from the store: it lives on, and its lease ends."""
        store = self.cluster.nodes[node].store
        store.suspend()
        store.expire()
        self.cluster.settle()

    def reconnected(self, node: str) -> None:
        """Let a node that was isolated reach the store again."""
        store = self.cluster.nodes[node].store
        store.resume()
        store.reconnect()

    def returns(self, node: str) -> None:
        """Give a node power, and start its daemon."""
        self.cluster.world.power_on(node)
        self.cluster.nodes[node].start()
        self.cluster.settle()

    def other_machine(self, node: str, machine: str) -> None:
        """Give another host the name of a node, and start its daemon."""
        self._add(node, machine)

    def confirmed(self, node: str = "hv3") -> None:
        """Let an operator say that a node is dead, whatever it is."""
        fence_confirm(self.cluster.ops, FenceConfirm(node=node, by="me@desk"))

    # --- what is in the tree ------------------------------------------------------------------------

    def vm(self, name: str, node: str = "hv3", **definition: Any) -> str:
        """Define a VM and wait until it runs; return its id."""
        vm = vm_define(self.cluster.ops, VmDefine(name=name, memory=512, node=node, start=True, **definition)).id
        self.cluster.until(lambda: self.running(vm) == [node], 30.0)
        return vm

    def running(self, vm: str) -> list[str]:
        """Return the hosts on which a VM executes."""
        return self.cluster.world.running(vm)

    def read(self, key: keys.Key[T]) -> T | None:
        """Return a document, or None."""
        entry = documents.read(self.cluster.operator, key)
        return entry.value if entry is not None else None

    def change(self, key: keys.Key[T], **changes: Any) -> None:
        """Replace fields of a document that has a generation."""
        entry = documents.read(self.cluster.operator, key)
        assert entry is not None
        new = replace(entry.value, generation=entry.value.generation + 1, **changes)  # type: ignore[attr-defined]
        self.cluster.operator.commit(entry.put(new))

    def record(self, node: str = "hv3") -> FenceRecord | None:
        """Return a node's fence record."""
        return self.read(keys.fence(node))

    def stage(self, node: str = "hv3") -> FenceStage | None:
        """Return how far a node's fencing is; None: it was never lost."""
        record = self.record(node)
        return record.stage if record is not None else None

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> float:
        """Let time pass until a condition holds; return the seconds it took."""
        return self.cluster.until(condition, seconds)


class ClosableSite(FenceSite):
    """The same with storage that can be closed to a node, and no power controller that answers for hv3."""

    def __init__(self) -> None:
        self.backend, self.plain = FakeBackend(), FakeBackend()
        super().__init__()
        self.power.silent.add("hv3")
        pool_add(self.cluster.ops, PoolAdd(name="shared", driver="fake"))
        pool_add(self.cluster.ops, PoolAdd(name="plain", driver="plain"))
        self.cluster.run(30.0)

    def _drivers(self, name: str) -> DirectDrivers:
        plain = FakeStorage(self.plain, name, capabilities=StorageCapabilities(formats=("raw",)))
        drivers = super()._drivers(name)
        return DirectDrivers(
            fencing={kind: drivers.fencing(kind) for kind in ("fake", "other")},
            storage={"fake": FakeStorage(self.backend, name), "plain": plain},
        )

    def vm_on(self, name: str, *pools: str) -> str:
        """Start a VM on hv3 with a disk on each of some pools; return its id."""
        for pool in pools:
            volume_add(self.cluster.ops, VolumeAdd(pool=pool, name=name, size="4M"))
        self.cluster.run(10.0)
        return self.vm(name, disks=tuple(DiskDefinition(pool=pool, volume=name) for pool in pools))
