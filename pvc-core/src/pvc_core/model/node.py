"""Nodes: what the operator wants of one, what it reports, and its lease."""

from typing import Final, Literal

from pvc_core.model.base import Condition, Document, Value
from pvc_core.model.fence import FenceLevel

Role = Literal["coordinator", "hypervisor"]
Scheduling = Literal["ready", "drain"]

HYPERVISOR: Final = "Hypervisor"
"""Type of a node's condition that says whether its hypervisor answers: without it the node takes no VMs."""


class NodeSpec(Document, frozen=True, kw_only=True):
    """What the operator wants of a node.  The node adds itself at its first start."""

    id: str
    """The node's name."""
    generation: int = 1
    role: Role = "hypervisor"
    scheduling: Scheduling = "ready"
    """``drain``: VMs leave and none come; ``ready``: it takes VMs, and those at home here return."""
    maintenance: bool = False
    """It is not fenced, and its absence is no alarm."""
    maintenance_until: float = 0.0
    """When the primary ends the maintenance, seconds since the epoch; 0: a person does."""
    fence_levels: tuple[FenceLevel, ...] = ()
    """Ways to cut its power, in the order in which they are tried."""


class Memory(Value, frozen=True, kw_only=True):
    """Memory of a node in MiB."""

    total_mib: int = 0
    reserved_mib: int = 0
    """Kept for the host itself: never given to VMs."""
    free_mib: int = 0
    """What the host says is available now."""


class PluginStatus(Value, frozen=True, kw_only=True):
    """A plugin on a node, as the node's daemon sees it."""

    name: str
    state: Literal["healthy", "degraded", "open", "failed"]
    version: str = ""
    stage: str = ""
    """Where a failed one failed: discover, gate, config, import, instantiate, preflight, register, call."""
    error: str = ""
    capabilities: tuple[str, ...] = ()
    """Such as ``storage:dir``, ``snapshots:dir`` or ``network:bridge``: what the scheduler may rely on."""
    max_mtu: dict[str, int] = {}
    """Network driver -> the largest packet that its networks can have here, where it knows."""
    calls: int = 0
    failures: int = 0
    timeouts: int = 0


class NodeStatus(Document, frozen=True, kw_only=True):
    """What a node reports, in one write per interval.  The lease says whether it is alive, not this."""

    id: str
    role: Role = "hypervisor"
    daemon: Literal["starting", "running", "stopping", "stopped"] = "stopped"
    scheduling: Literal["ready", "draining", "drained", "returning"] = "ready"
    observed_generation: int = 0
    lease: int = 0
    boot_id: str = ""
    address: str = ""
    """Cluster address: migrations and the node's own service are reached here."""
    service_port: int = 0
    version: str = ""
    kernel: str = ""
    architecture: str = ""
    hypervisor: str = ""
    accelerators: tuple[str, ...] = ()
    machine_types: tuple[str, ...] = ()
    cpus: int = 0
    memory: Memory = Memory()
    load1: float = 0.0
    running: tuple[str, ...] = ()
    """Ids of the VMs whose domains are active here."""
    allocated_mib: int = 0
    """Maximum memory of the VMs whose domains are active here."""
    allocated_vcpus: int = 0
    plugins: tuple[PluginStatus, ...] = ()
    identities: dict[str, dict[str, str]] = {}
    """Storage driver -> what it must know to keep this node from writing, should it die; of ``lease``."""
    conditions: tuple[Condition, ...] = ()
    published: float = 0.0
    """Seconds since the epoch on this node's clock: for display only."""

    def capabilities(self) -> frozenset[str]:
        """Return all capabilities of the plugins that work."""
        return frozenset(c for p in self.plugins if p.state in ("healthy", "degraded") for c in p.capabilities)


class GuestUsage(Value, frozen=True, kw_only=True):
    """What one guest uses now."""

    cpu_percent: float = 0.0
    """Of one CPU: four busy vCPUs are 400."""
    memory_used_mib: int = 0
    disk_read_bytes: int = 0
    disk_write_bytes: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0


class NodeUsage(Document, frozen=True, kw_only=True):
    """Figures of all guests of one node: one dense document instead of one per guest."""

    id: str
    guests: dict[str, GuestUsage] = {}
    published: float = 0.0


class Lease(Document, frozen=True, kw_only=True):
    """An ephemeral znode: its existence means that the node's session is alive."""

    node: str
    generation: int
    holder: str = ""
    """Random word of the daemon that took it, by which that daemon, or its successor on the host, knows it again."""


class LeaseGeneration(Document, frozen=True, kw_only=True):
    """The last generation of a node's lease; persistent, raised each time a lease is taken."""

    node: str
    generation: int = 0
    released: bool = False
    """The last lease was given up on purpose (daemon stopped): not a failure."""
    watchdog_down_s: float = 0.0
    """Seconds after the end of this lease by which the watchdog that its holder armed has certainly reset the node;
    0: it has none."""
    machine: str = ""
    """Word of the machine that took it; empty: unknown, so any machine may take the next."""


class Primary(Document, frozen=True, kw_only=True):
    """Which coordinator has the primary role.  Sticky: changed by command or when the holder's lease is gone."""

    node: str | None = None
    lease: int = 0
    term: int = 0
    """Raised with each new holder; the primary's global writes carry it."""
    wanted: str | None = None
    """The coordinator an operator wants: the holder gives the role up for it; ``*`` is any other."""
    stage: Literal["vacant", "acquiring", "active", "relinquishing"] = "vacant"
