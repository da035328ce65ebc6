"""Puts the parts of a node's daemon together: who takes care of which kind of key."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from pvc_core.node.agent import Agent
from pvc_core.node.bounded import BoundedCall, call_with_deadline
from pvc_core.node.context import Reconciler
from pvc_core.node.duties import EndMaintenance, LostTasks, Orphans, Placing, Prune, TellLost
from pvc_core.node.fence_calls import FenceCalls
from pvc_core.node.fence_health import FenceHealthCheck
from pvc_core.node.fence_jobs import FenceJobs
from pvc_core.node.fence_tasks import fence_runners
from pvc_core.node.fencer import Fencer
from pvc_core.node.figures import Figures
from pvc_core.node.health import Health
from pvc_core.node.host import Host
from pvc_core.node.primary import Duties, Duty, Election
from pvc_core.node.publish import MemoryLimits, Publisher
from pvc_core.node.reconcile.node import NodeReconciler
from pvc_core.node.reconcile.recovery import Recovery
from pvc_core.node.reconcile.resource import ResourceReconciler, make_parents
from pvc_core.node.reconcile.returning import clean_up
from pvc_core.node.services import RoleServices
from pvc_core.node.state import NodeState
from pvc_core.node.storage_block import StorageFences
from pvc_core.node.tasks import Spawn, TaskEngine, spawn_thread
from pvc_core.node.unfinished_snapshots import UnfinishedSnapshots
from pvc_core.node.watch import Watch
from pvc_core.ops.context import Ops
from pvc_core.plugin.specs.lifecycle import RoleService, TaskRunner


class Parts(NamedTuple):
    """What the daemon has to reach after it was put together."""

    state: NodeState
    publisher: Publisher
    node: NodeReconciler
    election: Election
    tasks: TaskEngine


def assemble(
    agent: Agent,
    *,
    ops: Ops,
    host: Host,
    coordinators: tuple[str, ...],
    reconcilers: Callable[[NodeReconciler], Mapping[str, Reconciler]],
    services: tuple[RoleService, ...] = (),
    runners: Mapping[str, TaskRunner] | None = None,
    repeated: Collection[str] = (),
    resource_kinds: tuple[str, ...] = (),
    duties: tuple[tuple[str, Duty], ...] = (),
    limits: MemoryLimits | None = None,
    service_port: int = 0,
    emulation_is_bad: bool = True,
    fence_calls: FenceCalls | None = None,
    spawn: Spawn = spawn_thread,
    call: BoundedCall = call_with_deadline,
) -> Parts:
    """Give an agent its reconcilers; call ``agent.start()`` afterwards.

    ``reconcilers`` makes those of VMs, networks, pools and volumes; it gets the node's own, which knows which VMs
    are parked.  ``repeated``: kinds of tasks that are begun again after the daemon died.  ``duties`` are done by the
    primary after core's own.
    """
    context, queue = agent.context, agent.queue
    state = NodeState(context.clock, lambda: queue.add("publish", ""))
    publisher = Publisher(
        context, state, host, limits=limits, service_port=service_port, emulation_is_bad=emulation_is_bad
    )
    node = NodeReconciler(context, state, agent.interest, ops, host)
    election = Election(context, agent.lease, RoleServices(services, state, context.clock, call=call), coordinators)
    calls = fence_calls or FenceCalls(context.drivers, context.clock)
    watch = Watch(context, host)
    storage = StorageFences(context)
    jobs = FenceJobs(context, calls, storage, spawn)
    fence_health = FenceHealthCheck(
        context,
        state,
        calls,
        coordinators=coordinators,
        primary=lambda: election.guard() is not None,
        spawn=spawn,
    )
    own_runners = fence_runners(context, calls, fence_health.soon)
    tasks = TaskEngine(context, agent.interest, {**own_runners, **(runners or {})}, repeated=repeated, spawn=spawn)
    core: tuple[tuple[str, Duty], ...] = (
        ("lost-nodes", TellLost(context, watch)),
        ("end-maintenance", EndMaintenance(context)),
        ("fencing", Fencer(context, watch, jobs, storage)),
        ("lost-tasks", LostTasks(context, watch)),
        ("orphans", Orphans(context, watch, ops)),
        ("place-waiting", Placing(context, watch, ops)),
        ("unfinished-snapshots", UnfinishedSnapshots(context, ops)),
        ("prune-tasks", Prune(context, ops)),
    )
    agent.register(
        {
            "publish": publisher,
            "figures": Figures(context),
            "node": node,
            "primary": election,
            "duties": Duties(election, [*core, *duties], look=watch.look),
            "task": tasks,
            "recovery": Recovery(context, queue),
            "health": Health(context, state),
            "fence-health": fence_health,
            **{kind: ResourceReconciler(context, kind) for kind in resource_kinds},
            **reconcilers(node),
        }
    )
    started = False

    def enter(generation: int) -> None:
        nonlocal started
        fenced = clean_up(context)
        make_parents(context, resource_kinds)
        node.enter(generation)
        if fenced:
            # So that its VMs come home when it is put back into service, even if that was done already.
            state.set_scheduling("drained", 0)
        state.daemon = "running"
        queue.add("health", "")
        if not started:
            started = True
            context.drivers.notify("node_started", node=context.name)

    agent.on_lease(enter)
    return Parts(state, publisher, node, election, tasks)
