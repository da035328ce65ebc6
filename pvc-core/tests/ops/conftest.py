"""A cluster on the in-memory store whose nodes do nothing by themselves: tests say what they report."""

import itertools

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import DeviceHealth, FenceDevice, FenceHealth, FenceLevel, FenceRecord
from pvc_core.model.network import NetworkStatus
from pvc_core.model.node import Lease, LeaseGeneration, Memory, NodeSpec, NodeStatus, PluginStatus, Primary
from pvc_core.model.storage import PoolStatus, Snapshot, VolumeState, VolumeStatus
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmClaim, VmState, VmStatus, started_with
from pvc_core.ops.context import Ops
from pvc_core.ops.network import NetworkAdd, network_add
from pvc_core.ops.pool import PoolAdd, pool_add
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_power import VmStart, vm_start
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.store import keys, schema
from pvc_core.store.api import ANY, Delete, Put
from pvc_core.store.backup import read_tree
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree, Moment

CAPABILITIES = ("storage:dir", "network:bridge")


class Small:
    """Nodes, and what the daemons on them would write."""

    def __init__(self, store=None):
        """With a ``store`` on that one, without the faults that only the in-memory one can have."""
        self.tree = MemoryTree()
        self.store = store or self.tree.connect(name="test")
        self.now = 1000.0
        self._ids = itertools.count(1)
        schema.initialise(self.store)
        self.ops = Ops(
            self.store,
            wall=lambda: self.now,
            validators={"bridge": self._check_bridge}.get,
            new_id=self.new_id,
        )

    def new_id(self):
        return f"00000000-0000-4000-8000-{next(self._ids):012d}"

    def connect(self):
        """Return operations over another session with the same tree."""
        return self.ops._replace(store=self.tree.connect())

    @staticmethod
    def _check_bridge(spec):
        if "vlan" in spec.parameters and not isinstance(spec.parameters["vlan"], int):
            raise InvalidRequest("parameter vlan must be a number")

    # --- nodes --------------------------------------------------------------------------------------

    def add_node(self, name, *, memory=8192, reserved=0, cpus=8, capabilities=CAPABILITIES, role="coordinator", **more):
        status = NodeStatus(
            id=name,
            role=role,
            daemon="running",
            memory=Memory(total_mib=memory, reserved_mib=reserved, free_mib=memory),
            cpus=cpus,
            accelerators=("tcg",),
            plugins=(PluginStatus(name="test", state="healthy", capabilities=capabilities),),
            **more,
        )
        self.store.commit(
            create(keys.node_spec(name), NodeSpec(id=name, role=role)),
            create(keys.node_status(name), status),
            create(keys.generation(name), LeaseGeneration(node=name, generation=1)),
        )
        self.revive(name)

    def set_node(self, name, **changes):
        entry = read(self.store, keys.node_spec(name))
        self.store.commit(entry.put(replace(entry.value, generation=entry.value.generation + 1, **changes)))

    def report_node(self, name, **changes):
        entry = read(self.store, keys.node_status(name))
        self.store.commit(entry.put(replace(entry.value, **changes)))

    def revive(self, name):
        self.store.commit(create(keys.lease(name), Lease(node=name, generation=1)))

    def kill(self, name):
        self.store.commit(Delete(keys.lease(name).path, ANY))

    def set_primary(self, name):
        entry = read(self.store, keys.PRIMARY)
        self.store.commit(
            entry.put(Primary(node=name, term=entry.value.term + 1, stage="active" if name else "vacant"))
        )

    def release(self, name):
        """Let a node's daemon have been stopped on purpose."""
        entry = read(self.store, keys.generation(name))
        self.store.commit(entry.put(replace(entry.value, released=True)), Delete(keys.lease(name).path, ANY))

    # --- fencing ------------------------------------------------------------------------------------

    def set_levels(self, name, *levels):
        """Give a node fence levels; each is a list of drivers."""
        made = (FenceLevel(devices=tuple(FenceDevice(driver=driver) for driver in drivers)) for drivers in levels)
        self.set_node(name, fence_levels=tuple(made))

    def declare(self, name, down_s):
        """Let a node have armed a watchdog."""
        entry = read(self.store, keys.generation(name))
        self.store.commit(entry.put(replace(entry.value, watchdog_down_s=down_s)))

    def found(self, coordinator, *, waits=(10.0, 5.0), **errors):
        """Let a coordinator have asked the fence devices of nodes: node -> what was wrong with each ("": nothing)."""
        nodes = {}
        for name, wrong in errors.items():
            levels = read(self.store, keys.node_spec(name)).value.fence_levels
            places = [(n, i, d) for n, level in enumerate(levels, 1) for i, d in enumerate(level.devices, 1)]
            nodes[name] = tuple(
                DeviceHealth(
                    level=level,
                    device=number,
                    driver=device.driver,
                    power="unknown" if error else "on",
                    error=error,
                    took_s=1.0,
                    checked=self.now,
                )
                for (level, number, device), error in zip(places, wrong, strict=True)
            )
        self._write(
            keys.fence_health(coordinator),
            FenceHealth(coordinator=coordinator, nodes=nodes, lease_s=waits[0], grace_s=waits[1]),
        )

    def record(self, name, **fields):
        """Write a node's fence record; without ``lease`` that of its last one."""
        last = read(self.store, keys.generation(name)).value.generation
        self._write(keys.fence(name), FenceRecord(**({"node": name, "lease": last, "opened": self.now} | fields)))

    # --- VMs ----------------------------------------------------------------------------------------

    def define(self, name="web", **more):
        """Define a VM and return its id."""
        return vm_define(self.ops, VmDefine(**({"name": name, "memory": 1024} | more))).id

    def run(self, name="web", **more):
        """Define a VM, start it and report that it runs; returns its id."""
        id_ = self.define(name, **more)
        vm_start(self.ops, VmStart(vm=name))
        self.report_running(id_)
        return id_

    def spec(self, vm):
        return read(self.store, keys.vm_spec(vm)).value

    def write_spec(self, vm, **changes):
        entry = read(self.store, keys.vm_spec(vm))
        self.store.commit(entry.put(replace(entry.value, generation=entry.value.generation + 1, **changes)))

    def put(self, path, value):
        self.store.commit(Put(path, value, ANY))

    def ids(self, kind, *, but=""):
        return [id_ for id_ in self.store.children(f"{keys.SPEC}/{kind}") if id_ != but]

    def info(self, vm):
        return vm_info(self.ops, VmQuery(vm=vm))

    def claim(self, vm, node, migration_to=""):
        """Make a node the holder of a VM's claim; "" for nobody."""
        migration = None
        if migration_to:
            migration = MigrationRecord(target=migration_to, attempt="a", phase=MigrationPhase.TRANSFER)
        self._write(keys.claim(vm), VmClaim(vm=vm, node=node, lease=1, epoch=1, migration=migration))

    def report(self, vm, state, node=None, **changes):
        """Write a VM's status as its node would."""
        spec = self.spec(vm)
        entry = read(self.store, keys.vm_status(vm))
        old = entry.value if entry is not None else VmStatus(id=vm)
        new = replace(
            old, state=VmState(state), node=node or spec.node, **({"observed_generation": spec.generation} | changes)
        )
        self._write(keys.vm_status(vm), new)

    def report_running(self, vm, node=None):
        spec = self.spec(vm)
        self.claim(vm, node or spec.node)
        self.report(
            vm,
            "running",
            node,
            **started_with(spec),
            restart_done=spec.restart_request,
        )

    def report_stopped(self, vm):
        self.claim(vm, "")
        self.report(vm, "stopped")

    # --- networks and storage -----------------------------------------------------------------------

    def network(self, name="lan", **more):
        return network_add(self.ops, NetworkAdd(name=name, driver="bridge", **more)).id

    def report_network(self, network, node, **changes):
        generation = read(self.store, keys.network_spec(network)).value.generation
        status = NetworkStatus(
            id=f"{network}@{node}", node=node, **({"observed_generation": generation, "device": "br1"} | changes)
        )
        self._write(keys.network_status(network, node), status)

    def pool(self, name="ssd"):
        return pool_add(self.ops, PoolAdd(name=name, driver="dir")).id

    def report_pool(self, pool, **changes):
        generation = read(self.store, keys.pool_spec(pool)).value.generation
        self._write(keys.pool_status(pool), PoolStatus(id=pool, **({"observed_generation": generation} | changes)))

    def volume(self, name="web", pool="ssd", size="10G"):
        id_ = volume_add(self.ops, VolumeAdd(pool=pool, name=name, size=size)).id
        self.report_volume(id_)
        return id_

    def report_volume(self, volume, *, state=VolumeState.READY, snapshots=(), **changes):
        spec = read(self.store, keys.volume_spec(volume)).value
        status = VolumeStatus(
            id=volume,
            state=state,
            snapshots=tuple(s if isinstance(s, Snapshot) else Snapshot(name=s) for s in snapshots),
            **({"observed_generation": spec.generation, "name": spec.name, "size_bytes": spec.size_bytes} | changes),
        )
        self._write(keys.volume_status(volume), status)

    def before_commit(self, path, do):
        """Let something happen once, just before a transaction that touches ``path`` reaches the tree."""
        done = []

        def fault(moment, _, operations):
            if moment is Moment.BEFORE and not done and any(path in operation.path for operation in operations):
                done.append(True)
                do()

        self.tree.fault = fault

    def finish_rename(self, volume):
        """Report that the backend's volume has the new name, and free the old one, as its node does."""
        spec = read(self.store, keys.volume_spec(volume)).value
        pool = read(self.store, keys.pool_spec(spec.pool)).value.name
        entry = read(self.store, keys.volume_status(volume))
        if entry is None:
            return
        index = keys.name("volume", f"{pool}:{entry.value.name}")
        new = replace(entry.value, name=spec.name, observed_generation=spec.generation)
        free = [Delete(index)] if entry.value.name != spec.name else []
        self.store.commit(entry.put(new), *free)

    def _write(self, key, value):
        entry = read(self.store, key)
        self.store.commit(create(key, value) if entry is None else entry.put(value))

    def dump(self):
        """Return every path and value: to show that a refused request changed nothing."""
        return {path: node.value for path, node in read_tree(self.store).items()}


@pytest.fixture
def empty():
    """A cluster without nodes."""
    return Small()


@pytest.fixture
def small(empty):
    """A cluster of three equal nodes hv1, hv2 and hv3 with 8 GiB and 8 CPUs each."""
    for name in ("hv1", "hv2", "hv3"):
        empty.add_node(name)
    return empty


@pytest.fixture
def equipped(small):
    """Three nodes, network ``lan``, pool ``ssd`` with volumes ``web`` and ``db``."""
    small.network()
    small.pool()
    small.volume("web")
    small.volume("db")
    return small


@pytest.fixture(scope="session")
def small_type():
    """The class, for a cluster on another store."""
    return Small


@pytest.fixture(scope="session")
def small_factory():
    """Return a function that makes a cluster of three nodes, for tests that need many."""

    def make():
        made = Small()
        for name in ("hv1", "hv2", "hv3"):
            made.add_node(name)
        return made

    return make
