"""What must hold once all faults have passed."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.base import Document
from pvc_core.model.fence import FenceStage
from pvc_core.model.vm import VmClaim, VmSpec, VmState, VmStatus
from pvc_core.store import documents, keys
from pvc_core.store.api import Node
from pvc_core.testkit.simulator.invariants import Violation

T = TypeVar("T", bound=Document)

_OVER = (FenceStage.RETURNED, FenceStage.CANCELLED)


def check_settled(dump: dict[str, Node], world: MemoryWorld, vms: list[str], room_mib: Mapping[str, int]) -> None:
    """Raise Violation unless every VM is where and as its spec wants it, and nothing is left over.

    ``room_mib``: each node's memory for VMs.
    """
    claims = _all(dump, keys.CLAIM, keys.claim)
    specs = _all(dump, f"{keys.SPEC}/vm", keys.vm_spec)
    for vm, claim in claims.items():
        if claim.node and claim.node not in room_mib:
            raise Violation(f"the claim of VM {vm} is held by {claim.node}, which is no node")
        if claim.migration is not None:
            raise Violation(f"the migration of VM {vm} never ended: {claim}")
        if vm not in specs and claim.node:
            raise Violation(f"the claim of VM {vm} outlived its VM: {claim}")
    for vm in vms:
        _check_vm(dump, world, vm, specs, claims.get(vm), room_mib)
    for node, record in _all(dump, keys.FENCE, keys.fence).items():
        if record.stage not in _OVER or record.dirty or record.blocked:
            raise Violation(f"node {node} is back, and its fencing never ended: {record}")


def _check_vm(
    dump: dict[str, Node],
    world: MemoryWorld,
    vm: str,
    specs: dict[str, VmSpec],
    claim: VmClaim | None,
    room_mib: Mapping[str, int],
) -> None:
    present, spec = world.present(vm), specs.get(vm)
    if spec is None:
        if present:
            raise Violation(f"VM {vm} was removed and still has domains: {present}")
        return
    if spec.deleting:
        raise Violation(f"VM {vm} was never removed; domains: {present}, claim: {claim}")
    if spec.power != "running":
        if present or (claim is not None and claim.node):
            raise Violation(f"VM {vm} should be {spec.power}; domains: {present}, claim: {claim}")
        return
    executing = world.running(vm)
    if executing == [spec.node] and spec.node is not None:
        _check_disks(dump, world, spec, spec.node)
    if executing != [spec.node]:
        status = documents.maybe(keys.vm_status(vm), dump.get(keys.vm_status(vm).path))
        if status is not None and not present and _may_wait(specs, spec, status.value, room_mib):
            return
        raise Violation(
            f"VM {vm} should run on {spec.node} and executes on {executing}; claim: {claim}; "
            f"status: {status.value if status else None}"
        )


def _check_disks(dump: dict[str, Node], world: MemoryWorld, spec: VmSpec, node: str) -> None:
    wanted, has = sorted(disk.path for disk in spec.disks), sorted(world.volumes(node, spec.id))
    limits = {disk.limits for disk in spec.disks}
    if (
        wanted != has
        or any(disk.removing for disk in spec.disks)
        or set(world.limits(node, spec.id).values()) != limits
    ):
        status = documents.maybe(keys.vm_status(spec.id), dump.get(keys.vm_status(spec.id).path))
        raise Violation(
            f"VM {spec.id} should have {spec.disks} and has {has} with {world.limits(node, spec.id)}; "
            f"status: {status.value if status else None}"
        )


def _may_wait(specs: dict[str, VmSpec], vm: VmSpec, status: VmStatus, room_mib: Mapping[str, int]) -> bool:
    """It ended for good, or there is room for it nowhere."""
    if status.halted == vm.generation:
        return True
    used = Counter[str | None]()
    for spec in specs.values():
        if spec.power == "running" and spec.id != vm.id:
            used[spec.node] += spec.memory_mib
    full = all(used[node] + vm.memory_mib > room for node, room in room_mib.items())
    return status.state is VmState.WAITING and full


def _all(dump: dict[str, Node], area: str, key: Callable[[str], keys.Key[T]]) -> dict[str, T]:
    prefix = area + "/"
    found = {path.removeprefix(prefix): node for path, node in dump.items() if path.startswith(prefix)}
    return {id_: documents.decode(key(id_), node).value for id_, node in found.items()}
