"""Snapshots of whole VMs, as the nodes make them."""

import pytest

from pvc_core.hypervisor.api import DomainState
from pvc_core.model.errors import Conflict, PvcError
from pvc_core.model.task import TaskState
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmClaim
from pvc_core.node.reconcile import vm_snapshot_create
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.standstill import STILL_S, Standstill, let_go_left
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.ops.task import TaskQuery, task_cancel
from pvc_core.ops.vm_power import VmStop, vm_stop
from pvc_core.ops.vm_snapshot import VmSnapshotQuery, VmSnapshotRename, vm_snapshot_delete, vm_snapshot_rename
from pvc_core.ops.vm_snapshot_rollback import VmSnapshotRollback, vm_snapshot_rollback
from pvc_core.ops.vm_snapshot_views import vm_snapshot_info
from pvc_core.plugin.errors import NotReady
from pvc_core.store import keys
from pvc_core.store.documents import create, read
from pvc_core.testkit.doomed import Died, every_death
from pvc_core.testkit.vm_site import VmSite, each


@pytest.fixture
def site():
    return VmSite()


def test_a_running_guest_stands_still_and_goes_on(site):
    site.start()
    ended = site.done(site.create())
    assert ended.result["consistency"] == "crash"
    (view,) = site.snapshots()
    assert (view.name, view.state, view.consistency, view.vm) == ("s1", "complete", "crash", "web")
    assert view.disks == ("ssd/web-root", "ssd/web-data")
    assert site.kept() == site.told() == each("s1")
    assert site.world.running(site.vm) == ["hv1"]
    assert site.nodes["hv1"].hypervisor.domain(site.vm).note == ""


def test_a_guest_agent_freezes_it(site):
    site.world.agents.add(site.vm)
    site.start()
    assert site.done(site.create()).result["consistency"] == "filesystem"
    assert not site.world.frozen("hv1", site.vm)


def test_a_stopped_vm(site):
    assert site.done(site.create()).result["consistency"] == "offline"
    assert site.kept() == each("s1")


def test_the_life_of_a_snapshot(site):
    site.write_all(b"one")
    site.start()
    site.done(site.create())
    site.write_all(b"two")
    site.done(vm_snapshot_rename(site.ops, VmSnapshotRename(vm="web", snapshot="s1", name="golden")))
    assert site.kept() == site.told() == each("golden")
    assert vm_snapshot_info(site.ops, VmSnapshotQuery(vm="web", snapshot="golden")).view.state == "complete"
    with pytest.raises(PvcError, match="runs or is about to"):
        vm_snapshot_rollback(site.ops, VmSnapshotRollback(vm="web", snapshot="golden"))
    site.stop()
    site.done(vm_snapshot_rollback(site.ops, VmSnapshotRollback(vm="web", snapshot="golden")))
    assert site.contents() == [b"one", b"one"]
    site.start()
    site.done(vm_snapshot_delete(site.ops, VmSnapshotQuery(vm="web", snapshot="golden")))
    assert site.kept() == site.told() == each()
    assert site.snapshots() == []
    assert [path for path in site.cluster.tree.dump() if "vm-snapshot/" in path] == []


# --- one instant ------------------------------------------------------------------------------------


def test_all_snapshots_are_made_while_the_guest_is_frozen_and_stands_still(site):
    site.world.agents.add(site.vm)
    site.start()
    seen = []
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def watched(volume, snapshot):
        seen.append((site.world.present(site.vm)["hv1"], site.world.frozen("hv1", site.vm)))
        return make(volume, snapshot)

    driver.snapshot_create = watched
    assert site.done(site.create()).result["not_frozen"] == ""
    assert seen == [(DomainState.PAUSED, True)] * 2
    assert site.at_ease()


def test_a_guest_is_not_frozen_when_nobody_wants_that(site):
    site.world.agents.add(site.vm)
    site.start()
    result = site.done(site.create(freeze=False)).result
    assert (result["consistency"], result["not_frozen"]) == ("crash", "it was not asked for")


def test_without_an_agent_a_demanded_freeze_fails_and_nothing_is_kept(site):
    site.start()
    ended = site.end(site.create(freeze=True))
    assert (ended.state, ended.error) == (
        TaskState.FAILED,
        "the file systems of the guest could not be frozen: no agent of web answers",
    )
    assert site.kept() == each()
    assert site.documents() == []
    assert site.at_ease()


def test_a_guest_that_was_frozen_in_part_is_thawed_before_it_is_stopped(site):
    site.world.agents.add(site.vm)
    site.world.vm_faults(site.vm).freeze_error = "the disk is full"
    site.start()
    result = site.done(site.create()).result
    assert (result["consistency"], result["not_frozen"]) == ("crash", "the disk is full")
    assert site.at_ease()


def test_a_guest_that_could_not_be_thawed_is_thawed_later(site):
    site.world.agents.add(site.vm)
    site.world.vm_faults(site.vm).thaw_error = "the agent is busy"
    site.start()
    site.done(site.create())
    assert site.world.running(site.vm) == ["hv1"]
    assert site.world.frozen("hv1", site.vm)
    site.cluster.run(120.0)
    assert site.world.frozen("hv1", site.vm)
    site.world.vm_faults(site.vm).thaw_error = ""
    site.until(site.at_ease)


def test_a_guest_that_somebody_else_has_stopped_is_left_alone(site):
    site.start()
    site.world.stand_still("hv1", site.vm)
    ended = site.end(site.create())
    assert ended.state is TaskState.FAILED
    assert "is paused, and not by a snapshot" in ended.error
    site.revive()
    site.cluster.run(120.0)
    assert site.world.present(site.vm) == {"hv1": DomainState.PAUSED}
    assert site.documents() == []


def test_a_guest_that_somebody_lets_go_in_between_makes_no_snapshot(site):
    site.start()
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def meddled(volume, snapshot):
        site.world.stand_still("hv1", site.vm, still=False)
        return make(volume, snapshot)

    driver.snapshot_create = meddled
    ended = site.end(site.create())
    assert "somebody let it go on" in ended.error
    assert site.kept() == each()
    assert site.at_ease()


def test_a_guest_does_not_stand_still_for_longer_than_its_time(site):
    site.start()
    clock = site.cluster.clock
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def slow(volume, snapshot):
        clock.move_to(clock.monotonic() + STILL_S * 0.7)
        return make(volume, snapshot)

    driver.snapshot_create = slow
    ended = site.end(site.create())
    assert ended.state is TaskState.FAILED
    assert "longer than which a guest is not kept standing still" in ended.error
    assert site.kept() == each()
    assert site.documents() == []
    assert site.at_ease()


# --- failures ---------------------------------------------------------------------------------------


def test_what_a_failed_try_made_is_gone_and_its_name_free(site):
    site.start()
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def only_the_root(volume, snapshot):
        if volume.name == "web-data":
            raise NotReady("the pool is full")
        return make(volume, snapshot)

    driver.snapshot_create = only_the_root
    ended = site.end(site.create())
    assert (ended.state, ended.error) == (TaskState.FAILED, "the pool is full")
    assert site.kept() == site.told() == each()
    assert site.documents() == []
    assert site.at_ease()
    driver.snapshot_create = make
    site.done(site.create())


def test_what_could_not_be_removed_looks_failed_and_is_removed_by_the_next_try(site):
    site.faults["hv1"].fail("snapshot_create", NotReady("the pool is full"))
    site.faults["hv1"].fail_always("snapshot_delete")
    ended = site.end(site.create())
    assert "what had been made of it is still to be removed" in ended.error
    (view,) = site.snapshots()
    assert (view.state, view.consistency) == ("failed", "")
    assert "the pool is full" in view.reason
    with pytest.raises(Conflict, match="is not complete"):
        site.roll_back()
    site.faults["hv1"].clear()
    site.done(site.create())
    assert site.snapshots()[0].state == "complete"
    assert site.kept() == each("s1")


def test_what_could_not_be_removed_is_removed_by_the_primary(site):
    site.faults["hv1"].fail("snapshot_create")
    site.faults["hv1"].fail_always("snapshot_delete")
    site.end(site.create())
    site.faults["hv1"].clear()
    site.until(lambda: site.snapshots() == [], 1000.0)
    assert site.kept() == site.told() == each()
    assert site.documents() == []


def test_a_cancelled_one_leaves_nothing(site):
    task = site.create()
    driver = site.drivers["hv1"].storage("fake")
    look = driver.volume_info

    def cancelling(volume):
        if not site.task(task.id).cancel:
            task_cancel(site.ops, TaskQuery(task=task.id))
            site.cluster.clock.move_to(site.cluster.clock.monotonic() + 2.0)
        return look(volume)

    driver.volume_info = cancelling
    assert site.end(task).state is TaskState.CANCELLED
    assert site.kept() == each()
    assert site.documents() == []


def test_a_snapshot_that_a_volume_has_of_its_own_is_not_touched(site):
    """It was made behind the cluster's back, so that the request could not know."""
    site.drivers["hv1"].storage("fake").snapshot_create(site.ref("web-data"), "s1")
    ended = site.end(site.create())
    assert "has a snapshot 's1' of its own already" in ended.error
    assert site.kept() == {"web-root": [], "web-data": ["s1"]}
    assert site.documents() == []


def test_a_vm_that_starts_meanwhile_makes_no_snapshot(site):
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def starting(volume, snapshot):
        # Another node takes the claim.
        entry = read(site.ops.store, keys.claim(site.vm))
        taken = VmClaim(vm=site.vm, node="hv2", lease=1, epoch=1)
        site.ops.store.commit(create(keys.claim(site.vm), taken) if entry is None else entry.put(taken))
        return make(volume, snapshot)

    driver.snapshot_create = starting
    ended = site.end(site.create())
    assert "was started, stopped or moved while its disks were being kept" in ended.error
    assert site.kept() == each()
    assert site.documents() == []


def test_nothing_else_is_done_with_the_vm_while_it_stands_still(site):
    site.start()
    vm_stop(site.ops, VmStop(vm="web"))
    exclusive = Exclusive()
    reconciler = VmReconciler(site.nodes["hv1"].agent.context, exclusive=exclusive)
    with exclusive.if_free(site.vm):
        assert reconciler.reconcile(site.vm) == 0.5
        assert site.world.running(site.vm) == ["hv1"]


def moving(phase):
    return MigrationRecord(target="hv2", attempt="a", phase=phase)


@pytest.mark.parametrize(
    ("claim", "gone_on"),
    [
        (None, False),
        (VmClaim(vm="x", node="hv2", lease=1, epoch=2), False),
        (VmClaim(vm="x", node="hv1", lease=1, epoch=2), True),
        (VmClaim(vm="x", node="hv1", lease=1, epoch=2, migration=moving(MigrationPhase.PREPARE)), False),
        (VmClaim(vm="x", node="hv1", lease=1, epoch=2, migration=moving(MigrationPhase.UNCERTAIN)), False),
        (VmClaim(vm="x", node="hv1", lease=1, epoch=2, migration=moving(MigrationPhase.REFUSED)), False),
    ],
)
def test_only_the_holder_lets_go_what_it_left_and_not_what_may_run_elsewhere(site, claim, gone_on):
    site.start()
    hypervisor = site.nodes["hv1"].hypervisor
    still = Standstill(hypervisor, site.vm)
    still.pause()
    assert let_go_left(hypervisor, "hv1", claim, hypervisor.domain(site.vm)) is gone_on
    assert site.at_ease() is gone_on


# --- the daemon dies --------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", [True, False])
def test_a_guest_goes_on_whenever_the_daemon_dies_and_nobody_tries_again(freeze):
    for count in range(100):
        site = VmSite()
        site.world.agents.add(site.vm)
        site.start()
        site.doom.after(count)
        still = Standstill(site.nodes["hv1"].hypervisor, site.vm)
        try:
            if freeze:
                assert still.freeze() == ""
            still.pause()
            assert still.held()
            still.end()
        except Died:
            site.revive()
            site.until(site.at_ease)
        else:
            break
    assert count == (12 if freeze else 8)
    assert site.at_ease()


def test_a_snapshot_is_made_whenever_the_daemon_dies():
    def make():
        site = VmSite()
        site.world.agents.add(site.vm)
        site.start()
        return site

    def begin(site):
        site.asked = site.create()
        return lambda: site.ended(site.asked.id) and site.at_ease()

    def check(site):
        ended = site.task(site.asked.id)
        assert (ended.state, ended.error) == (TaskState.DONE, "")
        assert site.snapshots()[0].state == "complete"
        assert site.kept() == each("s1")
        site.until(lambda: site.told() == each("s1"))
        site.done(site.delete())
        assert site.documents() == []

    assert every_death(make, begin, check) > 30


def test_what_a_dead_daemon_had_made_is_not_forgotten_while_no_driver_is_ready(monkeypatch):
    def not_ready(*_):
        raise NotReady("the driver is not ready yet")

    for count in range(100):
        site = VmSite()
        site.doom.after(count)
        try:
            site.end(site.create())
        except Died:
            if any(site.kept().values()) and site.documents():
                break
    with monkeypatch.context() as patch:
        patch.setattr(vm_snapshot_create, "find_members", not_ready)
        site.revive()
        site.until(lambda: site.snapshots()[0].state == "failed")
    assert site.documents(), "they say what has to go"
    site.until(lambda: site.documents() == [], 1500.0)
    assert not any(site.kept().values())


def test_a_snapshot_of_a_stopped_vm_is_made_whenever_the_daemon_dies():
    def begin(site):
        site.asked = site.create()
        return lambda: site.ended(site.asked.id)

    def check(site):
        assert site.task(site.asked.id).state is TaskState.DONE
        assert site.kept() == each("s1")

    assert every_death(VmSite, begin, check) > 15


def with_snapshot():
    site = VmSite()
    site.write_all(b"one")
    site.done(site.create())
    site.write_all(b"two")
    return site


def test_a_snapshot_is_renamed_whenever_the_daemon_dies():
    def begin(site):
        site.asked = vm_snapshot_rename(site.ops, VmSnapshotRename(vm="web", snapshot="s1", name="s2"))
        return lambda: site.ended(site.asked.id)

    def check(site):
        assert site.task(site.asked.id).state is TaskState.DONE
        assert site.kept() == each("s2")
        assert [view.name for view in site.snapshots()] == ["s2"]
        site.done(site.delete("s2"))
        assert site.documents() == []

    assert every_death(with_snapshot, begin, check) > 10


def test_a_snapshot_is_deleted_whenever_the_daemon_dies():
    def begin(site):
        site.asked = site.delete()
        return lambda: site.ended(site.asked.id)

    def check(site):
        assert site.task(site.asked.id).state is TaskState.DONE
        assert site.kept() == each()
        assert site.documents() == []

    assert every_death(with_snapshot, begin, check) > 10


def test_a_vm_is_rolled_back_whenever_the_daemon_dies():
    def begin(site):
        site.asked = site.roll_back()
        return lambda: site.ended(site.asked.id)

    def check(site):
        assert (site.task(site.asked.id).state, site.task(site.asked.id).error) == (TaskState.DONE, "")
        assert site.contents() == [b"one", b"one"]
        site.start()

    assert every_death(with_snapshot, begin, check) > 10


def test_what_a_dead_node_left_is_removed_on_another():
    site = VmSite("hv1", "hv2")
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def dying(volume, snapshot):
        make(volume, snapshot)
        raise Died

    driver.snapshot_create = dying
    task = site.create()
    with pytest.raises(Died):
        site.until(lambda: site.ended(task.id))
    assert site.kept() == {"web-root": ["s1"], "web-data": []}
    site.cut_off("hv1")
    ended = site.end(task)
    assert (ended.state, ended.node) == (TaskState.FAILED, "hv1")
    assert site.snapshots()[0].state == "failed"
    site.until(lambda: site.snapshots() == [], 1500.0)
    assert site.kept() == each()
    assert site.documents() == []
