"""A simulated cluster as a scenario wants it: the one place, with ``verbs``, that knows the simulator."""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from pvc_core.model.base import Document
from pvc_core.model.errors import PvcError
from pvc_core.model.fence import FenceRecord, ProofKind
from pvc_core.model.node import Lease, NodeSpec, Primary
from pvc_core.model.units import parse_mib
from pvc_core.model.vm import VmClaim, VmStatus
from pvc_core.ops.cluster import ClusterSettings, cluster_settings, cluster_status
from pvc_core.ops.fence_level import FenceLevelAdd, fence_level_add
from pvc_core.ops.node_service import NodePrimary, Nothing, node_primary
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.store import documents, keys
from pvc_core.testkit.scenario.load import Script
from pvc_core.testkit.scenario.schema import VmEntry
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.node import NodeSetup, SimNode
from pvc_core.testkit.simulator.storage import POOL, add_pool, add_volume

T = TypeVar("T", bound=Document)

_JOIN_S: Final = 120.0
"""Virtual time in which a healthy cluster has come up and runs the VMs."""
_SPREAD_S: Final = 10.0
"""The beginning is up to so much later: the daemons' intervals then stand differently in each run."""


class NotSetUp(AssertionError):
    """The cluster did not become what the scenario begins with."""


class _Touched(set[str]):
    """The VMs that the world says were touched; ``fresh`` keeps them until the scenario has looked."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: set[str] = set()

    def add(self, vm: str) -> None:
        super().add(vm)
        self.fresh.add(vm)

    def update(self, *vms: Iterable[str]) -> None:
        for each in vms:
            for vm in each:
                self.add(vm)


class Site:
    """One run's cluster, set up with everything that the scenario begins with."""

    def __init__(self, script: Script, seed: int) -> None:
        """Raises NotSetUp; call inside ``listening``."""
        self.script: Script = script
        scenario = script.scenario
        setups = [
            NodeSetup(
                name=name,
                coordinator=node.role == "coordinator",
                memory_mib=parse_mib(node.memory),
                levels=node.levels,
                bmc_own_power=node.bmc_own_power,
                watchdog_s=node.watchdog or 0.0,
                clock_rate=node.clock_rate,
            )
            for name, node in script.nodes.items()
        ]
        self.cluster: Cluster = Cluster(seed, setups, timing=scenario.timing)
        self.cluster.invariants.excused = self._lied_about
        self._touched = _Touched()
        self.cluster.world.touched = self._touched
        self.ids: dict[str, str] = {name: self.cluster.new_id() for name in script.vms}
        self._names = {id_: name for name, id_ in self.ids.items()}
        self._begun = 0.0

    def set_up(self) -> None:
        """Let the cluster come up and run its VMs; the scenario's time begins then.  Raises NotSetUp."""
        c, nodes, scenario = self.cluster, self.script.nodes, self.script.scenario
        self._wait("every node joins", lambda: all(self.read(keys.node_status(name)) for name in nodes))
        first = next(name for name, node in nodes.items() if node.role == "coordinator")
        self._wait("there is a primary", lambda: c.primary() is not None)
        node_primary(c.ops, NodePrimary(node=first))
        self._wait(f"{first} is primary", lambda: self.primary() == first)
        for node in c.nodes.values():
            for number, level in enumerate(node.setup.fence_levels(), 1):
                for device in level.devices:
                    request = FenceLevelAdd(
                        node=node.name, driver=device.driver, parameters=device.parameters, level=number, force=True
                    )
                    fence_level_add(c.ops, request)
        s = scenario.settings
        cluster_settings(
            c.ops,
            ClusterSettings(
                recovery=s.recovery,
                power_on_after_fence=s.power_on_after_fence,
                return_after_fence=s.return_after_fence,
                migrations_per_source=s.migrations_per_source,
                migrations_per_target=s.migrations_per_target,
            ),
        )
        wanted = self._define()
        self._wait("every VM runs where it should", lambda: all(self._runs(vm, node) for vm, node in wanted.items()))
        self.run_until(c.clock.monotonic() + c.rng.uniform(1.0, _SPREAD_S), lambda: None)
        self._begun = c.clock.monotonic()

    def _lied_about(self, node: str) -> bool:
        """An operator confirmed the death of a node that lives, and it has not cleaned up since."""
        record = self.record(node)
        lies = node in self.script.scenario.operator_lies
        return lies and record is not None and record.dirty and any(p.kind is ProofKind.OPERATOR for p in record.proofs)

    def _define(self) -> dict[str, str | None]:
        """Define the VMs; return those that shall run, and where (None: anywhere)."""
        c = self.cluster
        vms = self.script.vms
        pool = add_pool(c.operator, c.backend, c.new_id()) if any(vm.disk for vm in vms.values()) else None
        for name, vm in vms.items():
            if pool is not None and vm.disk:
                add_volume(c.operator, c.backend, pool, c.new_id(), name)
            try:
                vm_define(c.ops, self._definition(name, vm))
            except PvcError as error:
                raise NotSetUp(f"VM {name} cannot be defined: {error}") from error
            c.invariants.vms[self.ids[name]] = None
        return {name: vm.node for name, vm in vms.items() if vm.power == "running"}

    def _definition(self, name: str, vm: VmEntry) -> VmDefine:
        return VmDefine(
            name=name,
            id=self.ids[name],
            memory=vm.memory,
            restart=vm.restart,
            priority=vm.priority,
            migration=vm.migration,
            node=vm.node,
            node_limit=vm.node_limit,
            shutdown_timeout_s=20,
            disks=(DiskDefinition(pool=POOL, volume=name),) if vm.disk else (),
            start=vm.power == "running",
        )

    def _runs(self, vm: str, node: str | None) -> bool:
        status = self.vm_status(vm)
        hosts = self.hosts(vm)
        return len(hosts) == 1 and node in (None, hosts[0]) and status is not None and status.state == "running"

    def _wait(self, what: str, done: Callable[[], object]) -> None:
        end = self.cluster.clock.monotonic() + _JOIN_S
        last = -1.0
        while True:
            now = self.cluster.clock.monotonic()
            if now != last and done():
                return
            if now > end:
                raise NotSetUp(f"the scenario cannot begin: it takes more than {_JOIN_S:.0f} s until {what}")
            last = now
            self.cluster.step()

    # --- time -----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the scenario began; rounded, as 105.2 - 5.2 is not quite 100."""
        return round(self.cluster.clock.monotonic() - self._begun, 6)

    @property
    def begun(self) -> float:
        """The beginning, on the trace's clock."""
        return self._begun - (self.cluster.clock.monotonic() - self.cluster.elapsed)

    def watch(self, changed: Callable[[str, list[str]], None]) -> None:
        """Have each change of documents told at once: who made it, and the paths."""
        self.cluster.on_change.append(changed)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have something done after a delay."""
        self.cluster.later(delay_s, "", call)

    def at_once(self, call: Callable[[], None]) -> None:
        """Have something done as soon as the transaction in progress is through, before its writer hears of it."""
        self.cluster.at_once(call)

    def run_until(self, when: float, look: Callable[[], None]) -> None:
        """Step until a moment of the virtual clock; ``look`` is called after each step.  Raises AssertionError."""
        c = self.cluster
        c.later(when - c.clock.monotonic(), "", lambda: None)
        while c.clock.monotonic() < when:
            c.step()
            look()

    def run(self, seconds: float, look: Callable[[], None]) -> None:
        """Step until so many seconds since the beginning have passed."""
        self.run_until(self._begun + seconds, look)

    # --- the truth ------------------------------------------------------------------------------------

    def node(self, name: str) -> SimNode:
        """Return a node."""
        return self.cluster.nodes[name]

    def hosts(self, vm: str) -> list[str]:
        """Return the nodes on which a VM's guest executes now."""
        return self.cluster.world.running(self.ids[vm])

    def take_touched(self) -> list[str]:
        """Return the VMs whose guests came, went or changed since the last call."""
        fresh, self._touched.fresh = self._touched.fresh, set()
        return sorted(self._names[id_] for id_ in fresh if id_ in self._names)

    # --- the documents ----------------------------------------------------------------------------------

    def read(self, key: keys.Key[T]) -> T | None:
        """Return a document."""
        found = documents.maybe(key, self.cluster.tree.peek(key.path))
        return found.value if found is not None else None

    def record(self, node: str) -> FenceRecord | None:
        """Return the record of a node's last loss."""
        return self.cluster.invariants.records().get(node)

    def lease(self, node: str) -> Lease | None:
        """Return a node's lease."""
        return self.read(keys.lease(node))

    def spec(self, node: str) -> NodeSpec | None:
        """Return what is wanted of a node."""
        return self.read(keys.node_spec(node))

    def primary(self) -> str | None:
        """Return the node that has the primary role, and its lease."""
        found: Primary | None = self.read(keys.PRIMARY)
        if found is None or found.node is None or found.stage != "active" or self.lease(found.node) is None:
            return None
        return found.node

    def vm_status(self, vm: str) -> VmStatus | None:
        """Return a VM's status."""
        return self.read(keys.vm_status(self.ids[vm]))

    def claim(self, vm: str) -> VmClaim | None:
        """Return a VM's claim."""
        return self.cluster.invariants.claim(self.ids[vm])

    def name(self, id_: str) -> str:
        """Return the name of the VM with this id, empty when there is none."""
        return self._names.get(id_, "")

    def problems(self) -> tuple[str, ...]:
        """Return what `pvc cluster status` calls wrong."""
        return cluster_status(self.cluster.ops, Nothing()).problems

    def plain(self, text: str) -> str:
        """Return a text with the names of VMs instead of their ids."""
        for id_, name in self._names.items():
            if id_[:8] in text:
                text = text.replace(id_, name).replace(id_[:8], name)
        return text
