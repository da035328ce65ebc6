"""Once faults have ended: what can be proven is proven, and what was taken from dead nodes runs elsewhere."""

from pvc_core.model.vm import VmState
from pvc_core.store import documents, keys
from pvc_core.testkit.simulator.bound import Prospects, down_s
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.invariants import Violation
from pvc_core.testkit.simulator.node import SimNode

_RETRY_S = 60.0 + 30.0
"""The longest pause between two rounds, and a round that was under way."""
_LATEST_S = 30.0
"""Daemons that were killed or stopped are back by then."""


class Quiet:
    """The nodes without power at this moment, and how long it may take until none of them claims anything."""

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster
        self._dead = [node for node in cluster.nodes.values() if not node.power.on and self._must_be_fenced(node)]
        bounds = [bound for node in self._dead if (bound := self._bound(node)) is not None]
        self.bound_s = max(bounds, default=0.0) + _LATEST_S + _RETRY_S if bounds else _LATEST_S
        self._expected = [node for node in self._dead if self._bound(node) is not None]
        self._boots = {node.name: node.boots for node in self._expected}

    def _must_be_fenced(self, node: SimNode) -> bool:
        last = documents.maybe(keys.generation(node.name), self._c.tree.peek(keys.generation(node.name).path))
        return last is not None and not last.value.released

    def _bound(self, node: SimNode) -> float | None:
        last = documents.maybe(keys.generation(node.name), self._c.tree.peek(keys.generation(node.name).path))
        prospects = Prospects(
            levels=[[self._c.controllers[node.name, device] for device in level] for level in node.setup.levels],
            recovery=("power", "storage", "watchdog"),
            watchdog_down_s=last.value.watchdog_down_s if last is not None else 0.0,
            closable=True,
        )
        coordinators = [other.name for other in self._c.nodes.values() if other.coordinator]
        return down_s(prospects, coordinators, self._c.timing, disks=False)

    def check(self) -> None:
        """Raise Violation when a node that could be proven dead still claims a VM, or one taken from it waits with room."""
        if not self._c.ensemble.majority() or self._c.primary() is None:
            return
        for node in self._expected:
            if node.boots > self._boots[node.name]:
                continue  # switched on again after it was fenced
            for vm in self._c.invariants.vms:
                claim = self._c.invariants.claim(vm)
                if claim is not None and claim.node == node.name:
                    record = self._c.invariants.records().get(node.name)
                    raise Violation(
                        f"{node.name} still claims VM {vm}, {self.bound_s:.0f} s after the last fault: {claim}; {record}"
                    )
            self._check_restarted(node)

    def _check_restarted(self, node: SimNode) -> None:
        record = self._c.invariants.records().get(node.name)
        if record is None or not self._room():
            return
        for freed in (vm.vm for vm in record.vms if vm.outcome == "freed"):
            spec = documents.maybe(keys.vm_spec(freed), self._c.tree.peek(keys.vm_spec(freed).path))
            status = documents.maybe(keys.vm_status(freed), self._c.tree.peek(keys.vm_status(freed).path))
            if spec is None or spec.value.power != "running" or spec.value.deleting or status is None:
                continue
            if status.value.state is VmState.WAITING and not self._c.world.running(freed):
                raise Violation(f"VM {freed}, taken from {node.name}, waits although there is room: {status.value}")

    def _room(self) -> bool:
        """Some node takes VMs; memory is plenty in these runs."""
        for node in self._c.nodes.values():
            spec = documents.maybe(keys.node_spec(node.name), self._c.tree.peek(keys.node_spec(node.name).path))
            status = documents.maybe(keys.node_status(node.name), self._c.tree.peek(keys.node_status(node.name).path))
            leased = self._c.tree.peek(keys.lease(node.name).path) is not None
            if leased and spec is not None and status is not None:
                if spec.value.scheduling == "ready" and status.value.scheduling == "ready":
                    return True
        return False
