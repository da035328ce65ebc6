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

``decide`` is a pure function of a snapshot; it returns one action.  The reconciler carries it out and asks
again, so the death of the daemon between any two actions loses nothing: whatever is only in ``Memory`` is
allowed to be forgotten.
"""

from pvc_core.plan.vm.action import (
    AbortTransfer,
    Action,
    Answer,
    AskTarget,
    BeginMigration,
    BeginTransfer,
    DestroyDomain,
    Detach,
    EndMigration,
    HandOver,
    Idle,
    PrepareIncoming,
    ReleaseClaim,
    RemoveDocuments,
    RenewClaim,
    RevertMove,
    SetStatus,
    ShutdownDomain,
    StartDomain,
    StartTransfer,
    TakeClaim,
)
from pvc_core.plan.vm.decision import decide
from pvc_core.plan.vm.migration import LIVE_ATTEMPTS
from pvc_core.plan.vm.status import crashed, restart_pause
from pvc_core.plan.vm.view import DomainView, Ended, Limits, Memory, Snapshot

__all__ = [
    "LIVE_ATTEMPTS",
    "AbortTransfer",
    "Action",
    "Answer",
    "AskTarget",
    "BeginMigration",
    "BeginTransfer",
    "DestroyDomain",
    "Detach",
    "DomainView",
    "EndMigration",
    "Ended",
    "HandOver",
    "Idle",
    "Limits",
    "Memory",
    "PrepareIncoming",
    "ReleaseClaim",
    "RemoveDocuments",
    "RenewClaim",
    "RevertMove",
    "SetStatus",
    "ShutdownDomain",
    "Snapshot",
    "StartDomain",
    "StartTransfer",
    "TakeClaim",
    "crashed",
    "decide",
    "restart_pause",
]
