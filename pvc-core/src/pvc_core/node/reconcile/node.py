"""This node's own service: draining, returning, autostart.

Draining: every running VM gets another place in one plan; the VMs then move by their own reconcilers, a bounded
number at a time.  A VM that fits nowhere keeps running for a while (another node may be about to come back);
then it is parked: shut down, and placed by the primary as soon as there is room elsewhere.  The node is drained
when it has neither a domain nor a claim.
"""

import logging
import threading
from typing import Final

from msgspec.structs import replace

from pvc_core.model.node import NodeSpec
from pvc_core.node.context import NodeContext
from pvc_core.node.host import Host
from pvc_core.node.interest import Interest
from pvc_core.node.state import NodeState
from pvc_core.ops.context import Ops
from pvc_core.ops.evacuate import Placed, apply_evacuation, apply_return, autostart_for
from pvc_core.store import documents, keys

log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
"""While VMs are on their way: most of what happens to them causes no event of the node."""


class NodeReconciler:
    """Reconciler of the key ``("node", <this node>)``; other nodes' specs are no business of ours."""

    def __init__(self, context: NodeContext, state: NodeState, interest: Interest, ops: Ops, host: Host) -> None:
        self._context = context
        self._state = state
        self._interest = interest
        self._ops = ops
        self._host = host
        self._lock = threading.Lock()
        self._parked: frozenset[str] = frozenset()
        self._stuck_since: dict[str, float] = {}
        self._planned: float | None = None
        self._expected: set[str] = set()
        """VMs that are to come back."""
        self._entered = False
        self._autostart = False

    def parked(self, vm: str) -> bool:
        """Return whether a VM must be shut down here, because this node drains and no other has room."""
        return vm in self._parked

    def enter(self, generation: int) -> None:
        """Make this node part of the cluster; called with each new lease, before any other work."""
        store, me = self._context.store, self._context.name
        role: Final = "coordinator" if self._context.role == "coordinator" else "hypervisor"
        spec = documents.read(store, keys.node_spec(me))
        if spec is None:
            new = NodeSpec(id=me, role=role)
            store.commit(documents.create(keys.node_spec(me), new), *self._context.lease.guard())
            log.info("node-added node=%s role=%s", me, role)
        elif spec.value.role != role:
            changed = replace(spec.value, role=role, generation=spec.value.generation + 1)
            store.commit(spec.put(changed), *self._context.lease.guard())
            log.info("node-role-changed node=%s role=%s", me, role)
        if self._entered:
            return
        status = documents.read(store, keys.node_status(me))
        if status is not None:
            self._state.set_scheduling(status.value.scheduling, status.value.observed_generation)
        self._autostart = status is None or status.value.boot_id != self._host.figures().boot_id
        self._entered = True
        log.info("node-entered node=%s lease=%d host-restarted=%s", me, generation, self._autostart)

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing to give this node the scheduling state that its spec wants."""
        if id_ != self._context.name or not self._entered:
            return None
        spec = documents.read(self._context.store, keys.node_spec(id_))
        if spec is None:
            self._state.set_condition(
                "Member",
                ok=False,
                reason="Removed",
                message=f"node {id_} was removed from the cluster; restart its daemon to add it again",
            )
            return None
        self._state.clear_condition("Member")
        return self._drain(spec.value) if spec.value.scheduling == "drain" else self._serve(spec.value)

    # --- out of service -----------------------------------------------------------------------------

    def _drain(self, spec: NodeSpec) -> float | None:
        state, now = self._state, self._context.clock.monotonic()
        if state.scheduling not in ("draining", "drained") or state.observed_generation != spec.generation:
            log.info("node-draining node=%s", spec.id)
            state.set_scheduling("draining", spec.generation)
            self._expected.clear()
            self._planned = None
        if self._planned is None or now - self._planned >= self._context.timing.publish:
            self._planned = now
            self._plan(spec.id, now)
        left = self._left(spec.id)
        if left:
            if state.scheduling == "drained":
                state.set_scheduling("draining", spec.generation)
            return _LOOK_S
        if state.scheduling != "drained":
            log.info("node-drained node=%s", spec.id)
            state.set_scheduling("drained", spec.generation)
        return None

    def _plan(self, me: str, now: float) -> None:
        placed = apply_evacuation(self._ops, me)
        for vm, target in sorted(placed.moves.items()):
            log.info("evacuate vm=%s target=%s", vm, target)
        with self._lock:
            self._stuck_since = {vm: self._stuck_since.get(vm, now) for vm in placed.stuck}
            patience = self._context.timing.resync
            due = frozenset(vm for vm, since in self._stuck_since.items() if now - since >= patience)
            newly, self._parked = due - self._parked, due
        self._tell_stuck(placed)
        for vm in sorted(newly):
            log.warning("vm-parked vm=%s reason=no-node-fits", vm)
            self._context.wake("vm", vm, 0.0)

    def _tell_stuck(self, placed: Placed) -> None:
        if not placed.stuck:
            self._state.clear_condition("Drain")
            return
        vm, reasons = min(placed.stuck.items())
        spec = documents.read(self._context.store, keys.vm_spec(vm))
        name = spec.value.name if spec is not None else vm
        why = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items())) or "there is no other node"
        more = f" and {len(placed.stuck) - 1} more" if len(placed.stuck) > 1 else ""
        self._state.set_condition(
            "Drain",
            ok=False,
            reason="NoNodeFits",
            message=f"VM {name}{more} fits on no other node ({why}); without room within "
            f"{self._context.timing.resync:g} s it is shut down and waits for a place",
        )

    def _left(self, me: str) -> int:
        """Return how many VMs still have to do with this node."""
        claims = documents.read_many(self._context.store, [keys.claim(vm) for vm in sorted(self._interest.own_vms())])
        held = {entry.value.vm for entry in claims if entry is not None and entry.value.node == me}
        return len(held | set(self._context.hypervisor.domains()))

    # --- in service ---------------------------------------------------------------------------------

    def _serve(self, spec: NodeSpec) -> float | None:
        state, me = self._state, spec.id
        with self._lock:
            self._parked = frozenset()
            self._stuck_since.clear()
        state.clear_condition("Drain")
        if state.scheduling in ("draining", "drained"):
            self._autostart = True
            log.info("node-returning node=%s", me)
            state.set_scheduling("returning", spec.generation)
            placed = apply_return(self._ops, me)
            self._expected = set(placed.moves)
            for vm in sorted(placed.moves):
                log.info("return vm=%s", vm)
        if self._autostart:
            for vm in autostart_for(self._ops, me):
                log.info("autostart vm=%s", vm)
            self._autostart = False
        if state.scheduling == "returning" and self._still_coming(me):
            return _LOOK_S
        if state.scheduling != "ready":
            log.info("node-ready node=%s", me)
        state.set_scheduling("ready", spec.generation)
        return None

    def _still_coming(self, me: str) -> bool:
        vms = sorted(self._expected | self._interest.own_vms())
        specs = documents.read_many(self._context.store, [keys.vm_spec(vm) for vm in vms])
        claims = documents.read_many(self._context.store, [keys.claim(vm) for vm in vms])
        coming = {
            vm
            for vm, spec, claim in zip(vms, specs, claims, strict=True)
            if spec is not None
            and spec.value.node == me
            and spec.value.power == "running"
            and claim is not None
            and claim.value.node not in ("", me)
        }
        self._expected &= coming
        return bool(coming)
