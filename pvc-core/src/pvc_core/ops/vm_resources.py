"""What VMs refer to: networks, pools, volumes, MAC addresses; and the index nodes that say so."""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from pvc_core.model.base import Document
from pvc_core.model.errors import AlreadyExists, InUse
from pvc_core.model.names import not_found
from pvc_core.model.network import NetworkSpec
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.vm import Nic, VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import check_nic
from pvc_core.ops.resolve import is_plain, refuse_deleting, volume_paths
from pvc_core.ops.vm_snapshot_documents import refuse_in_rollback
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Delete, Node, Operation, Put
from pvc_core.store.documents import decode, read, read_many
from pvc_core.store.keys import Key

T = TypeVar("T", bound=Document)


class Resources(NamedTuple):
    """The objects that VMs name, as read; what does not exist is not in here."""

    networks: dict[str, NetworkSpec]
    pools: dict[str, PoolSpec]
    volumes: dict[tuple[str, str], VolumeSpec]
    """By the names of pool and volume."""
    holders: dict[str, str]
    """Volume id -> id of the VM it belongs to."""
    macs: dict[str, str]
    """MAC address -> id of the VM that has it."""
    addresses: dict[tuple[str, str], str] = {}
    """Name of a network and IP address in it -> id of the VM that has it."""

    def capabilities(self, vm: VmSpec) -> frozenset[str]:
        """Return what a node must offer to run the VM, such as ``storage:dir``."""
        pools = {self.pools[disk.pool].driver for disk in vm.disks if disk.pool in self.pools}
        networks = {self.networks[nic.network].driver for nic in vm.nics if nic.network in self.networks}
        return frozenset({f"storage:{driver}" for driver in pools} | {f"network:{driver}" for driver in networks})


def read_resources(ops: Ops, *vms: VmSpec) -> Resources:
    """Read all that these VMs refer to, in two round trips for any number of them."""
    networks = {nic.network for vm in vms for nic in vm.nics if is_plain(nic.network)}
    disks = {(disk.pool, disk.volume) for vm in vms for disk in vm.disks}
    disks = {(pool, volume) for pool, volume in disks if is_plain(pool) and is_plain(volume)}
    pools = {pool for pool, _ in disks}
    macs = {nic.mac for vm in vms for nic in vm.nics}
    if not (networks or disks):
        return Resources({}, {}, {}, {}, {})
    index = _fetch(
        ops,
        [keys.name("network", name) for name in networks]
        + [keys.name("pool", name) for name in pools]
        + [keys.volume_name(pool, volume) for pool, volume in disks]
        + [keys.name("mac", mac) for mac in macs],
    )
    network_keys = {n: keys.network_spec(i) for n in networks if (i := _id(index, keys.name("network", n)))}
    pool_keys = {n: keys.pool_spec(i) for n in pools if (i := _id(index, keys.name("pool", n)))}
    volume_ids = {d: i for d in disks if (i := _id(index, keys.volume_name(*d)))}
    addresses = {(nic.network, address) for vm in vms for nic in vm.nics for address in nic.addresses}
    address_paths = {(n, a): keys.nic_address(i, a) for n, a in addresses if (i := _id(index, keys.name("network", n)))}
    volume_keys = {d: keys.volume_spec(i) for d, i in volume_ids.items()}
    found = _fetch(
        ops,
        [
            *(key.path for key in network_keys.values()),
            *(key.path for key in pool_keys.values()),
            *(key.path for key in volume_keys.values()),
            *(keys.volume_holder(i) for i in volume_ids.values()),
            *address_paths.values(),
        ],
    )
    return Resources(
        _decoded(network_keys, found),
        _decoded(pool_keys, found),
        # A name that a renamed volume still has in the backend leads to it too, but is not its name any more.
        {disk: spec for disk, spec in _decoded(volume_keys, found).items() if spec.name == disk[1]},
        {i: holder for i in volume_ids.values() if (holder := _id(found, keys.volume_holder(i)))},
        {mac: id_ for mac in macs if (id_ := _id(index, keys.name("mac", mac)))},
        {place: id_ for place, path in address_paths.items() if (id_ := _id(found, path))},
    )


def failed_networks(ops: Ops, resources: Resources, nodes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by network the nodes on which setting it up has failed, with the reason, in one round trip.

    One that is only not set up yet is no reason to take a VM elsewhere.
    """
    wanted = [(name, spec.id, node) for name, spec in sorted(resources.networks.items()) for node in sorted(nodes)]
    found = read_many(ops.store, [keys.network_status(id_, node) for _, id_, node in wanted])
    failed: dict[str, dict[str, str]] = {}
    for (name, _, node), entry in zip(wanted, found, strict=True):
        bad = [condition for condition in entry.value.conditions if not condition.ok] if entry is not None else []
        if entry is not None and bad and not entry.value.device:
            failed.setdefault(name, {})[node] = f"network {name} cannot be set up there: {bad[0].message}"
    return failed


def check_resources(ops: Ops, vm: VmSpec, resources: Resources) -> None:
    """Check that all a VM refers to exists and is not somebody else's.

    Raises NotFound, Conflict (being removed), InUse (volume), AlreadyExists (MAC or IP address), InvalidRequest (a NIC that
    its network does not allow).
    """
    for nic in vm.nics:
        network = resources.networks.get(nic.network)
        if network is None:
            raise not_found("network", nic.network, ops.store.children(f"{keys.NAME}/network"))
        refuse_deleting("network", nic.network, deleting=network.deleting)
        owner = resources.macs.get(nic.mac, vm.id)
        if owner != vm.id:
            raise AlreadyExists(f"MAC address {nic.mac} belongs to VM {vm_name(ops, owner)!r}")
        for address in nic.addresses:
            owner = resources.addresses.get((nic.network, address), vm.id)
            if owner != vm.id:
                raise AlreadyExists(f"address {address} in network {nic.network} belongs to VM {vm_name(ops, owner)!r}")
        check_nic(ops, network, nic)
    for disk in vm.disks:
        pool = resources.pools.get(disk.pool)
        if pool is None:
            raise not_found("storage pool", disk.pool, ops.store.children(f"{keys.NAME}/pool"))
        refuse_deleting("storage pool", disk.pool, deleting=pool.deleting)
        what = f"{disk.pool}/{disk.volume}"
        volume = resources.volumes.get((disk.pool, disk.volume))
        if volume is None:
            raise not_found("volume", what, volume_paths(ops))
        refuse_deleting("volume", what, deleting=volume.deleting)
        holder = resources.holders.get(volume.id, vm.id)
        if holder != vm.id:
            raise InUse(f"volume {what} belongs to VM {vm_name(ops, holder)!r}; a volume is a disk of one VM at most")
        if volume.id not in resources.holders:
            refuse_in_rollback(ops, volume.id, what)


def reference_operations(vm: VmSpec, old: VmSpec | None, resources: Resources) -> list[Operation]:
    """Return the operations that make the index nodes say what ``vm`` refers to, given what ``old`` did.

    They fail when a network or volume is taken away at the same time, or a MAC address or volume is taken.
    """
    operations: list[Operation] = []
    new_macs, old_macs = _macs(vm), _macs(old)
    operations += [Create(keys.name("mac", mac), vm.id.encode()) for mac in sorted(new_macs - old_macs)]
    operations += [Delete(keys.name("mac", mac)) for mac in sorted(old_macs - new_macs)]
    new_networks, old_networks = _network_ids(vm, resources), _network_ids(old, resources)
    operations += [Create(f"{keys.ref('network', i)}/{vm.id}", b"") for i in sorted(new_networks - old_networks)]
    operations += [Delete(f"{keys.ref('network', i)}/{vm.id}") for i in sorted(old_networks - new_networks)]
    # Touched, so that the nodes look at a network whose NICs have changed.
    operations += [
        Put(f"{keys.ref('network', i)}/{vm.id}", b"", ANY)
        for i in sorted(new_networks & old_networks)
        if _named(vm, i, resources) != _named(old, i, resources)
    ]
    new_addresses, old_addresses = _addresses(vm, resources), _addresses(old, resources)
    operations += [Create(path, vm.id.encode()) for path in sorted(new_addresses - old_addresses)]
    operations += [Delete(path) for path in sorted(old_addresses - new_addresses)]
    new_volumes, old_volumes = _volume_ids(vm, resources), _volume_ids(old, resources)
    operations += [Create(keys.volume_holder(i), vm.id.encode()) for i in sorted(new_volumes - old_volumes)]
    operations += [Delete(keys.volume_holder(i)) for i in sorted(old_volumes - new_volumes)]
    return operations


def vm_name(ops: Ops, id_: str) -> str:
    """Return the name of a VM for a message; its id when it is gone."""
    entry = read(ops.store, keys.vm_spec(id_))
    return entry.value.name if entry is not None else id_


def _macs(vm: VmSpec | None) -> set[str]:
    return {nic.mac for nic in vm.nics} if vm is not None else set()


def _named(vm: VmSpec | None, network: str, resources: Resources) -> tuple[str, list[Nic]]:
    """Return what a network is to know of a VM: its name, and its NICs there."""
    if vm is None:
        return "", []
    there = [n for n in vm.nics if n.network in resources.networks and resources.networks[n.network].id == network]
    return vm.name, there


def _addresses(vm: VmSpec | None, resources: Resources) -> set[str]:
    """Return the index nodes of a VM's IP addresses."""
    return {
        keys.nic_address(resources.networks[nic.network].id, address)
        for nic in (vm.nics if vm is not None else ())
        if nic.network in resources.networks
        for address in nic.addresses
    }


def _network_ids(vm: VmSpec | None, resources: Resources) -> set[str]:
    if vm is None:
        return set()
    return {resources.networks[nic.network].id for nic in vm.nics if nic.network in resources.networks}


def _volume_ids(vm: VmSpec | None, resources: Resources) -> set[str]:
    if vm is None:
        return set()
    names = [(disk.pool, disk.volume) for disk in vm.disks]
    return {resources.volumes[name].id for name in names if name in resources.volumes}


def _fetch(ops: Ops, paths: Iterable[str]) -> dict[str, Node]:
    wanted = list(paths)
    nodes = ops.store.get_many(wanted)
    return {path: node for path, node in zip(wanted, nodes, strict=True) if node is not None}


def _id(found: dict[str, Node], path: str) -> str:
    node = found.get(path)
    return node.value.decode() if node is not None else ""


K = TypeVar("K")


def _decoded(wanted: dict[K, Key[T]], found: dict[str, Node]) -> dict[K, T]:
    return {name: decode(key, found[key.path]).value for name, key in wanted.items() if key.path in found}
