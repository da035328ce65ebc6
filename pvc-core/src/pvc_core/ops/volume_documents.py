"""What operations on a volume begin with: its documents, its VM, the node that works on it."""

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, NotFound
from pvc_core.model.names import check_name, did_you_mean
from pvc_core.model.storage import PoolSpec, Snapshot, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import choose_by_drivers
from pvc_core.ops.snapshot import read_nodes
from pvc_core.ops.vm_write import VmDocuments, with_documents
from pvc_core.store import keys
from pvc_core.store.api import Create, Operation
from pvc_core.store.documents import Entry, create, read


class VolumeDocuments:
    """A volume's documents as read, to change it or to work on it."""

    def __init__(
        self, entry: Entry[VolumeSpec], status: VolumeStatus | None, pool: PoolSpec, vm: VmDocuments | None
    ) -> None:
        self.entry = entry
        self.spec = entry.value
        self.status = status or VolumeStatus(id=entry.value.id)
        self.pool = pool
        self.vm = vm
        """The VM it belongs to."""

    @property
    def path(self) -> str:
        """``pool/volume``."""
        return f"{self.pool.name}/{self.spec.name}"

    @property
    def holder(self) -> str:
        """Id of the VM it belongs to; empty: none."""
        return self.vm.spec.id if self.vm is not None else ""

    @property
    def size_bytes(self) -> int:
        """What it has, or will have."""
        return max(self.spec.size_bytes, self.status.size_bytes)

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot; raises NotFound."""
        known = {snapshot.name: snapshot for snapshot in self.status.snapshots}
        if name not in known:
            raise NotFound(f"volume {self.path} has no snapshot {name!r}{did_you_mean(name, known)}")
        return known[name]

    def require_unused(self, instead: str) -> list[Operation]:
        """Return the checks that no guest uses it until the transaction; raises InUse."""
        if self.vm is None:
            return []
        if self.vm.holder or (self.vm.spec.power == "running" and not self.vm.halted):
            raise InUse(f"volume {self.path} is in use: VM {self.vm.spec.name!r} runs or is about to; {instead}")
        return [self.vm.unclaimed()]


def read_volume(ops: Ops, text: str, *, deleting: bool = False) -> VolumeDocuments:
    """Read a volume by ``pool/volume`` or id.

    Raises NotFound; Conflict when it is being removed (unless ``deleting``) or still imported.
    """
    entry = resolve.volume(ops, text)
    spec = entry.value
    if not deleting:
        resolve.refuse_deleting("volume", text, deleting=spec.deleting)
    pool = read(ops.store, keys.pool_spec(spec.pool))
    if pool is None:
        raise NotFound(f"the storage pool of volume {text!r} does not exist any more")
    status = read(ops.store, keys.volume_status(spec.id))
    if spec.task and (status is None or status.value.state is VolumeState.CREATING):
        task = read(ops.store, keys.task(spec.task))
        if task is not None and not task.value.finished:
            raise Conflict(
                f"volume {pool.value.name}/{spec.name} is being imported by task {spec.task}; cancel that first"
            )
    holder = ops.store.get(keys.volume_holder(spec.id))
    vm = read(ops.store, keys.vm_spec(holder.value.decode())) if holder is not None else None
    return VolumeDocuments(
        entry, status.value if status is not None else None, pool.value, with_documents(ops, vm) if vm else None
    )


def choose_volume_node(ops: Ops, driver: str) -> str:
    """Return the node with a working driver of this name that is best free to work for it; raises NoNodeFits.

    Ready nodes come first, then those with the fewest guests.
    """
    nodes = read_nodes(ops.store)
    guests = {name: len(facts.status.running) if facts.status is not None else 0 for name, facts in nodes.items()}
    return choose_by_drivers(nodes, [driver], f"work on storage of driver {driver}", guests)


def new_volume(ops: Ops, pool: Entry[PoolSpec], spec: VolumeSpec) -> list[Operation]:
    """Return the operations that add a volume, after checks.  Raises AlreadyExists, Conflict (pool being removed)."""
    check_name(spec.name, "volume name")
    resolve.refuse_deleting("storage pool", pool.value.name, deleting=pool.value.deleting)
    name = keys.volume_name(pool.value.name, spec.name)
    if ops.store.get(name) is not None:
        raise AlreadyExists(f"there is a volume {pool.value.name}/{spec.name} already")
    return [
        create(keys.volume_spec(spec.id), spec),
        Create(name, spec.id.encode()),
        Create(keys.ref("volume", spec.id), b""),
        Create(f"{keys.ref('pool', pool.value.id)}/{spec.id}", b""),
    ]
