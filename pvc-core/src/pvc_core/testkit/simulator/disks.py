"""People who give disks to VMs and take them away, while these run, move, or lose their nodes."""

import random
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.model.storage import PoolSpec
from pvc_core.ops.vm_definition import DiskDefinition, LimitsDefinition
from pvc_core.ops.vm_disks import (
    VmDiskAdd,
    VmDiskModify,
    VmDiskRemove,
    vm_disk_add,
    vm_disk_modify,
    vm_disk_remove,
)
from pvc_core.store import documents, keys
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.storage import POOL, add_volume

SPARES: Final = 5
"""Volumes that go from VM to VM: few, so that somebody soon wants what another guest has not let go of."""


class DiskRequests:
    """Each call of ``act`` makes one request, chosen at random with dice of its own."""

    def __init__(self, cluster: Cluster, pool: PoolSpec, seed: int) -> None:
        self._c = cluster
        self._rng = random.Random(seed ^ 0xD15C)  # noqa: S311  (a seeded run, not a secret)
        self._spares = [f"spare-{number}" for number in range(SPARES)]
        for name in self._spares:
            add_volume(cluster.operator, cluster.backend, pool, cluster.new_id(), name)

    def act(self) -> None:
        """Make a request; one that is refused changes nothing and is fine."""
        request = self._rng.choice(
            (self._add, self._add, self._remove, self._remove, self._take_back, self._limit, self._deaf)
        )
        try:
            what = request()
        except PvcError as error:
            self._c.note(f"refused {request.__name__.strip('_')}: {error}")
        else:
            if what:
                self._c.note(f"operator: {what}")

    def _disk(self) -> tuple[str, str]:
        """Return a VM and a spare volume that it has as a disk, or any VM and any volume."""
        held = [(vm, d.volume) for vm in self._c.invariants.vms for d in self._disks(vm) if d.volume in self._spares]
        return self._rng.choice(held or [(self._vm(), self._rng.choice(self._spares))])

    def _disks(self, vm: str) -> tuple[DiskDefinition, ...]:
        entry = documents.maybe(keys.vm_spec(vm), self._c.tree.peek(keys.vm_spec(vm).path))
        return (
            tuple(DiskDefinition(pool=d.pool, volume=d.volume) for d in entry.value.disks) if entry is not None else ()
        )

    def _vm(self) -> str:
        known = list(self._c.invariants.vms)
        return self._rng.choice(known) if known else "none"

    def _add(self) -> str:
        return self._give(self._vm(), self._rng.choice(self._spares))

    def _take_back(self) -> str:
        return self._give(*self._disk())

    def _give(self, vm: str, volume: str) -> str:
        bus = self._rng.choice(("virtio", "virtio", "scsi"))
        disk = DiskDefinition(pool=POOL, volume=volume, bus=bus, limits=LimitsDefinition(iops=100))  # type: ignore[arg-type]
        vm_disk_add(self._c.ops, VmDiskAdd(vm=vm, disk=disk))
        return f"give {volume} to {vm[:8]}"

    def _remove(self) -> str:
        vm, volume = self._disk()
        vm_disk_remove(self._c.ops, VmDiskRemove(vm=vm, volume=f"{POOL}/{volume}"))
        return f"take {volume} from {vm[:8]}"

    def _limit(self) -> str:
        vm, volume = self._disk()
        limits: dict[str, int | str] = {"iops": self._rng.choice((0, 50, 200))}
        vm_disk_modify(self._c.ops, VmDiskModify(vm=vm, volume=f"{POOL}/{volume}", limits=limits))
        return f"limit {volume} of {vm[:8]}"

    def _deaf(self) -> str:
        node = self._rng.choice(list(self._c.nodes))
        faults = self._c.world.faults(node)
        faults.keeps_devices = True
        self._c.later(
            self._rng.uniform(10.0, 90.0),
            f"{node}: guests let go of disks again",
            lambda: setattr(faults, "keeps_devices", False),
        )
        return f"guests on {node} keep their disks"
