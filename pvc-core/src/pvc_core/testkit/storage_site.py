"""A stepped cluster with fake storage and networks: for tests of the reconcilers of pools, volumes and networks."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pvc_core.model.network import NetworkStatus
from pvc_core.model.storage import PoolStatus, VolumeSpec, VolumeStatus
from pvc_core.model.task import FINAL, Task
from pvc_core.node.context import NodeContext, Reconciler
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcile.vm_snapshot_tasks import REPEATED
from pvc_core.node.reconcilers import Core, core
from pvc_core.ops.context import Ops
from pvc_core.ops.pool import PoolAdd, pool_add
from pvc_core.ops.vm_locks import FLUSH_LOCKS
from pvc_core.plugin.specs.lifecycle import TaskProgress, TaskRunner
from pvc_core.plugin.specs.storage import StorageCapabilities, VolumeRef
from pvc_core.store import documents, keys
from pvc_core.store.api import Operation
from pvc_core.store.memory import MemoryStore, Moment
from pvc_core.testkit.doomed import Doom, DoomedFaults
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeNetwork, FakeStorage, Faults
from pvc_core.testkit.in_turn import InTurn
from pvc_core.testkit.stepped import SteppedCluster, SteppedNode

_KINDS = (
    "volume.import",
    "volume.export",
    "snapshot.create",
    "snapshot.delete",
    "snapshot.rename",
    "snapshot.protect",
    "snapshot.rollback",
    FLUSH_LOCKS,
    *sorted(REPEATED),
)


class StorageSite:
    """Nodes ``hv1``, ``hv2``, ... over one fake backend; ``hv1`` can be doomed."""

    def __init__(self, *names: str, capabilities: StorageCapabilities | None = None) -> None:
        self.doom = Doom()
        self.cluster = SteppedCluster(coordinators=names or ("hv1",))
        self.ops: Ops = self.cluster.ops
        self.backend = FakeBackend()
        self.faults: dict[str, Faults] = {}
        self.network_faults: dict[str, Faults] = {}
        self.kernels: dict[str, FakeNetwork] = {}
        self.drivers: dict[str, DirectDrivers] = {}
        self.nodes: dict[str, SteppedNode] = {}
        self.imported: list[str] = []
        """Paths of files whose import has ended."""
        for name in names or ("hv1",):
            self._add(name, capabilities)
        self.cluster.settle()
        self.cluster.tree.fault = self._store_moment

    def _add(self, name: str, capabilities: StorageCapabilities | None) -> None:
        doomed = name == "hv1"
        self.faults[name] = DoomedFaults(self.doom) if doomed else Faults()
        self.network_faults[name] = DoomedFaults(self.doom) if doomed else Faults()
        self.kernels[name] = FakeNetwork(name, faults=self.network_faults[name])
        storage = FakeStorage(self.backend, name, faults=self.faults[name], capabilities=capabilities)
        self.drivers[name] = DirectDrivers(storage={"fake": storage}, network={"fakenet": self.kernels[name]})
        current: dict[str, Core] = {}

        def reconcilers(context: NodeContext, node: NodeReconciler) -> Mapping[str, Reconciler]:
            ops = Ops(context.store, context.clock.wall, context.clock.monotonic)
            current["core"] = core(context, ops, together=partial(InTurn, context.clock), imported=self.imported.append)
            return current["core"].reconcilers(node)

        def runner(kind: str) -> TaskRunner:
            def run(task: Task, progress: TaskProgress) -> dict[str, str | int | float | bool | None]:
                return current["core"].runners[kind](task, progress)

            return run

        self.nodes[name] = self.cluster.add(
            name,
            drivers=self.drivers[name],
            reconcilers=reconcilers,
            around=(lambda _: self.doom.moment()) if doomed else None,
            runners={kind: runner(kind) for kind in _KINDS},
            repeated=REPEATED,
        )

    def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Let time pass until a condition holds."""
        self.cluster.until(condition, seconds)

    def revive(self, name: str = "hv1") -> None:
        """Start a node's daemon again after it died."""
        self.nodes[name].kill().expire()
        self.nodes[name].start()

    def cut_off(self, name: str) -> None:
        """Let a node die for good."""
        self.nodes[name].kill().expire()

    def pool(self, name: str = "ssd") -> str:
        """Add a pool, wait until it is ready, and return its id."""
        pool = pool_add(self.ops, PoolAdd(name=name, driver="fake")).id
        self.until(lambda: self.pool_ready(pool))
        return pool

    def pool_status(self, pool: str) -> PoolStatus | None:
        """Return a pool's status."""
        entry = documents.read(self.ops.store, keys.pool_status(pool))
        return entry.value if entry is not None else None

    def pool_ready(self, pool: str) -> bool:
        """Say whether a pool is made."""
        status = self.pool_status(pool)
        return status is not None and status.created and all(c.ok for c in status.conditions)

    def volume(self, volume: str) -> VolumeSpec | None:
        """Return a volume's spec."""
        entry = documents.read(self.ops.store, keys.volume_spec(volume))
        return entry.value if entry is not None else None

    def volume_status(self, volume: str) -> VolumeStatus:
        """Return a volume's status."""
        entry = documents.read(self.ops.store, keys.volume_status(volume))
        return entry.value if entry is not None else VolumeStatus(id=volume)

    def settled(self, volume: str) -> bool:
        """Say whether a volume's node has done all that its spec asks for, or given up."""
        spec = self.volume(volume)
        return spec is not None and self.volume_status(volume).observed_generation >= spec.generation

    def network_status(self, network: str, node: str) -> NetworkStatus | None:
        """Return a network's status on a node."""
        entry = documents.read(self.ops.store, keys.network_status(network, node))
        return entry.value if entry is not None else None

    def task(self, task: str) -> Task:
        """Return a task."""
        entry = documents.read(self.ops.store, keys.task(task))
        if entry is None:
            raise AssertionError(f"there is no task {task}")
        return entry.value

    def ended(self, task: str) -> bool:
        """Say whether a task has come to its end."""
        return self.task(task).state in FINAL

    def names(self) -> list[str]:
        """Return the names of all volumes in the backend."""
        return sorted(name for _, name in self.backend.volumes)

    def write(self, pool: str, name: str, data: bytes) -> None:
        """Write to a volume as a guest would."""
        self.backend.write(self._ref(pool, name), 0, data)

    def read(self, pool: str, name: str, length: int) -> bytes:
        """Read from a volume as a guest would."""
        return self.backend.read(self._ref(pool, name), 0, length)

    def paths(self) -> list[str]:
        """Return the paths of all nodes of the tree that are about networks, pools, volumes or their names."""
        kinds = ("network", "pool", "volume")
        parents = [f"{parent}/{kind}/" for parent in (keys.SPEC, keys.STATUS, keys.NAME, keys.REF) for kind in kinds]
        return sorted(path for path in self.cluster.tree.dump() if any(path.startswith(p) for p in parents))

    def image(self, directory: Path, contents: bytes, size_bytes: int = 1 << 20) -> str:
        """Return the path of a raw image."""
        path = directory / "image.raw"
        path.write_bytes(contents.ljust(size_bytes, b"\0"))
        return str(path)

    def _ref(self, pool: str, name: str) -> VolumeRef:
        entry = documents.read(self.ops.store, keys.pool_spec(pool))
        if entry is None:
            raise AssertionError(f"there is no pool {pool}")
        return VolumeRef(pool=entry.value, name=name)

    def _store_moment(self, moment: Moment, session: MemoryStore, operations: tuple[Operation, ...]) -> None:
        if session.name == "hv1" and moment is not Moment.READ and operations:
            self.doom.moment()
