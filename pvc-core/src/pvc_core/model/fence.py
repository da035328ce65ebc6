"""Fencing: how a node's death is brought about and proven, and the record of it.

A record is opened when a node's lease is lost, and stays, as the node's last, until the next loss.  It holds
everything a new primary needs to go on: the stage, the proofs, and which attempts were made.
"""

import enum
from typing import Annotated, Final, Literal

from msgspec import Meta

from pvc_core.model.base import Document, Value


class ProofKind(enum.StrEnum):
    """On what grounds a node is believed to run none of its guests any more."""

    POWER = "power-off-confirmed"
    """A fence driver switched the power off and read back that it is off."""
    STORAGE = "storage-blocked"
    """Storage drivers confirmed that the node cannot write any more: good for VMs on those pools only."""
    WATCHDOG = "watchdog-expired"
    """The node had declared an armed watchdog, and the time in which it must have fired has passed."""
    OPERATOR = "operator"
    """A person confirmed it."""


Means = Literal["power", "storage", "watchdog"]
"""A way to a proof that needs no person."""

MEANS: Final[dict[Means, ProofKind]] = {
    "power": ProofKind.POWER,
    "storage": ProofKind.STORAGE,
    "watchdog": ProofKind.WATCHDOG,
}


class Proof(Value, frozen=True, kw_only=True):
    """Evidence that a node can run (or, for ``STORAGE``, write) nothing."""

    kind: ProofKind
    evidence: str
    """What was done and read, one sentence."""
    by: str
    """The coordinator, or ``user@host``, that says so."""
    at: float = 0.0
    """Seconds since the epoch on that one's clock: for display only."""
    pools: tuple[str, ...] = ()
    """Ids of the pools that are blocked; ``STORAGE`` only."""


class FenceDevice(Value, frozen=True, kw_only=True):
    """A controller of a node's power, or of one of its power supplies."""

    driver: str
    """Name of a fence driver, such as ``ipmi``."""
    parameters: dict[str, str] = {}
    """As that driver documents them; secrets only as names of files on the coordinators."""


class FenceLevel(Value, frozen=True, kw_only=True):
    """Devices that must all confirm ``off``: two power supplies on two power strips are one level."""

    devices: Annotated[tuple[FenceDevice, ...], Meta(min_length=1)]


class FenceStage(enum.StrEnum):
    """How far a node's fencing has come."""

    SUSPECTED = "suspected"
    """Its lease is gone; it may come back within the grace time."""
    FENCING = "fencing"
    """A proof is being sought."""
    PROVEN = "proven"
    """There is a proof; VMs are being taken from the node and started elsewhere."""
    RECOVERED = "recovered"
    """Nothing of it is claimed any more that the proofs cover."""
    CANCELLED = "cancelled"
    """It came back before there was a proof: nothing was done to its VMs."""
    RETURNED = "returned"
    """It came back after a proof and has ended what it still ran."""


ACTIVE: Final = frozenset({FenceStage.SUSPECTED, FenceStage.FENCING, FenceStage.PROVEN, FenceStage.RECOVERED})
"""Stages in which the node is not back."""


class FenceEvent(Value, frozen=True, kw_only=True):
    """Something that happened in the course of a fencing."""

    at: float
    """Seconds since the epoch on the writer's clock: for display only."""
    by: str
    """The writer: a coordinator, the node itself, or ``user@host``."""
    stage: FenceStage
    message: str


class FenceAttempt(Value, frozen=True, kw_only=True):
    """One try to get a proof."""

    means: Literal["power", "storage"]
    level: int = 0
    """Number of the fence level, from 1; 0: storage."""
    ok: bool = False
    message: str
    at: float = 0.0
    """When it ended, seconds since the epoch: for display only."""
    took_s: float = 0.0


class VmRecovery(Value, frozen=True, kw_only=True):
    """A VM that was taken from the node."""

    vm: str
    name: str = ""
    outcome: Literal["freed", "handed-over", "not-restarted"]
    """``freed``: to be started elsewhere; ``handed-over``: a live migration had brought it to ``target``;
    ``not-restarted``: it should be stopped, or is not to be restarted."""
    target: str = ""
    proof: ProofKind
    at: float = 0.0


class StorageBlock(Value, frozen=True, kw_only=True):
    """Storage that is closed to a node, or may be: written before the driver is asked, so that none is forgotten."""

    driver: str
    lease: int
    """Generation of the lease that was lost."""
    identity: dict[str, str] = {}
    """What ``node_block`` was given; ``node_unblock`` gets the same, whatever the node reports by then."""
    pools: tuple[str, ...] = ()
    """Ids."""


class EarlierLoss(Value, frozen=True, kw_only=True):
    """What is kept of a loss when there is a further one."""

    lease: int
    stage: FenceStage
    """The last one of it."""
    proofs: tuple[ProofKind, ...] = ()
    vms: int = 0
    """Taken from the node."""
    opened: float = 0.0
    """Seconds since the epoch: for display only, as ``changed``."""
    changed: float = 0.0


class FenceRecord(Document, frozen=True, kw_only=True):
    """The course of one loss of a node."""

    node: str
    lease: int
    """Generation of the lease that was lost."""
    stage: FenceStage = FenceStage.SUSPECTED
    opened: float = 0.0
    """When the loss was seen, seconds since the epoch on the primary's clock: for display only."""
    changed: float = 0.0
    """When the stage was entered; for display only."""
    round: int = 0
    """Rounds through all means that brought no proof."""
    waits_for: str = ""
    """Why there is no proof yet, one sentence; empty: it is being sought, or not needed."""
    proofs: tuple[Proof, ...] = ()
    attempts: tuple[FenceAttempt, ...] = ()
    """The last ``KEPT``."""
    events: tuple[FenceEvent, ...] = ()
    """The first and the last ones, at most ``KEPT``."""
    vms: tuple[VmRecovery, ...] = ()
    drained: bool = False
    """The fencing took the node out of service; automatic return puts only such a node back."""
    dirty: bool = False
    """It may still have domains that it has lost the right to run: it ends them before it does anything else.
    Set with the first proof, cleared by the node, and taken over into the record of a further loss until then."""
    blocked: tuple[StorageBlock, ...] = ()
    """What the primary has to open to the node again; outlives the record as ``dirty`` does."""
    powered_on: str = ""
    """What came of switching it on again; empty: not tried."""
    earlier: tuple[EarlierLoss, ...] = ()
    """The losses before this one, newest first, at most ``EARLIER``."""

    def whole_node(self) -> Proof | None:
        """Return a proof that holds for everything on the node."""
        return next((proof for proof in self.proofs if proof.kind is not ProofKind.STORAGE), None)

    def proven_pools(self) -> frozenset[str]:
        """Return the ids of the pools that, as was proven after this loss, the node cannot write to."""
        return frozenset(pool for proof in self.proofs for pool in proof.pools)


def new_record(node: str, lease: int, before: FenceRecord | None, wall: float) -> FenceRecord:
    """Return the record of a further loss of a node, without events; the debts of the one before are taken over."""
    if before is None:
        return FenceRecord(node=node, lease=lease, opened=wall)
    in_short = EarlierLoss(
        lease=before.lease,
        stage=before.stage,
        proofs=tuple(proof.kind for proof in before.proofs),
        vms=len(before.vms),
        opened=before.opened,
        changed=before.changed,
    )
    return FenceRecord(
        node=node,
        lease=lease,
        opened=wall,
        drained=before.drained,
        dirty=before.dirty,
        blocked=before.blocked,
        earlier=(in_short, *before.earlier)[:EARLIER],
    )


EARLIER: Final = 10
"""So many earlier losses are kept in a record."""

KEPT: Final = 40
"""So many attempts and events are kept in a record."""


class DeviceHealth(Value, frozen=True, kw_only=True):
    """A fence device as a coordinator found it when it last asked."""

    level: int
    """Number of its level, from 1."""
    device: int
    """Number within its level, from 1."""
    driver: str
    power: Literal["on", "off", "unknown"]
    error: str = ""
    """Why it cannot be used; empty: it answers."""
    misleading: bool = False
    """It says off, with all others of its level, of a node that is alive: what it says proves nothing."""
    took_s: float = 0.0
    checked: float = 0.0
    """Seconds since the epoch on the coordinator's clock: for display only."""


class FenceHealth(Document, frozen=True, kw_only=True):
    """What one coordinator knows of all nodes' fence devices: one document, written when it changes."""

    coordinator: str
    nodes: dict[str, tuple[DeviceHealth, ...]] = {}
    lease_s: float = 10.0
    """Its ``timing.lease`` and ``timing.grace``: what it waits for before it fences."""
    grace_s: float = 5.0
    published: float = 0.0
