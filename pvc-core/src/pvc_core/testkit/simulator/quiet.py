"""Once faults have ended: what can be proven is proven, and what was taken from dead nodes runs elsewhere."""

from collections import Counter
from typing import Final, TypeVar

from pvc_core.model.base import Document
from pvc_core.model.vm import VmSpec, VmState
from pvc_core.store import documents, keys
from pvc_core.testkit.simulator.bound import Prospects, down_s
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.invariants import Violation
from pvc_core.testkit.simulator.node import SimNode

T = TypeVar("T", bound=Document)

_RETRY_S: Final = 60.0 + 30.0
"""The longest pause between two rounds, and a round that was under way."""
_LATEST_S: Final = 30.0
"""Daemons that were killed or stopped are back by then."""

_SPARE: Final = 5
"""A node has room for a VM when it has memory for so many: some is the host's, some of guests that are just leaving."""


class Quiet:
    """The nodes without power at this moment, and how long it may take until none of them claims anything."""

    def __init__(self, cluster: Cluster) -> None:
        self._c = cluster
        self._dead = [node for node in cluster.nodes.values() if not node.power.on and self._must_be_fenced(node)]
        bounds = [bound for node in self._dead if (bound := self._bound(node)) is not None]
        self.bound_s = (
            max(bounds, default=0.0) + _LATEST_S + _RETRY_S + cluster.timing.cold_start if bounds else _LATEST_S
        )
        self._expected = [node for node in self._dead if self._bound(node) is not None]
        self._boots = {node.name: node.boots for node in self._expected}

    def _must_be_fenced(self, node: SimNode) -> bool:
        last = self._read(keys.generation(node.name))
        return last is not None and not last.released

    def _bound(self, node: SimNode) -> float | None:
        last = self._read(keys.generation(node.name))
        prospects = Prospects(
            levels=[[self._c.controllers[node.name, device] for device in level] for level in node.setup.levels],
            recovery=("power", "storage", "watchdog"),
            watchdog_down_s=last.watchdog_down_s if last is not None else 0.0,
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
        for freed in (vm.vm for vm in record.vms if vm.outcome == "freed") if record is not None else ():
            spec, status = self._read(keys.vm_spec(freed)), self._read(keys.vm_status(freed))
            if spec is None or spec.power != "running" or spec.deleting or status is None:
                continue
            if status.state is VmState.WAITING and not self._c.world.running(freed) and self._room(spec):
                raise Violation(f"VM {freed}, taken from {node.name}, waits although there is room: {status}")

    def _room(self, vm: VmSpec) -> bool:
        """Some node takes VMs, and has the memory for this one."""
        placed = Counter[str | None]()
        for other in self._c.invariants.vms:
            spec = self._read(keys.vm_spec(other))
            if spec is not None and spec.power == "running" and other != vm.id:
                placed[spec.node] += spec.memory_mib
        return any(
            self._takes_vms(node.name) and placed[node.name] + _SPARE * vm.memory_mib <= node.setup.memory_mib
            for node in self._c.nodes.values()
        )

    def _takes_vms(self, node: str) -> bool:
        spec, status = self._read(keys.node_spec(node)), self._read(keys.node_status(node))
        if spec is None or status is None or self._read(keys.lease(node)) is None:
            return False
        return spec.scheduling == "ready" and status.scheduling == "ready"

    def _read(self, key: keys.Key[T]) -> T | None:
        entry = documents.maybe(key, self._c.tree.peek(key.path))
        return entry.value if entry is not None else None
