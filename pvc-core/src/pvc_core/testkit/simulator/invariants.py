"""What must hold after every step, and at the end."""

from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.vm import MAY_EXECUTE_ON_TARGET, VmClaim, VmSpec
from pvc_core.store import documents, keys
from pvc_core.store.api import Node
from pvc_core.store.memory import MemoryTree


class Violation(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Checks the hidden truth of the world against the claims."""

    def __init__(self, tree: MemoryTree, world: MemoryWorld) -> None:
        self._tree = tree
        self._world = world
        self._reader = tree.connect(name="invariants")
        self._seen: dict[str, tuple[int, VmClaim]] = {}
        self.vms: set[str] = set()

    def check(self) -> None:
        """Raise Violation unless every guest executes at most once, where its claim allows, and claims move forwards."""
        for vm in sorted(self.vms):
            claim = self._claim(vm)
            executing = self._world.running(vm)
            if len(executing) > 1:
                raise Violation(f"VM {vm} executes on {executing} at once; its claim: {claim}")
            self._check_place(vm, executing, claim)

    def _claim(self, vm: str) -> VmClaim | None:
        """Return a VM's claim; a new version of it is decoded and compared with the last, once."""
        node = self._reader.get(keys.claim(vm).path)
        if node is None:
            self._seen.pop(vm, None)
            return None
        last = self._seen.get(vm)
        if last is None or last[0] != node.version:
            claim = documents.decode(keys.claim(vm), node).value
            self._check_progress(claim, last[1] if last is not None else None)
            self._seen[vm] = last = (node.version, claim)
        return last[1]

    @staticmethod
    def _check_place(vm: str, executing: list[str], claim: VmClaim | None) -> None:
        if not executing:
            return
        allowed = {claim.node} if claim is not None else set()
        record = claim.migration if claim is not None else None
        if record is not None and record.phase in MAY_EXECUTE_ON_TARGET:
            allowed.add(record.target)
        if executing[0] not in allowed:
            raise Violation(f"VM {vm} executes on {executing[0]}, which its claim does not allow: {claim}")

    @staticmethod
    def _check_progress(new: VmClaim, old: VmClaim | None) -> None:
        if old is None:
            return
        if new.epoch < old.epoch:
            raise Violation(f"the epoch of the claim of VM {new.vm} ran backwards: {old} then {new}")
        if new.node and old.node and new.node != old.node:
            target = old.migration.target if old.migration is not None else None
            if new.node != target or new.epoch != old.epoch + 1:
                raise Violation(f"the claim of VM {new.vm} went to a node it was not handed to: {old} then {new}")

    def check_settled(self, nodes: set[str]) -> None:
        """Raise Violation unless every VM is where and as its spec wants it, and nothing is left over."""
        dump = self._tree.dump()
        claims = claims_of(dump)
        specs = specs_of(dump)
        for vm, claim in claims.items():
            if claim.node and claim.node not in nodes:
                raise Violation(f"the claim of VM {vm} is held by {claim.node}, which is no node")
            if claim.migration is not None:
                raise Violation(f"the migration of VM {vm} never ended: {claim}")
            if vm not in specs and claim.node:
                raise Violation(f"the claim of VM {vm} outlived its VM: {claim}")
        for vm in sorted(self.vms):
            self._check_vm(vm, specs.get(vm), claims.get(vm))

    def _check_vm(self, vm: str, spec: VmSpec | None, claim: VmClaim | None) -> None:
        present = self._world.present(vm)
        executing = self._world.running(vm)
        if spec is None:
            if present:
                raise Violation(f"VM {vm} was removed and still has domains: {present}")
            return
        if spec.deleting:
            raise Violation(f"VM {vm} was never removed; domains: {present}, claim: {claim}")
        if spec.power != "running":
            if present or (claim is not None and claim.node):
                raise Violation(f"VM {vm} should be {spec.power}; domains: {present}, claim: {claim}")
        elif executing != [spec.node]:
            status = documents.maybe(keys.vm_status(vm), self._tree.dump().get(keys.vm_status(vm).path))
            raise Violation(
                f"VM {vm} should run on {spec.node} and executes on {executing}; claim: {claim}; "
                f"status: {status.value if status else None}"
            )


def claims_of(dump: dict[str, Node]) -> dict[str, VmClaim]:
    """Return all claims by VM."""
    prefix = keys.CLAIM + "/"
    found = {path.removeprefix(prefix): node for path, node in dump.items() if path.startswith(prefix)}
    return {vm: documents.decode(keys.claim(vm), node).value for vm, node in found.items()}


def specs_of(dump: dict[str, Node]) -> dict[str, VmSpec]:
    """Return all VM specs by id."""
    prefix = f"{keys.SPEC}/vm/"
    found = {path.removeprefix(prefix): node for path, node in dump.items() if path.startswith(prefix)}
    return {vm: documents.decode(keys.vm_spec(vm), node).value for vm, node in found.items()}
