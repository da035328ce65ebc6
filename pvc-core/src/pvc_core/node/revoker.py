"""Takes the claims of VMs from a node that is proven dead, some at a time, each with the record of it.

Every transaction checks, besides what the caller gives, that each claim is as it was read.
"""

import logging
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.errors import Conflict
from pvc_core.model.fence import FenceRecord
from pvc_core.model.vm import VmClaim, VmSpec, VmStatus
from pvc_core.node.context import NodeContext
from pvc_core.plan.revocation import Revocation, covering, refused_by_the_dead, revoke
from pvc_core.store import documents, keys
from pvc_core.store.api import Node, Operation
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

BATCH: Final = 20
"""VMs in one transaction."""

Guard = tuple[Operation, ...]


class _Vm(NamedTuple):
    claim: Entry[VmClaim]
    spec: VmSpec | None
    status: Entry[VmStatus] | None


class Swept(NamedTuple):
    """What one look at all claims came to."""

    record: Entry[FenceRecord]
    """As it is now."""
    uncovered: tuple[str, ...]
    """Names of VMs that the node still claims and that no proof covers."""
    pending: bool
    """Look again soon: a migration to the node is under way, or a VM changed meanwhile."""


class Revoker:
    """Sweeps the claims of one node at a time."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._known: list[Entry[VmClaim]] | None = None
        """All claims as they were read for an earlier node; what is written over them is checked."""

    def begin(self) -> None:
        """Begin a round over all nodes: claims are read again, once for all of those that have lost none."""
        self._known = None

    def sweep(self, entry: Entry[FenceRecord], guard: Guard) -> Swept:
        """Take every claim from the record's node that its proofs cover."""
        node = entry.value.node
        claims = self._claims()
        pending = any(c.value.migration is not None and c.value.migration.target == node for c in claims)
        self._refuse(node, entry.value, claims, guard)
        held = [claim for claim in claims if claim.value.node == node]
        pools = self._pools() if held else {}
        uncovered: list[str] = []
        todo: list[tuple[_Vm, Revocation]] = []
        for vm in self._vms(held):
            status = vm.status.value if vm.status is not None else None
            proof = covering(entry.value, vm.spec, status, _pools_of(status, pools))
            if proof is None:
                uncovered.append(vm.spec.name if vm.spec is not None else vm.claim.value.vm)
                continue
            todo.append((vm, revoke(node, vm.claim.value, vm.spec, status, proof, self._context.clock.wall())))
        for start in range(0, len(todo), BATCH):
            batch = todo[start : start + BATCH]
            try:
                entry = self._write(entry, batch, guard)
            except Conflict as error:
                # One of them changed meanwhile, or the guard does not hold any more: the next look tells.
                log.info("claims-not-revoked node=%s vms=%d error=%s", node, len(batch), error)
                entry, pending = self._one_by_one(entry, batch, guard), True
        return Swept(entry, tuple(sorted(uncovered)), pending)

    def _one_by_one(
        self, entry: Entry[FenceRecord], batch: list[tuple[_Vm, Revocation]], guard: Guard
    ) -> Entry[FenceRecord]:
        for item in batch:
            try:
                entry = self._write(entry, [item], guard)
            except Conflict as error:
                log.info("claim-not-revoked vm=%s error=%s", item[0].claim.value.vm, error)
        return entry

    def _write(
        self, entry: Entry[FenceRecord], batch: list[tuple[_Vm, Revocation]], guard: Guard
    ) -> Entry[FenceRecord]:
        operations: list[Operation] = []
        for vm, new in batch:
            operations.append(vm.claim.put(new.claim))
            if new.status is not None:
                operations.append(
                    vm.status.put(new.status)
                    if vm.status is not None
                    else documents.create(keys.vm_status(new.status.id), new.status)
                )
        record = replace(entry.value, vms=(*entry.value.vms, *(new.outcome for _, new in batch)))
        self._known = None
        self._context.store.commit(entry.put(record), *operations, *guard)
        for _, new in batch:
            log.warning(
                "claim-revoked vm=%s name=%s node=%s proof=%s outcome=%s",
                new.claim.vm,
                new.outcome.name,
                record.node,
                new.outcome.proof,
                new.outcome.outcome,
            )
        return entry._replace(value=record, version=entry.version + 1)

    def _refuse(self, node: str, record: FenceRecord, claims: list[Entry[VmClaim]], guard: Guard) -> None:
        """Answer for the dead node where a migration to it waits for its answer."""
        asked = [(claim, new) for claim in claims if (new := refused_by_the_dead(node, claim.value)) is not None]
        pools = self._pools() if asked else {}
        for vm, (claim, new) in zip(self._vms([claim for claim, _ in asked]), asked, strict=True):
            status = vm.status.value if vm.status is not None else None
            if covering(record, vm.spec, status, _pools_of(status, pools)) is None:
                continue
            self._known = None
            try:
                self._context.store.commit(claim.put(new), *guard)
            except Conflict as error:
                log.info("migration-not-refused vm=%s error=%s", new.vm, error)
            else:
                log.warning("migration-refused vm=%s target=%s reason=proven-dead", new.vm, node)

    def _claims(self) -> list[Entry[VmClaim]]:
        if self._known is None:
            wanted = [keys.claim(vm) for vm in self._context.store.children(keys.CLAIM)]
            self._known = documents.read_all(self._context.store, wanted)
        return self._known

    def _vms(self, claims: list[Entry[VmClaim]]) -> list[_Vm]:
        if not claims:
            return []
        ids = [claim.value.vm for claim in claims]
        specs = self._context.store.get_many([keys.vm_spec(id_).path for id_ in ids])
        statuses = self._context.store.get_many([keys.vm_status(id_).path for id_ in ids])
        return [
            _Vm(claim, *_readable(id_, spec, status))
            for claim, id_, spec, status in zip(claims, ids, specs, statuses, strict=True)
        ]

    def _pools(self) -> dict[str, str]:
        """Return name -> id of all pools."""
        store = self._context.store
        found = documents.read_all(store, [keys.pool_spec(id_) for id_ in store.children(f"{keys.SPEC}/pool")])
        return {entry.value.name: entry.value.id for entry in found}


def _readable(id_: str, spec: Node | None, status: Node | None) -> tuple[VmSpec | None, Entry[VmStatus] | None]:
    """Return a VM's documents; none of them when one cannot be read: it is then freed as one without a spec."""
    try:
        found = documents.maybe(keys.vm_spec(id_), spec)
        return found.value if found is not None else None, documents.maybe(keys.vm_status(id_), status)
    except documents.CorruptDocument as error:
        log.error("document-unreadable error=%s", error)
        return None, None


def _pools_of(status: VmStatus | None, pools: dict[str, str]) -> set[str]:
    """Return the ids of the pools that a guest may write to; one that is not known any more as its name, which is never proven."""
    names = {volume.partition("/")[0] for volume in (status.running_disks if status is not None else None) or ()}
    return {pools.get(name, name) for name in names}
