"""The fencer's calls that block: each in a thread of its own, at most one of each kind per node, nodes side by side.

What comes of a call is a function that says what to write, for the duty that takes it, with what is known by then.
"""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from pvc_core.model.errors import PvcError
from pvc_core.model.fence import FenceAttempt, FenceLevel, FenceRecord, Proof, ProofKind, StorageBlock
from pvc_core.node.context import NodeContext
from pvc_core.node.fence_calls import FenceCalls
from pvc_core.node.spare import why_spared
from pvc_core.node.storage_block import StorageFences
from pvc_core.node.tasks import Spawn
from pvc_core.plan import fencing as plan
from pvc_core.store import documents, keys

log = logging.getLogger(__name__)

Call = plan.CutPower | plan.BlockStorage | plan.SwitchOn | plan.OpenStorage
Reply = Callable[[plan.Situation, FenceRecord], plan.Write]


class Answer(NamedTuple):
    """What came of a call."""

    node: str
    lease: int
    """Of the record for which it was made."""
    call: plan.Call
    reply: Reply


class FenceJobs:
    """Makes the calls."""

    def __init__(self, context: NodeContext, calls: FenceCalls, storage: StorageFences, spawn: Spawn) -> None:
        self._context = context
        self._calls = calls
        self._storage = storage
        self._spawn = spawn
        self._lock = threading.Lock()
        self._answers: list[Answer] = []

    def begin(self, record: FenceRecord, levels: tuple[FenceLevel, ...], step: Call) -> plan.Call:
        """Begin a call for a node, and wake the duties when it has ended; returns its kind."""
        node, lease, blocked = record.node, record.lease, record.blocked
        call: plan.Call
        job: Callable[[], Reply]
        match step:
            case plan.CutPower(level):
                call, job = "power", lambda: self._cut_power(node, lease, level, levels[level - 1])
            case plan.BlockStorage():
                call, job = "storage", lambda: self._block_storage(node, lease, blocked)
            case plan.SwitchOn():
                call, job = "switch-on", lambda: self._switch_on(node, lease, levels)
            case plan.OpenStorage():
                call, job = "open-storage", lambda: self._open_storage(node, blocked)
        log.info("fence-call node=%s step=%s", node, step)
        self._spawn(f"fence-{node}-{call}", lambda: self._run(node, lease, call, job))
        return call

    def take(self) -> list[Answer]:
        """Return what came of the calls that have ended since the last time."""
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def _run(self, node: str, lease: int, call: plan.Call, job: Callable[[], Reply]) -> None:
        try:
            reply = job()
        except PvcError as error:
            reply = _failed(call, str(error))
        except Exception as error:
            # Whatever it was, the search goes on.
            log.exception("fence-call-defect node=%s call=%s", node, call)
            reply = _failed(call, f"{type(error).__name__}: {error}")
        with self._lock:
            self._answers.append(Answer(node, lease, call, reply))
        self._context.wake("duties", "", 0.0)

    def _cut_power(self, node: str, lease: int, number: int, level: FenceLevel) -> Reply:
        began = self._context.clock.monotonic()
        outcome = self._calls.off(node, level, unless=lambda: self._spared(node, lease, number))
        took = self._context.clock.monotonic() - began

        def reply(s: plan.Situation, record: FenceRecord) -> plan.Write:
            attempt = FenceAttempt(
                means="power", level=number, ok=outcome.ok, message=outcome.message, at=s.wall, took_s=round(took, 3)
            )
            said = f"fence level {number} was switched off and read back as off ({outcome.message})"
            proof = Proof(kind=ProofKind.POWER, evidence=said, by=s.me, at=s.wall) if outcome.ok else None
            return plan.answered(s, record, attempt, proof)

        return reply

    def _spared(self, node: str, lost: int, number: int) -> str:
        """Look once more, immediately before each device of a level is told to cut power; return why it is not, if so.

        Once there is another proof, whoever gave it may be switching the node on again.
        """
        health, fence = keys.fence_health(self._context.name), keys.fence(node)
        try:
            spared = why_spared(self._context, node, lost)
            found = self._context.store.get_many([health.path, fence.path])
        except PvcError as error:
            return f"not tried: whether the node is back cannot be asked ({error})"
        if spared:
            return f"not tried: {spared}"
        record = documents.maybe(fence, found[1])
        if record is not None and record.value.lease == lost and record.value.whole_node() is not None:
            return "not tried: it is proven dead already"
        mine = documents.maybe(health, found[0])
        devices = mine.value.nodes.get(node, ()) if mine is not None else ()
        if any(device.misleading for device in devices if device.level == number):
            return "not believed: it said off while the node was alive"
        return ""

    def _block_storage(self, node: str, lease: int, recorded: tuple[StorageBlock, ...]) -> Reply:
        """Find out what is to be closed, which goes into the record; have it closed when it stands there."""
        blocks = self._storage.plan(node, lease)
        if any(block not in recorded for block in blocks):
            return lambda s, record: plan.Write(plan.closing(record, blocks), search=s.search)
        began = self._context.clock.monotonic()
        proof, said = self._storage.close(node, lease, blocks)
        took = self._context.clock.monotonic() - began

        def reply(s: plan.Situation, record: FenceRecord) -> plan.Write:
            message = said or "all storage of its VMs is closed to it"
            attempt = FenceAttempt(
                means="storage", ok=proof is not None, message=message, at=s.wall, took_s=round(took, 3)
            )
            return plan.answered(s, record, attempt, proof)

        return reply

    def _switch_on(self, node: str, lease: int, levels: tuple[FenceLevel, ...]) -> Reply:
        def unless() -> str:
            # Somebody may be working on it: a machine in maintenance is not switched on under their hands.
            spared = why_spared(self._context, node, lease)
            return f"not tried: {spared}" if spared else ""

        messages = []
        for number, level in enumerate(levels, 1):
            outcome = self._calls.on(node, level, unless=unless)
            messages.append(f"level {number}: {outcome.message}")
            if outcome.ok:
                return lambda s, record: plan.switched_on(s, record, messages[-1], ok=True)
        return lambda s, record: plan.switched_on(s, record, "; ".join(messages), ok=False)

    def _open_storage(self, node: str, blocks: tuple[StorageBlock, ...]) -> Reply:
        error = self._storage.open(node, blocks)
        return lambda s, record: plan.opened(s, record, error)


def _failed(call: plan.Call, message: str) -> Reply:
    """Return the reply of a call that ended by a defect."""

    def reply(s: plan.Situation, record: FenceRecord) -> plan.Write:
        if call == "switch-on":
            return plan.switched_on(s, record, message, ok=False)
        if call == "open-storage":
            return plan.opened(s, record, message)
        attempt = FenceAttempt(means=call, level=s.search.level if call == "power" else 0, message=message, at=s.wall)
        return plan.answered(s, record, attempt, None)

    return reply
