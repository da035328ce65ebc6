"""What a node that is being removed leaves behind: VMs placed there, storage it took care of, its documents."""

from typing import TypeVar

from msgspec.structs import replace

from pvc_core.model.errors import NoNodeFits
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import ClusterSnapshot
from pvc_core.ops.vm_write import changed, with_documents
from pvc_core.ops.volume_documents import choose_volume_node
from pvc_core.store import keys
from pvc_core.store.api import CheckAbsent, Delete, Operation
from pvc_core.store.documents import Entry, decode, read, read_many

S = TypeVar("S", PoolSpec, VolumeSpec)


def displace_vms(ops: Ops, snapshot: ClusterSnapshot, node: str) -> list[str]:
    """Take VMs off a node, and let it be nobody's home; returns their names.  Raises TransactionFailed."""
    displaced = sorted(
        (row for row in snapshot.vms.values() if node in (row.node, row.home)), key=lambda row: (row.name, row.id)
    )
    for row in displaced:
        vm = with_documents(ops, snapshot.spec(row.id))
        place = None if vm.spec.node == node else vm.spec.node
        home = None if vm.spec.home == node else vm.spec.home
        ops.store.commit(*vm.write(changed(vm.spec, node=place, home=home)))
    return [row.name for row in displaced]


def reassign_storage(ops: Ops, node: str) -> None:
    """Give the pools and volumes that a node takes care of to others.  Raises TransactionFailed.

    Where no other node has the driver now, they get none: the primary gives them one when there is one.
    """
    pool_ids, volume_ids = ops.store.children_many([f"{keys.SPEC}/pool", f"{keys.SPEC}/volume"])
    pools = [entry for entry in read_many(ops.store, [keys.pool_spec(id_) for id_ in pool_ids]) if entry is not None]
    drivers = {entry.value.id: entry.value.driver for entry in pools}
    chosen: dict[str, str | None] = {}

    def successor(driver: str) -> str | None:
        if driver not in chosen:
            try:
                chosen[driver] = choose_volume_node(ops, driver)
            except NoNodeFits:
                chosen[driver] = None
        return chosen[driver]

    for pool in pools:
        if pool.value.node == node:
            ops.store.commit(_hand_over(pool, successor(pool.value.driver)))
    for volume in read_many(ops.store, [keys.volume_spec(id_) for id_ in volume_ids]):
        if volume is not None and volume.value.node == node:
            ops.store.commit(_hand_over(volume, successor(drivers.get(volume.value.pool, ""))))


def leftovers(ops: Ops, node: str) -> list[Operation]:
    """Return the deletions of what is left of a node beside its spec, and the check that it has not been back since.

    The number of its last lease stays, so that no proof, claim or count of an old lease holds for a new one.  So does a
    fence record with debts: the host may still run guests that were taken from it, and must end them should it return.
    Any machine may have the name next.
    """
    generation = keys.generation(node).path
    paths = [
        keys.node_status(node).path,
        keys.usage(node).path,
        keys.fence_health(node).path,
        *[keys.network_status(network, node).path for network in ops.store.children(f"{keys.SPEC}/network")],
    ]
    last, *found = ops.store.get_many([generation, *paths])
    record = read(ops.store, keys.fence(node))
    operations: list[Operation] = [CheckAbsent(generation)]
    if last is not None:
        known = decode(keys.generation(node), last)
        operations = [known.put(replace(known.value, machine=""))]
    operations += [Delete(path, item.version) for path, item in zip(paths, found, strict=True) if item is not None]
    if record is not None and not record.value.dirty and not record.value.blocked:
        operations.append(record.delete())
    return operations


def _hand_over(entry: Entry[S], node: str | None) -> Operation:
    return entry.put(replace(entry.value, node=node, generation=entry.value.generation + 1))
