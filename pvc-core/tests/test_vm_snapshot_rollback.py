"""Rolling back, renaming and deleting snapshots of whole VMs, when something is in the way."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NotFound
from pvc_core.model.task import TaskState
from pvc_core.ops.task import TaskQuery, task_cancel
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_modify import VmModify, VmPatch, vm_modify
from pvc_core.ops.vm_power import VmStart, vm_start
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_snapshot import VmSnapshotRename, vm_snapshot_rename
from pvc_core.ops.vm_snapshot_rollback import vm_snapshot_abandon
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.ops.volume import (
    VolumeClone,
    VolumeQuery,
    VolumeRename,
    VolumeResize,
    volume_clone,
    volume_info,
    volume_remove,
    volume_rename,
    volume_resize,
)
from pvc_core.ops.volume_snapshot import (
    SnapshotCreate,
    SnapshotProtect,
    SnapshotQuery,
    SnapshotRename,
    snapshot_create,
    snapshot_delete,
    snapshot_protect,
    snapshot_rename,
    snapshot_rollback,
)
from pvc_core.plugin.errors import NotReady
from pvc_core.store import keys
from pvc_core.store.documents import read
from pvc_core.testkit.vm_site import VmSite, each


@pytest.fixture
def site():
    """A VM that is off, with snapshot ``s1`` of contents that were overwritten since."""
    site = VmSite()
    site.write_all(b"one")
    site.done(site.create())
    site.write_all(b"two")
    return site


def spec(site):
    return vm_info(site.ops, VmQuery(vm="web")).spec


def rename(site, old, new):
    return vm_snapshot_rename(site.ops, VmSnapshotRename(vm="web", snapshot=old, name=new))


# --- roll back --------------------------------------------------------------------------------------


def test_a_vm_that_runs_is_not_rolled_back(site):
    site.start()
    with pytest.raises(InUse, match="VM 'web' runs or is about to: shut it down first"):
        site.roll_back()


def test_a_vm_is_not_started_before_all_disks_are_rolled_back(site):
    site.faults["hv1"].lose_answer("snapshot_rollback", NotReady("the pool is gone"))
    ended = site.end(site.roll_back())
    assert ended.state is TaskState.FAILED
    assert "volume ssd/web-root could not be rolled back: the pool is gone" in ended.error
    assert site.contents() == [b"one", b"two"]
    with pytest.raises(InUse, match="not all rolled back to snapshot 's1'"):
        vm_start(site.ops, VmStart(vm="web"))
    with pytest.raises(InUse, match="not all rolled back"):
        site.create("s2")
    with pytest.raises(InUse, match="not all rolled back"):
        site.delete()
    with pytest.raises(InUse, match="not all rolled back"):
        snapshot_rollback(site.ops, SnapshotQuery(volume="ssd/web-root", snapshot="s1"))
    site.until(
        lambda: "until its disks are rolled back to snapshot s1" in vm_info(site.ops, VmQuery(vm="web")).view.reason
    )
    site.done(site.roll_back())
    assert site.contents() == [b"one", b"one"]
    site.start()


def test_a_vm_that_should_run_waits_for_its_disks(site):
    """Autostart does not look at what is done to the disks; the node does."""
    site.faults["hv1"].fail("snapshot_rollback")
    site.end(site.roll_back())
    entry = read(site.ops.store, keys.vm_spec(site.vm))
    site.ops.store.commit(entry.put(replace(entry.value, power="running", generation=entry.value.generation + 1)))
    site.until(lambda: site.state() == "waiting")
    site.cluster.run(120.0)
    assert site.world.running(site.vm) == []
    site.done(site.roll_back())
    site.until(lambda: site.state() == "running")
    assert site.contents() == [b"one", b"one"]


def test_another_snapshot_may_be_rolled_back_to_after_a_failure(site):
    site.done(site.create("s2"))
    site.faults["hv1"].lose_answer("snapshot_rollback")
    site.end(site.roll_back("s1"))
    site.done(site.roll_back("s2"))
    assert site.contents() == [b"two", b"two"]
    assert spec(site).rollback is None


def test_disks_that_an_earlier_one_changed_stay_locked_when_the_next_finds_an_obstacle(site):
    site.done(site.create("s2"))
    site.faults["hv1"].lose_answer("snapshot_rollback")
    site.end(site.roll_back("s1"))
    site.drivers["hv1"].storage("fake").snapshot_delete(site.ref("web-data"), "s2")
    assert "has no snapshot 's2' any more" in site.end(site.roll_back("s2")).error
    assert spec(site).rollback.begun


def test_a_rollback_can_be_abandoned(site):
    with pytest.raises(InvalidRequest, match="is not being rolled back"):
        vm_snapshot_abandon(site.ops, VmQuery(vm="web"))
    site.faults["hv1"].lose_answer("snapshot_rollback")
    site.end(site.roll_back())
    vm_snapshot_abandon(site.ops, VmQuery(vm="web"))
    site.start()
    assert site.contents() == [b"one", b"two"]


def test_one_in_work_is_neither_abandoned_nor_begun_again(site):
    task = site.roll_back()
    with pytest.raises(InUse, match=f"task {task.id} rolls VM 'web' back"):
        vm_snapshot_abandon(site.ops, VmQuery(vm="web"))
    with pytest.raises(InUse, match="are being rolled back"):
        site.roll_back()
    with pytest.raises(InUse, match="are being rolled back"):
        vm_remove(site.ops, VmRemove(vm="web"))
    site.done(task)


def test_what_is_missing_is_said_and_nothing_is_changed(site):
    site.drivers["hv1"].storage("fake").snapshot_delete(site.ref("web-data"), "s1")
    ended = site.end(site.roll_back())
    assert ended.error == "snapshot 's1' is not complete: volume ssd/web-data has no snapshot 's1' any more"
    assert site.contents() == [b"two", b"two"]
    assert spec(site).rollback is None
    site.until(lambda: site.told()["web-data"] == [])
    assert [disk.state for disk in site.info().disks] == ["present", "missing"]
    with pytest.raises(NotFound, match="volume ssd/web-data has no snapshot 's1' any more"):
        site.roll_back()
    assert site.done(site.delete()).result["missing"] == 1


def test_a_cancelled_one_keeps_the_vm_off(site):
    driver = site.drivers["hv1"].storage("fake")
    roll_back = driver.snapshot_rollback
    task = site.roll_back()

    def cancelling(volume, snapshot, progress):
        task_cancel(site.ops, TaskQuery(task=task.id))
        site.cluster.clock.move_to(site.cluster.clock.monotonic() + 2.0)
        return roll_back(volume, snapshot, progress)

    driver.snapshot_rollback = cancelling
    assert site.end(task).state is TaskState.CANCELLED
    assert spec(site).rollback.begun


def test_one_that_is_cancelled_while_it_is_queued_says_so_and_is_let_be(site):
    assert task_cancel(site.ops, TaskQuery(task=site.roll_back().id)).state is TaskState.CANCELLED
    with pytest.raises(InUse, match=r"ended before it began .*, and nothing was changed: do it now, or let it be"):
        vm_start(site.ops, VmStart(vm="web"))
    vm_snapshot_abandon(site.ops, VmQuery(vm="web"))
    site.start()


def test_one_that_is_cancelled_before_it_began_lets_the_vm_start(site):
    task = site.roll_back()
    driver = site.drivers["hv1"].storage("fake")
    look = driver.volume_info

    def cancelling(volume):
        if not site.task(task.id).cancel:
            task_cancel(site.ops, TaskQuery(task=task.id))
            site.cluster.clock.move_to(site.cluster.clock.monotonic() + 2.0)
        return look(volume)

    driver.volume_info = cancelling
    assert site.end(task).state is TaskState.CANCELLED
    assert spec(site).rollback is None


# --- the definition ---------------------------------------------------------------------------------


def test_the_hardware_of_then_comes_back_when_it_is_asked_for(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(memory=128, description="kept", disks=())))
    site.until(lambda: spec(site).disks == ())
    volume_rename(site.ops, VolumeRename(volume="ssd/web-data", name="data"))
    site.until(lambda: site.settled(site.volumes[1]))
    site.done(site.roll_back(definition=True))
    now = spec(site)
    assert (now.memory_mib, now.description) == (64, "kept")
    assert [disk.path for disk in now.disks] == ["ssd/web-root", "ssd/data"]
    assert site.read(site.pool_id, "data", 3) == b"one"
    site.start()


def test_without_being_asked_for_it_does_not(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(memory=128)))
    site.done(site.roll_back())
    assert spec(site).memory_mib == 128


def test_a_disk_that_was_taken_away_is_rolled_back_too(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(disks=(DiskDefinition(pool="ssd", volume="web-root"),))))
    site.until(lambda: len(spec(site).disks) == 1)
    assert [disk.attached for disk in site.info().disks] == [True, False]
    site.done(site.roll_back())
    assert site.contents() == [b"one", b"one"]


def test_disks_are_not_changed_while_they_are_rolled_back(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(disks=(DiskDefinition(pool="ssd", volume="web-root"),))))
    site.until(lambda: len(spec(site).disks) == 1)
    task = site.roll_back()
    with pytest.raises(InUse, match="are being rolled back to snapshot 's1'"):
        vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(disks=())))
    with pytest.raises(InUse, match="volume ssd/web-data is being rolled back to snapshot 's1' of VM 'web'"):
        site.define("db", "web-data")
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(memory=128)))
    site.done(task)
    site.define("db", "web-data")


def test_a_volume_that_has_grown_since_grows_again(site):
    volume_resize(site.ops, VolumeResize(volume="ssd/web-data", size="8M"))
    site.until(lambda: site.settled(site.volumes[1]))
    site.done(site.roll_back())
    site.until(lambda: volume_info(site.ops, VolumeQuery(volume="ssd/web-data")).settled)
    assert site.drivers["hv1"].storage("fake").volume_info(site.ref("web-data")).size_bytes == 8 << 20
    assert site.contents() == [b"one", b"one"]


def test_a_disk_that_another_vm_has_by_now_is_not_rolled_back(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(disks=(DiskDefinition(pool="ssd", volume="web-root"),))))
    site.until(lambda: len(spec(site).disks) == 1)
    site.define("db", "web-data")
    with pytest.raises(InUse, match="volume ssd/web-data of snapshot 's1' is a disk of VM 'db' now"):
        site.roll_back()
    with pytest.raises(InUse, match="is a disk of VM 'db' now"):
        site.roll_back(definition=True)
    assert site.contents() == [b"two", b"two"]
    with pytest.raises(InUse, match="volume 'web-data' of VM 'db' is part of snapshot 's1' of VM 'web'"):
        vm_remove(site.ops, VmRemove(vm="db", volumes=True))
    vm_remove(site.ops, VmRemove(vm="db"))
    site.done(site.roll_back())


# --- delete and rename ------------------------------------------------------------------------------


def protect(site, name, *, on=True):
    site.done(snapshot_protect(site.ops, SnapshotProtect(volume=f"ssd/{name}", snapshot="s1", protected=on)))


def test_one_with_a_protected_part_is_not_deleted(site):
    protect(site, "web-data")
    assert [disk.protected for disk in site.info().disks] == [False, True]
    with pytest.raises(
        InUse, match="snapshot ssd/web-data@s1 is protected: allow deleting it first; nothing was deleted"
    ):
        site.delete()
    protect(site, "web-data", on=False)
    site.done(site.delete())


def test_what_only_the_backend_knows_is_seen_before_anything_is_deleted(site):
    driver = site.drivers["hv1"].storage("fake")
    driver.snapshot_protect(site.ref("web-data"), "s1", protected=True)
    assert "snapshot ssd/web-data@s1 is protected" in site.end(site.delete()).error
    driver.snapshot_protect(site.ref("web-data"), "s1", protected=False)
    volume_clone(site.ops, VolumeClone(pool="ssd", source="web-data@s1", name="copy"))
    site.until(lambda: "copy" in site.names())
    assert site.end(site.delete()).error == ("snapshot ssd/web-data@s1 has the clone ssd/copy: remove that first")
    assert site.snapshots()[0].state == "complete"
    assert site.kept() == each("s1")
    volume_remove(site.ops, VolumeQuery(volume="ssd/copy"))
    site.until(lambda: "copy" not in site.names())
    site.done(site.delete())


def test_a_deletion_that_failed_half_way_is_finished_and_never_taken_back(site):
    driver = site.drivers["hv1"].storage("fake")
    delete = driver.snapshot_delete

    def only_the_root(volume, snapshot):
        if volume.name == "web-data":
            raise NotReady("the pool is gone")
        return delete(volume, snapshot)

    driver.snapshot_delete = only_the_root
    assert site.end(site.delete()).error == "the pool is gone"
    assert site.snapshots()[0].state == "failed"
    with pytest.raises(Conflict, match="is not complete: deleting it"):
        site.roll_back()
    with pytest.raises(Conflict, match="is not complete"):
        rename(site, "s1", "s2")
    driver.snapshot_delete = delete
    driver.snapshot_protect(site.ref("web-data"), "s1", protected=True)
    assert "is protected" in site.end(site.delete()).error
    assert site.snapshots()[0].state == "failed"
    driver.snapshot_protect(site.ref("web-data"), "s1", protected=False)
    site.done(site.delete())
    assert site.documents() == []


def test_names_that_are_taken_are_refused(site):
    site.done(site.create("s2"))
    with pytest.raises(AlreadyExists, match="VM 'web' has a snapshot 's2' already"):
        rename(site, "s1", "s2")
    with pytest.raises(AlreadyExists, match="VM 'web' has a snapshot 's1' already"):
        site.create("s1")
    site.done(snapshot_create(site.ops, SnapshotCreate(volume="ssd/web-data", snapshot="own")))
    for asked in (lambda: rename(site, "s1", "own"), lambda: site.create("own")):
        with pytest.raises(AlreadyExists, match="volume ssd/web-data has a snapshot 'own' of its own already"):
            asked()
    with pytest.raises(InvalidRequest, match="has that name already"):
        rename(site, "s1", "s1")


def test_a_name_that_is_taken_in_the_backend_only_leaves_the_old_one(site):
    site.drivers["hv1"].storage("fake").snapshot_create(site.ref("web-data"), "s2")
    assert "has a snapshot 's2' of its own already" in site.end(rename(site, "s1", "s2")).error
    (view,) = site.snapshots()
    assert (view.name, view.state) == ("s1", "complete")
    assert site.kept() == {"web-root": ["s1"], "web-data": ["s1", "s2"]}
    site.done(rename(site, "s1", "s3"))


def test_a_renaming_that_failed_half_way_is_finished(site):
    site.faults["hv1"].lose_answer("snapshot_rename", NotReady("the pool is gone"))
    assert site.end(rename(site, "s1", "s2")).error == "the pool is gone"
    assert site.kept() == {"web-root": ["s2"], "web-data": ["s1"]}
    assert site.info("s1").view.state == site.info("s2").view.state == "failed"
    with pytest.raises(Conflict, match="finish it, by renaming it to 's1' or 's2'"):
        rename(site, "s2", "s3")
    with pytest.raises(AlreadyExists, match="has a snapshot 's1' already"):
        site.create("s1")
    site.done(rename(site, "s2", "s1"))
    assert site.kept() == site.told() == each("s1")
    site.done(site.roll_back())
    site.done(site.create("s2"))


def test_a_renaming_that_nobody_finishes_is_finished_by_the_primary(site):
    site.faults["hv1"].lose_answer("snapshot_rename", NotReady("the pool is gone"))
    site.end(rename(site, "s1", "s2"))
    site.until(lambda: site.snapshots()[0].state == "complete", 1000.0)
    assert site.kept() == each("s2")


@pytest.mark.parametrize("ask", [lambda site: site.delete(), lambda site: rename(site, "s1", "s2")])
def test_what_was_cancelled_before_it_began_is_not_done_by_the_primary_later(site, ask):
    assert task_cancel(site.ops, TaskQuery(task=ask(site).id)).state is TaskState.CANCELLED
    site.until(lambda: site.snapshots()[0].state == "complete", 1000.0)
    assert [view.name for view in site.snapshots()] == ["s1"]
    assert site.kept() == each("s1")
    site.done(site.create("s2"))


@pytest.mark.parametrize("ask", [lambda site: site.delete(), lambda site: rename(site, "s1", "s2")])
def test_what_was_cancelled_before_it_began_is_in_nobodys_way(site, ask):
    task_cancel(site.ops, TaskQuery(task=ask(site).id))
    site.done(site.roll_back())
    assert site.contents() == [b"one", b"one"]
    task_cancel(site.ops, TaskQuery(task=ask(site).id))
    site.done(rename(site, "s1", "s3"))
    assert site.kept() == each("s3")


# --- parts, volumes, the VM -------------------------------------------------------------------------


def test_a_part_is_not_changed_by_itself(site):
    with pytest.raises(InUse, match="is part of snapshot 's1' of VM 'web', with those of its other disks"):
        snapshot_delete(site.ops, SnapshotQuery(volume="ssd/web-root", snapshot="s1"))
    with pytest.raises(InUse, match="rename that with 'vm snapshot rename'"):
        snapshot_rename(site.ops, SnapshotRename(volume="ssd/web-root", snapshot="s1", name="s2"))
    site.done(snapshot_create(site.ops, SnapshotCreate(volume="ssd/web-root", snapshot="own")))
    site.done(snapshot_delete(site.ops, SnapshotQuery(volume="ssd/web-root", snapshot="own")))
    site.done(snapshot_rollback(site.ops, SnapshotQuery(volume="ssd/web-root", snapshot="s1")))
    assert site.contents() == [b"one", b"two"]


def test_a_name_that_is_about_to_be_used_is_not_taken_by_a_volume(site):
    site.faults["hv1"].lose_answer("snapshot_rename")
    site.end(rename(site, "s1", "s2"))
    with pytest.raises(InUse, match="choose another name"):
        snapshot_create(site.ops, SnapshotCreate(volume="ssd/web-data", snapshot="s2"))


def test_a_volume_of_a_snapshot_is_not_removed(site):
    vm_modify(site.ops, VmModify(vm="web", patch=VmPatch(disks=(DiskDefinition(pool="ssd", volume="web-root"),))))
    site.until(lambda: len(spec(site).disks) == 1)
    with pytest.raises(InUse, match="volume ssd/web-data is part of snapshot 's1' of VM 'web': delete that first"):
        volume_remove(site.ops, VolumeQuery(volume="ssd/web-data"))
    site.done(site.delete())
    volume_remove(site.ops, VolumeQuery(volume="ssd/web-data"))


def test_a_vm_is_forgotten_with_its_snapshots_and_their_parts_stay(site):
    assert vm_remove(site.ops, VmRemove(vm="web")).snapshots == ("s1",)
    assert site.documents() == []
    assert site.kept() == each("s1")
    site.done(snapshot_delete(site.ops, SnapshotQuery(volume="ssd/web-root", snapshot="s1")))


def test_a_vm_is_removed_with_its_volumes_and_snapshots(site):
    vm_remove(site.ops, VmRemove(vm="web", volumes=True))
    assert site.documents() == []
    site.until(lambda: site.names() == [])


def test_a_vm_that_is_removed_in_between_leaves_nothing_of_its_snapshot(site):
    task = site.create("s2")
    driver = site.drivers["hv1"].storage("fake")
    make = driver.snapshot_create

    def removing(volume, snapshot):
        if volume.name == "web-data":
            vm_remove(site.ops, VmRemove(vm="web"))
        return make(volume, snapshot)

    driver.snapshot_create = removing
    assert site.end(task).state is TaskState.FAILED
    assert site.documents() == []
