"""The node's report: one write of facts per interval, and one more on important change.

Liveness does not depend on it: a node lives while its lease stands.
"""

import threading
from importlib import metadata
from typing import Final

from pvc_core.hypervisor.api import Domain, DomainState, HostFacts, HypervisorError
from pvc_core.model.node import HYPERVISOR, Memory, NodeStatus
from pvc_core.node.context import NodeContext
from pvc_core.node.host import Host
from pvc_core.node.identities import Identities
from pvc_core.node.own_document import OwnDocument
from pvc_core.node.state import NodeState
from pvc_core.store.keys import node_status

_LEAST_S: Final = 1.0
"""Pause between two reports, however much changes."""


class MemoryLimits:
    """What the configuration says of this host's memory, in MiB."""

    def __init__(self, total_mib: int | None = None, reserved_mib: int = 1024) -> None:
        self._total_mib = total_mib
        self._reserved_mib = reserved_mib

    def memory(self, facts: HostFacts, used_by_guests_mib: int) -> Memory:
        """Return the memory to report; with a configured total, no more is free than guests leave of it."""
        total = facts.memory_mib if self._total_mib is None else self._total_mib
        free = facts.free_mib
        if self._total_mib is not None:
            free = min(free, max(total - self._reserved_mib - used_by_guests_mib, 0))
        return Memory(total_mib=total, reserved_mib=min(self._reserved_mib, total), free_mib=free)


class Publisher:
    """Reconciler of the key ``("publish", "")``: writes the report and asks to be called again in an interval."""

    def __init__(
        self,
        context: NodeContext,
        state: NodeState,
        host: Host,
        *,
        limits: MemoryLimits | None = None,
        service_port: int = 0,
        emulation_is_bad: bool = True,
    ) -> None:
        """``emulation_is_bad``: complain when guests cannot be accelerated here."""
        self._context = context
        self._state = state
        self._host = host
        self._limits = limits or MemoryLimits()
        self._service_port = service_port
        self._version = metadata.version("pvc-core")
        self._lock = threading.Lock()
        self._status = OwnDocument(context, node_status(context.name))
        self._facts = HostFacts(cpus=0, memory_mib=0, free_mib=0, version="")
        self._domains: dict[str, Domain] = {}
        self._identities = Identities(context, state)
        self._published: float | None = None
        self._away = False
        self._emulation_is_bad = emulation_is_bad

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one report)
        """Publish, unless that was done within the last second; returns when to do it again."""
        clock, interval = self._context.clock, self._context.timing.publish
        now = clock.monotonic()
        least = min(_LEAST_S, interval)
        if self._published is not None and now - self._published < least:
            return max(self._published + least - now, 0.01)  # the difference may round to nothing
        self.publish()
        self._published = now
        return interval

    def publish(self) -> None:
        """Write the status now.  Raises StoreUnavailable, LeaseLost."""
        with self._lock:
            self._status.write(self._report())

    def _report(self) -> NodeStatus:
        context, state = self._context, self._state
        try:
            self._facts = context.hypervisor.facts()
            self._domains = context.hypervisor.domains()
        except HypervisorError as error:
            # Guests may well be running: the last that was seen of them stays in the report.
            state.set_condition(
                HYPERVISOR, ok=False, reason="Unavailable", message=f"the hypervisor does not answer: {error}"
            )
            self._away = True
        else:
            state.set_condition(HYPERVISOR, ok=True)
            self._tell_facts(self._facts)
            if self._away:
                # What waits in back-off for the hypervisor need not wait any longer.
                self._away = False
                context.wake("resync", "", 0.0)
        host, facts, domains = self._host.figures(), self._facts, self._domains.values()
        allocated = sum(domain.memory_mib for domain in domains)
        lease = context.lease.generation() or 0
        identities = self._identities.of(lease)
        return NodeStatus(
            id=context.name,
            role="coordinator" if context.role == "coordinator" else "hypervisor",
            daemon=state.daemon,
            scheduling=state.scheduling,
            observed_generation=state.observed_generation,
            lease=lease,
            boot_id=host.boot_id,
            address=context.address,
            service_port=self._service_port,
            version=self._version,
            kernel=host.kernel,
            architecture=host.architecture,
            hypervisor=facts.version,
            accelerators=facts.accelerators,
            machine_types=facts.machine_types,
            cpus=facts.cpus,
            memory=self._limits.memory(facts, allocated),
            load1=round(host.load1, 2),
            running=tuple(sorted(domain.id for domain in domains if domain.state is not DomainState.INCOMING)),
            allocated_mib=allocated,
            allocated_vcpus=sum(domain.vcpus for domain in domains),
            plugins=context.drivers.status(),
            identities=identities,
            conditions=state.conditions,
            published=context.clock.wall(),
        )

    def _tell_facts(self, facts: HostFacts) -> None:
        """Say what of the host's facts a person should know of."""
        for name, why in facts.unusable.items() if self._emulation_is_bad else ():
            self._state.set_condition(
                f"Accelerator/{name}", ok=False, reason="Unusable", message=f"{name} does not work on this host: {why}"
            )
        for type_ in [c.type for c in self._state.conditions if c.type.startswith("Accelerator/")]:
            if type_.removeprefix("Accelerator/") not in facts.unusable:
                self._state.clear_condition(type_)
        if facts.foreign:
            message = (
                f"these guests are not PVC's, use this host's memory, and are left alone: {', '.join(facts.foreign)}"
            )
            self._state.set_condition("ForeignGuests", ok=True, reason="Present", message=message)
        else:
            self._state.clear_condition("ForeignGuests")
