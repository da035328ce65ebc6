"""Waiting for the effect of operations.

Built on watches: nothing is read more often than something changes, except for a slow resync that
covers a lost watch.  A wait changes nothing, so interrupting it (KeyboardInterrupt) leaves the job running.
"""

import enum

from pvc_core.model.base import Condition
from pvc_core.model.node import NodeSpec, NodeStatus, Primary
from pvc_core.model.storage import VolumeState
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.ops.context import Ops
from pvc_core.ops.network import NetworkInfo, read_network_info
from pvc_core.ops.node import NodeInfo, NodeQuery, node_info
from pvc_core.ops.pool import PoolView, pool_view
from pvc_core.ops.snapshot import occupied, read_cluster
from pvc_core.ops.vm_views import VmInfo
from pvc_core.ops.volume import VolumeView, volume_view
from pvc_core.ops.wait_vm import VmGoal, wait_vm
from pvc_core.ops.waiting import Done, Patience, Progress, Report, WaitFailed, WaitTimeout, wait_until
from pvc_core.store import keys
from pvc_core.store.documents import maybe, read, read_many

__all__ = [
    "NodeGoal",
    "ObjectGoal",
    "Progress",
    "Report",
    "VmGoal",
    "VmInfo",
    "WaitFailed",
    "WaitTimeout",
    "wait_network",
    "wait_node",
    "wait_pool",
    "wait_task",
    "wait_vm",
    "wait_volume",
]


class NodeGoal(enum.StrEnum):
    """What to wait for."""

    DRAINED = "drained"
    READY = "ready"
    """It takes VMs, and those at home there have returned."""
    PRIMARY = "primary"
    SECONDARY = "secondary"


class ObjectGoal(enum.StrEnum):
    """What to wait for, of a volume, pool or network."""

    READY = "ready"
    """Its last change is carried out."""
    GONE = "gone"


def wait_task(ops: Ops, task: str, *, timeout_s: float, report: Report | None = None) -> Task:
    """Wait for a task's end and return it.  Raises WaitFailed when it failed or was cancelled, WaitTimeout."""
    key = keys.task(task)

    def look() -> Done[Task] | Progress:
        entry = read(ops.store, key)
        if entry is None:
            raise WaitFailed(f"task {task} is not there any more")
        now = entry.value
        if now.state is TaskState.DONE:
            return Done(now)
        if now.state in FINAL:
            raise WaitFailed(f"{now.subject or now.kind}: the task {now.state.value}: {now.error or now.message}")
        words = now.message or ("waiting for its turn" if now.state is TaskState.QUEUED else now.state.value)
        return Progress(words, now.progress if now.state is TaskState.RUNNING else None)

    return wait_until(ops, f"task {task} is not done", [key.path], look, timeout_s=timeout_s, report=report)


def wait_node(ops: Ops, node: str, goal: NodeGoal, *, timeout_s: float, report: Report | None = None) -> NodeInfo:
    """Wait for a node.  Raises WaitFailed (removed, not alive for long, asked for otherwise), WaitTimeout."""
    if goal in (NodeGoal.PRIMARY, NodeGoal.SECONDARY):
        _wait_primary(ops, node, goal, timeout_s=timeout_s, report=report)
    else:
        _wait_scheduling(ops, node, goal, timeout_s=timeout_s, report=report)
    return node_info(ops, NodeQuery(node=node))


def wait_volume(
    ops: Ops, volume: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> VolumeView | None:
    """Wait for a volume (id); returns it, None when it is gone.  Raises WaitFailed, WaitTimeout."""
    spec_key, status_key = keys.volume_spec(volume), keys.volume_status(volume)

    def look() -> Done[VolumeView | None] | Progress:
        entry = read(ops.store, spec_key)
        if entry is None:
            return _absent("volume", volume, goal)
        view = volume_view(ops, entry.value)
        status = read(ops.store, status_key)
        renamed = status is not None and status.value.name in ("", view.name)
        if goal is ObjectGoal.READY:
            if view.deleting:
                raise WaitFailed(f"volume {view.pool}/{view.name} is being removed")
            if view.settled and view.state == VolumeState.FAILED:
                raise WaitFailed(f"volume {view.pool}/{view.name}: {_bad(view.conditions) or 'failed'}")
            if view.settled and renamed and view.state == VolumeState.READY:
                return Done(view)
        waiting = f"waiting for node {view.node}" if view.state == VolumeState.READY else view.state
        return Progress(_bad(view.conditions) or waiting)

    paths = [spec_key.path, status_key.path]
    what = f"volume {volume} is not {goal.value}"
    return wait_until(ops, what, paths, look, timeout_s=timeout_s, report=report)


def wait_pool(
    ops: Ops, pool: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> PoolView | None:
    """Wait for a pool (id); returns it, None when it is gone.  Raises WaitFailed, WaitTimeout."""
    spec_key, status_key = keys.pool_spec(pool), keys.pool_status(pool)

    def look() -> Done[PoolView | None] | Progress:
        entry = read(ops.store, spec_key)
        if entry is None:
            return _absent("storage pool", pool, goal)
        view = pool_view(ops, entry.value)
        if goal is ObjectGoal.READY:
            if view.deleting:
                raise WaitFailed(f"storage pool {view.name} is being removed")
            if view.ready:
                return Done(view)
        waiting = f"waiting for node {view.node}" if not view.settled else "not ready"
        return Progress(_bad(view.conditions) or ("being removed" if view.deleting else waiting))

    paths = [spec_key.path, status_key.path]
    return wait_until(ops, f"pool {pool} is not {goal.value}", paths, look, timeout_s=timeout_s, report=report)


def wait_network(
    ops: Ops, network: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> NetworkInfo | None:
    """Wait until a network (id) is as wanted on every node that is alive, or gone.  Raises WaitFailed, WaitTimeout."""
    spec_key = keys.network_spec(network)

    def look() -> Done[NetworkInfo | None] | Progress:
        entry = read(ops.store, spec_key)
        if entry is None:
            return _absent("network", network, goal)
        info = read_network_info(ops, entry.value)
        view = info.view
        if goal is ObjectGoal.READY:
            if view.deleting:
                raise WaitFailed(f"network {view.name} is being removed")
            if view.nodes_ready >= view.nodes:
                return Done(info)
        fraction = view.nodes_ready / view.nodes if view.nodes and goal is ObjectGoal.READY else None
        words = f"on {view.nodes_ready} of {view.nodes} nodes" if goal is ObjectGoal.READY else "being removed"
        return Progress("; ".join([words, *view.problems]), fraction)

    what = f"network {network} is not {goal.value}"
    paths = [spec_key.path, f"{keys.STATUS}/network"]
    return wait_until(ops, what, paths, look, timeout_s=timeout_s, report=report)


def _wait_scheduling(ops: Ops, node: str, goal: NodeGoal, *, timeout_s: float, report: Report | None) -> None:
    spec_key, status_key, lease_key = keys.node_spec(node), keys.node_status(node), keys.lease(node)
    snapshot = read_cluster(ops)
    # Those that have to leave, or to come: only their claims are looked at again after each change.
    if goal is NodeGoal.DRAINED:
        rows = [row for row in snapshot.vms.values() if node in occupied(row, snapshot.claims.get(row.id))]
    else:
        rows = [row for row in snapshot.vms.values() if row.home == node and row.power == "running"]
    claims = [keys.claim(row.id) for row in rows]
    patience = Patience(ops)

    def look() -> Done[None] | Progress:
        found = ops.store.get_many([spec_key.path, status_key.path, lease_key.path])
        spec, status = maybe(spec_key, found[0]), maybe(status_key, found[1])
        if spec is None:
            raise WaitFailed(f"node {node} is not part of the cluster any more")
        _check_wanted(spec.value, goal)
        dead = patience.check(node, alive=found[2] is not None)
        if dead is not None:
            return dead
        if status is not None and _reached(spec.value, status.value, goal):
            return Done(None)
        here = [entry for entry in read_many(ops.store, claims) if entry is not None and entry.value.node == node]
        moved = len(here) if goal is NodeGoal.READY else len(claims) - len(here)
        verb = "back" if goal is NodeGoal.READY else "moved"
        return Progress(f"{moved} of {len(claims)} VMs {verb}", moved / len(claims) if claims else None)

    paths = [spec_key.path, status_key.path, lease_key.path, *([keys.CLAIM] if claims else [])]
    wait_until(ops, f"node {node} is not {goal.value}", paths, look, timeout_s=timeout_s, report=report)


def _check_wanted(spec: NodeSpec, goal: NodeGoal) -> None:
    wanted = "drain" if goal is NodeGoal.DRAINED else "ready"
    if spec.scheduling != wanted:
        other = "returned to service" if wanted == "drain" else "flushed"
        raise WaitFailed(f"node {spec.id} was {other} meanwhile")


def _reached(spec: NodeSpec, status: NodeStatus, goal: NodeGoal) -> bool:
    return status.scheduling == goal.value and status.observed_generation >= spec.generation


def _wait_primary(ops: Ops, node: str, goal: NodeGoal, *, timeout_s: float, report: Report | None) -> None:
    def look() -> Done[None] | Progress:
        entry = read(ops.store, keys.PRIMARY)
        primary = entry.value if entry is not None else Primary()
        there = primary.node == node and primary.stage == "active"
        if there and primary.wanted is None and goal is NodeGoal.PRIMARY:
            return Done(None)
        if primary.node not in (node, None) and primary.stage == "active" and primary.wanted is None:
            if goal is NodeGoal.SECONDARY:
                return Done(None)
            raise WaitFailed(f"node {primary.node} is primary: node {node} did not take the role, or gave it up again")
        return Progress(f"{primary.node or 'nobody'} is primary ({primary.stage})")

    what = f"node {node} is not {goal.value}"
    wait_until(ops, what, [keys.PRIMARY.path], look, timeout_s=timeout_s, report=report)


def _absent(what: str, id_: str, goal: ObjectGoal) -> Done[None]:
    if goal is ObjectGoal.GONE:
        return Done(None)
    raise WaitFailed(f"{what} {id_} was removed meanwhile")


def _bad(conditions: tuple[Condition, ...]) -> str:
    return "; ".join(condition.message or condition.reason for condition in conditions if not condition.ok)
