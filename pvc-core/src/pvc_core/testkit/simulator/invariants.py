"""What must hold after every step."""

from collections.abc import Callable
from typing import Final, TypeVar

from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.base import Document
from pvc_core.model.fence import FenceRecord
from pvc_core.model.storage import PoolSpec
from pvc_core.model.vm import MAY_EXECUTE_ON_TARGET, MigrationPhase, VmClaim
from pvc_core.store import documents, keys
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.simulator.truth import Truth

T = TypeVar("T", bound=Document)


_WITHOUT_LEASE: Final = ("lease", "generation")
"""What a node changes to get its lease; for everything else it needs one."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Compares the hidden truth with the documents: of each change of them at once, and of guests after each step."""

    def __init__(self, tree: MemoryTree, world: MemoryWorld, truth: Truth, note: Callable[[str], None]) -> None:
        self._tree = tree
        self._world = world
        self._truth = truth
        self._note = note
        self._claims: dict[str, VmClaim] = {}
        self._records: dict[str, FenceRecord] = {}
        self._holders: dict[str, str] = {}
        self._found: list[str] = []
        self.vms: dict[str, None] = {}
        """All VMs there ever were."""
        self.revoked = 0
        """Claims taken from nodes that were proven dead."""
        self.proofs: dict[str, int] = {}
        """Proofs recorded, by kind."""
        self.excused: Callable[[str], bool] = lambda _: False
        """A node whose death an operator wrongly confirmed, while it has not cleaned up: its copies are nobody's fault."""
        truth.violated = self._violated

    def check(self) -> None:
        """Raise Violation unless every guest executes at most once, and where its claim allows."""
        touched = self._world.touched
        while touched:
            vm = min(touched)
            touched.discard(vm)
            self._check_guest(vm)
        if self._found:
            raise Violation(self._found[0])

    def claim(self, vm: str) -> VmClaim | None:
        """Return a VM's claim now."""
        return self._claims.get(vm)

    def records(self) -> dict[str, FenceRecord]:
        """Return the fence records, by node."""
        return self._records

    def _violated(self, what: str) -> None:
        self._found.append(what)

    # --- guests -------------------------------------------------------------------------------------

    def _check_guest(self, vm: str) -> None:
        everywhere = self._world.running(vm)
        executing = [host for host in everywhere if not self._harmless(vm, host)]
        claim = self._claims.get(vm)
        if len(executing) > 1:
            self._violated(f"VM {vm} executes on {executing} at once; its claim: {claim}")
        if not executing:
            return
        allowed = {claim.node} if claim is not None else set()
        record = claim.migration if claim is not None else None
        if record is not None and record.phase in MAY_EXECUTE_ON_TARGET:
            allowed.add(record.target)
        if executing[0] not in allowed:
            self._violated(f"VM {vm} executes on {executing[0]}, which its claim does not allow: {claim}")
        self._check_disks(vm, executing[0])

    def _check_disks(self, vm: str, host: str) -> None:
        """A guest has no disk that another VM may have, nor one that its status does not name."""
        volumes = self._world.volumes(host, vm)
        if not volumes:
            return
        status = self._read(keys.vm_status(vm))
        if status is not None and not set(volumes) <= set(status.running_disks or ()):
            self._violated(f"VM {vm} has {volumes} on {host}, and its status names {status.running_disks}")
        for volume in volumes:
            id_ = self._tree.peek(keys.volume_name(*volume.split("/", 1)))
            holder = self._tree.peek(keys.volume_holder(id_.value.decode())) if id_ is not None else None
            if holder is None or holder.value.decode() != vm:
                self._violated(f"VM {vm} has {volume} on {host}, which belongs to {holder and holder.value.decode()}")

    def _harmless(self, vm: str, host: str) -> bool:
        """A copy that cannot write, as all its disks are on storage that is closed to its node."""
        return self.excused(host) or (self._truth.blocked(host) and bool(self._world.volumes(host, vm)))

    def _pools(self, vm: str) -> set[str]:
        """Return the ids of the pools of a VM's disks."""
        spec = self._read(keys.vm_spec(vm))
        if spec is None or not spec.disks:
            return set()
        pools: list[PoolSpec] = [
            pool for id_ in self._tree.names(f"{keys.SPEC}/pool") if (pool := self._read(keys.pool_spec(id_)))
        ]
        ids = {pool.name: pool.id for pool in pools}
        return {ids.get(disk.pool, disk.pool) for disk in spec.disks}

    # --- documents ----------------------------------------------------------------------------------

    def changed(self, by: str, paths: list[str]) -> None:
        """Look at documents that were changed just now, by the session of this name."""
        for path in paths:
            if not path.startswith(keys.ROOT):
                continue
            area, _, rest = path.removeprefix(keys.ROOT + "/").partition("/")
            if area not in _WITHOUT_LEASE and self._truth.is_late(by):
                self._violated(f"{by} writes {path} without a lease")
            if area == "claim":
                self._claim_changed(by, rest)
            elif area == "ref" and rest.endswith("/holder"):
                self._holder_changed(path)
            elif area == "lease":
                self._lease_changed(rest)
            elif area == "generation":
                self._generation_changed(rest)
            elif area == "fence":
                self._record_changed(by, rest)
            elif area == "cluster":
                settings = self._read(keys.CLUSTER)
                self._truth.maintenance("", on=settings is not None and settings.maintenance)
            elif rest.startswith("node/") and area == "spec":
                node = rest.removeprefix("node/")
                spec = self._read(keys.node_spec(node))
                self._truth.maintenance(node, on=spec is not None and spec.maintenance)

    def _holder_changed(self, path: str) -> None:
        """Have the guest looked at that had the volume."""
        holder = self._tree.peek(path)
        old = self._holders.pop(path, None)
        if old is not None:
            self._world.touched.add(old)
        if holder is not None:
            self._holders[path] = holder.value.decode()

    def _read(self, key: keys.Key[T]) -> T | None:
        entry = documents.maybe(key, self._tree.peek(key.path))
        return entry.value if entry is not None else None

    def _primary(self) -> str | None:
        primary = self._read(keys.PRIMARY)
        return primary.node if primary is not None else None

    def _lease_changed(self, node: str) -> None:
        lease = self._read(keys.lease(node))
        self._truth.lease_gone(node)
        if lease is not None:
            self._truth.lease_taken(node, lease.generation)

    def _generation_changed(self, node: str) -> None:
        last = self._read(keys.generation(node))
        self._truth.released(node, on_purpose=last is not None and last.released)

    def _record_changed(self, by: str, node: str) -> None:
        new, old = self._read(keys.fence(node)), self._records.get(node)
        if new is None:
            self._records.pop(node, None)
            return
        self._records[node] = new
        if by != node and self._truth.is_node(by) and self._primary() != by:
            self._violated(f"{by} writes the fence record of {node}, and {self._primary()} is primary")
        same = old is not None and old.lease == new.lease
        known = old.proofs if old is not None and same else ()
        if not same or (old is not None and old.stage is not new.stage):
            self._note(f"{by}: {node} (lease {new.lease}) is {new.stage}: {new.events[-1].message}")
        for proof in new.proofs[len(known) :]:
            self.proofs[proof.kind] = self.proofs.get(proof.kind, 0) + 1
            disproof = self._truth.disproof(proof, node, new.lease, proof.pools)
            if disproof and not self.excused(node):
                self._violated(f"{by} records {proof.kind} of {node} (lease {new.lease}), but {disproof}")

    def _claim_changed(self, by: str, vm: str) -> None:
        new, old = self._read(keys.claim(vm)), self._claims.pop(vm, None)
        self._world.touched.add(vm)
        if new is None:
            if old is not None and old.node:
                self._violated(f"{by} removes the claim of VM {vm}, which {old.node} holds")
            return
        self._claims[vm] = new
        if old is None:
            old = VmClaim(vm=vm, node="", lease=0, epoch=0)
        if new.epoch < old.epoch:
            self._violated(f"the epoch of the claim of VM {vm} ran backwards: {old} then {new}")
        if old.node and new.node and new.node != old.node:
            self._handed_over(vm, old, new)
        if old.node and old.node not in (new.node, by):
            self.revoked += 1
            if by != self._primary():
                self._violated(f"{by} takes VM {vm} from {old.node}, and {self._primary()} is primary")
            self._demand_proof(by, f"takes VM {vm}", vm, old.node, old.lease)
        elif new.node and not old.node:
            self._taken(by, vm, new)
        self._refused(by, vm, old, new)

    def _handed_over(self, vm: str, old: VmClaim, new: VmClaim) -> None:
        target = old.migration.target if old.migration is not None else None
        if new.node != target or new.epoch != old.epoch + 1:
            self._violated(f"the claim of VM {vm} went to a node it was not handed to: {old} then {new}")

    def _taken(self, by: str, vm: str, new: VmClaim) -> None:
        if by != new.node:
            self._violated(f"{by} gave the claim of VM {vm}, which nobody held, to {new.node}")
        elif new.lease != self._truth.standing(by):
            self._violated(
                f"{by} takes the claim of VM {vm} with lease {new.lease}, and has {self._truth.standing(by)}"
            )
        spec = self._read(keys.vm_spec(vm))
        wanted = spec is not None and spec.power == "running" and not spec.deleting
        if not wanted and new.node not in self._world.present(vm):
            self._violated(f"{by} takes the claim of VM {vm} to start it, which nobody wants to run: {spec}")

    def _refused(self, by: str, vm: str, old: VmClaim, new: VmClaim) -> None:
        """Only the target refuses a guest, or somebody who can prove that the target is dead."""
        record, before = new.migration, old.migration
        if record is None or before is None or record.phase is not MigrationPhase.REFUSED:
            return
        if before.phase is not MigrationPhase.REFUSED and by not in (record.target, new.node):
            self._demand_proof(by, f"refuses VM {vm}", vm, record.target, 0)

    def _demand_proof(self, by: str, what: str, vm: str, node: str, lease: int) -> None:
        """Record a violation unless the record of a node holds a proof that covers this VM, and that is true."""
        record = self._records.get(node)
        if record is None or not record.proofs:
            self._violated(f"{by} {what} from {node} without a proof: {record}")
            return
        if self.excused(node):
            return
        if record.lease < lease:
            self._violated(f"{by} {what} from {node}, whose lease {lease} is newer than the one of the proof: {record}")
            return
        if self._truth.standing(node) == record.lease:
            self._violated(f"{by} {what} from {node}, which still has that lease: {record}")
        pools = self._pools(vm)
        disproofs = [self._truth.disproof(proof, node, record.lease, pools) for proof in record.proofs]
        if all(disproofs):
            self._violated(f"{by} {what} from {node} on no true proof: {'; '.join(disproofs)}")
            return
        if node in self._world.present(vm) and not self._truth.blocked(node):
            self._violated(f"{by} {what} from {node}, which still has its domain: {record}")
