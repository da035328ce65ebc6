"""What the primary does next about a node whose lease is lost.

Invariants:

1. *Proof before revocation.*  A claim is taken from a node only while its fence record, which names the very lease
   that was lost, holds a proof that covers the VM.  A proof rests on something done or read *after* that lease was
   lost: power that was read back as off, storage that was confirmed as closed, a watchdog's time that has passed on
   the observer's own clock, or a person's word.
2. *A node that is back is not touched.*  Every step is written in a transaction that checks that the node has no
   lease, and that its last lease still is the one of the record.  Once there is a new lease, what is left of the
   record is the node's own business (to end what it has lost) and that of opening its storage again.
3. *No silence.*  As long as there is no proof, the record says why, and the means are tried again for ever.

A node that gave its lease up, or that is in maintenance (alone or with the whole cluster), is left alone; only a
person's word still counts for it.

Everything that must survive the primary is in the record.  ``Search`` is what may be forgotten: a new primary then
asks the first level again, which is harmless, because switching off what is off is.
"""

from typing import Final, Literal, NamedTuple

from msgspec.structs import replace

from pvc_core.model.fence import (
    KEPT,
    FenceAttempt,
    FenceEvent,
    FenceLevel,
    FenceRecord,
    FenceStage,
    Means,
    Proof,
    ProofKind,
    StorageBlock,
    new_record,
)
from pvc_core.model.node import LeaseGeneration
from pvc_core.plan.backoff import backoff, least

_COLD: Final = "its host may still be starting: this one was started a short while ago too"
_BEFORE_PROOF: Final = (FenceStage.SUSPECTED, FenceStage.FENCING)


Call = Literal["power", "storage", "switch-on", "open-storage"]
"""What the primary has others do, in a thread of its own."""


class Limits(NamedTuple):
    """Durations in seconds, from the ``timing`` section."""

    grace_s: float
    retry_s: float
    retry_max_s: float


class Search(NamedTuple):
    """Where the primary is in the round through all means; forgotten with it."""

    level: int = 1
    """The next fence level to try."""
    storage_tried: bool = False
    in_flight: frozenset[Call] = frozenset()
    not_before: float = 0.0
    """When the next round begins, on the caller's monotonic clock."""
    failures: int = 0
    """Of switching the node on, or opening its storage, one after the other."""


class Situation(NamedTuple):
    """All that a decision rests on."""

    node: str
    me: str
    now: float
    """On the observer's monotonic clock."""
    wall: float
    """For display only."""
    last: LeaseGeneration
    leased: bool
    """The node has a lease."""
    lost_for: float
    """Seconds since this observer first saw that the lease ``last`` is gone; 0 while it stands."""
    cold_for: float
    """Seconds for which the node's host may still be starting, because all were switched on together."""
    maintenance: str
    """Why the node is left alone ("it is in maintenance"); empty: it is not."""
    heeded_for: float
    """Seconds since that ended; infinite: it was not left alone since it was lost."""
    recovery: tuple[Means, ...]
    levels: tuple[FenceLevel, ...]
    can_block: bool
    """Some storage driver can keep a node from writing."""
    record: FenceRecord | None
    search: Search
    limits: Limits
    drains: bool = False
    """The node's spec says that it is out of service."""
    power_on: bool = False
    """The cluster wants a fenced node switched on again."""
    put_back: bool = False
    """The cluster wants a node that was fenced put back into service."""
    uncovered: tuple[str, ...] = ()
    """Names of the VMs that the node still claims and that no proof so far covers; known once there is a proof."""


class Write(NamedTuple):
    """Write the record; ``stage`` tells that it entered this stage, and why."""

    record: FenceRecord
    told: str = ""
    search: Search | None = None


class CutPower(NamedTuple):
    """Have all devices of a level switched off; what comes of it goes to ``answered``."""

    level: int


class BlockStorage(NamedTuple):
    """Have the node's storage closed; what comes of it goes to ``answered``."""


class Revoke(NamedTuple):
    """Take the claims that the proofs cover from the node."""


class SwitchOn(NamedTuple):
    """Have the node switched on again; what comes of it goes to ``switched_on``."""


class OpenStorage(NamedTuple):
    """Have storage opened for the node that is back and clean; what comes of it goes to ``opened``."""


class PutBack(NamedTuple):
    """Put the node into service again; the record then does not say any more that the fencing took it out."""


class Wait(NamedTuple):
    """Nothing to do now; look again after so many seconds (None: when something changes)."""

    again_s: float | None = None


Step = Write | CutPower | BlockStorage | Revoke | SwitchOn | OpenStorage | PutBack | Wait

SWITCH_ON_TRIES: Final = 5

_NAMED: Final = 5
"""So many VMs are named in a message; more are counted."""
_LONGEST: Final = 1000
"""Characters of what a driver said, in a record."""


def decide(s: Situation) -> Step:
    """Return the next step for a node."""
    record = s.record
    if s.leased:
        return _back(s, record) if record is not None else Wait()
    if record is None or record.lease != s.last.generation:
        return _new_loss(s, record)
    if record.proofs:
        return _proven(s, record)
    if s.last.released:
        return Wait()
    if s.maintenance:
        return Wait() if record.waits_for == s.maintenance else Write(replace(record, waits_for=s.maintenance))
    # Also after maintenance: the node may be starting at this moment.
    grace_left = s.limits.grace_s - min(s.lost_for, s.heeded_for)
    if grace_left > 0:
        return Wait(grace_left)
    if record.stage is FenceStage.SUSPECTED and s.cold_for > 0:
        return Wait(s.cold_for) if record.waits_for == _COLD else Write(replace(record, waits_for=_COLD))
    if record.stage is FenceStage.SUSPECTED:
        why = f"its lease has been gone for {s.lost_for:.1f} s"
        return _enter(s, replace(record, waits_for=""), FenceStage.FENCING, why)
    return _seek(s, record)


def _back(s: Situation, record: FenceRecord) -> Step:
    """The node has a lease."""
    if s.search.in_flight:
        # What is under way may still cut its power: go on when that is known.
        return Wait()
    if record.stage in _BEFORE_PROOF:
        # Where storage may have been closed, the node has ended its guests by itself.
        done = "its guests start afresh" if record.blocked else "nothing was done to its VMs"
        return _enter(s, replace(record, waits_for=""), FenceStage.CANCELLED, f"it is back: {done}")
    if record.dirty:
        return Wait()
    if record.blocked:
        left = s.search.not_before - s.now
        return Wait(left) if left > 0 else OpenStorage()
    if record.drained and not s.drains:
        return Write(replace(record, drained=False))
    return PutBack() if record.drained and s.put_back else Wait()


def _new_loss(s: Situation, before: FenceRecord | None) -> Step:
    """The record, if there is one, is of an earlier lease."""
    if s.last.released or s.maintenance or not s.last.generation:
        if before is not None and before.stage in _BEFORE_PROOF:
            return _enter(s, before, FenceStage.CANCELLED, f"it was back with lease {s.last.generation}")
        return Wait()
    new = new_record(s.node, s.last.generation, before, s.wall)
    return _enter(s, new, FenceStage.SUSPECTED, f"its lease {s.last.generation} is gone")


def _proven(s: Situation, record: FenceRecord) -> Step:
    """Take its VMs; while some are not covered by the proof, go on looking for one that covers them."""
    if record.whole_node() is None and s.uncovered and not s.maintenance and not s.last.released:
        step = _seek(s, record)
        if not isinstance(step, Wait):
            return step
    switchable = any(proof.kind is ProofKind.POWER for proof in record.proofs) and s.levels and not record.powered_on
    done = record.stage is FenceStage.RECOVERED
    due = not s.maintenance and not s.search.in_flight and s.now >= s.search.not_before
    if s.power_on and done and switchable and due:
        return SwitchOn()
    return Revoke()


def _seek(s: Situation, record: FenceRecord) -> Step:
    """Look for a proof: the levels in their order, storage as soon as one level has failed, and the watchdog's time."""
    proof = _watchdog(s)
    if proof is not None:
        return _prove(s, record, proof)
    search = s.search
    if s.now < search.not_before:
        return Wait(least(search.not_before - s.now, _watchdog_left(s)))
    usable = "power" in s.recovery and bool(s.levels)
    if usable and "power" not in search.in_flight and search.level <= len(s.levels):
        return CutPower(search.level)
    power_failed = not usable or search.level > 1
    if power_failed and _may_block(s, record) and not search.storage_tried and "storage" not in search.in_flight:
        return BlockStorage()
    if search.in_flight:
        return Wait(_watchdog_left(s))
    pause = backoff(record.round + 1, s.limits.retry_s, s.limits.retry_max_s)
    ended = replace(record, round=record.round + 1, waits_for=_why_not(s, record))
    return Write(ended, search=Search(not_before=s.now + pause))


def _may_block(s: Situation, record: FenceRecord) -> bool:
    return "storage" in s.recovery and s.can_block and record.whole_node() is None


def _watchdog(s: Situation) -> Proof | None:
    declared = s.last.watchdog_down_s
    if "watchdog" not in s.recovery or not declared or s.lost_for < declared:
        return None
    return Proof(
        kind=ProofKind.WATCHDOG,
        evidence=f"its lease {s.last.generation} has been gone for {s.lost_for:.1f} s; the watchdog it had armed has "
        f"reset it after at most {declared:.1f} s",
        by=s.me,
        at=s.wall,
    )


def _watchdog_left(s: Situation) -> float | None:
    declared = s.last.watchdog_down_s
    return max(declared - s.lost_for, 0.0) if declared and "watchdog" in s.recovery else None


def _why_not(s: Situation, record: FenceRecord) -> str:
    """Return why there is no proof, means by means, in the order of the policy."""
    reasons: list[str] = []
    for means in s.recovery:
        if means == "power":
            last = {a.level: a for a in record.attempts if a.means == "power"}
            failed = [f"level {level}: {last[level].message}" for level in sorted(last) if not last[level].ok]
            reasons.append("power: " + ("; ".join(failed) if failed else _no_levels(s)))
        elif means == "storage":
            blocked = next((a.message for a in reversed(record.attempts) if a.means == "storage"), "")
            reasons.append("storage: " + (blocked or "no storage driver here can keep a node from writing"))
        else:
            left = _watchdog_left(s)
            armed = "it had armed none" if left is None else f"it has reset the node in {left:.0f} s at the latest"
            reasons.append(f"watchdog: {armed}")
    if not reasons:
        reasons.append("no means of recovery is allowed in this cluster: only an operator's word counts")
    if s.uncovered:
        reasons.insert(0, not_covered(s.uncovered))
    return "; ".join(reasons)


def not_covered(vms: tuple[str, ...]) -> str:
    """Return that no proof covers these VMs, so that they are not recovered."""
    more = f" and {len(vms) - _NAMED} more VMs" if len(vms) > _NAMED else ""
    return f"no proof covers {', '.join(vms[:_NAMED])}{more}"


def _no_levels(s: Situation) -> str:
    return "not tried yet" if s.levels else "no fence level is configured"


def _prove(s: Situation, record: FenceRecord, proof: Proof) -> Write:
    told = f"{proof.kind}: {proof.evidence}"
    return Write(with_event(with_proof(record, proof), FenceStage.PROVEN, told, s.me, s.wall), told=told)


# --- what came of a try ----------------------------------------------------------------------------------


def answered(s: Situation, record: FenceRecord, attempt: FenceAttempt, proof: Proof | None) -> Write:
    """Return what to write when a try has ended; ``proof`` is what it brought.

    Only for the record under which the try was begun (same lease), while the node has no lease.
    """
    attempt = replace(attempt, message=_clipped(attempt.message))
    noted = replace(record, attempts=(*record.attempts, attempt)[-KEPT:])
    if attempt.means == "storage":
        search = s.search._replace(storage_tried=True)
    else:
        search = s.search._replace(level=attempt.level + 1)
    # Storage is closed again in each round while some of it could not be: what is proven already is not said twice.
    if proof is not None and not (proof.kind is ProofKind.STORAGE and set(proof.pools) <= record.proven_pools()):
        return _prove(s, noted, replace(proof, evidence=_clipped(proof.evidence)))._replace(search=search)
    return Write(noted, search=search)


def switched_on(s: Situation, record: FenceRecord, message: str, *, ok: bool) -> Write:
    """Return what to write when switching on has ended: it is tried again some times, then left to a person."""
    failures = 0 if ok else s.search.failures + 1
    search = _later(s, failures)
    if not ok and failures < SWITCH_ON_TRIES:
        return Write(record, search=search)
    said = _clipped(f"switched on: {message}" if ok else f"could not be switched on: {message}")
    return Write(with_event(replace(record, powered_on=said), record.stage, said, s.me, s.wall), search=search)


def opened(s: Situation, record: FenceRecord, error: str) -> Write:
    """Return what to write when opening the storage has ended; with an error it is tried again for ever."""
    if error:
        why = _clipped(f"its storage cannot be opened again: {error}")
        return Write(replace(record, waits_for=why), search=_later(s, s.search.failures + 1))
    freed = replace(record, blocked=(), waits_for="")
    return Write(with_event(freed, record.stage, "its storage is open again", s.me, s.wall), search=_later(s, 0))


def _clipped(text: str) -> str:
    """Return what a driver said, as far as a record takes it: with many long words it could not be written any more."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _later(s: Situation, failures: int) -> Search:
    pause = backoff(failures, s.limits.retry_s, s.limits.retry_max_s) if failures else 0.0
    return s.search._replace(failures=failures, not_before=s.now + pause)


# --- pieces of records -----------------------------------------------------------------------------------


def with_event(record: FenceRecord, stage: FenceStage, message: str, by: str, at: float) -> FenceRecord:
    """Return the record in a stage, with the event that led there; the first events and the last ones are kept."""
    events = (*record.events, FenceEvent(at=at, by=by, stage=stage, message=message))
    if len(events) > KEPT:
        events = (*events[: KEPT // 2], *events[-(KEPT - KEPT // 2) :])
    return replace(record, stage=stage, events=events, changed=at if stage is not record.stage else record.changed)


def with_proof(record: FenceRecord, proof: Proof) -> FenceRecord:
    """Return the record with one more proof; the node then owes a clean-up when it returns."""
    return replace(record, proofs=(*record.proofs, proof), dirty=True, waits_for="")


def closing(record: FenceRecord, blocks: tuple[StorageBlock, ...]) -> FenceRecord:
    """Return the record that says what is about to be closed to the node: written before any driver is asked.

    So what a primary that died meanwhile has closed, or a driver that did not answer, is opened again too, and the
    node's guests, whose writes may have failed, are ended when it returns.
    """
    return replace(
        record, dirty=True, blocked=(*record.blocked, *(block for block in blocks if block not in record.blocked))
    )


def _enter(s: Situation, record: FenceRecord, stage: FenceStage, message: str) -> Write:
    return Write(with_event(record, stage, message, s.me, s.wall), told=message)
