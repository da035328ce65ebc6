"""Changes of VM specs that the cluster itself asks for: evacuation, return, autostart, placing what waits.

Called by the daemons (a draining node's own, or the primary), never by people.  All are idempotent: called again they
do what is left to do.  Everything is planned before anything is written; then the specs are written some at a
time, each only as it was read.  A VM that changed meanwhile is left for the next call.  ``guard`` are checks that the
caller adds to every transaction, such as that it still is the primary.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.message import View
from pvc_core.ops.snapshot import ClusterSnapshot, read_cluster
from pvc_core.ops.vm_remove import vm_forget
from pvc_core.ops.vm_resources import failed_networks, read_resources
from pvc_core.ops.vm_write import VmDocuments, changed, on_node
from pvc_core.plan.evacuation import Candidate, Evacuation, plan_evacuation
from pvc_core.plan.placement import obstacle, without_vm
from pvc_core.store import keys
from pvc_core.store.api import Operation, TransactionFailed
from pvc_core.store.documents import CorruptDocument, maybe

log = logging.getLogger(__name__)

BATCH: Final = 20
"""VMs written in one transaction."""

Guard = tuple[Operation, ...]


class Placed(View, frozen=True, kw_only=True):
    """What was written, by VM id."""

    moves: dict[str, str] = {}
    """VM -> node it is now placed on."""
    stuck: dict[str, dict[str, str]] = {}
    """VM -> node -> why it does not fit there; these VMs were left alone."""


def apply_evacuation(ops: Ops, node: str, guard: Guard = ()) -> Placed:
    """Give every running VM of a node that drains another place; remembers home.  Plans all before it writes any.

    Also those that have another place already, on a node that is not alive any more.
    """
    snapshot = read_cluster(ops, lenient=True)
    vms = _read_running(ops, snapshot, _leaving(snapshot, node))
    plan = _plan(ops, snapshot, vms, {node: "it is being flushed"})

    def moved(spec: VmSpec) -> VmSpec:
        home = spec.home or node
        target = targets[spec.id]
        return changed(spec, node=target, home=None if home == target else home, move_method=None)

    targets = {item.vm: item.target for item in plan.assignments}
    written = _write(ops, [vm for vm in vms if vm.spec.id in targets], moved, guard)
    return _placed(plan, written, targets)


def plan_flush(ops: Ops, node: str) -> Evacuation:
    """Return where the running VMs of a node would go, without writing anything."""
    snapshot = read_cluster(ops)
    vms = _read_running(ops, snapshot, _leaving(snapshot, node))
    return _plan(ops, snapshot, vms, {node: "it is being flushed"})


def apply_return(ops: Ops, node: str, guard: Guard = ()) -> Placed:
    """Bring back the VMs that are at home on this node, as far as they fit."""
    snapshot = read_cluster(ops, lenient=True)
    home = [row.id for row in snapshot.vms.values() if row.home == node and not row.deleting]
    vms = _read(ops, snapshot, home)
    running = [vm for vm in vms if vm.spec.power == "running"]
    elsewhere = {name: "it is not its home" for name in snapshot.nodes if name != node}
    plan = _plan(ops, snapshot, running, elsewhere)
    back = {item.vm for item in plan.assignments} | {vm.spec.id for vm in vms if vm.spec.power != "running"}

    def returned(spec: VmSpec) -> VmSpec:
        return changed(spec, node=node, home=None, move_method=None)

    written = _write(ops, [vm for vm in vms if vm.spec.id in back], returned, guard)
    return _placed(plan, written, dict.fromkeys(back, node))


def autostart_for(ops: Ops, node: str, guard: Guard = ()) -> list[str]:
    """Ask for a start of the stopped VMs with autostart that are placed on this node; returns their ids."""
    snapshot = read_cluster(ops, lenient=True)
    rows = snapshot.vms.values()
    wanted = [r.id for r in rows if r.node == node and r.autostart and r.power == "stopped" and not r.deleting]
    vms = _read(ops, snapshot, wanted)
    return _write(ops, vms, lambda spec: changed(spec, power="running", stop_forced=False), guard)


def place_waiting(ops: Ops, guard: Guard = (), *, keep: Collection[str] = ()) -> Placed:
    """Give VMs that should run and have no place a node that fits, and finish removals that no node can finish.

    A VM has no place when nobody holds its claim and it has no node, or one that cannot take it: drained, in
    maintenance, not alive, removed, or full, or where one of its networks cannot be set up; VMs of the nodes ``keep`` are
    left where they are.  A removal has no node when its node is not alive and the claim is vacant.
    """
    snapshot = read_cluster(ops, lenient=True)
    _finish_removals(ops, snapshot, guard)
    vacant = [row.id for row in snapshot.vms.values() if not _held(snapshot, row.id) and row.node not in keep]
    homeless = _homeless(ops, snapshot, [vm for vm in _read_running(ops, snapshot, vacant) if not vm.holder])
    plan = _plan(ops, snapshot, homeless, {})
    targets = {item.vm: item.target for item in plan.assignments}

    def placed(spec: VmSpec) -> VmSpec:
        home = spec.home or spec.node
        if home not in snapshot.nodes or home == targets[spec.id]:
            home = None
        return changed(spec, node=targets[spec.id], home=home, move_method=None)

    written = _write(ops, [vm for vm in homeless if vm.spec.id in targets], placed, guard, unclaimed=True)
    return _placed(plan, written, targets)


def _homeless(ops: Ops, snapshot: ClusterSnapshot, vms: list[VmDocuments]) -> list[VmDocuments]:
    """Return those VMs whose node cannot take them, each as if it alone were not there yet."""
    resources = read_resources(ops, *(vm.spec for vm in vms))
    views = {view.name: view for view in snapshot.views()}
    policy = snapshot.policy(ops)
    failed = failed_networks(ops, resources, {vm.spec.node for vm in vms if vm.spec.node})

    def fits(spec: VmSpec) -> bool:
        view = views.get(spec.node or "")
        if view is None or view.name in _without_network(spec, failed):
            return False
        return not obstacle(spec, without_vm(view, spec), policy, resources.capabilities(spec))

    return [vm for vm in vms if not fits(vm.spec)]


def _without_network(spec: VmSpec, failed: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the nodes on which a VM's networks cannot be set up, with the reason."""
    return {node: why for nic in spec.nics for node, why in failed.get(nic.network, {}).items()}


def _leaving(snapshot: ClusterSnapshot, node: str) -> list[str]:
    """Return the VMs that a node which drains has to find a place for."""
    alive = snapshot.alive()
    return [
        row.id
        for row in snapshot.vms.values()
        if row.node == node
        or (row.node not in alive and row.id in snapshot.claims and snapshot.claims[row.id].node == node)
    ]


def _held(snapshot: ClusterSnapshot, vm: str) -> bool:
    claim = snapshot.claims.get(vm)
    return claim is not None and bool(claim.node)


def _finish_removals(ops: Ops, snapshot: ClusterSnapshot, guard: Guard) -> None:
    alive = snapshot.alive()
    for row in snapshot.vms.values():
        if row.deleting and row.node not in alive and not _held(snapshot, row.id):
            try:
                if vm_forget(ops, row.id, guard):
                    log.info("vm-removed vm=%s name=%s", row.id, row.name)
            except TransactionFailed as error:
                log.info("vm-not-removed vm=%s error=%s", row.id, error)


def _read(ops: Ops, snapshot: ClusterSnapshot, ids: Iterable[str]) -> list[VmDocuments]:
    """Return the documents of VMs; specs as of the snapshot, status and claim as of now; without what cannot be read."""
    wanted = sorted(ids)
    statuses, claims = [keys.vm_status(id_) for id_ in wanted], [keys.claim(id_) for id_ in wanted]
    found = ops.store.get_many([key.path for key in statuses] + [key.path for key in claims])
    vms = []
    for id_, status, claim, s, c in zip(
        wanted, statuses, claims, found[: len(wanted)], found[len(wanted) :], strict=True
    ):
        try:
            vms.append(VmDocuments(snapshot.spec(id_), maybe(status, s), maybe(claim, c)))
        except CorruptDocument as error:
            log.error("document-unreadable error=%s", error)
    return vms


def _read_running(ops: Ops, snapshot: ClusterSnapshot, ids: Iterable[str]) -> list[VmDocuments]:
    """Return the documents of those VMs that should run and did not end for good."""
    rows = [snapshot.vms[id_] for id_ in ids]
    wanted = [row.id for row in rows if row.power == "running" and not row.deleting]
    return [vm for vm in _read(ops, snapshot, wanted) if not vm.halted]


def _plan(ops: Ops, snapshot: ClusterSnapshot, vms: list[VmDocuments], exclude: dict[str, str]) -> Evacuation:
    specs = [vm.spec for vm in vms]
    resources = read_resources(ops, *specs)
    failed = failed_networks(ops, resources, snapshot.alive())
    candidates = [
        Candidate(
            vm=spec, capabilities=resources.capabilities(spec), exclude={**_without_network(spec, failed), **exclude}
        )
        for spec in specs
    ]
    return plan_evacuation(candidates, snapshot.views({spec.id for spec in specs}), snapshot.policy(ops))


def _placed(plan: Evacuation, written: list[str], targets: dict[str, str]) -> Placed:
    return Placed(
        moves={id_: targets[id_] for id_ in written},
        stuck={item.vm: item.reasons for item in plan.unplaced},
    )


def _write(
    ops: Ops, vms: list[VmDocuments], next_: Callable[[VmSpec], VmSpec], guard: Guard, *, unclaimed: bool = False
) -> list[str]:
    """Write the next specs, ``BATCH`` at a time; returns the ids of those that were written."""
    written: list[str] = []
    for start in range(0, len(vms), BATCH):
        batch = vms[start : start + BATCH]
        try:
            ops.store.commit(*_operations(batch, next_, unclaimed=unclaimed), *guard)
            written += [vm.spec.id for vm in batch]
        except TransactionFailed:
            # One of them changed meanwhile (or the guard does not hold, then none is written).
            written += [vm.spec.id for vm in batch if _write_one(ops, vm, next_, guard, unclaimed=unclaimed)]
    return written


def _write_one(ops: Ops, vm: VmDocuments, next_: Callable[[VmSpec], VmSpec], guard: Guard, *, unclaimed: bool) -> bool:
    try:
        ops.store.commit(*_operations([vm], next_, unclaimed=unclaimed), *guard)
    except TransactionFailed as error:
        log.info("vm-spec-not-written vm=%s error=%s", vm.spec.id, error)
        return False
    return True


def _operations(vms: list[VmDocuments], next_: Callable[[VmSpec], VmSpec], *, unclaimed: bool) -> list[Operation]:
    operations: list[Operation] = []
    for vm in vms:
        new = next_(vm.spec)
        operations += [*vm.write(new), *([vm.unclaimed()] if unclaimed else [])]
        if new.node != vm.spec.node:
            operations += [check for check in on_node(new.node) if check not in operations]
    return operations
