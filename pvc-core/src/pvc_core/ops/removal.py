"""What removes the documents of an object whose effects are undone, as the operations of one transaction.

The responsible node adds the checks of its lease and commits.  Every document is removed in the version that was read, so
an object that changed meanwhile stays, and the caller reads again.  Index nodes that are missing, or belong to another object
(a tree edited by hand), are left alone.
"""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from pvc_core.model.network import NetworkSpec
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeStatus
from pvc_core.model.vm import VmClaim, VmSpec, VmStatus, kept_disks
from pvc_core.ops.vm_snapshot_documents import removal_operations, snapshots_of
from pvc_core.store import keys
from pvc_core.store.api import CheckAbsent, Delete, Operation, Store
from pvc_core.store.documents import Entry, decode


def vm_operations(
    store: Store, vm: Entry[VmSpec], status: Entry[VmStatus] | None, claim: Entry[VmClaim] | None
) -> list[Operation]:
    """Remove a VM; the claim must be vacant.  With ``delete_volumes`` its volumes begin to be deleted."""
    spec = vm.value
    owned = [(keys.name("vm", spec.name), spec.id), *((keys.name("mac", nic.mac), spec.id) for nic in spec.nics)]
    names = sorted({nic.network for nic in spec.nics})
    found = store.get_many([keys.name("network", name) for name in names])
    networks = {name: node.value.decode() for name, node in zip(names, found, strict=True) if node is not None}
    owned += [(f"{keys.ref('network', id_)}/{spec.id}", "") for id_ in networks.values()]
    owned += [
        (keys.nic_address(networks[nic.network], address), spec.id)
        for nic in spec.nics
        if nic.network in networks
        for address in nic.addresses
    ]
    volumes = _ids(store, (keys.volume_name(disk.pool, disk.volume) for disk in spec.disks))
    owned += [(keys.volume_holder(id_), spec.id) for id_ in volumes]
    # Its snapshots are none without it: what there is of them on volumes that stay are snapshots like any others.
    snapshots = removal_operations(store, snapshots_of(store, spec.id))
    operations = [vm.delete(), *_present(status), _claim_gone(spec.id, claim), *_owned(store, owned), *snapshots]
    if spec.delete_volumes:
        # Not those that somebody has begun to take from the VM: they are to stay.
        kept = _ids(store, (keys.volume_name(disk.pool, disk.volume) for disk in kept_disks(spec)))
        operations += _delete_volumes(store, kept, {operation.path for operation in snapshots})
    return operations


def volume_operations(store: Store, volume: Entry[VolumeSpec], status: Entry[VolumeStatus] | None) -> list[Operation]:
    """Remove a volume.  Its own references were removed when it began to be deleted."""
    spec = volume.value
    pool = store.get(keys.pool_spec(spec.pool).path)
    owned = [(f"{keys.ref('pool', spec.pool)}/{spec.id}", "")]
    if pool is not None:
        # The backend's name too: until a rename is done there, the old name is kept from others.
        names = {spec.name, status.value.name if status is not None and status.value.name else spec.name}
        pool_name = decode(keys.pool_spec(spec.pool), pool).value.name
        owned += [(keys.volume_name(pool_name, name), spec.id) for name in sorted(names)]
    return [volume.delete(), *_present(status), *_owned(store, owned)]


def pool_operations(store: Store, pool: Entry[PoolSpec]) -> list[Operation]:
    """Remove a pool."""
    spec = pool.value
    return [
        pool.delete(),
        *_owned(store, [(keys.name("pool", spec.name), spec.id), (keys.pool_status(spec.id).path, "")]),
    ]


def network_operations(store: Store, network: Entry[NetworkSpec], nodes: Iterable[str]) -> list[Operation]:
    """Remove a network with what is left of its status on ``nodes``."""
    spec = network.value
    owned = [(keys.name("network", spec.name), spec.id)]
    owned += [(keys.network_status(spec.id, node).path, "") for node in nodes]
    return [network.delete(), *_owned(store, owned)]


def _delete_volumes(store: Store, volumes: list[str], removed: Collection[str]) -> list[Operation]:
    """Begin the deletion of volumes whose holder is removed in the same transaction; ``removed``: what else is.

    They may be part of snapshots of another VM that had them once: those have lost a disk then.
    """
    operations: list[Operation] = []
    specs = [keys.volume_spec(id_) for id_ in volumes]
    found = store.get_many([key.path for key in specs] + [keys.ref("volume", id_) for id_ in volumes])
    for key, node, ref, id_ in zip(specs, found[: len(specs)], found[len(specs) :], volumes, strict=True):
        if node is None:
            continue
        entry = decode(key, node)
        if not entry.value.deleting:
            operations.append(entry.put(replace(entry.value, deleting=True, generation=entry.value.generation + 1)))
        if ref is not None:
            parent = keys.ref("volume", id_)
            others = [f"{parent}/{child}" for child in store.children(parent) if child != keys.HOLDER]
            operations += [Delete(path) for path in others if path not in removed]
            operations.append(Delete(parent))
    return operations


def _present(entry: Entry[VmStatus] | Entry[VolumeStatus] | None) -> list[Operation]:
    return [entry.delete()] if entry is not None else []


def _claim_gone(vm: str, claim: Entry[VmClaim] | None) -> Operation:
    return claim.delete() if claim is not None else CheckAbsent(keys.claim(vm).path)


def _owned(store: Store, owned: list[tuple[str, str]]) -> list[Operation]:
    """Return the deletions of those index nodes that exist and hold the expected id (empty: whatever they hold)."""
    nodes = store.get_many([path for path, _ in owned])
    return [
        Delete(path, node.version)
        for (path, id_), node in zip(owned, nodes, strict=True)
        if node is not None and (not id_ or node.value.decode() == id_)
    ]


def _ids(store: Store, paths: Iterable[str]) -> list[str]:
    return [node.value.decode() for node in store.get_many(list(paths)) if node is not None]
