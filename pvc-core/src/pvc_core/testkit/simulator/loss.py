"""A run with one loss: some nodes die at one moment, under conditions that stay as they are, and a bound is kept."""

import random
from typing import NamedTuple

from pvc_core.model.fence import Means
from pvc_core.model.vm import VmSpec, VmState
from pvc_core.ops.cluster import ClusterSettings, cluster_settings
from pvc_core.store import documents, keys
from pvc_core.testkit.simulator import failures
from pvc_core.testkit.simulator.bound import Prospects, down_s
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.invariants import Violation
from pvc_core.testkit.simulator.node import SimNode
from pvc_core.testkit.simulator.power import Mode

KINDS = ("power", "power", "hang", "cut", "freeze")
_POLICIES: tuple[tuple[Means, ...], ...] = (("power", "storage", "watchdog"),) * 6 + (
    ("power",),
    ("watchdog",),
    ("storage",),
)
_SILENT_S = 100.0
"""By then the record of a node that cannot be proven dead says why."""


class Figures(NamedTuple):
    """What was measured of one VM."""

    down_s: float
    bound_s: float


class Loss:
    """Chooses victims, lets them die, and watches their VMs."""

    def __init__(self, cluster: Cluster, rng: random.Random, *, tight: bool) -> None:
        """``tight``: there may not be room for all VMs, so no bound is kept."""
        self._c = cluster
        self._tight = tight
        self._rng = rng
        self._policy = rng.choice(_POLICIES)
        self.figures: list[Figures] = []
        self.kinds: dict[str, int] = {}
        self._boots: dict[str, int] = {}
        self._dark = rng.random() < 0.15

    @property
    def quiet_s(self) -> float:
        """Seconds before the loss: long enough to find out which fence devices mislead, if some do."""
        return 200.0 if self._dark else 40.0

    def begin(self) -> None:
        """Make the mistakes that an installation may have from the beginning."""
        for node in self._c.nodes.values():
            # One of two devices may well be off on a living node: that alone does not show that it is a wrong one.
            for device in (level[0] for level in node.setup.levels if len(level) == 1):
                if self._dark and self._rng.random() < 0.3:
                    self._c.controllers[node.name, device].mode = Mode.DARK

    def prepare(self) -> None:
        """Let devices be as they will be."""
        cluster_settings(self._c.ops, ClusterSettings(recovery=self._policy))
        self._c.closing.fails = self._rng.random() < 0.2
        coordinators = [node.name for node in self._c.nodes.values() if node.coordinator]
        for (node, device), controller in self._c.controllers.items():
            if self._rng.random() < 0.3 and controller.mode is Mode.OK:
                controller.mode = self._rng.choice([mode for mode in Mode if mode is not Mode.DARK])
                self._c.note(f"{node}: its {device} is {controller.mode}")
            if self._rng.random() < 0.1:
                controller.wrong_password.add(self._rng.choice(coordinators))

    def strike(self) -> float:
        """Let some nodes die; returns the seconds until the last of their VMs must run again."""
        nodes = list(self._c.nodes.values())
        victims: list[SimNode] = []
        for node in self._rng.sample(nodes, k=min(len(nodes) - 1, self._rng.choice((1, 1, 1, 2, 2, 3)))):
            servers = [n for n in nodes if n.coordinator and n not in victims and n is not node]
            if len(servers) > sum(n.coordinator for n in nodes) / 2:
                victims.append(node)
        last = 0.0
        for node in victims:
            last = max(last, self._die(node, self._rng.choice(KINDS), victims))
        return last

    def _die(self, node: SimNode, kind: str, victims: list[SimNode]) -> float:
        c = self._c
        c.note(f"{node.name}: dies ({kind})")
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self._boots[node.name] = node.boots
        declared = documents.maybe(keys.generation(node.name), c.tree.peek(keys.generation(node.name).path))
        vms = [vm for vm in c.invariants.vms if c.world.running(vm) == [node.name] and self._is_wanted(vm)]
        primary = c.primary()
        if kind == "power":
            failures.power_cut(c, node, None)
        elif kind == "hang":
            failures.freeze(c, node, None, whole=True)
        elif kind == "cut":
            failures.set_link(c, node, Link.CUT, None)
        else:
            failures.freeze(c, node, None)
        others = [n.name for n in c.nodes.values() if n.coordinator and n not in victims]
        fencers = others if primary is None or primary in victims else [primary.name]
        prospects = Prospects(
            levels=[[c.controllers[node.name, device] for device in level] for level in node.setup.levels],
            recovery=self._policy,
            watchdog_down_s=declared.value.watchdog_down_s if declared is not None else 0.0,
            closable=not c.closing.fails,
        )
        bounds = {disks: down_s(prospects, fencers, c.timing, disks=disks) for disks in (True, False)}
        hopeless = bounds[False] is None
        if hopeless:
            c.later(_SILENT_S, "", lambda: self._demand_reason(node))
        died = c.clock.monotonic()
        last = _SILENT_S
        for vm in vms:
            bound = bounds[bool(self._spec(vm).disks)]
            if bound is not None:
                last = max(last, bound)
                self._watch(node, vm, died, bound)
        return last

    def _spec(self, vm: str) -> VmSpec:
        found = documents.maybe(keys.vm_spec(vm), self._c.tree.peek(keys.vm_spec(vm).path))
        assert found is not None
        return found.value

    def _is_wanted(self, vm: str) -> bool:
        spec = self._spec(vm)
        status = documents.maybe(keys.vm_status(vm), self._c.tree.peek(keys.vm_status(vm).path))
        settled = status is not None and status.value.state is VmState.RUNNING and not self._tight
        return spec.power == "running" and spec.restart != "never" and settled

    def _watch(self, node: SimNode, vm: str, died: float, bound: float) -> None:
        def look() -> None:
            spent = self._c.clock.monotonic() - died
            hosts = self._c.world.running(vm)
            if any(host != node.name or node.boots > self._boots[node.name] for host in hosts):
                self.figures.append(Figures(spent, bound))
            elif node.power.on and node.boots > self._boots[node.name]:
                pass  # its watchdog has reset it, and it takes its VMs up again when it has booted
            elif spent > bound:
                raise Violation(
                    f"VM {vm} of {node.name} does not run again {spent:.1f} s after its death; bound {bound:.1f} s"
                )
            else:
                self._c.later(0.25, "", look)

        look()

    def _demand_reason(self, node: SimNode) -> None:
        record = self._c.invariants.records().get(node.name)
        if node.boots > self._boots[node.name]:
            return
        if record is None or not (record.waits_for or record.proofs):
            raise Violation(f"nobody says why there is no proof of the death of {node.name}: {record}")
