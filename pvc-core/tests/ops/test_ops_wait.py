"""Waiting for effects: on events, with a slow resync, ending when it can no longer come."""

import threading

import pytest

from pvc_core.model.base import Condition
from pvc_core.model.node import Primary
from pvc_core.model.storage import VolumeState
from pvc_core.model.task import TaskState
from pvc_core.model.vm import MigrationResult
from pvc_core.ops import waiting
from pvc_core.ops.network import NetworkQuery, network_remove
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import NodeFlush, NodePrimary, node_flush, node_primary, node_ready, node_secondary
from pvc_core.ops.pool import PoolQuery, pool_remove
from pvc_core.ops.task import TaskCreate, TaskQuery, task_cancel, task_create
from pvc_core.ops.vm_modify import VmModify, VmPatch, vm_modify
from pvc_core.ops.vm_move import VmMove, vm_move
from pvc_core.ops.vm_power import VmStart, VmStop, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_forget, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.ops.volume import VolumeQuery, VolumeRename, volume_remove, volume_rename
from pvc_core.ops.wait import (
    NodeGoal,
    ObjectGoal,
    VmGoal,
    WaitFailed,
    WaitTimeout,
    wait_network,
    wait_node,
    wait_pool,
    wait_task,
    wait_vm,
    wait_volume,
)
from pvc_core.store import keys
from pvc_core.store.api import StoreUnavailable
from pvc_core.store.documents import read

LONG = 30.0
"""Far more than any of these takes; nothing waits for it to pass."""


class Reports(list):
    """Collects what a wait reports and does something at each message."""

    def __init__(self, *steps):
        super().__init__()
        self._steps = list(steps)

    def __call__(self, progress):
        self.append(progress.message)
        if self._steps:
            self._steps.pop(0)()


def vm(small, id_, goal, report=None, timeout_s=LONG, **more):
    return wait_vm(small.ops, id_, goal, timeout_s=timeout_s, report=report, **more)


# --- VMs --------------------------------------------------------------------------------------------


def test_start_is_waited_for_with_what_is_seen(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    seen = Reports(lambda: small.report(id_, "starting", reason="attaching disks"), lambda: small.report_running(id_))
    info = vm(small, id_, VmGoal.RUNNING, seen)
    assert info.view.running_on == "hv1"
    assert seen == ["starting", "starting: attaching disks"]


def test_what_is_there_already_is_not_reported(small):
    seen = Reports()
    assert vm(small, small.run(), VmGoal.RUNNING, seen).view.state == "running"
    assert seen == []


def test_change_from_another_thread_ends_the_wait(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    begun = threading.Event()
    other = threading.Thread(target=lambda: begun.wait(LONG) and small.report_running(id_))
    other.start()
    assert vm(small, id_, VmGoal.RUNNING, lambda _: begun.set()).view.state == "running"
    other.join()


def test_lost_watch_is_covered_by_the_resync(small, monkeypatch):
    monkeypatch.setattr(waiting, "RESYNC_S", 0.01)
    monkeypatch.setattr(small.store, "watch", lambda *_: None)
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    assert vm(small, id_, VmGoal.RUNNING, Reports(lambda: small.report_running(id_))).view.state == "running"


def test_time_limit_tells_the_last_that_was_seen(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    small.report(id_, "waiting", reason="no room")
    with pytest.raises(
        WaitTimeout, match="the VM is not running after 0 ms: waiting: no room; it goes on all the same"
    ):
        vm(small, id_, VmGoal.RUNNING, timeout_s=0)


def test_restart_is_waited_for_until_it_is_done(small):
    id_ = small.run()
    vm_restart(small.ops, VmQuery(vm="web"))
    seen = Reports(lambda: small.report(id_, "stopping"), lambda: small.report_running(id_))
    vm(small, id_, VmGoal.RUNNING, seen)
    assert seen == ["running", "stopping"]


def test_move_is_done_when_the_target_holds_and_runs_it(small):
    id_ = small.run()
    vm_move(small.ops, VmMove(vm="web", node="hv2"))
    small.claim(id_, "hv1", migration_to="hv2")
    seen = Reports(
        lambda: small.report(id_, "migrating", "hv1", reason="to hv2, 40 % done"),
        lambda: small.report(id_, "running", "hv2", reason=""),
        lambda: small.report_running(id_, "hv2"),
    )
    assert vm(small, id_, VmGoal.RUNNING, seen).view.running_on == "hv2"
    assert seen == ["running", "migrating: to hv2, 40 % done", "running"]


@pytest.mark.parametrize("node", [None, "hv2"])
def test_move_that_is_given_up_fails_though_the_vm_runs(small, node):
    id_ = small.run()
    vm_move(small.ops, VmMove(vm="web", node="hv2"))

    def give_up():
        bad = MigrationResult(source="hv1", target="hv2", method="live", ok=False, message="connection reset")
        small.report(id_, "running", "hv1", last_migration=bad)
        small.write_spec(id_, node="hv1")

    with pytest.raises(WaitFailed, match="the move of VM 'web' to hv2 was given up, it stays on hv1: connection reset"):
        vm(small, id_, VmGoal.RUNNING, Reports(give_up), node=node)


def test_guest_that_failed_ends_the_wait_with_its_reason(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))

    def fail():
        small.report(id_, "failed", halted=small.spec(id_).generation, reason="no such disk")

    with pytest.raises(WaitFailed, match="VM 'web' failed: no such disk"):
        vm(small, id_, VmGoal.RUNNING, Reports(fail))


@pytest.mark.parametrize(
    ("goal", "change", "message"),
    [
        (VmGoal.RUNNING, lambda s: vm_stop(s.ops, VmStop(vm="web")), "VM 'web' was told to stop meanwhile"),
        (VmGoal.RUNNING, lambda s: vm_remove(s.ops, VmRemove(vm="web", force=True)), "the VM was removed meanwhile|is being"),
        (VmGoal.STOPPED, lambda s: None, "VM 'web' was started meanwhile"),
        (VmGoal.GONE, lambda s: None, "VM 'web' is not being removed"),
    ],
)  # fmt: skip
def test_other_orders_end_the_wait(small, goal, change, message):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    with pytest.raises(WaitFailed, match=message):
        vm(small, id_, goal, Reports(lambda: change(small)))


def test_stop_is_done_when_nobody_holds_the_claim(small):
    id_ = small.run()
    vm_shutdown(small.ops, VmQuery(vm="web"))
    seen = Reports(
        lambda: small.report(id_, "stopping"),
        lambda: (small.claim(id_, ""), small.report(id_, "stopping", reason="releasing disks")),
        lambda: small.report_stopped(id_),
    )
    assert vm(small, id_, VmGoal.STOPPED, seen).view.state == "stopped"
    assert seen == ["running", "stopping", "stopping: releasing disks"]


def test_vm_of_a_node_that_is_not_alive_is_stopped_when_nobody_holds_its_claim(small):
    id_ = small.run()
    small.kill("hv1")
    vm_stop(small.ops, VmStop(vm="web"))
    seen = Reports(lambda: small.claim(id_, ""))
    assert vm(small, id_, VmGoal.STOPPED, seen).claim is None
    assert seen == ["unknown: node hv1 is not alive; it was running there"]


def test_vm_that_never_ran_is_stopped(small):
    assert vm(small, small.define(), VmGoal.STOPPED).view.state == "stopped"


def test_settled_when_the_node_has_seen_the_change(small):
    id_ = small.run()
    vm_modify(small.ops, VmModify(vm="web", patch=VmPatch(description="x")))
    assert not small.info(id_).view.settled
    assert vm(small, id_, VmGoal.SETTLED, Reports(lambda: small.report_running(id_))).view.settled


def test_removal_is_done_when_the_documents_are_gone(small):
    id_ = small.run()
    vm_remove(small.ops, VmRemove(vm="web", force=True))

    def finish():
        small.claim(id_, "")
        vm_forget(small.ops, id_)

    seen = Reports(finish)
    assert vm(small, id_, VmGoal.GONE, seen) is None
    assert seen == ["deleting"]


def test_interrupt_leaves_the_job_and_the_store_as_they_are(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    before = small.dump()

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vm(small, id_, VmGoal.RUNNING, interrupt)
    assert small.dump() == before


def test_outage_of_the_store_is_waited_out(small):
    id_ = small.define()
    vm_start(small.ops, VmStart(vm="web"))
    other = small.connect().store

    def back():
        small.store.resume()
        small.report_running(id_)

    seen = Reports(small.store.suspend, back)
    assert vm(small, id_, VmGoal.RUNNING, seen).view.state == "running"
    assert seen == ["starting", "the state store does not answer"]
    assert other.get(keys.vm_spec(id_).path)


def test_outage_longer_than_the_time_limit_is_told(small):
    id_ = small.define()
    small.store.suspend()
    with pytest.raises(StoreUnavailable):
        vm(small, id_, VmGoal.STOPPED, timeout_s=0)


# --- tasks ------------------------------------------------------------------------------------------


def task_at(small, task, **changes):
    from msgspec.structs import replace

    entry = read(small.store, keys.task(task))
    small.store.commit(entry.put(replace(entry.value, **changes)))


def test_task_is_waited_for_with_its_progress(small):
    task = task_create(small.ops, TaskCreate(kind="x", node="hv1")).id
    fractions = []
    steps = Reports(
        lambda: task_at(small, task, state=TaskState.RUNNING, progress=0.5, message="copying"),
        lambda: task_at(small, task, state=TaskState.DONE, progress=1.0),
    )

    def report(progress):
        fractions.append(progress.fraction)
        steps(progress)

    assert wait_task(small.ops, task, timeout_s=LONG, report=report).state is TaskState.DONE
    assert steps == ["waiting for its turn", "copying"]
    assert fractions == [None, 0.5]


def test_task_that_failed_or_was_cancelled_raises(small):
    failed = task_create(small.ops, TaskCreate(kind="x", node="hv1", subject="volume a")).id
    task_at(small, failed, state=TaskState.FAILED, error="disk full")
    with pytest.raises(WaitFailed, match="volume a: the task failed: disk full"):
        wait_task(small.ops, failed, timeout_s=LONG)
    cancelled = task_create(small.ops, TaskCreate(kind="x", node="hv1")).id
    with pytest.raises(WaitFailed, match="x: the task cancelled: cancelled before it began"):
        wait_task(small.ops, cancelled, timeout_s=LONG, report=Reports(
            lambda: task_cancel(small.ops, TaskQuery(task=cancelled))))  # fmt: skip
    with pytest.raises(WaitFailed, match="is not there any more"):
        wait_task(small.ops, "nothing", timeout_s=LONG)


# --- nodes ------------------------------------------------------------------------------------------


def test_flush_is_waited_for_with_how_many_have_moved(small):
    one, two = small.run("one", node="hv1"), small.run("two", node="hv1")
    node_flush(small.ops, NodeFlush(node="hv1"))
    seen = Reports(
        lambda: small.claim(one, "hv2"),
        lambda: small.claim(two, "hv3"),
        lambda: small.report_node("hv1", scheduling="drained", observed_generation=2),
    )
    assert wait_node(small.ops, "hv1", NodeGoal.DRAINED, timeout_s=LONG, report=seen).row.scheduling == "drained"
    assert seen == ["0 of 2 VMs moved", "1 of 2 VMs moved", "2 of 2 VMs moved"]


def test_return_is_waited_for(small):
    vm_id = small.run(node="hv2")
    small.write_spec(vm_id, home="hv1")
    small.set_node("hv1", scheduling="drain")
    node_ready(small.ops, NodeQuery(node="hv1"))
    seen = Reports(
        lambda: small.claim(vm_id, "hv1"),
        lambda: small.report_node("hv1", scheduling="ready", observed_generation=3),
    )
    assert wait_node(small.ops, "hv1", NodeGoal.READY, timeout_s=LONG, report=seen).row.ready
    assert seen == ["0 of 1 VMs back", "1 of 1 VMs back"]


def test_node_that_is_asked_for_otherwise_or_removed_ends_the_wait(small):
    small.set_node("hv1", scheduling="drain")
    with pytest.raises(WaitFailed, match="node hv1 was returned to service meanwhile"):
        wait_node(small.ops, "hv1", NodeGoal.DRAINED, timeout_s=LONG, report=Reports(
            lambda: node_ready(small.ops, NodeQuery(node="hv1"))))  # fmt: skip
    with pytest.raises(WaitFailed, match="node hv1 was flushed meanwhile"):
        wait_node(small.ops, "hv1", NodeGoal.READY, timeout_s=LONG, report=Reports(
            lambda: small.set_node("hv1", scheduling="drain")))  # fmt: skip


def test_node_that_stays_dead_is_not_waited_for(small):
    node_flush(small.ops, NodeFlush(node="hv1"))
    clock = [0.0]

    def pass_time():
        clock[0] += waiting.LOST_S
        small.set_node("hv1", maintenance=True)

    ops = small.ops._replace(monotonic=lambda: clock[0])
    seen = Reports(lambda: small.kill("hv1"), pass_time)
    with pytest.raises(WaitFailed, match="node hv1 is not alive, so nothing happens there"):
        wait_node(ops, "hv1", NodeGoal.DRAINED, timeout_s=10 * waiting.LOST_S, report=seen)
    assert seen[-1] == "node hv1 is not alive; waiting for it to come back"


def primary(small, node, **more):
    entry = read(small.store, keys.PRIMARY)
    small.store.commit(entry.put(Primary(node=node, **({"stage": "active"} | more))))


def test_primary_role_is_waited_for(small):
    primary(small, "hv1")
    node_primary(small.ops, NodePrimary(node="hv2"))
    seen = Reports(
        lambda: primary(small, "hv1", stage="relinquishing", wanted="hv2"),
        lambda: primary(small, None, stage="vacant", wanted="hv2"),
        lambda: primary(small, "hv2", stage="acquiring"),
        lambda: primary(small, "hv2"),
    )
    assert wait_node(small.ops, "hv2", NodeGoal.PRIMARY, timeout_s=LONG, report=seen).row.primary
    assert seen[1:3] == ["hv1 is primary (relinquishing)", "nobody is primary (vacant)"]
    node_secondary(small.ops, NodeQuery(node="hv2"))
    wait_node(small.ops, "hv2", NodeGoal.SECONDARY, timeout_s=LONG, report=Reports(lambda: primary(small, "hv3")))


def test_role_that_another_took_ends_the_wait(small):
    primary(small, "hv1")
    node_primary(small.ops, NodePrimary(node="hv2"))
    with pytest.raises(WaitFailed, match="node hv3 is primary: node hv2 did not take the role"):
        wait_node(small.ops, "hv2", NodeGoal.PRIMARY, timeout_s=LONG, report=Reports(lambda: primary(small, "hv3")))


# --- storage and networks ---------------------------------------------------------------------------


def test_volume_is_waited_for(equipped):
    volume = equipped.volume("new")
    equipped.report_volume(volume, state=VolumeState.CREATING)
    seen = Reports(lambda: equipped.report_volume(volume))
    assert wait_volume(equipped.ops, volume, ObjectGoal.READY, timeout_s=LONG, report=seen).state == "ready"
    assert seen == ["creating"]
    volume_rename(equipped.ops, VolumeRename(volume="ssd/new", name="newer"))
    busy = (Condition(type="X", ok=False, message="busy"),)
    done = Reports(
        lambda: equipped.report_volume(volume, name="new", conditions=busy),
        lambda: equipped.report_volume(volume),
    )
    assert wait_volume(equipped.ops, volume, ObjectGoal.READY, timeout_s=LONG, report=done).name == "newer"
    assert done == ["waiting for node hv1", "busy"]


def test_failed_volume_ends_the_wait_with_the_reason(equipped):
    volume = equipped.volume("new")
    bad = Condition(type="Ready", ok=False, message="no space left")
    equipped.report_volume(volume, state=VolumeState.FAILED, conditions=(bad,))
    with pytest.raises(WaitFailed, match="volume ssd/new: no space left"):
        wait_volume(equipped.ops, volume, ObjectGoal.READY, timeout_s=LONG)


def test_removed_volume_is_gone(equipped):
    from pvc_core.ops.volume import volume_forget

    volume = equipped.volume("new")
    volume_remove(equipped.ops, VolumeQuery(volume="ssd/new"))
    with pytest.raises(WaitFailed, match="volume ssd/new is being removed"):
        wait_volume(equipped.ops, volume, ObjectGoal.READY, timeout_s=LONG)
    seen = Reports(lambda: volume_forget(equipped.ops, volume))
    assert wait_volume(equipped.ops, volume, ObjectGoal.GONE, timeout_s=LONG, report=seen) is None
    with pytest.raises(WaitFailed, match="was removed meanwhile"):
        wait_volume(equipped.ops, volume, ObjectGoal.READY, timeout_s=LONG)


def test_pool_is_waited_for(small):
    from pvc_core.ops.pool import pool_forget

    pool = small.pool()
    bad = (Condition(type="Ready", ok=False, message="/srv is read-only"),)
    seen = Reports(lambda: small.report_pool(pool, conditions=bad), lambda: small.report_pool(pool))
    assert wait_pool(small.ops, pool, ObjectGoal.READY, timeout_s=LONG, report=seen).ready
    assert seen == ["waiting for node hv1", "/srv is read-only"]
    pool_remove(small.ops, PoolQuery(pool="ssd"))
    with pytest.raises(WaitFailed, match="is being removed"):
        wait_pool(small.ops, pool, ObjectGoal.READY, timeout_s=LONG)
    gone = Reports(lambda: pool_forget(small.ops, pool))
    assert wait_pool(small.ops, pool, ObjectGoal.GONE, timeout_s=LONG, report=gone) is None


def test_network_is_waited_for_on_every_node_alive(small):
    from pvc_core.ops.network import network_forget

    network = small.network()
    small.kill("hv3")
    seen = Reports(
        lambda: small.report_network(network, "hv1"),
        lambda: small.report_network(
            network, "hv2", device="", conditions=(Condition(type="Ready", ok=False, message="eth1 is down"),)
        ),
        lambda: small.report_network(network, "hv2"),
    )
    assert wait_network(small.ops, network, ObjectGoal.READY, timeout_s=LONG, report=seen).view.nodes_ready == 2
    assert seen == ["on 0 of 2 nodes", "on 1 of 2 nodes", "on 1 of 2 nodes; hv2: eth1 is down"]
    network_remove(small.ops, NetworkQuery(network="lan"))
    with pytest.raises(WaitFailed, match="network lan is being removed"):
        wait_network(small.ops, network, ObjectGoal.READY, timeout_s=LONG)

    def all_clear():
        for node in ("hv1", "hv2"):
            small.store.commit(read(small.store, keys.network_status(network, node)).delete())
        network_forget(small.ops, network)

    assert wait_network(small.ops, network, ObjectGoal.GONE, timeout_s=LONG, report=Reports(all_clear)) is None
