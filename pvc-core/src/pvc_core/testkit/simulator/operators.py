"""What operators do to a simulated cluster."""

from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.model.fence import Means
from pvc_core.ops.cluster import ClusterMaintenance, ClusterSettings, cluster_maintenance, cluster_settings
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm
from pvc_core.ops.fence_level import FenceLevelAdd, fence_level_add
from pvc_core.ops.fence_power import FencePower, FenceTest, fence_power, fence_test
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import (
    NodeFlush,
    NodeMaintenance,
    NodePrimary,
    node_flush,
    node_maintenance,
    node_primary,
    node_ready,
)
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.vm_move import VmMigrate, VmMove, VmUnmigrate, vm_migrate, vm_move, vm_unmigrate
from pvc_core.ops.vm_power import VmStart, VmStop, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.storage import POOL, add_pool, add_volume

METHODS: Final = ("live-or-shutdown", "live-or-shutdown", "live", "shutdown")
VM_MIB: Final = 512
RESTART: Final = ("always", "always", "always", "always", "on-crash", "never")


class Operators:
    """People who use the cluster: each call of ``act`` makes one request, chosen at random."""

    def __init__(self, cluster: Cluster, vms: int, *, disks: float = 0.0) -> None:
        """``vms``: how many there may be at once; ``disks``: the part of them that has a disk on shared storage."""
        self._c = cluster
        self._vms = vms
        self._disks = disks
        self.pool = add_pool(cluster.operator, cluster.backend, cluster.new_id()) if disks else None
        """The pool of those disks."""
        self.done = 0
        self.refused = 0
        requests: list[tuple[int, Callable[[], str]]] = [
            (4, self._define),
            (6, self._start),
            (3, self._shutdown),
            (2, self._stop),
            (2, self._restart),
            (6, self._migrate),
            (4, self._move),
            (3, self._unmigrate),
            (1, self._remove),
            (2, self._flush),
            (4, self._ready),
            (2, self._maintenance),
            (1, self._cluster_maintenance),
            (3, self._confirm),
            (1, self._primary),
            (1, self._policy),
            (2, self._power),
        ]
        self._requests = [request for weight, request in requests for _ in range(weight)]

    def act(self) -> None:
        """Make a request; one that is refused changes nothing and is fine."""
        request = self._c.rng.choice(self._requests)
        try:
            what = request()
        except PvcError as error:
            self.refused += 1
            self._c.note(f"refused {request.__name__.strip('_')}: {error}")
        else:
            if what:
                self.done += 1
                self._c.note(f"operator: {what}")

    def set_levels(self) -> None:
        """Give every node its fence levels; one that has not joined yet does without."""
        for node in self._c.nodes.values():
            for number, devices in enumerate(node.setup.fence_levels(), 1):
                for device in devices.devices:
                    request = FenceLevelAdd(
                        node=node.name, driver=device.driver, parameters=device.parameters, level=number, force=True
                    )
                    try:
                        fence_level_add(self._c.ops, request)
                    except PvcError as error:
                        self._c.note(f"refused fence level of {node.name}: {error}")

    def end_maintenance(self) -> None:
        """End all maintenance, and allow every means of recovery again."""
        cluster_settings(self._c.ops, ClusterSettings(recovery=("power", "storage", "watchdog")))
        cluster_maintenance(self._c.ops, ClusterMaintenance(maintenance=False))
        for name in self._c.nodes:
            node_maintenance(self._c.ops, NodeMaintenance(node=name, maintenance=False))

    def all_ready(self) -> None:
        """Put every node back into service."""
        for name in self._c.nodes:
            node_ready(self._c.ops, NodeQuery(node=name))

    def define(self) -> str:
        """Define a VM and start it; returns what was done, empty: there are enough."""
        return self._define()

    def _vm(self) -> str:
        known = list(self._c.invariants.vms)
        return self._c.rng.choice(known) if known else "none"

    def _node(self) -> str:
        return self._c.rng.choice(list(self._c.nodes))

    def _define(self) -> str:
        if len(self._c.invariants.vms) >= self._vms:
            return ""
        vm = self._c.new_id()
        rng = self._c.rng
        vm_define(
            self._c.ops,
            VmDefine(
                name=f"vm-{vm[:8]}",
                id=vm,
                memory=VM_MIB,
                migration=rng.choice(METHODS),
                restart=rng.choice(RESTART),
                priority=rng.choice((-10, 0, 0, 0, 10)),
                shutdown_timeout_s=20,
                disks=self._disk(vm),
                start=True,
            ),
        )
        self._c.invariants.vms[vm] = None
        return f"define {vm[:8]}"

    def _disk(self, vm: str) -> tuple[DiskDefinition, ...]:
        if self.pool is None or self._c.rng.random() >= self._disks:
            return ()
        name = f"disk-{vm[:8]}"
        add_volume(self._c.operator, self._c.backend, self.pool, self._c.new_id(), name)
        return (DiskDefinition(pool=POOL, volume=name),)

    def _start(self) -> str:
        vm = self._vm()
        vm_start(self._c.ops, VmStart(vm=vm))
        return f"start {vm[:8]}"

    def _shutdown(self) -> str:
        vm = self._vm()
        vm_shutdown(self._c.ops, VmQuery(vm=vm))
        return f"shutdown {vm[:8]}"

    def _stop(self) -> str:
        vm = self._vm()
        vm_stop(self._c.ops, VmStop(vm=vm))
        return f"stop {vm[:8]}"

    def _restart(self) -> str:
        vm = self._vm()
        vm_restart(self._c.ops, VmQuery(vm=vm))
        return f"restart {vm[:8]}"

    def _migrate(self) -> str:
        vm, node = self._vm(), self._c.rng.choice([None, self._node()])
        vm_migrate(self._c.ops, VmMigrate(vm=vm, node=node))
        return f"migrate {vm[:8]} to {node}"

    def _move(self) -> str:
        vm, node = self._vm(), self._c.rng.choice([None, self._node()])
        vm_move(self._c.ops, VmMove(vm=vm, node=node))
        return f"move {vm[:8]} to {node}"

    def _unmigrate(self) -> str:
        vm = self._vm()
        vm_unmigrate(self._c.ops, VmUnmigrate(vm=vm))
        return f"unmigrate {vm[:8]}"

    def _remove(self) -> str:
        vm = self._vm()
        vm_remove(self._c.ops, VmRemove(vm=vm, force=True))
        return f"remove {vm[:8]}"

    def _flush(self) -> str:
        node = self._node()
        node_flush(self._c.ops, NodeFlush(node=node, force=True))
        return f"flush {node}"

    def _ready(self) -> str:
        node = self._node()
        node_ready(self._c.ops, NodeQuery(node=node))
        return f"ready {node}"

    def _maintenance(self) -> str:
        node, on = self._node(), self._c.rng.random() < 0.5
        for_s = self._c.rng.uniform(5.0, 60.0) if on else None
        node_maintenance(self._c.ops, NodeMaintenance(node=node, maintenance=on, for_s=for_s))
        return f"maintenance of {node} {'on' if on else 'off'}"

    def _cluster_maintenance(self) -> str:
        on = self._c.rng.random() < 0.5
        for_s = self._c.rng.uniform(5.0, 60.0) if on else None
        cluster_maintenance(self._c.ops, ClusterMaintenance(maintenance=on, for_s=for_s))
        return f"maintenance of the cluster {'on' if on else 'off'}"

    def _confirm(self) -> str:
        """Say that a node is dead, which is true: somebody stands in front of it."""
        node = self._c.nodes[self._node()]
        if node.power.on:
            return ""
        fence_confirm(self._c.ops, FenceConfirm(node=node.name, by="operator@desk", reason="its power is off"))
        return f"confirm the death of {node.name}"

    def _primary(self) -> str:
        node = self._c.rng.choice([name for name, node in self._c.nodes.items() if node.coordinator])
        node_primary(self._c.ops, NodePrimary(node=node))
        return f"move the primary role to {node}"

    def _policy(self) -> str:
        means: tuple[Means, ...] = ("power", "storage", "watchdog")
        recovery = tuple(self._c.rng.sample(means, k=self._c.rng.choice((2, 3, 3))))
        cluster_settings(self._c.ops, ClusterSettings(recovery=recovery))
        return f"recover on {', '.join(recovery)}"

    def _power(self) -> str:
        node = self._node()
        action = self._c.rng.choice(("status", "on", "on", "off", "cycle"))
        if action == "status":
            fence_test(self._c.ops, FenceTest(node=node))
        else:
            fence_power(self._c.ops, FencePower(node=node, action=action))  # type: ignore[arg-type]
        return f"fence {action} {node}"
