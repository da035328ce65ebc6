"""Tasks on volumes: images in and out, snapshots."""

import threading

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import Conflict
from pvc_core.model.storage import PoolUsage, VolumeState
from pvc_core.model.task import TaskState
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.ops.pool_space import NoSpace
from pvc_core.ops.task import TaskCreate, TaskQuery, task_cancel, task_create
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeQuery,
    volume_add,
    volume_info,
    volume_remove,
)
from pvc_core.ops.volume_image import VolumeExport, VolumeImport, volume_export, volume_import
from pvc_core.ops.volume_snapshot import (
    SnapshotCreate,
    SnapshotList,
    SnapshotProtect,
    SnapshotQuery,
    SnapshotRename,
    snapshot_create,
    snapshot_delete,
    snapshot_list,
    snapshot_protect,
    snapshot_rename,
    snapshot_rollback,
)
from pvc_core.plugin.errors import NotReady
from pvc_core.plugin.specs.storage import Cancelled
from pvc_core.store import documents, keys
from pvc_core.store.api import Delete
from pvc_core.testkit.doomed import every_death
from pvc_core.testkit.fakes import FakeStorage
from pvc_core.testkit.storage_site import StorageSite

MIB = 1 << 20


@pytest.fixture
def site():
    made = StorageSite("hv1")
    made.pool()
    return made


def _add(site, name="web1"):
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name=name, size="4M")).id
    site.until(lambda: site.settled(volume))
    site.write(_pool(site), name, b"contents")
    return volume


def _pool(site):
    return next(iter(site.backend.pools))


def _end(site, task):
    site.until(lambda: site.ended(task.id))
    return site.task(task.id)


def _done(site, task):
    ended = _end(site, task)
    assert (ended.state, ended.error) == (TaskState.DONE, "")
    return ended


def _names(site):
    return [snapshot.name for snapshot in snapshot_list(site.ops, SnapshotList(volume="ssd/web1"))]


def _volumes(site):
    return site.ops.store.children(f"{keys.SPEC}/volume")


def _usage(site, total, used):
    """Say how large the pool is, as long as its node has not looked again."""
    entry = documents.read(site.ops.store, keys.pool_status(_pool(site)))
    usage = PoolUsage(total_bytes=total, used_bytes=used, free_bytes=total - used)
    site.ops.store.commit(entry.put(replace(entry.value, usage=usage)))


def test_an_imported_volume_is_ready_when_its_task_is_done(site, tmp_path):
    task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=site.image(tmp_path, b"an image")))
    ended = _done(site, task)
    assert ended.result == {"size_bytes": MIB}
    view = volume_info(site.ops, VolumeQuery(volume="ssd/web1"))
    assert (view.state, view.size_bytes) == ("ready", MIB)
    site.until(lambda: volume_info(site.ops, VolumeQuery(volume="ssd/web1")).settled)
    assert site.read(_pool(site), "web1", 8) == b"an image"


def test_a_failed_import_fails_its_volume_which_can_be_removed(site):
    task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path="/no/such/file"))
    ended = _end(site, task)
    assert ended.state is TaskState.FAILED
    assert "/no/such/file" in ended.error
    volume = str(ended.arguments["volume"])
    site.until(lambda: site.settled(volume))
    status = site.volume_status(volume)
    assert status.state is VolumeState.FAILED
    assert (status.conditions[0].reason, status.conditions[0].ok) == ("ImportFailed", False)
    assert "/no/such/file" in status.conditions[0].message
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: site.volume(volume) is None)


@pytest.mark.parametrize("there", [True, False])
def test_who_keeps_the_file_is_told_when_an_import_has_ended(site, tmp_path, there):
    path = site.image(tmp_path, b"an image") if there else "/no/such/file"
    ended = _end(site, volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=path)))
    assert (ended.state is TaskState.DONE) == there
    assert site.imported == [path]


def test_a_cancelled_import_leaves_no_volume_behind(site, tmp_path):
    image = site.image(tmp_path, b"an image")
    site.faults["hv1"].fail("volume_import", Cancelled("stopped"))
    task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=image))
    ended = _end(site, task)
    assert ended.state is TaskState.CANCELLED
    assert site.names() == []
    volume = str(ended.arguments["volume"])
    site.until(lambda: site.volume_status(volume).state is VolumeState.FAILED)


def test_an_image_that_is_too_large_for_the_pool_is_refused_by_its_node(site, tmp_path):
    _usage(site, 10 * MIB, 9 * MIB)
    path = site.image(tmp_path, b"an image", 2 * MIB)
    ended = _end(site, volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=path, force=True)))
    assert ended.state is TaskState.FAILED
    assert ended.error.startswith(f"volume ssd/web1 from {path} of 2 MiB does not fit into pool ssd: 2 MiB are needed")
    assert site.names() == []
    site.until(lambda: volume_info(site.ops, VolumeQuery(volume="ssd/web1")).state == VolumeState.FAILED)


def test_an_image_may_promise_more_than_the_pools_limit_by_force_only(site, tmp_path):
    path = site.image(tmp_path, b"an image", 2 * MIB)
    _usage(site, 10 * MIB, 7 * MIB)
    ended = _end(site, volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=path)))
    assert "would let pool ssd become 90 % full, more than 80 %" in ended.error
    _usage(site, 10 * MIB, 7 * MIB)
    _done(site, volume_import(site.ops, VolumeImport(pool="ssd", name="web2", path=path, force=True)))


def test_an_image_that_is_being_imported_is_kept_room_for(site, tmp_path, monkeypatch):
    _usage(site, 10 * MIB, 2 * MIB)
    path = site.image(tmp_path, b"an image", 5 * MIB)
    plain, seen = FakeStorage.volume_import, []

    def import_(driver, *args):
        with pytest.raises(NoSpace, match="7 MiB are used and 3 MiB free"):
            volume_add(site.ops, VolumeAdd(pool="ssd", name="web2", size="2M"))
        seen.extend(site.volume_status(id_).expected_bytes for id_ in _volumes(site))
        return plain(driver, *args)

    monkeypatch.setattr(FakeStorage, "volume_import", import_)
    _done(site, volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=path)))
    assert seen == [5 * MIB]
    assert [site.volume_status(id_).expected_bytes for id_ in _volumes(site)] == [0]


def test_an_import_whose_task_is_gone_fails_its_volume(site, tmp_path):
    task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=site.image(tmp_path, b"an image")))
    site.ops.store.commit(Delete(keys.task(task.id).path))
    volume = str(task.arguments["volume"])
    site.until(lambda: site.settled(volume))
    assert site.volume_status(volume).state is VolumeState.FAILED
    assert "is gone" in site.volume_status(volume).conditions[0].message


def test_a_volume_that_goes_with_its_vm_ends_its_import(site, tmp_path):
    """The operation refuses to remove a volume that is being imported; the removal of its VM does not."""
    task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=site.image(tmp_path, b"an image")))
    volume = str(task.arguments["volume"])
    with pytest.raises(Conflict, match="cancel that first"):
        volume_remove(site.ops, VolumeQuery(volume=volume))
    entry = documents.read(site.ops.store, keys.volume_spec(volume))
    going = replace(entry.value, deleting=True, generation=2)
    site.ops.store.commit(entry.put(going), Delete(keys.ref("volume", volume)))
    site.until(lambda: site.volume(volume) is None)
    assert site.names() == []
    assert site.ended(task.id)


def test_a_volume_is_exported(site, tmp_path):
    _add(site)
    target = tmp_path / "web1.raw"
    ended = _done(site, volume_export(site.ops, VolumeExport(volume="ssd/web1", path=str(target))))
    assert ended.result == {"path": str(target)}
    assert target.read_bytes()[:8] == b"contents"


def test_the_life_of_a_snapshot(site):
    _add(site)
    _done(site, snapshot_create(site.ops, SnapshotCreate(volume="ssd/web1", snapshot="s1")))
    assert _names(site) == ["s1"]
    site.write(_pool(site), "web1", b"changed!")
    _done(site, snapshot_rename(site.ops, SnapshotRename(volume="ssd/web1", snapshot="s1", name="golden")))
    assert _names(site) == ["golden"]
    _done(site, snapshot_protect(site.ops, SnapshotProtect(volume="ssd/web1", snapshot="golden")))
    assert snapshot_list(site.ops, SnapshotList(volume="ssd/web1"))[0].protected
    with pytest.raises(Exception, match="protected"):
        snapshot_delete(site.ops, SnapshotQuery(volume="ssd/web1", snapshot="golden"))
    _done(site, snapshot_protect(site.ops, SnapshotProtect(volume="ssd/web1", snapshot="golden", protected=False)))
    _done(site, snapshot_rollback(site.ops, SnapshotQuery(volume="ssd/web1", snapshot="golden")))
    assert site.read(_pool(site), "web1", 8) == b"contents"
    _done(site, snapshot_delete(site.ops, SnapshotQuery(volume="ssd/web1", snapshot="golden")))
    assert _names(site) == []


def test_a_failed_snapshot_says_why(site):
    _add(site)
    site.faults["hv1"].fail("snapshot_create", NotReady("the pool is not mounted"))
    ended = _end(site, snapshot_create(site.ops, SnapshotCreate(volume="ssd/web1", snapshot="s1")))
    assert (ended.state, ended.error) == (TaskState.FAILED, "the pool is not mounted")
    assert _names(site) == []


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("snapshot.create", {}, "needs the argument 'volume'"),
        ("snapshot.create", {"volume": "nobody", "snapshot": "s1"}, "was removed"),
        ("snapshot.create", {"volume": "web1"}, "needs the argument 'snapshot'"),
        ("snapshot.protect", {"volume": "web1", "snapshot": "s1", "protected": "yes"}, "true or false"),
        ("volume.export", {"volume": "web1", "path": 5}, "needs the argument 'path'"),
    ],
)
def test_wrong_arguments_are_named(site, kind, arguments, message):
    volume = _add(site)
    given = {key: volume if value == "web1" else value for key, value in arguments.items()}
    ended = _end(site, task_create(site.ops, TaskCreate(kind=kind, node="hv1", arguments=given)))
    assert ended.state is TaskState.FAILED
    assert message in ended.error


def test_a_volume_that_is_not_made_yet_has_no_snapshots(site):
    site.faults["hv1"].fail_always("volume_create")
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    ended = _end(site, snapshot_create(site.ops, SnapshotCreate(volume=volume, snapshot="s1")))
    assert ended.state is TaskState.FAILED
    assert "not ready yet" in ended.error


def test_every_task_ends_whenever_the_daemon_dies(tmp_path):
    """It fails, because its daemon died, or is done; and the volume is as one of both says."""
    image = StorageSite("hv1").image(tmp_path, b"an image")

    def make():
        site = StorageSite("hv1")
        site.pool()
        return site

    def begin(site):
        task = volume_import(site.ops, VolumeImport(pool="ssd", name="web1", path=image))
        site.asked = task
        volume = str(task.arguments["volume"])
        return lambda: site.ended(task.id) and site.settled(volume)

    def check(site):
        task = site.task(site.asked.id)
        state = volume_info(site.ops, VolumeQuery(volume="ssd/web1")).state
        if task.state is TaskState.DONE:
            assert state == "ready"
            assert site.names() == ["web1"]
        else:
            assert task.state is TaskState.FAILED
            # The driver had finished when the daemon died, and the runner had said so.
            assert state == ("ready" if site.volume_status(str(task.arguments["volume"])).size_bytes else "failed")
        volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
        site.until(lambda: site.volume(str(task.arguments["volume"])) is None)
        assert site.names() == []

    assert every_death(make, begin, check) > 8


def test_a_running_task_can_be_cancelled_before_it_begins(site):
    _add(site)
    task = snapshot_create(site.ops, SnapshotCreate(volume="ssd/web1", snapshot="s1"))
    task_cancel(site.ops, TaskQuery(task=task.id))
    assert _end(site, task).state is TaskState.CANCELLED
    assert _names(site) == []


# --- one thing at a time ----------------------------------------------------------------------------


def test_an_object_in_work_is_not_taken_twice():
    exclusive = Exclusive()
    with exclusive.if_free("a") as first, exclusive.if_free("a") as second, exclusive.if_free("b") as other:
        assert (first, second, other) == (True, False, True)
    with exclusive.if_free("a") as again:
        assert again


def test_a_task_waits_until_its_object_is_free():
    exclusive, order = Exclusive(), []
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        with exclusive.when_free("a", lambda: False):
            order.append("task")

    thread = threading.Thread(target=wait)
    with exclusive.if_free("a"):
        thread.start()
        assert begun.wait(10)
        order.append("reconciler")
    thread.join(10)
    assert order == ["reconciler", "task"]


def test_a_waiting_task_can_be_cancelled():
    exclusive = Exclusive()
    with (
        exclusive.if_free("a"),
        pytest.raises(Cancelled, match="before it began"),
        exclusive.when_free("a", lambda: True),
    ):
        pytest.fail("it was not free")
    with exclusive.if_free("a") as free:
        assert free


def test_what_fails_gives_its_object_back():
    exclusive = Exclusive()
    with pytest.raises(RuntimeError), exclusive.when_free("a", lambda: False):
        raise RuntimeError("it failed")
    with exclusive.if_free("a") as free:
        assert free
