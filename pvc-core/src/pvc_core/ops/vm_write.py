"""Reading a VM to change it, and writing its spec."""

from typing import Any, NamedTuple

from msgspec.structs import replace

from pvc_core.model.vm import VmClaim, VmSpec, VmStatus
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Operation
from pvc_core.store.documents import Entry, maybe


class VmDocuments(NamedTuple):
    """A VM's documents as read."""

    entry: Entry[VmSpec]
    status: Entry[VmStatus] | None
    claim: Entry[VmClaim] | None

    @property
    def spec(self) -> VmSpec:
        """What is wanted."""
        return self.entry.value

    @property
    def holder(self) -> str:
        """The node that runs it, or may; empty: none."""
        return self.claim.value.node if self.claim is not None else ""

    @property
    def halted(self) -> bool:
        """It should run, but ended for good."""
        return self.status is not None and self.status.value.halted == self.spec.generation

    def unclaimed(self) -> Operation:
        """Return the check that nobody took the claim since it was read as vacant."""
        if self.claim is None:
            return CheckAbsent(keys.claim(self.spec.id).path)
        return Check(self.claim.key.path, self.claim.version)

    def write(self, new: VmSpec) -> list[Operation]:
        """Return the operations that replace the spec by ``new`` and leave a guest that ended for good as it is."""
        operations: list[Operation] = [self.entry.put(new)]
        if self.halted and self.status is not None:
            status = replace(self.status.value, halted=new.generation, observed_generation=new.generation)
            operations.append(self.status.put(status))
        return operations

    def write_start(self, new: VmSpec) -> list[Operation]:
        """Return the operations that replace the spec by ``new``, which also starts a guest that ended for good."""
        return [self.entry.put(new)]


def read_vm(ops: Ops, text: str) -> VmDocuments:
    """Read a VM by name or id, to change it.  Raises NotFound, Conflict when it is being removed."""
    documents = with_documents(ops, resolve.vm(ops, text))
    resolve.refuse_deleting("VM", documents.spec.name, deleting=documents.spec.deleting)
    return documents


def with_documents(ops: Ops, entry: Entry[VmSpec]) -> VmDocuments:
    """Read what belongs to a spec."""
    status, claim = keys.vm_status(entry.value.id), keys.claim(entry.value.id)
    found = ops.store.get_many([status.path, claim.path])
    return VmDocuments(entry, maybe(status, found[0]), maybe(claim, found[1]))


def changed(spec: VmSpec, **changes: Any) -> VmSpec:
    """Return the next generation of a spec."""
    return replace(spec, generation=spec.generation + 1, **changes)


def on_node(node: str | None) -> list[Operation]:
    """Return the check that a node is still part of the cluster when a VM is placed on it."""
    return [Check(keys.node_spec(node).path)] if node else []
