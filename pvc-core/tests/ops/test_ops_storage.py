"""Pools and volumes."""

import pytest

from pvc_core.model.base import Condition
from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.storage import PoolUsage, VolumeState
from pvc_core.model.task import TaskState
from pvc_core.ops.pool import (
    PoolAdd,
    PoolList,
    PoolModify,
    PoolQuery,
    pool_add,
    pool_forget,
    pool_info,
    pool_list,
    pool_modify,
    pool_remove,
)
from pvc_core.ops.task import TaskQuery, task_cancel, task_info
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_power import VmStart, vm_start
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeClone,
    VolumeList,
    VolumeQuery,
    VolumeRename,
    VolumeResize,
    volume_add,
    volume_clone,
    volume_forget,
    volume_info,
    volume_list,
    volume_remove,
    volume_rename,
    volume_resize,
)
from pvc_core.ops.volume_documents import choose_volume_node
from pvc_core.ops.volume_image import VolumeExport, VolumeImport, volume_export, volume_import
from pvc_core.store import keys
from pvc_core.store.documents import read

GIB = 1024**3
WEB = VolumeQuery(volume="ssd/web")
DISK = DiskDefinition(pool="ssd", volume="web")

# --- pools ------------------------------------------------------------------------------------------


def test_pool_is_added_to_a_node_that_has_the_driver(small):
    small.report_node("hv1", plugins=())
    view = pool_add(small.ops, PoolAdd(name="ssd", driver="dir", parameters={"path": "/srv"}))
    assert (view.node, view.ready, view.settled, view.nodes) == ("hv2", False, False, ("hv2", "hv3"))
    small.report_pool(view.id, usage=PoolUsage(total_bytes=5), conditions=(Condition(type="Ready", ok=True),))
    view = pool_info(small.ops, PoolQuery(pool=view.id))
    assert (view.ready, view.settled, view.usage.total_bytes) == (True, True, 5)


def test_what_a_driver_warns_of_is_in_the_answer_to_a_change(small):
    def check(spec):
        return ["one copy is no copy"] if spec.parameters.get("copies") == 1 else []

    ops = small.ops._replace(validators={"dir": check}.get)
    assert pool_add(ops, PoolAdd(name="ssd", driver="dir", parameters={"copies": 1})).warnings == (
        "one copy is no copy",
    )
    assert pool_info(ops, PoolQuery(pool="ssd")).warnings == ()
    assert pool_modify(ops, PoolModify(pool="ssd", parameters={"copies": 2})).warnings == ()
    assert pool_modify(ops, PoolModify(pool="ssd", parameters={"copies": 1})).warnings == ("one copy is no copy",)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"name": ""}, InvalidRequest, "pool name '' is not a valid name"),
        ({"driver": "ceph"}, InvalidRequest, "no node has a working storage driver 'ceph'; nodes offer dir"),
        ({"name": "ssd"}, AlreadyExists, "there is a storage pool named 'ssd' already"),
    ],
)
def test_bad_pool_is_refused(equipped, request_, error, message):
    before = equipped.dump()
    with pytest.raises(error, match=message):
        pool_add(equipped.ops, PoolAdd(**({"name": "hdd", "driver": "dir"} | request_)))
    assert equipped.dump() == before


def test_pool_without_a_node_alive_that_has_the_driver_is_refused(small):
    for name in ("hv1", "hv2"):
        small.kill(name)
    small.report_node("hv3", plugins=())
    with pytest.raises(NoNodeFits) as caught:
        pool_add(small.ops, PoolAdd(name="ssd", driver="dir"))
    assert caught.value.reasons["hv1"] == "its lease is gone"
    assert caught.value.reasons["hv3"] == "it has no working storage driver dir"


def test_pool_is_modified_and_listed(equipped):
    view = pool_modify(equipped.ops, PoolModify(pool="ssd", description="fast", parameters={"path": "/x"}))
    assert (view.description, view.parameters, view.generation, view.volumes) == ("fast", {"path": "/x"}, 2, 2)
    equipped.pool("hdd")
    assert [pool.name for pool in pool_list(equipped.ops, PoolList())] == ["hdd", "ssd"]
    assert [pool.name for pool in pool_list(equipped.ops, PoolList(name="s.d"))] == ["ssd"]


def test_pool_with_volumes_is_not_removed(equipped):
    before = equipped.dump()
    with pytest.raises(InUse, match=r"storage pool 'ssd' has volumes \(db, web\): remove them first"):
        pool_remove(equipped.ops, PoolQuery(pool="ssd"))
    assert equipped.dump() == before


def test_empty_pool_is_removed_and_forgotten(small):
    before = small.dump()
    pool = small.pool()
    small.report_pool(pool)
    assert not pool_forget(small.ops, pool)
    assert pool_remove(small.ops, PoolQuery(pool="ssd")).deleting
    with pytest.raises(Conflict, match="storage pool 'ssd' is being removed"):
        volume_add(small.ops, VolumeAdd(pool="ssd", name="x", size=1))
    assert pool_forget(small.ops, pool)
    assert small.dump() == before


def test_volume_added_in_the_last_moment_keeps_the_pool(small):
    small.pool()
    other = small.connect()
    small.before_commit("/ref/pool/", lambda: volume_add(other, VolumeAdd(pool="ssd", name="x", size=1)))
    with pytest.raises(InUse, match=r"has volumes \(x\)"):
        pool_remove(small.ops, PoolQuery(pool="ssd"))


def test_pool_removed_in_the_last_moment_gets_no_volume(small):
    small.pool()
    other = small.connect()
    small.before_commit("/spec/volume/", lambda: pool_remove(other, PoolQuery(pool="ssd")))
    with pytest.raises(Conflict, match="storage pool 'ssd' is being removed"):
        volume_add(small.ops, VolumeAdd(pool="ssd", name="x", size=1))
    assert small.ids("volume") == []


# --- volumes ----------------------------------------------------------------------------------------


def test_volume_is_added_on_the_node_with_the_fewest_guests(small):
    small.pool()
    small.report_node("hv1", running=("a", "b"))
    small.report_node("hv2", running=("c",))
    small.set_node("hv3", scheduling="drain")
    view = volume_add(small.ops, VolumeAdd(pool="ssd", name="web", size="10G", format="qcow2"))
    assert (view.node, view.state, view.size_bytes, view.format) == ("hv2", "creating", 10 * GIB, "qcow2")


def test_drained_node_works_on_storage_when_there_is_no_other(small):
    for name in ("hv1", "hv2"):
        small.kill(name)
    small.set_node("hv3", scheduling="drain")
    assert choose_volume_node(small.ops, "dir") == "hv3"
    with pytest.raises(NoNodeFits, match="hv3: it has no working storage driver ceph"):
        choose_volume_node(small.ops, "ceph")


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"pool": "sdd"}, NotFound, "no storage pool named 'sdd'; did you mean 'ssd'"),
        ({"name": "a/b"}, InvalidRequest, "volume name 'a/b' is not a valid name"),
        ({"name": "web"}, AlreadyExists, "there is a volume ssd/web already"),
        ({"size": "0"}, InvalidRequest, "size '0' is too small"),
        ({"size": "ten"}, InvalidRequest, "size 'ten' is not a size"),
    ],
)
def test_bad_volume_is_refused(equipped, request_, error, message):
    before = equipped.dump()
    with pytest.raises(error, match=message):
        volume_add(equipped.ops, VolumeAdd(**({"pool": "ssd", "name": "new", "size": "1G"} | request_)))
    assert equipped.dump() == before


def test_same_name_in_another_pool_is_another_volume(equipped):
    equipped.pool("hdd")
    equipped.volume("web", "hdd")
    assert volume_info(equipped.ops, VolumeQuery(volume="hdd/web")).pool == "hdd"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("web", InvalidRequest, "'web' is not a volume: write POOL/VOLUME; did you mean 'ssd/web'"),
        ("ssd/wbe", NotFound, "no volume named 'ssd/wbe'; did you mean 'ssd/web'"),
        ("sdd/web", NotFound, "no storage pool named 'sdd'; did you mean 'ssd'"),
        ("ssd/../x", NotFound, "no volume named"),
    ],
)
def test_unknown_volume(equipped, text, error, message):
    with pytest.raises(error, match=message):
        volume_info(equipped.ops, VolumeQuery(volume=text))


def test_list_by_pool_name_and_vm(equipped):
    equipped.pool("hdd")
    equipped.volume("old", "hdd")
    equipped.define(disks=(DISK,))

    def paths(**request):
        return [f"{view.pool}/{view.name}" for view in volume_list(equipped.ops, VolumeList(**request))]

    assert paths() == ["hdd/old", "ssd/db", "ssd/web"]
    assert paths(pool="ssd") == ["ssd/db", "ssd/web"]
    assert paths(name="o|w") == ["hdd/old", "ssd/web"]
    assert paths(vm="web") == ["ssd/web"]
    with pytest.raises(NotFound):
        paths(vm="wbe")


def test_volume_grows_but_never_shrinks(equipped):
    volume = equipped.ids("volume")
    view = volume_resize(equipped.ops, VolumeResize(volume="ssd/web", size="12G"))
    assert (view.size_bytes, view.generation, view.settled) == (12 * GIB, 2, False)
    assert volume_resize(equipped.ops, VolumeResize(volume="ssd/web", size="12G")).generation == 2
    with pytest.raises(InvalidRequest, match="volume ssd/web has 12 GiB; it cannot shrink to 1 GiB"):
        volume_resize(equipped.ops, VolumeResize(volume="ssd/web", size="1G"))
    equipped.report_volume(volume[0], size_bytes=20 * GIB)
    equipped.report_volume(volume[1], size_bytes=20 * GIB)
    with pytest.raises(InvalidRequest, match="has 20 GiB"):
        volume_resize(equipped.ops, VolumeResize(volume="ssd/web", size="13G"))


def test_rename_follows_into_the_definition_of_its_vm(equipped):
    vm = equipped.define(disks=(DiskDefinition(pool="ssd", volume="db"), DISK))
    volume = volume_info(equipped.ops, WEB).id
    view = volume_rename(equipped.ops, VolumeRename(volume="ssd/web", name="www"))
    assert (view.name, view.vm, view.generation) == ("www", "web", 2)
    assert [disk.volume for disk in equipped.spec(vm).disks] == ["db", "www"]
    assert equipped.spec(vm).generation == 2
    assert equipped.store.get(keys.name("volume", "ssd:www")).value.decode() == volume


def test_old_name_is_kept_from_others_until_the_backend_has_renamed(equipped):
    volume = volume_info(equipped.ops, WEB).id
    volume_rename(equipped.ops, VolumeRename(volume="ssd/web", name="www"))
    with pytest.raises(AlreadyExists, match="there is a volume ssd/web already"):
        equipped.volume("web")
    with pytest.raises(NotFound, match="no volume ssd/web any more: it is being renamed to ssd/www"):
        volume_info(equipped.ops, WEB)
    with pytest.raises(NotFound, match="no volume named 'ssd/web'"):
        equipped.define(disks=(DISK,))
    volume_rename(equipped.ops, VolumeRename(volume="ssd/www", name="w3"))
    names = {path for path, value in equipped.dump().items() if value == volume.encode()}
    assert names == {keys.name("volume", "ssd:web"), keys.name("volume", "ssd:w3")}
    volume_remove(equipped.ops, VolumeQuery(volume="ssd/w3"))
    volume_forget(equipped.ops, volume)
    assert not [path for path, value in equipped.dump().items() if value == volume.encode()]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("db", AlreadyExists, "there is a volume ssd/db already"), ("a b", InvalidRequest, "not a valid name")],
)
def test_bad_rename_is_refused(equipped, name, error, message):
    before = equipped.dump()
    with pytest.raises(error, match=message):
        volume_rename(equipped.ops, VolumeRename(volume="ssd/web", name=name))
    assert equipped.dump() == before


def test_volume_of_a_running_vm_is_not_renamed(equipped):
    vm = equipped.run(disks=(DISK,))
    before = equipped.dump()
    with pytest.raises(InUse, match="volume ssd/web is in use: VM 'web' runs or is about to; shut it down first"):
        volume_rename(equipped.ops, VolumeRename(volume="ssd/web", name="www"))
    assert equipped.dump() == before
    equipped.report_stopped(vm)
    equipped.write_spec(vm, power="stopped")
    equipped.before_commit("/spec/volume/", lambda: vm_start(equipped.connect(), VmStart(vm="web")))
    with pytest.raises(InUse, match="in use"):
        volume_rename(equipped.ops, VolumeRename(volume="ssd/web", name="www"))


def test_volume_of_a_vm_is_not_removed(equipped):
    equipped.define(disks=(DISK,))
    with pytest.raises(InUse, match="volume ssd/web is a disk of VM 'web': take it from the VM first"):
        volume_remove(equipped.ops, WEB)


def test_volume_is_removed_and_forgotten(equipped):
    before = equipped.dump()
    volume = equipped.volume("new")
    assert not volume_forget(equipped.ops, volume)
    query = VolumeQuery(volume="ssd/new")
    assert volume_remove(equipped.ops, query).state == "deleting"
    assert volume_remove(equipped.ops, query).deleting
    with pytest.raises(Conflict, match="volume 'ssd/new' is being removed"):
        volume_resize(equipped.ops, VolumeResize(volume="ssd/new", size="99G"))
    assert volume_forget(equipped.ops, volume)
    assert equipped.dump() == before
    assert volume_forget(equipped.ops, volume)


def test_clone_has_the_size_of_its_source(equipped):
    equipped.report_volume(volume_info(equipped.ops, WEB).id, snapshots=("monday",))
    view = volume_clone(equipped.ops, VolumeClone(pool="ssd", source="web@monday", name="copy", full_copy=True))
    assert (view.size_bytes, view.source, view.state) == (10 * GIB, "web@monday", "creating")
    with pytest.raises(NotFound, match="volume ssd/web has no snapshot 'mondya'; did you mean 'monday'"):
        volume_clone(equipped.ops, VolumeClone(pool="ssd", source="web@mondya", name="other"))
    with pytest.raises(NotFound, match="no volume named 'ssd/wbe'"):
        volume_clone(equipped.ops, VolumeClone(pool="ssd", source="wbe", name="other"))


def test_running_guests_volume_is_cloned_from_a_snapshot_only(equipped):
    equipped.run(disks=(DISK,))
    with pytest.raises(InUse, match="make a snapshot of it and clone that"):
        volume_clone(equipped.ops, VolumeClone(pool="ssd", source="web", name="copy"))


# --- images -----------------------------------------------------------------------------------------


def image(small, **more):
    return volume_import(small.ops, VolumeImport(**({"pool": "ssd", "name": "img", "path": "/srv/a.img"} | more)))


def test_import_takes_the_name_and_is_a_task_of_a_node(equipped):
    task = image(equipped, node="hv3", format="qcow2")
    view = volume_info(equipped.ops, VolumeQuery(volume="ssd/img"))
    assert (task.kind, task.node, task.subject, task.state) == ("volume.import", "hv3", "volume ssd/img", "queued")
    assert task.arguments == {"volume": view.id, "path": "/srv/a.img", "format": "qcow2", "force": False}
    assert (view.task, view.state, view.size_bytes, view.node) == (task.id, "creating", 0, "hv3")
    with pytest.raises(Conflict, match=f"is being imported by task {task.id}"):
        volume_rename(equipped.ops, VolumeRename(volume="ssd/img", name="x"))
    with pytest.raises(Conflict, match="cancel that first"):
        volume_remove(equipped.ops, VolumeQuery(volume="ssd/img"))


def test_volume_of_a_cancelled_import_can_be_removed(equipped):
    task = image(equipped)
    assert task_cancel(equipped.ops, TaskQuery(task=task.id)).state is TaskState.CANCELLED
    assert volume_remove(equipped.ops, VolumeQuery(volume="ssd/img")).deleting


def test_imported_volume_has_the_size_of_the_image(equipped):
    image(equipped)
    volume = volume_info(equipped.ops, VolumeQuery(volume="ssd/img")).id
    equipped.report_volume(volume, size_bytes=3 * GIB)
    assert volume_info(equipped.ops, VolumeQuery(volume="ssd/img")).size_bytes == 3 * GIB
    with pytest.raises(InvalidRequest, match="has 3 GiB"):
        volume_resize(equipped.ops, VolumeResize(volume="ssd/img", size="2G"))
    assert volume_resize(equipped.ops, VolumeResize(volume="ssd/img", size="4G")).size_bytes == 4 * GIB


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"path": "a.img"}, InvalidRequest, "'a.img' is not the path of a file: write an absolute path"),
        ({"name": "web"}, AlreadyExists, "there is a volume ssd/web already"),
        ({"pool": "x"}, NotFound, "no storage pool named 'x'"),
        ({"node": "hv9"}, NotFound, "no node named 'hv9'"),
        ({"node": "hv3"}, InvalidRequest, "node hv3 is not alive"),
        ({"node": "hv2"}, InvalidRequest, "node hv2 has no working storage driver dir"),
    ],
)
def test_bad_import_is_refused(equipped, request_, error, message):
    equipped.kill("hv3")
    equipped.report_node("hv2", plugins=())
    before = equipped.dump()
    with pytest.raises(error, match=message):
        image(equipped, **request_)
    assert equipped.dump() == before


def test_export_of_a_running_guests_volume_needs_a_snapshot(equipped):
    volume = volume_info(equipped.ops, WEB).id
    equipped.report_volume(volume, snapshots=("s1",))
    equipped.run(disks=(DISK,))
    request = {"volume": "ssd/web", "path": "/srv/out.img"}
    with pytest.raises(InUse, match="export a snapshot of it"):
        volume_export(equipped.ops, VolumeExport(**request))
    task = volume_export(equipped.ops, VolumeExport(**request, snapshot="s1", format="qcow2"))
    assert task.arguments == {"volume": volume, "path": "/srv/out.img", "format": "qcow2", "snapshot": "s1"}
    assert task_info(equipped.ops, TaskQuery(task=task.id)) == task
    with pytest.raises(NotFound, match="no snapshot 's2'"):
        volume_export(equipped.ops, VolumeExport(**request, snapshot="s2"))


def test_removed_pool_of_a_volume_is_told(equipped):
    volume = read(equipped.store, keys.volume_spec(equipped.ids("volume")[0]))
    equipped.store.commit(read(equipped.store, keys.pool_spec(volume.value.pool)).delete())
    with pytest.raises(NotFound, match="storage pool of volume"):
        volume_resize(equipped.ops, VolumeResize(volume=volume.value.id, size="20G"))
    assert VolumeState.READY == "ready"
