"""Which volumes a VM's snapshot is made of, and which node works on them."""

from collections.abc import Iterable, Sequence

from pvc_core.model.errors import AlreadyExists, Conflict, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.vm import VmClaim, kept_disks
from pvc_core.model.vm_snapshot import SnapshotDisk
from pvc_core.ops.context import Ops
from pvc_core.ops.resolve import refuse_deleting
from pvc_core.ops.snapshot import NodeFacts, offered, read_nodes
from pvc_core.ops.vm_resources import check_resources, read_resources
from pvc_core.ops.vm_write import VmDocuments
from pvc_core.store import keys
from pvc_core.store.documents import read_many


class Members:
    """The volumes of a snapshot as they are now, by their ids; those that are gone are not in here."""

    def __init__(self, ops: Ops, disks: Sequence[SnapshotDisk]) -> None:
        """Read them."""
        ids = [disk.volume for disk in disks]
        specs = read_many(ops.store, [keys.volume_spec(id_) for id_ in ids])
        statuses = read_many(ops.store, [keys.volume_status(id_) for id_ in ids])
        pool_ids = sorted({entry.value.pool for entry in specs if entry is not None})
        pools = read_many(ops.store, [keys.pool_spec(id_) for id_ in pool_ids])
        holders = ops.store.get_many([keys.volume_holder(id_) for id_ in ids])
        self.specs: dict[str, VolumeSpec] = {e.value.id: e.value for e in specs if e is not None}
        self.statuses: dict[str, VolumeStatus] = {e.value.id: e.value for e in statuses if e is not None}
        self.pools: dict[str, PoolSpec] = {e.value.id: e.value for e in pools if e is not None}
        self.holders: dict[str, str] = {
            id_: node.value.decode() for id_, node in zip(ids, holders, strict=True) if node is not None
        }
        """Volume -> the VM that has it as a disk."""

    def path(self, disk: SnapshotDisk) -> str:
        """Return ``pool/volume`` as the volume is called now, or was when it is gone."""
        spec = self.specs.get(disk.volume)
        pool = self.pools.get(spec.pool) if spec is not None else None
        return f"{pool.name}/{spec.name}" if spec is not None and pool is not None else disk.path

    def drivers(self) -> set[str]:
        """Return the drivers that work on them."""
        return {self.pools[spec.pool].driver for spec in self.specs.values() if spec.pool in self.pools}

    def nodes(self) -> list[str | None]:
        """Return the nodes that take care of them."""
        return [spec.node for spec in self.specs.values()]

    def snapshot_names(self, volume: str) -> set[str]:
        """Return the names of a volume's snapshots."""
        status = self.statuses.get(volume)
        return {snapshot.name for snapshot in status.snapshots} if status is not None else set()

    def require_free(self, disks: Iterable[SnapshotDisk], name: str) -> None:
        """Raise AlreadyExists when one of the volumes has a snapshot of a name."""
        for disk in disks:
            if name in self.snapshot_names(disk.volume):
                raise AlreadyExists(
                    f"volume {self.path(disk)} has a snapshot {name!r} of its own already: choose another name"
                )


def disks_of(ops: Ops, vm: VmDocuments) -> tuple[SnapshotDisk, ...]:
    """Return the disks of a snapshot that is made now.

    Raises InvalidRequest (no disks; a driver without snapshots), NotFound, Conflict (a volume is not ready, or is being
    removed).
    """
    spec = vm.spec
    kept = kept_disks(spec)
    if not kept:
        raise InvalidRequest(f"VM {spec.name!r} has no disks of which a snapshot could be made")
    resources = read_resources(ops, spec)
    check_resources(ops, spec, resources)
    able = offered(read_nodes(ops.store), "snapshots")
    for disk in kept:
        pool = resources.pools[disk.pool]
        if pool.driver not in able:
            raise InvalidRequest(
                f"volume {disk.path} is in pool {disk.pool!r}, whose driver {pool.driver!r} has no snapshots "
                "on any node that works now"
            )
    volumes = [resources.volumes[(disk.pool, disk.volume)] for disk in kept]
    made: list[SnapshotDisk] = []
    statuses = read_many(ops.store, [keys.volume_status(volume.id) for volume in volumes])
    for disk, volume, status in zip(kept, volumes, statuses, strict=True):
        state = status.value.state if status is not None else VolumeState.CREATING
        if status is None or state not in (VolumeState.READY, VolumeState.RESIZING):
            raise Conflict(f"volume {disk.path} is {state.value}: a snapshot of it cannot be made now")
        made.append(SnapshotDisk(volume=volume.id, path=f"{disk.path}", size_bytes=status.value.size_bytes))
    return tuple(made)


def require_present(members: Members, disks: Iterable[SnapshotDisk], name: str) -> None:
    """Raise NotFound, naming all that is missing, unless each volume is there and has the snapshot."""
    missing = [
        f"volume {disk.path} does not exist any more"
        if disk.volume not in members.specs
        else f"volume {members.path(disk)} has no snapshot {name!r} any more"
        for disk in disks
        if disk.volume not in members.specs or name not in members.snapshot_names(disk.volume)
    ]
    if missing:
        raise NotFound(f"snapshot {name!r} is not complete: {'; '.join(missing)}")
    for disk in disks:
        refuse_deleting("volume", members.path(disk), deleting=members.specs[disk.volume].deleting)


def choose_node(ops: Ops, vm: VmDocuments, members: Members, purpose: str) -> str:
    """Return the node that works on the volumes of a VM.

    Where it runs, as a backend may have a volume open on one node only; else where it is placed, or that takes care of a
    volume, or any with all drivers that is free to work.  Raises InvalidRequest, Conflict (moving), NoNodeFits.
    """
    nodes = read_nodes(ops.store)
    drivers = members.drivers()
    if vm.holder:
        _require_still(vm.spec.name, vm.claim.value if vm.claim is not None else None)
        obstacle = _obstacle(nodes.get(vm.holder), drivers)
        if obstacle:
            raise InvalidRequest(f"VM {vm.spec.name!r} runs on node {vm.holder}, which cannot {purpose}: {obstacle}")
        return vm.holder
    reasons = {name: _obstacle(facts, drivers) for name, facts in sorted(nodes.items())}
    fitting = [name for name, reason in reasons.items() if not reason]
    if not fitting:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "the cluster has no nodes"
        raise NoNodeFits(f"no node can {purpose}: {why}", reasons)
    for preferred in (vm.spec.node, *members.nodes()):
        if preferred in fitting:
            return preferred
    return min(fitting, key=lambda name: (bool(nodes[name].not_ready()), name))


def _require_still(name: str, claim: VmClaim | None) -> None:
    if claim is not None and claim.migration is not None:
        raise Conflict(f"VM {name!r} is moving to node {claim.migration.target}: repeat it when it has arrived")


def _obstacle(facts: NodeFacts | None, drivers: set[str]) -> str:
    if facts is None:
        return "it is not part of the cluster any more"
    if not facts.alive or facts.status is None or facts.status.daemon != "running":
        return facts.not_ready()
    missing = [driver for driver in sorted(drivers) if not facts.offers(f"snapshots:{driver}")]
    return f"it has no working storage driver {missing[0]} with snapshots" if missing else ""
