"""The primary's duty to fence lost nodes and to free their VMs.

``plan.fencing`` decides; this carries its steps out.  What blocks (calls of fence and storage drivers) runs in
threads (``fence_jobs``); what comes of it is put on a list, and the duty is woken to write it down.  Nothing but the record is believed: an answer that comes too late (the node is back, or lost
another lease since) is dropped.
"""

import logging
import math
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import Conflict, PvcError
from pvc_core.model.fence import FenceRecord, FenceStage
from pvc_core.model.node import LeaseGeneration, NodeSpec
from pvc_core.node.context import NodeContext
from pvc_core.node.fence_jobs import Answer, Call, FenceJobs
from pvc_core.node.revoker import Revoker
from pvc_core.node.storage_block import StorageFences
from pvc_core.node.watch import Gone, Watch
from pvc_core.plan import fencing as plan
from pvc_core.plan.backoff import least
from pvc_core.store import documents, keys
from pvc_core.store.api import Check, CheckAbsent, Operation, StoreUnavailable
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

Guard = tuple[Operation, ...]

_STEPS: Final = 20
"""Of one node in one go; a bound against a plan that never waits."""
_AGAIN_S: Final = 0.2
"""After somebody else changed a document between our read and our write."""


class _Facts(NamedTuple):
    """One node, as read."""

    spec: Entry[NodeSpec]
    last: Entry[LeaseGeneration]
    record: Entry[FenceRecord] | None
    gone: Gone | None
    cluster: Cluster


class Fencer:
    """Duty: everything about nodes that have lost their lease, and about those that come back."""

    def __init__(self, context: NodeContext, watch: Watch, jobs: FenceJobs, storage: StorageFences) -> None:
        self._context = context
        self._watch = watch
        self._jobs = jobs
        self._storage = storage
        self._revoker = Revoker(context)
        timing = context.timing
        self._limits = plan.Limits(timing.grace, timing.fence_retry, timing.fence_retry_max)
        self._searches: dict[str, tuple[int, plan.Search]] = {}
        """Node -> (lease, where the search for a proof is)."""
        self._uncovered: dict[str, tuple[str, ...]] = {}
        self._heeded: dict[str, float] = {}
        """Node that is lost -> until when it was left alone, on the monotonic clock; infinite: it still is."""

    def __call__(self, guard: Guard) -> float | None:
        """Do everything that can be done now; returns the seconds until there is more."""
        answers = self._take_answers()
        self._revoker.begin()
        pauses: list[float | None] = []
        for node, facts in self._read().items():
            try:
                pause = self._node(node, facts, [a for a in answers if a.node == node], guard)
            except Conflict as error:
                log.debug("fence-conflict node=%s error=%s", node, error)
                pause = _AGAIN_S
            except StoreUnavailable:
                raise
            except PvcError as error:
                # Trouble with one node must not cost the others their fencing, nor what their devices answered.
                log.warning("fence-failed node=%s error=%s", node, error)
                pause = self._limits.retry_s
            pauses.append(pause)
        return least(*pauses)

    # --- what is known ------------------------------------------------------------------------------

    def _read(self) -> dict[str, _Facts]:
        """Return the nodes that are gone, and those that have a record."""
        store, gone = self._context.store, self._watch.gone()
        members, recorded = map(set, store.children_many([f"{keys.SPEC}/node", keys.FENCE]))
        nodes = sorted(members & (set(gone) | recorded))
        for node in set(self._searches) - set(nodes):
            self._forget(node)
        if not nodes:
            return {}
        cluster = documents.read(store, keys.CLUSTER)
        specs = {e.value.id: e for e in documents.read_all(store, [keys.node_spec(node) for node in nodes])}
        lasts = {e.value.node: e for e in documents.read_all(store, [keys.generation(node) for node in nodes])}
        records = {e.value.node: e for e in documents.read_all(store, [keys.fence(node) for node in nodes])}
        found = {}
        for node in nodes:
            if node not in specs or node not in lasts or (node in recorded and node not in records):
                continue  # absent, or cannot be read: that was told
            seen = gone.get(node)
            if seen is not None and seen.last.version != lasts[node].version:
                continue  # it was back since the look at the leases: there will be another
            found[node] = _Facts(
                specs[node], lasts[node], records.get(node), seen, cluster.value if cluster is not None else Cluster()
            )
        return found

    def _situation(self, node: str, facts: _Facts, record: Entry[FenceRecord] | None) -> plan.Situation:
        now, last = self._context.clock.monotonic(), facts.last.value
        spec, cluster = facts.spec.value, facts.cluster
        maintenance = "the node is in maintenance" if spec.maintenance else ""
        if cluster.maintenance:
            maintenance = "the cluster is in maintenance"
        if facts.gone is None:
            self._heeded.pop(node, None)
        elif maintenance:
            self._heeded[node] = math.inf
        elif self._heeded.get(node) == math.inf:
            self._heeded[node] = now
        return plan.Situation(
            node=node,
            me=self._context.name,
            now=now,
            wall=self._context.clock.wall(),
            last=last,
            leased=facts.gone is None,
            lost_for=now - facts.gone.since if facts.gone is not None else 0.0,
            cold_for=max(facts.gone.cold_until - now, 0.0) if facts.gone is not None else 0.0,
            maintenance=maintenance,
            heeded_for=now - self._heeded.get(node, -math.inf),
            recovery=cluster.recovery,
            levels=spec.fence_levels,
            can_block=self._storage.possible(),
            record=record.value if record is not None else None,
            search=self._search(node, record.value.lease if record is not None else 0),
            limits=self._limits,
            drains=spec.scheduling == "drain",
            power_on=cluster.power_on_after_fence,
            put_back=cluster.return_after_fence,
            uncovered=self._uncovered.get(node, ()),
        )

    def _search(self, node: str, lease: int) -> plan.Search:
        known = self._searches.get(node)
        return known[1] if known is not None and known[0] == lease else plan.Search()

    def _forget(self, node: str) -> None:
        self._searches.pop(node, None)
        self._uncovered.pop(node, None)
        self._heeded.pop(node, None)

    # --- one node -----------------------------------------------------------------------------------

    def _node(self, node: str, facts: _Facts, answers: list[Answer], guard: Guard) -> float | None:
        """Do the steps that can be done at once; returns the seconds until there is another."""
        record = facts.record
        for answer in answers:
            record = self._note(node, facts, record, answer, guard)
        for _ in range(_STEPS):
            situation = self._situation(node, facts, record)
            step = plan.decide(situation)
            match step:
                case plan.Write():
                    record = self._write(facts, record, step, guard)
                case plan.Wait():
                    return step.again_s
                case plan.Revoke() if record is not None:
                    swept = self._revoke(facts, record, guard)
                    if swept is None:
                        return self._context.timing.resync
                    record, again_s = swept
                    if again_s is not None:
                        return again_s
                case plan.PutBack() if record is not None:
                    self._put_back(facts, record, guard)
                    return _AGAIN_S
                case plan.CutPower() | plan.BlockStorage() | plan.SwitchOn() | plan.OpenStorage() if record is not None:
                    self._begin(node, facts, record.value, step)
                case _:
                    raise AssertionError(f"{step} without a record")
        log.error("fence-steps-without-end node=%s stage=%s", node, record.value.stage if record is not None else "")
        return self._context.timing.fence_retry

    def _checks(self, facts: _Facts, guard: Guard) -> Guard:
        """Return what every write about a node checks: its lease is as we saw it, and we are the primary."""
        lease = keys.lease(facts.spec.value.id).path
        standing: Operation = Check(lease) if facts.gone is None else CheckAbsent(lease)
        return standing, Check(facts.last.key.path, facts.last.version), *guard

    def _write(
        self, facts: _Facts, before: Entry[FenceRecord] | None, step: plan.Write, guard: Guard
    ) -> Entry[FenceRecord]:
        new, old = step.record, before.value if before is not None else None
        if before is not None and new == old:
            self._remember(step)
            return before
        key = keys.fence(new.node)
        if before is None:
            self._context.store.commit(documents.create(key, new), *self._checks(facts, guard))
            after = Entry(key, new, 0, documents.encode(new))
        else:
            self._context.store.commit(before.put(new), *self._checks(facts, guard))
            after = before._replace(value=new, version=before.version + 1)
        # Not before it is written: after a conflict the search goes on from where it was.
        self._remember(step)
        if step.told:
            self._tell(new, step.told)
        if new.proofs and not (old is not None and old.lease == new.lease and old.proofs):
            self._context.drivers.notify("node_fenced", node=new.node, proof=new.proofs[0].kind.value)
        if new.waits_for and new.waits_for != (old.waits_for if old is not None else ""):
            log.warning("fence-waits node=%s round=%d reason=%r", new.node, new.round, new.waits_for)
        return after

    def _remember(self, step: plan.Write) -> None:
        if step.search is not None:
            self._searches[step.record.node] = (step.record.lease, step.search)

    def _tell(self, record: FenceRecord, message: str) -> None:
        log.warning("fence node=%s lease=%d stage=%s message=%r", record.node, record.lease, record.stage, message)
        self._context.drivers.notify("fence_stage", node=record.node, stage=record.stage.value, message=message)

    def _revoke(
        self, facts: _Facts, before: Entry[FenceRecord], guard: Guard
    ) -> tuple[Entry[FenceRecord], float | None] | None:
        """Free the node's VMs; returns the record and when to look again, or None when all is done."""
        node, checks = facts.spec.value.id, self._checks(facts, guard)
        entry = self._take_out_of_service(facts, before, checks)
        swept = self._revoker.sweep(entry, checks)
        known, self._uncovered[node] = self._uncovered.get(node, ()), swept.uncovered
        entry, timing = swept.record, self._context.timing
        if swept.uncovered:
            why = f"{plan.not_covered(swept.uncovered)}: their disks are not all on storage that was closed"
            if entry.value.whole_node() is None and entry.value.waits_for == "":
                entry = self._write(facts, entry, plan.Write(replace(entry.value, waits_for=why)), guard)
            return entry, None if not known else timing.publish
        if swept.pending:
            return entry, timing.fence_retry
        if entry.value.stage is not FenceStage.RECOVERED:
            told = _summary(entry.value)
            done = plan.with_event(
                replace(entry.value, waits_for=""),
                FenceStage.RECOVERED,
                told,
                self._context.name,
                self._context.clock.wall(),
            )
            return self._write(facts, entry, plan.Write(done, told=told), guard), None
        return None

    def _take_out_of_service(self, facts: _Facts, entry: Entry[FenceRecord], checks: Guard) -> Entry[FenceRecord]:
        spec = facts.spec
        if entry.value.stage is not FenceStage.PROVEN or spec.value.scheduling == "drain" or entry.value.drained:
            return entry
        drained = replace(spec.value, scheduling="drain", generation=spec.value.generation + 1)
        record = replace(entry.value, drained=True)
        self._context.store.commit(spec.put(drained), entry.put(record), *checks)
        log.warning("node-out-of-service node=%s reason=fenced", record.node)
        return entry._replace(value=record, version=entry.version + 1)

    def _put_back(self, facts: _Facts, entry: Entry[FenceRecord], guard: Guard) -> None:
        spec, me = facts.spec, self._context.name
        ready = replace(spec.value, scheduling="ready", generation=spec.value.generation + 1)
        told = "it is put back into service"
        record = plan.with_event(
            replace(entry.value, drained=False), entry.value.stage, told, me, self._context.clock.wall()
        )
        self._context.store.commit(spec.put(ready), entry.put(record), *self._checks(facts, guard))
        self._tell(record, told)

    # --- calls that block ---------------------------------------------------------------------------

    def _begin(self, node: str, facts: _Facts, record: FenceRecord, step: Call) -> None:
        kind = self._jobs.begin(record, facts.spec.value.fence_levels, step)
        search = self._search(node, record.lease)
        self._searches[node] = (record.lease, search._replace(in_flight=search.in_flight | {kind}))

    def _take_answers(self) -> list[Answer]:
        answers = self._jobs.take()
        for answer in answers:
            known = self._searches.get(answer.node)
            if known is not None and known[0] == answer.lease:
                search = known[1]._replace(in_flight=known[1].in_flight - {answer.call})
                self._searches[answer.node] = (answer.lease, search)
        return answers

    def _note(
        self, node: str, facts: _Facts, record: Entry[FenceRecord] | None, answer: Answer, guard: Guard
    ) -> Entry[FenceRecord] | None:
        """Write down what came of a call, if the record for which it was made still stands."""
        about_return = answer.call == "open-storage"
        if record is None or record.value.lease != answer.lease or about_return is (facts.gone is not None):
            log.warning("fence-answer-dropped node=%s call=%s reason=the-node-was-back", node, answer.call)
            return record
        situation = self._situation(node, facts, record)
        if not about_return and record.value.lease != situation.last.generation:
            log.warning("fence-answer-dropped node=%s call=%s reason=another-lease-was-lost", node, answer.call)
            return record
        return self._write(facts, record, answer.reply(situation, record.value), guard)


def _summary(record: FenceRecord) -> str:
    """Return one sentence on what became of the node's VMs."""
    words = {
        "freed": "free to be started elsewhere",
        "handed-over": "migrated in time",
        "not-restarted": "left stopped",
    }
    counts = {outcome: sum(vm.outcome == outcome for vm in record.vms) for outcome in words}
    told = [f"{counts[outcome]} {said}" for outcome, said in words.items() if counts[outcome]]
    return f"of its VMs {', '.join(told)}" if told else "it ran no VMs"
