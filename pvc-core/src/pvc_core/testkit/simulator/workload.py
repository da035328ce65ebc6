"""What operators and fate do to a simulated cluster."""

from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import NodeFlush, node_flush, node_ready
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_move import VmMigrate, VmMove, VmUnmigrate, vm_migrate, vm_move, vm_unmigrate
from pvc_core.ops.vm_power import VmStart, VmStop, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.node import SimNode

METHODS: Final = ("live-or-shutdown", "live-or-shutdown", "live", "shutdown")


class Operators:
    """People who use the cluster: each call makes one request, chosen at random."""

    def __init__(self, cluster: Cluster, vms: int) -> None:
        self._c = cluster
        self._vms = vms
        self.done = 0
        self.refused = 0
        self._requests: list[tuple[int, Callable[[], str]]] = [
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
        ]

    def act(self) -> None:
        """Make a request; one that is refused changes nothing and is fine."""
        requests = [request for weight, request in self._requests for _ in range(weight)]
        request = self._c.rng.choice(requests)
        try:
            what = request()
        except PvcError as error:
            self.refused += 1
            self._c.note(f"refused {request.__name__.strip('_')}: {error}")
        else:
            if what:
                self.done += 1
                self._c.note(f"operator: {what}")

    def all_ready(self) -> None:
        """Put every node back into service, as at the end of all maintenance."""
        for name in self._c.nodes:
            node_ready(self._c.ops, NodeQuery(node=name))

    def _vm(self) -> str:
        known = sorted(self._c.invariants.vms)
        return self._c.rng.choice(known) if known else "none"

    def _node(self) -> str:
        return self._c.rng.choice(sorted(self._c.nodes))

    def _define(self) -> str:
        if len(self._c.invariants.vms) >= self._vms:
            return ""
        vm = self._c.new_id()
        vm_define(
            self._c.ops,
            VmDefine(
                name=f"vm-{vm[:8]}",
                id=vm,
                memory=512,
                migration=self._c.rng.choice(METHODS),
                shutdown_timeout_s=20,
                start=True,
            ),
        )
        self._c.invariants.vms.add(vm)
        return f"define {vm[:8]}"

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


class Fate:
    """Faults: each call lets one befall the cluster, chosen at random; all of them pass by themselves."""

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster
        self.struck = 0
        self._faults: list[tuple[int, Callable[[SimNode], str]]] = [
            (8, self._daemon_dies_soon),
            (3, self._daemon_killed),
            (3, self._power_cut),
            (3, self._store_link),
            (2, self._session),
            (2, self._libvirtd),
            (2, self._guest_crashes),
            (2, self._guest_shuts_down),
            (3, self._migration_fault),
            (1, self._host_link),
            (1, self._deaf_guest),
        ]

    def strike(self) -> None:
        """Let something happen to a node."""
        faults = [fault for weight, fault in self._faults for _ in range(weight)]
        node = self._c.nodes[self._c.rng.choice(sorted(self._c.nodes))]
        what = self._c.rng.choice(faults)(node)
        if what:
            self.struck += 1
            self._c.note(f"{node.name}: {what}")

    def _daemon_dies_soon(self, node: SimNode) -> str:
        effects = self._c.rng.randrange(0, 12)
        node.die_after(effects)
        return f"daemon will die in effect {effects}"

    def _daemon_killed(self, node: SimNode) -> str:
        self._c.daemon_gone(node, self._c.rng.uniform(0.5, 30.0))
        return "daemon is killed"

    def _power_cut(self, node: SimNode) -> str:
        self._c.power_cut(node, self._c.rng.uniform(3.0, 90.0))
        return "power is cut"

    def _store_link(self, node: SimNode) -> str:
        self._c.cut_store_link(node, self._c.rng.uniform(1.0, 40.0))
        return "store link is cut"

    def _session(self, node: SimNode) -> str:
        self._c.expire_session(node)
        return "session is dropped by the servers"

    def _libvirtd(self, node: SimNode) -> str:
        if not node.powered:
            return ""
        self._c.world.stop_libvirtd(node.name)
        back = lambda: self._c.world.start_libvirtd(node.name)  # noqa: E731
        self._c.later(self._c.rng.uniform(1.0, 20.0), f"{node.name}: libvirtd is back", back)
        return "libvirtd ends"

    def _executing(self, node: SimNode) -> str | None:
        here = [vm for vm in sorted(self._c.invariants.vms) if self._c.world.running(vm) == [node.name]]
        return self._c.rng.choice(here) if here else None

    def _guest_crashes(self, node: SimNode) -> str:
        vm = self._executing(node)
        if vm is None:
            return ""
        self._c.world.crash(node.name, vm)
        return f"guest {vm[:8]} crashes"

    def _guest_shuts_down(self, node: SimNode) -> str:
        vm = self._executing(node)
        if vm is None:
            return ""
        self._c.world.guest_shutdown(node.name, vm)
        return f"guest {vm[:8]} shuts itself down"

    def _migration_fault(self, node: SimNode) -> str:
        faults = self._c.world.faults(node.name)
        kind = self._c.rng.choice(("migration_stalls", "migration_error", "migration_unconfirmed"))
        setattr(faults, kind, "connection reset" if kind == "migration_error" else True)

        def pass_() -> None:
            setattr(faults, kind, "" if kind == "migration_error" else False)

        self._c.later(self._c.rng.uniform(5.0, 60.0), f"{node.name}: {kind} passes", pass_)
        return kind

    def _host_link(self, node: SimNode) -> str:
        other = self._c.rng.choice(sorted(set(self._c.nodes) - {node.name}))
        self._c.world.cut_link(node.name, other)
        heal = lambda: self._c.world.heal_link(node.name, other)  # noqa: E731
        self._c.later(self._c.rng.uniform(5.0, 60.0), f"{node.name}: link to {other} is back", heal)
        return f"link to {other} is cut"

    def _deaf_guest(self, node: SimNode) -> str:
        faults = self._c.world.faults(node.name)
        faults.ignores_acpi = True
        self._c.later(60.0, f"{node.name}: guests listen again", lambda: setattr(faults, "ignores_acpi", False))
        return "guests ignore ACPI"
