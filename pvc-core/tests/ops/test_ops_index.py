"""Whatever is asked, in whatever order, and whenever the store fails: the index nodes say what the specs say."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pvc_core.model.errors import PvcError
from pvc_core.model.vm import VmSpec
from pvc_core.ops.network import NetworkAdd, NetworkQuery, network_add, network_forget, network_remove
from pvc_core.ops.pool import PoolQuery, pool_forget, pool_remove
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine
from pvc_core.ops.vm_modify import VmModify, VmPatch, VmRename, vm_modify, vm_rename
from pvc_core.ops.vm_power import VmStart, vm_start
from pvc_core.ops.vm_remove import VmRemove, vm_forget, vm_remove
from pvc_core.ops.volume import VolumeQuery, VolumeRename, volume_forget, volume_remove, volume_rename
from pvc_core.store import keys
from pvc_core.store.api import StoreUnavailable
from pvc_core.store.documents import read_many
from pvc_core.store.memory import Moment

VMS = ("a", "b", "c")
NETWORKS = ("lan", "dmz")
VOLUMES = ("v1", "v2", "v3")
MACS = tuple(f"52:54:00:00:00:0{n}" for n in range(3))


class Operators:
    """People who ask for anything, sensible or not."""

    def __init__(self, small, rng):
        self.small = small
        self.rng = rng
        self.done = Counter()

    def act(self):
        requests = {
            self.define: 4,
            self.modify: 4,
            self.rename: 2,
            self.start: 2,
            self.stopped: 2,
            self.remove: 2,
            self.volume_add: 6,
            self.volume_rename: 3,
            self.volume_remove: 1,
            self.network_add: 4,
            self.network_remove: 1,
            self.pool_add: 2,
            self.pool_remove: 1,
            self.clear_up: 3,
        }
        (request,) = self.rng.choices(list(requests), list(requests.values()))
        try:
            request()
        except PvcError:
            return
        self.done[request.__name__] += 1

    def disks(self):
        return tuple(
            DiskDefinition(pool="ssd", volume=name) for name in self.rng.sample(VOLUMES, self.rng.randrange(3))
        )

    def nics(self):
        return tuple(
            NicDefinition(network=self.rng.choice(NETWORKS), mac=self.rng.choice(("", *MACS)))
            for _ in range(self.rng.randrange(3))
        )

    def define(self):
        name, start = self.rng.choice(VMS), self.rng.random() < 0.3
        vm_define(self.small.ops, VmDefine(name=name, memory=64, disks=self.disks(), nics=self.nics(), start=start))

    def modify(self):
        patch = VmPatch(disks=self.disks(), nics=self.nics())
        vm_modify(self.small.ops, VmModify(vm=self.rng.choice(VMS), patch=patch))

    def rename(self):
        vm_rename(self.small.ops, VmRename(vm=self.rng.choice(VMS), name=self.rng.choice(VMS)))

    def start(self):
        view = vm_start(self.small.ops, VmStart(vm=self.rng.choice(VMS)))
        self.small.claim(view.id, view.node)

    def stopped(self):
        for vm in self.small.ids("vm"):
            self.small.write_spec(vm, power="stopped")
            self.small.claim(vm, "")

    def remove(self):
        request = VmRemove(vm=self.rng.choice(VMS), volumes=self.rng.random() < 0.5, force=self.rng.random() < 0.5)
        vm_remove(self.small.ops, request)

    def volume_add(self):
        self.small.volume(self.rng.choice(VOLUMES))

    def volume_rename(self):
        volume = f"ssd/{self.rng.choice(VOLUMES)}"
        view = volume_rename(self.small.ops, VolumeRename(volume=volume, name=self.rng.choice(VOLUMES)))
        if self.rng.random() < 0.5:
            self.small.finish_rename(view.id)

    def volume_remove(self):
        volume_remove(self.small.ops, VolumeQuery(volume=f"ssd/{self.rng.choice(VOLUMES)}"))

    def network_add(self):
        network_add(self.small.ops, NetworkAdd(name=self.rng.choice(NETWORKS), driver="bridge"))

    def network_remove(self):
        network_remove(self.small.ops, NetworkQuery(network=self.rng.choice(NETWORKS)))

    def pool_add(self):
        self.small.pool()

    def pool_remove(self):
        pool_remove(self.small.ops, PoolQuery(pool="ssd"))

    def clear_up(self):
        """Do what the nodes do for objects that are being removed."""
        forget = {"vm": vm_forget, "volume": volume_forget, "pool": pool_forget, "network": network_forget}
        for kind, call in forget.items():
            for id_ in self.small.ids(kind):
                call(self.small.ops, id_)


def specs(small, kind, key):
    return [entry.value for entry in read_many(small.store, [key(id_) for id_ in small.ids(kind)])]


def check_index(small):
    """Compare every index node with the specs."""
    vms: list[VmSpec] = specs(small, "vm", keys.vm_spec)
    networks = specs(small, "network", keys.network_spec)
    pools = specs(small, "pool", keys.pool_spec)
    volumes = specs(small, "volume", keys.volume_spec)
    statuses = read_many(small.store, [keys.volume_status(volume.id) for volume in volumes])
    pool_names = {pool.id: pool.name for pool in pools}
    network_ids = {network.name: network.id for network in networks}
    volume_ids = {(pool_names[volume.pool], volume.name): volume.id for volume in volumes}

    wanted = {keys.name("vm", vm.name): vm.id for vm in vms}
    wanted |= {keys.name("mac", nic.mac): vm.id for vm in vms for nic in vm.nics}
    wanted |= {keys.name("network", network.name): network.id for network in networks}
    wanted |= {keys.name("pool", pool.name): pool.id for pool in pools}
    for volume, status in zip(volumes, statuses, strict=True):
        names = {volume.name} | ({status.value.name} if status is not None and status.value.name else set())
        kept = {keys.name("volume", f"{pool_names[volume.pool]}:{name}"): volume.id for name in names}
        # A name the volume had before its last renames may be free already, or be kept until the node has seen it.
        wanted |= {path: id_ for path, id_ in kept.items() if path.endswith(f":{volume.name}") or small.store.get(path)}
    for network in networks:
        if not network.deleting:
            wanted[keys.ref("network", network.id)] = ""
    wanted |= {f"{keys.ref('network', network_ids[nic.network])}/{vm.id}": "" for vm in vms for nic in vm.nics}
    wanted |= {keys.ref("pool", pool.id): "" for pool in pools if not pool.deleting}
    wanted |= {f"{keys.ref('pool', volume.pool)}/{volume.id}": "" for volume in volumes}
    wanted |= {keys.ref("volume", volume.id): "" for volume in volumes if not volume.deleting}
    wanted |= {
        f"{keys.ref('volume', volume_ids[disk.pool, disk.volume])}/holder": vm.id for vm in vms for disk in vm.disks
    }
    found = {
        path: value.decode()
        for path, value in small.dump().items()
        if path.startswith((f"{keys.NAME}/", f"{keys.REF}/")) and path not in keys.BASE
    }
    assert found == wanted
    assert len({vm.name for vm in vms}) == len(vms)
    assert max(Counter(nic.mac for vm in vms for nic in vm.nics).values(), default=0) <= 1


def failing(rng):
    """Return a fault hook with which some transactions are not answered, applied or not."""

    def fault(moment, _, operations):
        if operations and moment in (Moment.BEFORE, Moment.AFTER) and rng.random() < 0.1:
            raise StoreUnavailable("no answer")

    return fault


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_index_nodes_always_say_what_the_specs_say(small_factory, seed, faults):
    small = small_factory()
    rng = random.Random(seed)
    people = Operators(small, rng)
    for step in range(60):
        small.tree.fault = failing(rng) if faults and step > 5 else None
        people.act()
        small.tree.fault = None
        check_index(small)


def test_the_people_of_this_test_get_something_done(small_factory):
    done = Counter()
    for seed in range(20):
        people = Operators(small_factory(), random.Random(seed))
        for _ in range(60):
            people.act()
        done += people.done
    assert all(done[name] > 5 for name in ("define", "modify", "rename", "start", "remove", "volume_rename"))
    assert all(done[name] > 5 for name in ("volume_remove", "network_remove", "pool_remove", "clear_up"))
