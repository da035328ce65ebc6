"""What a hypervisor must do.

Domains are transient: nothing of a guest is left on the node when it has ended, so a stale definition
can neither start by itself nor stop a later migration.  Calls return when their effect is there, but
for ``shutdown`` (asks the guest) and ``migrate`` (starts a job): their progress is seen in ``domain``.
All methods may be called from any thread.
"""

import enum
from collections.abc import Callable
from typing import Protocol

import msgspec

from pvc_core.model.disk import DiskLimits
from pvc_core.model.errors import PvcError
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import NicLimits, VmSpec
from pvc_core.plugin.specs.network import NicSource
from pvc_core.plugin.specs.storage import DiskSource


class HypervisorError(PvcError):
    """The hypervisor refused or failed."""


class HypervisorUnavailable(HypervisorError):
    """The hypervisor cannot be reached; guests may well be running."""


class AgentUnavailable(HypervisorError):
    """The guest has no agent, or its agent does not answer."""


class DomainState(enum.StrEnum):
    """State of a domain that exists on this node; one that does not exist has none."""

    RUNNING = "running"
    PAUSED = "paused"
    INCOMING = "incoming"
    """The target half of a live migration: not executing yet."""


class JobState(enum.StrEnum):
    """State of an outgoing migration."""

    ACTIVE = "active"
    FAILED = "failed"
    """It ended and the domain is still here."""


class MigrationJob(msgspec.Struct, frozen=True, kw_only=True):
    """An outgoing live migration as the hypervisor of the source sees it."""

    state: JobState
    progress: float = 0.0
    error: str = ""


class DomainDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that a domain has now."""

    target: str
    """Its name in libvirt, such as vda."""
    bus: str = ""
    volume: str | None = ""
    """As ``pool/volume``; empty: it is none of the VM's disks (its overlay's); None: one of them, unknown which."""


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain on this node."""

    id: str
    name: str
    state: DomainState
    memory_mib: int = 0
    vcpus: int = 0
    job: MigrationJob | None = None
    accelerator: str = ""
    vnc: str = ""
    running_for_s: float = 0.0
    note: str = ""
    """What ``set_note`` left here."""
    disks: tuple[DomainDisk, ...] = ()
    """Those it was started with in the order of the VM's, then those that were plugged in later."""
    controllers: frozenset[str] = frozenset()
    """Kinds of those controllers that a disk may need before it is plugged in: scsi, usb."""
    nics: tuple[str, ...] = ()
    """MAC addresses of the NICs that it has now, also of those that its overlay brought."""


class ExitReason(enum.StrEnum):
    """Why a domain ended, as far as this node knows."""

    SHUTDOWN = "shutdown"
    """The guest shut itself down."""
    DESTROYED = "destroyed"
    """Somebody cut its power through the hypervisor."""
    CRASHED = "crashed"
    """The guest's processor or its emulator failed."""
    FAILED = "failed"
    """It never executed here: its start, or its migration to here, failed."""
    MIGRATED = "migrated"
    """A live migration away from here was completed: libvirt confirmed that the target runs it."""
    UNKNOWN = "unknown"
    """It ended while nobody was watching."""


class MigrationStats(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a completed incoming migration."""

    downtime_ms: int | None = None
    total_ms: int | None = None


class DomainPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to start a domain."""

    vm: VmSpec
    disks: tuple[DiskSource, ...]
    """One for each of the VM's disks, in order."""
    nics: tuple[NicSource, ...]
    cpu_model: str = ""
    """The cluster's default, for a VM that names none; empty too: the hypervisor's choice."""
    machine: str = ""
    """Machine type to use instead of the VM's alias, such as the newest that all nodes have (``pc-q35-7.2``)."""
    console_log: str = ""
    """File the serial console is appended to."""


class MigrationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a live migration is done."""

    target_address: str
    admission: str
    """What the target's ``admit`` returned: it takes no other guest."""
    max_downtime_ms: int = 300
    unsafe: bool = False
    """The storage drivers vouch that the disks are shared, though libvirt cannot see it."""
    auto_converge: bool = True


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the hypervisor says of its host."""

    cpus: int
    memory_mib: int
    free_mib: int
    version: str
    accelerators: tuple[str, ...] = ()
    machine_types: tuple[str, ...] = ()
    unusable: dict[str, str] = {}
    """Accelerators that do not work here -> why."""
    foreign: tuple[str, ...] = ()
    """Names of running domains that are not PVC's: they use the host's memory, and PVC leaves them alone."""


class Console(Protocol):
    """A guest's serial console, both ways."""

    def read(self) -> bytes:
        """Return what the guest wrote; blocks; empty at the end."""

    def write(self, data: bytes) -> None:
        """Send to the guest."""

    def close(self) -> None:
        """End; may be called twice and from another thread, where it ends a blocked read."""


DomainCallback = Callable[[str], None]
"""Gets the id of a VM whose domain appeared, ended or changed.  Must return at once."""


class Hypervisor(Protocol):
    """The hypervisor of one node."""

    def facts(self) -> HostFacts:
        """Return the host's facts now."""

    def domains(self) -> dict[str, Domain]:
        """Return all domains here by VM id; raises HypervisorUnavailable rather than return too few."""

    def domain(self, vm: str) -> Domain | None:
        """Return one domain, None when it is confirmed not to be here; raises HypervisorUnavailable."""

    def exit_reason(self, vm: str) -> ExitReason:
        """Return why the VM's domain last ended here; UNKNOWN also when this process did not see it."""

    def start(self, plan: DomainPlan) -> None:
        """Start a domain; raises HypervisorError with the hypervisor's own words."""

    def shutdown(self, vm: str) -> None:
        """Ask the guest to shut down (ACPI); returns at once; asked again it asks again."""

    def destroy(self, vm: str) -> None:
        """Cut a domain's power, and return when it is confirmed gone; absent is success."""

    def admit(self, vm: str, attempt: str, console_log: str) -> str:
        """Let a guest come to this host, once; returns what its source must give as ``MigrationOptions.admission``.

        It is forgotten when the host starts anew, with another ``attempt`` of this VM, and by ``dismiss``.  So no guest
        comes to a host that has lost its power since it agreed, though its lease may stand for a while: whoever
        proves such a lease's end knows nothing of what the host does since.  ``console_log``: as in ``DomainPlan``.
        """

    def dismiss(self, vm: str) -> None:
        """Let a guest that is not here come no more."""

    def migrate(self, vm: str, options: MigrationOptions) -> None:
        """Begin to move a running domain, memory and all; progress is in ``Domain.job``.

        The domain ends here (reason MIGRATED) only when the target is confirmed to run it.  A failed job
        stays visible in ``Domain.job`` until ``forget_job``, or until another is begun.
        """

    def abort_migration(self, vm: str) -> None:
        """Ask an outgoing migration to stop; no job is success."""

    def forget_job(self, vm: str) -> None:
        """Drop the record of a failed job."""

    def migration_stats(self, vm: str) -> MigrationStats:
        """Return the figures of the migration that brought this domain here."""

    def set_note(self, vm: str, note: str) -> None:
        """Leave a word with a domain for whoever comes after this process; empty: take it away.  Ends with the domain."""

    def pause(self, vm: str) -> None:
        """Stop the processors of a running domain, until ``resume``; paused already is success.

        When it returns, all that the guest had begun to write is written and flushed: QEMU drains and flushes all block
        devices when it stops a guest (``do_vm_stop`` in ``softmmu/cpus.c`` of QEMU 7.2), except for those whose cache mode
        is ``unsafe``.  So it takes as long as the storage does.
        """

    def resume(self, vm: str) -> None:
        """Let a domain that ``pause`` stopped go on; one that runs is success.

        Raises HypervisorError for one that stands still for another reason: a migration, an error of its disks.
        """

    def freeze(self, vm: str, deadline_s: float) -> int:
        """Have the guest agent flush and freeze all file systems; return how many.

        Raises AgentUnavailable when nobody answers, and nothing is frozen then; HypervisorError when the agent could not, or
        did not say so in time: some may be frozen, so ``thaw``.
        """

    def thaw(self, vm: str, deadline_s: float) -> None:
        """Have the guest agent thaw all file systems; not frozen is success.  Raises AgentUnavailable, HypervisorError."""

    def usage(self) -> dict[str, GuestUsage]:
        """Return the figures of all domains here."""

    def attach_device(self, vm: str, xml: str) -> None:
        """Plug a device into a running domain."""

    def detach_device(self, vm: str, xml: str) -> None:
        """Ask the guest to let go of a device; returns at once; asked again it asks again; absent is success.

        The device is gone when the domain has it no more, of which ``watch`` tells: a guest may take its time, or keep
        it for ever.  ``xml`` needs no more than the device's kind and its target, MAC address or alias.
        """

    def resize_disk(self, vm: str, target: str, size_bytes: int) -> None:
        """Tell a running domain the new size of a disk."""

    def limit_disk(self, vm: str, target: str, limits: DiskLimits) -> None:
        """Give a running domain's disk these limits in place of those it has."""

    def limit_nic(self, vm: str, mac: str, limits: NicLimits) -> None:
        """Give a running domain's NIC these limits in place of those it has."""

    def set_link(self, vm: str, mac: str, *, up: bool) -> None:
        """Plug the cable of a running domain's NIC in, or pull it out; as it is already is success."""

    def console(self, vm: str) -> Console:
        """Open the serial console; another client's connection is ended."""

    def watch(self, callback: DomainCallback) -> None:
        """Report every later change of a domain."""

    def close(self) -> None:
        """Let go of the hypervisor; guests go on."""
