"""What fate does to guests, their hypervisors and their migrations; all of it passes by itself."""

from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.node import SimNode


class GuestFaults:
    """Each method lets one thing happen on a node, and says what; empty: it could not."""

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster

    def libvirtd(self, node: SimNode) -> str:
        if not node.power.on:
            return ""
        self._c.world.stop_libvirtd(node.name)
        back = lambda: self._c.world.start_libvirtd(node.name)  # noqa: E731
        self._c.later(self._c.rng.uniform(1.0, 20.0), f"{node.name}: libvirtd is back", back)
        return "libvirtd ends"

    def _executing(self, node: SimNode) -> str | None:
        here = [vm for vm in self._c.invariants.vms if self._c.world.running(vm) == [node.name]]
        return self._c.rng.choice(here) if here and not node.hung else None

    def guest_crashes(self, node: SimNode) -> str:
        vm = self._executing(node)
        if vm is None:
            return ""
        self._c.world.crash(node.name, vm)
        return f"guest {vm[:8]} crashes"

    def guest_shuts_down(self, node: SimNode) -> str:
        vm = self._executing(node)
        if vm is None:
            return ""
        self._c.world.guest_shutdown(node.name, vm)
        return f"guest {vm[:8]} shuts itself down"

    def migration_fault(self, node: SimNode) -> str:
        faults = self._c.world.faults(node.name)
        kind = self._c.rng.choice(("migration_stalls", "migration_error", "migration_unconfirmed"))
        setattr(faults, kind, "connection reset" if kind == "migration_error" else True)

        def pass_() -> None:
            setattr(faults, kind, "" if kind == "migration_error" else False)

        self._c.later(self._c.rng.uniform(5.0, 60.0), f"{node.name}: {kind} passes", pass_)
        return kind

    def host_link(self, node: SimNode) -> str:
        other = self._c.rng.choice([name for name in self._c.nodes if name != node.name])
        self._c.world.cut_link(node.name, other)
        heal = lambda: self._c.world.heal_link(node.name, other)  # noqa: E731
        self._c.later(self._c.rng.uniform(5.0, 60.0), f"{node.name}: link to {other} is back", heal)
        return f"link to {other} is cut"

    def deaf_guest(self, node: SimNode) -> str:
        faults = self._c.world.faults(node.name)
        faults.ignores_acpi = True
        self._c.later(60.0, f"{node.name}: guests listen again", lambda: setattr(faults, "ignores_acpi", False))
        return "guests ignore ACPI"
