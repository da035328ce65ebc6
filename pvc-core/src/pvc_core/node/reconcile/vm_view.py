"""What a decision about a VM rests on: documents, the domain, and what this daemon remembers."""

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.hypervisor.api import Domain, DomainState, ExitReason, JobState
from pvc_core.model.cluster import Cluster
from pvc_core.model.fence import FenceRecord
from pvc_core.model.node import NodeSpec, NodeStatus
from pvc_core.model.vm import MAY_EXECUTE_ON_TARGET, MigrationPhase, VmClaim, VmSpec, VmStatus, kept_devices
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile import resources
from pvc_core.node.reconcile.slots import Slots
from pvc_core.plan import vm as plan
from pvc_core.store import keys
from pvc_core.store.documents import Entry, maybe

_ENDED: Final = {
    ExitReason.SHUTDOWN: plan.Ended.SHUTDOWN,
    ExitReason.CRASHED: plan.Ended.CRASHED,
    ExitReason.FAILED: plan.Ended.CRASHED,
    ExitReason.DESTROYED: plan.Ended.DESTROYED,
    ExitReason.MIGRATED: plan.Ended.MIGRATED,
    ExitReason.UNKNOWN: plan.Ended.UNKNOWN,
}


class VmDocuments(NamedTuple):
    """The documents that one decision rests on, with their versions."""

    vm: Entry[VmSpec] | None
    status: Entry[VmStatus] | None
    claim: Entry[VmClaim] | None
    node: Entry[NodeSpec] | None
    report: Entry[NodeStatus] | None
    fence: Entry[FenceRecord] | None
    """Of this node."""
    cluster: Cluster


class VmViews:
    """Makes the snapshots of all VMs of one node; keeps what is only remembered, and counts what is bounded.

    Calls for one VM must not overlap; for different VMs they may.
    """

    def __init__(self, context: NodeContext, parked: Callable[[str], bool], ended: Callable[[str], None]) -> None:
        """``ended`` is told once of each domain that was here and is not any more."""
        self._c = context
        self._parked = parked
        self._tell_ended = ended
        self._memory: dict[str, plan.Memory] = {}
        self._phase: dict[str, str] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self.outgoing = Slots(self._wake)
        """Transfers from here."""
        self.incoming = Slots(self._wake)
        """Transfers to here."""
        self._reserved: dict[str, int] = {}
        timing = context.timing
        self._limits = plan.Limits(
            prepare_s=timing.prepare,
            migration_s=timing.migration,
            backoff_s=timing.restart_backoff,
            backoff_max_s=timing.restart_backoff_max,
            give_up=timing.restart_give_up,
            stable_s=timing.stable,
            unplug_s=timing.unplug,
        )

    def read(self, id_: str) -> VmDocuments:
        """Read all documents at once."""
        me = self._c.name
        vm, status, claim = keys.vm_spec(id_), keys.vm_status(id_), keys.claim(id_)
        node, report, fence = keys.node_spec(me), keys.node_status(me), keys.fence(me)
        found = self._c.store.get_many([key.path for key in (vm, status, claim, node, report, fence, keys.CLUSTER)])
        cluster = maybe(keys.CLUSTER, found[6])
        return VmDocuments(
            maybe(vm, found[0]),
            maybe(status, found[1]),
            maybe(claim, found[2]),
            maybe(node, found[3]),
            maybe(report, found[4]),
            maybe(fence, found[5]),
            cluster.value if cluster is not None else Cluster(),
        )

    def snapshot(self, id_: str, lease: int, read: VmDocuments, domain: Domain | None) -> plan.Snapshot:
        vm = read.vm.value if read.vm is not None else None
        claim = read.claim.value if read.claim is not None else None
        now = self._c.clock.monotonic()
        memory = self._remember(id_, claim, domain, now)
        if memory.tries and vm is not None:
            memory = replace(memory, tries=plan.still_tried(vm, memory.tries))
            self._memory[id_] = memory
        self._count(id_, claim, domain)
        holder = claim is not None and claim.node == self._c.name
        asked = _asked(claim, self._c.name)
        to_start = (
            vm is not None
            and domain is None
            and (
                asked
                or (vm.node == self._c.name and vm.power == "running" and (holder or claim is None or not claim.node))
            )
        )
        record = claim.migration if claim is not None else None
        starting_out = holder and record is not None and record.phase is MigrationPhase.READY
        target = record.target if holder and record is not None else (vm.node if vm else None)
        snapshot = plan.Snapshot(
            me=self._c.name,
            lease=lease,
            address=self._c.address,
            now=now,
            vm=vm,
            status=read.status.value if read.status is not None else None,
            claim=claim,
            domain=_view(domain),
            ended=_ENDED[self._c.hypervisor.exit_reason(id_)] if domain is None else plan.Ended.UNKNOWN,
            memory=memory,
            limits=self._limits,
            target_alive=bool(holder and target and target != self._c.name and self._alive(target)),
            accepting=_not_accepting(self._c.name, read),
            parked=self._parked(id_),
            no_room=self._room(id_, vm, read.report) if to_start and vm else "",
            cannot_run=self._obstacle(vm, asked=asked) if to_start and vm else "",
            live_obstacle=self._live_obstacle(vm) if holder and domain and vm and vm.node != self._c.name else "",
            outgoing_free=not starting_out or self.outgoing.is_free(id_, read.cluster.migrations_per_source),
            incoming_free=not asked or self.incoming.is_free(id_, read.cluster.migrations_per_target),
        )
        if not (holder or asked or to_start) or domain is not None:
            self._reserved.pop(id_, None)
        return snapshot

    def _alive(self, node: str) -> bool:
        return self._c.store.get(keys.lease(node).path) is not None

    def _live_obstacle(self, vm: VmSpec) -> str:
        return resources.find(self._c.store, vm).live_obstacle(self._c.drivers)

    def _obstacle(self, vm: VmSpec, *, asked: bool) -> str:
        # A guest that comes here may have a device that is being taken away; one that is started does not get it.
        needed = vm if asked else kept_devices(vm)
        return resources.obstacle(self._c.store, self._c.drivers, needed, self._c.name)

    def _room(self, id_: str, vm: VmSpec, report: Entry[NodeStatus] | None) -> str:
        """Reserve memory for the VM and return "", or return why there is none."""
        host = report.value.memory if report is not None else None
        if host is not None and host.total_mib:
            capacity = host.total_mib - host.reserved_mib
        else:
            capacity = self._c.hypervisor.facts().memory_mib
        here = {d.id: d.memory_mib for d in self._c.hypervisor.domains().values()}
        with self._lock:
            used = sum((self._reserved | here).values()) - (self._reserved | here).get(id_, 0)
            if used + vm.memory_mib <= capacity:
                self._reserved[id_] = vm.memory_mib
                return ""
        return f"node {self._c.name} has no room: {vm.memory_mib} MiB wanted, {max(0, capacity - used)} MiB left"

    def _remember(self, id_: str, claim: VmClaim | None, domain: Domain | None, now: float) -> plan.Memory:
        record = claim.migration if claim is not None else None
        memory = self._memory.get(id_)
        if memory is None:
            # What the daemon before this one attached here it may have left so.
            ours = claim is not None and (claim.node == self._c.name or (record and record.target == self._c.name))
            memory = plan.Memory(attached=bool(ours))
        phase = (
            f"{record.attempt}/{record.phase}"
            if record
            else f"{claim.node if claim else ''}/{domain.state if domain else ''}"
        )
        if self._phase.get(id_) != phase:
            self._phase[id_] = phase
            memory = replace(memory, phase_since=now)
        if domain is None:
            if id_ in self._seen:
                self._seen.discard(id_)
                self._tell_ended(id_)
            memory = replace(memory, shutdown_since=None, shutdown_asked=None)
        else:
            self._seen.add(id_)
            memory = replace(memory, attached=True)
        self._memory[id_] = memory
        return memory

    def memory(self, id_: str) -> plan.Memory:
        """Return what is remembered of a VM."""
        return self._memory.get(id_, plan.Memory())

    def note(self, id_: str, **changes: object) -> None:
        """Remember something of a VM."""
        self._memory[id_] = replace(self._memory.get(id_, plan.Memory()), **changes)

    def _count(self, id_: str, claim: VmClaim | None, domain: Domain | None) -> None:
        """Keep count of the transfers that this node takes part in."""
        record = claim.migration if claim is not None else None
        leaving = (
            record is not None
            and claim is not None
            and claim.node == self._c.name
            and record.phase in MAY_EXECUTE_ON_TARGET
        )
        coming = (
            record is not None
            and record.target == self._c.name
            and record.phase in (MigrationPhase.READY, MigrationPhase.TRANSFER)
        ) or (domain is not None and domain.state is DomainState.INCOMING)
        self.outgoing.count(id_, taken=leaving)
        self.incoming.count(id_, taken=coming)

    def _wake(self, id_: str) -> None:
        self._c.wake("vm", id_, 0.0)

    def forget(self, id_: str) -> None:
        """Drop what is remembered of a VM that is gone."""
        for cache in (self._memory, self._phase, self._reserved):
            cache.pop(id_, None)


def _asked(claim: VmClaim | None, me: str) -> bool:
    record = claim.migration if claim is not None else None
    return record is not None and record.target == me and record.phase is MigrationPhase.PREPARE


def _not_accepting(me: str, read: VmDocuments) -> str:
    if read.node is None:
        return f"node {me} is not part of the cluster yet"
    if read.node.value.scheduling == "drain":
        return f"node {me} is flushed"
    if read.fence is not None and read.fence.value.blocked:
        return f"node {me} was fenced, and storage is still closed to it"
    return ""


def _view(domain: Domain | None) -> plan.DomainView | None:
    if domain is None:
        return None
    job = domain.job
    return plan.DomainView(
        executing=domain.state is DomainState.RUNNING,
        incoming=domain.state is DomainState.INCOMING,
        transfer=job is not None and job.state is JobState.ACTIVE,
        transfer_failed=job is not None and job.state is JobState.FAILED,
        transfer_error=job.error if job is not None else "",
        transfer_progress=job.progress if job is not None else 0.0,
        running_for_s=domain.running_for_s,
        vnc=domain.vnc,
        accelerator=domain.accelerator,
        disks=tuple(plan.GuestDisk(target=d.target, bus=d.bus, volume=d.volume) for d in domain.disks),
        controllers=domain.controllers,
        nics=domain.nics,
    )
