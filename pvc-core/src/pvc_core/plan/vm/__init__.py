"""What a node does next for one VM.

Invariant: a VM's domain executes on at most one node, and only on the holder of its claim; while the
claim's migration is in phase TRANSFER, UNCERTAIN or ARRIVED also on the migration's target, where libvirt's
own protocol lets at most one side execute.

It holds because of these rules, each of which is one compare-and-set of the claim or one local effect:

1. A node starts a domain only while it holds the claim.
2. The claim is taken only when nobody holds it, under our own valid lease.
3. It is given up only by its holder, after the domain is confirmed gone here, and not while the target may be
   executing the guest: then it goes to the target.
4. TRANSFER is recorded before libvirt is told to move the guest, and leaves that phase backwards only when
   the domain is confirmed to execute *here* with no transfer in progress, or to have ended otherwise than
   by migration.  A copy that is left paused here is asked about (UNCERTAIN) and never resumed: the target
   may have executed the guest for a while, so its memory is older than its disks.
5. A node that finds a domain without the claim (and is not the target of its transfer) ends the domain when
   another node holds the claim, and takes the claim when nobody does.

A VM whose spec says that its disks are being rolled back is not started, nor is its claim taken for that: the claim was
vacant when that was written, and a claim is taken only in a transaction that checks the spec that was read.

What holds of the disks and NICs of a running guest, and how they come and go, is in ``disks`` and ``nics``.

``decide`` is a pure function of a snapshot; it returns one action.  The reconciler carries it out and asks
again, so the death of the daemon between any two actions loses nothing: whatever is only in ``Memory`` is
allowed to be forgotten.
"""

from pvc_core.plan.vm.action import (
    AbortTransfer,
    Action,
    AdjustNic,
    Answer,
    AskTarget,
    BeginMigration,
    BeginTransfer,
    DestroyDomain,
    Detach,
    EndMigration,
    HandOver,
    Idle,
    LimitDisk,
    PlugController,
    PlugDisk,
    PlugNic,
    PrepareIncoming,
    ReleaseClaim,
    ReleaseDisks,
    ReleaseNics,
    RemoveDocuments,
    RenewClaim,
    RevertMove,
    SetStatus,
    ShutdownDomain,
    StartDomain,
    StartTransfer,
    TakeClaim,
    UnplugDisk,
    UnplugNic,
)
from pvc_core.plan.vm.decision import decide
from pvc_core.plan.vm.devices import UNPLUGGING, Kind, still_tried
from pvc_core.plan.vm.disks import DISKS, behind, recorded, released
from pvc_core.plan.vm.migration import LIVE_ATTEMPTS
from pvc_core.plan.vm.nics import NICS, behind_nics, recorded_nic, released_nics
from pvc_core.plan.vm.status import crashed, restart_pause
from pvc_core.plan.vm.view import DeviceTry, DomainView, Ended, GuestDisk, Limits, Memory, Snapshot

__all__ = [
    "DISKS",
    "LIVE_ATTEMPTS",
    "NICS",
    "UNPLUGGING",
    "AbortTransfer",
    "Action",
    "AdjustNic",
    "Answer",
    "AskTarget",
    "BeginMigration",
    "BeginTransfer",
    "DestroyDomain",
    "Detach",
    "DeviceTry",
    "DomainView",
    "EndMigration",
    "Ended",
    "GuestDisk",
    "HandOver",
    "Idle",
    "Kind",
    "LimitDisk",
    "Limits",
    "Memory",
    "PlugController",
    "PlugDisk",
    "PlugNic",
    "PrepareIncoming",
    "ReleaseClaim",
    "ReleaseDisks",
    "ReleaseNics",
    "RemoveDocuments",
    "RenewClaim",
    "RevertMove",
    "SetStatus",
    "ShutdownDomain",
    "Snapshot",
    "StartDomain",
    "StartTransfer",
    "TakeClaim",
    "UnplugDisk",
    "UnplugNic",
    "behind",
    "behind_nics",
    "crashed",
    "decide",
    "recorded",
    "recorded_nic",
    "released",
    "released_nics",
    "restart_pause",
    "still_tried",
]
