"""What a VM needs on a node: its volumes with their drivers, its networks with theirs."""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

from pvc_core.model.base import Document
from pvc_core.model.network import NetworkSpec, NetworkStatus
from pvc_core.model.storage import VolumeState, VolumeStatus
from pvc_core.model.vm import Nic, VmSpec
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.plugin.specs.network import NicSource
from pvc_core.plugin.specs.storage import DiskSource, VolumeRef
from pvc_core.runtime.api import Drivers
from pvc_core.store import keys
from pvc_core.store.api import Store
from pvc_core.store.documents import Entry, read_many

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Document)


class Resources(NamedTuple):
    """Disks and NICs of a VM, in its order."""

    volumes: tuple[VolumeRef, ...]
    networks: tuple[tuple[NetworkSpec, Nic], ...]

    def attach(
        self, drivers: Drivers, vm: str, epoch: int, *, incoming: bool
    ) -> tuple[tuple[DiskSource, ...], tuple[NicSource, ...]]:
        """Attach everything here; idempotent.  On an error some may be attached: ``detach`` then."""
        disks = tuple(drivers.storage(v.pool.driver).disk_attach(v, vm, epoch, incoming) for v in self.volumes)
        nics = tuple(drivers.network(n.driver).nic_attach(n, nic, vm, incoming) for n, nic in self.networks)
        return disks, nics

    def detach(self, drivers: Drivers, vm: str) -> None:
        """Release everything here; idempotent."""
        for network, nic in self.networks:
            drivers.network(network.driver).nic_detach(network, nic, vm)
        for volume in self.volumes:
            drivers.storage(volume.pool.driver).disk_detach(volume, vm)

    def with_volumes(self, more: Iterable[VolumeRef]) -> "Resources":
        """Return these and more volumes."""
        return self._replace(volumes=(*self.volumes, *(volume for volume in more if volume not in self.volumes)))

    def without_volumes(self, paths: Collection[str]) -> "Resources":
        """Return these without some volumes (``pool/volume``)."""
        kept = tuple(v for v in self.volumes if f"{v.pool.name}/{v.name}" not in paths)
        return self._replace(volumes=kept)

    def with_nics(self, more: Iterable[tuple[NetworkSpec, Nic]]) -> "Resources":
        """Return these and more NICs, in place of those with the same MAC addresses."""
        new = tuple(more)
        return self._replace(networks=(*self.without_nics([nic.mac for _, nic in new]).networks, *new))

    def without_nics(self, macs: Collection[str]) -> "Resources":
        """Return these without some NICs."""
        return self._replace(networks=tuple((network, nic) for network, nic in self.networks if nic.mac not in macs))

    def live_obstacle(self, drivers: Drivers) -> str:
        """Return why a guest with these cannot be moved live, or an empty string."""
        for volume in self.volumes:
            if not drivers.storage(volume.pool.driver).storage_capabilities().shared:
                return f"volume {volume.pool.name}/{volume.name} is only on this node"
        for network, nic in self.networks:
            if not drivers.network(network.driver).network_capabilities().live_migration:
                return f"its NIC {nic.mac} in network {network.name} cannot be moved live"
        return ""


def _ids(store: Store, paths: Sequence[str]) -> list[str]:
    return [node.value.decode() if node is not None else "" for node in store.get_many(paths)]


def find(store: Store, vm: VmSpec) -> Resources:
    """Read what a VM needs; raises NotReady when a pool, volume or network of it does not exist."""
    pools = _ids(store, [keys.name("pool", d.pool) for d in vm.disks])
    networks = _ids(store, [keys.name("network", n.network) for n in vm.nics])
    pool_entries = read_many(store, [keys.pool_spec(i or "-") for i in pools])
    network_entries = read_many(store, [keys.network_spec(i or "-") for i in networks])
    volumes = tuple(
        VolumeRef(pool=_present(entry, f"pool {disk.pool}"), name=disk.volume)
        for disk, entry in zip(vm.disks, pool_entries, strict=True)
    )
    return Resources(
        volumes,
        tuple(
            (_present(entry, f"network {nic.network}"), nic)
            for nic, entry in zip(vm.nics, network_entries, strict=True)
        ),
    )


def attachments(store: Store, drivers: Drivers, vm: str) -> tuple[VolumeRef, ...]:
    """Return what is attached here for a VM, as the drivers have it on record; one that cannot tell is passed over."""
    found: list[VolumeRef] = []
    for name in drivers.storage_drivers():
        try:
            held = [each for each in drivers.storage(name).disk_attachments() if each.vm == vm]
        except DriverError as error:
            log.warning("attachments-unknown driver=%s vm=%s error=%s", name, vm, error)
            continue
        pools = read_many(store, [keys.pool_spec(each.pool) for each in held])
        found += [
            VolumeRef(pool=pool.value, name=each.volume)
            for each, pool in zip(held, pools, strict=True)
            if pool is not None
        ]
    return tuple(found)


def obstacle(store: Store, drivers: Drivers, vm: VmSpec, node: str) -> str:
    """Return why the VM cannot run on this node now (driver, volume or network not ready), or an empty string."""
    try:
        resources = find(store, vm)
    except NotReady as error:
        return str(error)
    storage, network = drivers.storage_drivers(), drivers.network_drivers()
    missing = [f"storage driver {v.pool.driver}" for v in resources.volumes if v.pool.driver not in storage]
    missing += [f"network driver {n.driver}" for n, _ in resources.networks if n.driver not in network]
    if missing:
        return f"node {node} has no working {missing[0]}"
    return unready_volume(store, resources) or unready_network(store, resources, node)


def unready_volume(store: Store, resources: Resources) -> str:
    """Return which volume is not ready for use, or an empty string."""
    ids = _ids(store, [keys.volume_name(v.pool.name, v.name) for v in resources.volumes])
    for volume, entry in zip(
        resources.volumes, read_many(store, [keys.volume_status(i or "-") for i in ids]), strict=True
    ):
        state = _volume_state(entry)
        if state not in (VolumeState.READY, VolumeState.RESIZING):
            return f"volume {volume.pool.name}/{volume.name} is {state.value if state else 'missing'}"
    return ""


def _volume_state(entry: Entry[VolumeStatus] | None) -> VolumeState | None:
    return entry.value.state if entry is not None else None


def unready_network(store: Store, resources: Resources, node: str) -> str:
    """Return which network is not ready for use on this node, or an empty string."""
    entries: list[Entry[NetworkStatus] | None] = read_many(
        store, [keys.network_status(n.id, node) for n, _ in resources.networks]
    )
    for (network, _), entry in zip(resources.networks, entries, strict=True):
        if entry is None:
            return f"network {network.name} is not set up on node {node} yet"
        bad = [c for c in entry.value.conditions if not c.ok]
        if not entry.value.device:
            return f"network {network.name} is not set up on node {node}" + (f": {bad[0].message}" if bad else "")
    return ""


def _present(entry: Entry[T] | None, what: str) -> T:
    if entry is None:
        raise NotReady(f"{what} does not exist")
    return entry.value
