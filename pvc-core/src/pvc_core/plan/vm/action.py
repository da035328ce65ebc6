"""What a node may do next for a VM: each is one compare-and-set of a document, or one local effect."""

from pvc_core.model.base import Value
from pvc_core.model.disk import Disk
from pvc_core.model.vm import MigrationPhase, Nic, VmStatus


class Idle(Value, frozen=True, kw_only=True):
    """Nothing to do; ``again_s``: look again after this long without any event."""

    again_s: float | None = None


class TakeClaim(Value, frozen=True, kw_only=True):
    """Take the vacant claim.  ``adopt``: the domain is here already, wherever the spec places it."""

    adopt: bool = False


class RenewClaim(Value, frozen=True, kw_only=True):
    """Write our new lease's generation into the claim we hold."""


class ReleaseClaim(Value, frozen=True, kw_only=True):
    """Give the claim up: the domain is confirmed gone."""


class StartDomain(Value, frozen=True, kw_only=True):
    """Attach disks and NICs and start the domain."""


class ShutdownDomain(Value, frozen=True, kw_only=True):
    """Ask the guest to shut down."""


class DestroyDomain(Value, frozen=True, kw_only=True):
    """Cut the domain's power."""

    why: str


class Detach(Value, frozen=True, kw_only=True):
    """Release the disks and NICs of the VM on this node."""


class PlugController(Value, frozen=True, kw_only=True):
    """Give the guest the controller for SCSI that this disk needs."""

    volume: str


class PlugDisk(Value, frozen=True, kw_only=True):
    """Attach a disk and plug it into the running guest."""

    disk: Disk
    target: str


class UnplugDisk(Value, frozen=True, kw_only=True):
    """Ask the guest to let go of a disk."""

    volume: str
    target: str


class LimitDisk(Value, frozen=True, kw_only=True):
    """Have the running guest's disk keep these limits, and say so in the status."""

    disk: Disk
    """As it was given to the guest, with its new limits."""
    target: str


class ReleaseDisks(Value, frozen=True, kw_only=True):
    """Take disks from the VM that no guest of it has any more: their volumes are free."""

    volumes: tuple[str, ...]


class PlugNic(Value, frozen=True, kw_only=True):
    """Attach a NIC and plug it into the running guest."""

    nic: Nic


class UnplugNic(Value, frozen=True, kw_only=True):
    """Ask the guest to let go of a NIC."""

    nic: Nic


class AdjustNic(Value, frozen=True, kw_only=True):
    """Have the running guest's NIC get these addresses, limits and this state of its link, and say so in the status."""

    nic: Nic
    """As it was given to the guest, with what is wanted of these now."""


class ReleaseNics(Value, frozen=True, kw_only=True):
    """Take NICs from the VM that no guest of it has any more: their MAC addresses and networks are free."""

    macs: tuple[str, ...]


class BeginMigration(Value, frozen=True, kw_only=True):
    """Record a new attempt, phase PREPARE."""

    target: str


class PrepareIncoming(Value, frozen=True, kw_only=True):
    """Attach disks and NICs for a guest that is to come."""

    attempt: str


class Answer(Value, frozen=True, kw_only=True):
    """As target: enter READY, REFUSED or ARRIVED."""

    phase: MigrationPhase
    message: str = ""


class BeginTransfer(Value, frozen=True, kw_only=True):
    """Enter TRANSFER: from now on the target may have the guest."""


class AskTarget(Value, frozen=True, kw_only=True):
    """Enter UNCERTAIN."""


class StartTransfer(Value, frozen=True, kw_only=True):
    """Tell libvirt to move the guest."""

    target_address: str
    admission: str
    attempt: str


class AbortTransfer(Value, frozen=True, kw_only=True):
    """Tell libvirt to stop moving the guest."""

    attempt: str
    why: str


class HandOver(Value, frozen=True, kw_only=True):
    """Give the claim to the target of the transfer: the domain is confirmed gone here."""


class EndMigration(Value, frozen=True, kw_only=True):
    """Remove the migration from the claim we keep; ``failed`` counts it against the move."""

    failed: bool
    message: str


class RevertMove(Value, frozen=True, kw_only=True):
    """Place the VM here again: the move is given up."""

    why: str


class SetStatus(Value, frozen=True, kw_only=True):
    """Write the VM's status; ``backoff_s``: remember not to start it sooner."""

    status: VmStatus
    backoff_s: float | None = None
    forget_arrival: bool = False


class RemoveDocuments(Value, frozen=True, kw_only=True):
    """The VM is gone: remove all its documents."""


Action = (
    Idle
    | TakeClaim
    | RenewClaim
    | ReleaseClaim
    | StartDomain
    | ShutdownDomain
    | DestroyDomain
    | Detach
    | PlugController
    | PlugDisk
    | UnplugDisk
    | LimitDisk
    | ReleaseDisks
    | PlugNic
    | UnplugNic
    | AdjustNic
    | ReleaseNics
    | BeginMigration
    | PrepareIncoming
    | Answer
    | BeginTransfer
    | AskTarget
    | StartTransfer
    | AbortTransfer
    | HandOver
    | EndMigration
    | RevertMove
    | SetStatus
    | RemoveDocuments
)
