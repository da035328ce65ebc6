"""Requests about snapshots of whole VMs: what is refused, and who does the rest."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import Conflict, InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.node import PluginStatus
from pvc_core.model.storage import Snapshot, VolumeState
from pvc_core.model.task import TaskState
from pvc_core.model.vm_snapshot import Consistency, VmSnapshotState
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_snapshot import (
    VmSnapshotCreate,
    VmSnapshotQuery,
    VmSnapshotRename,
    vm_snapshot_create,
    vm_snapshot_delete,
    vm_snapshot_rename,
)
from pvc_core.ops.vm_snapshot_rollback import VmSnapshotRollback, rollback_begin, vm_snapshot_rollback
from pvc_core.ops.vm_snapshot_views import VmSnapshotList, vm_snapshot_info, vm_snapshot_list
from pvc_core.ops.volume import VolumeQuery, VolumeRename, volume_info, volume_rename
from pvc_core.store import keys
from pvc_core.store.api import ANY, Delete
from pvc_core.store.documents import read

DISKS = (DiskDefinition(pool="ssd", volume="web"), DiskDefinition(pool="ssd", volume="db", read_only=True))
ABLE = PluginStatus(name="test", state="healthy", capabilities=("storage:dir", "snapshots:dir", "network:bridge"))


@pytest.fixture
def kept(equipped):
    """Three nodes whose storage has snapshots, and VM ``web`` with two disks, off."""
    for node in ("hv1", "hv2", "hv3"):
        equipped.report_node(node, plugins=(ABLE,))
    equipped.web = equipped.define("web", disks=DISKS, node="hv2")
    return equipped


def ask(kept, snapshot="s1", **more):
    return vm_snapshot_create(kept.ops, VmSnapshotCreate(vm="web", snapshot=snapshot, **more))


def finished(kept, task):
    """Let a task of creation be done, as its node does; returns the snapshot."""
    entry = read(kept.store, keys.vm_snapshot(task.arguments["snapshot"]))
    new = replace(
        entry.value,
        state=VmSnapshotState.COMPLETE,
        names=(entry.value.name,),
        consistency=Consistency.CRASH,
        created=kept.now,
    )
    for disk in new.disks:
        kept.report_volume(disk.volume, snapshots=(new.name,))
    end(kept, task, TaskState.DONE)
    kept.store.commit(read(kept.store, keys.vm_snapshot(new.id)).put(new))
    return new


def end(kept, task, state=TaskState.FAILED, error=""):
    entry = read(kept.store, keys.task(task.id))
    kept.store.commit(entry.put(replace(entry.value, state=state, error=error, finished=kept.now)))


def test_a_snapshot_is_a_task_of_the_node_where_the_vm_is_placed_or_runs(kept):
    task = ask(kept)
    assert (task.kind, task.node, task.subject) == ("vm-snapshot.create", "hv2", "snapshot s1 of VM web")
    assert task.arguments["vm"] == kept.web
    kept.kill("hv2")
    assert ask(kept, "s2").node == "hv1"
    kept.run("db", node="hv3")
    kept.revive("hv2")
    kept.claim(kept.web, "hv3")
    assert ask(kept, "s3").node == "hv3"


@pytest.mark.parametrize(("freeze", "argument"), [(None, "auto"), (True, "always"), (False, "never")])
def test_the_task_says_whether_to_freeze(kept, freeze, argument):
    assert ask(kept, freeze=freeze).arguments["freeze"] == argument


def test_the_document_has_the_disks_and_the_definition_of_then(kept):
    task = ask(kept, description="before the upgrade")
    snapshot = read(kept.store, keys.vm_snapshot(task.arguments["snapshot"])).value
    assert snapshot.state is VmSnapshotState.CREATING
    assert [disk.path for disk in snapshot.disks] == ["ssd/web", "ssd/db"]
    assert snapshot.disks[0].size_bytes == 10 * 1024**3
    assert snapshot.definition == kept.spec(kept.web)
    assert (snapshot.description, snapshot.task, snapshot.names) == ("before the upgrade", task.id, ())


def test_one_without_a_name_is_named_after_the_time(kept):
    kept.now = 86400.0 * 365
    ask(kept, "")
    assert [view.name for view in vm_snapshot_list(kept.ops, VmSnapshotList(vm="web"))] == ["19710101-000000"]


def test_lists_are_by_vm_and_age(kept):
    kept.volume("other")
    kept.define("app", disks=(DiskDefinition(pool="ssd", volume="other"),))
    for vm, name in (("web", "b"), ("web", "a"), ("app", "z")):
        finished(kept, vm_snapshot_create(kept.ops, VmSnapshotCreate(vm=vm, snapshot=name)))
        kept.now += 1
    listed = vm_snapshot_list(kept.ops, VmSnapshotList())
    assert [(view.vm, view.name) for view in listed] == [("app", "z"), ("web", "b"), ("web", "a")]
    assert [view.name for view in vm_snapshot_list(kept.ops, VmSnapshotList(vm="web"))] == ["b", "a"]
    assert listed[1].size_bytes == 20 * 1024**3


def test_info_knows_volumes_by_their_names_of_now(kept):
    finished(kept, ask(kept))
    volume_rename(kept.ops, VolumeRename(volume="ssd/db", name="data"))
    info = vm_snapshot_info(kept.ops, VmSnapshotQuery(vm="web", snapshot="s1"))
    assert [(disk.volume, disk.then, disk.state) for disk in info.disks] == [
        ("ssd/web", "ssd/web", "present"),
        ("ssd/data", "ssd/db", "present"),
    ]
    assert [disk.path for disk in info.definition.disks] == ["ssd/web", "ssd/db"]


def test_one_whose_task_is_over_and_that_is_not_complete_has_failed(kept):
    end(kept, ask(kept), error="the pool is full")
    (view,) = vm_snapshot_list(kept.ops, VmSnapshotList(vm="web"))
    assert (view.state, view.reason) == ("failed", "creating it was not finished: the pool is full")


def test_a_try_that_left_something_is_taken_over_by_the_next(kept):
    first = ask(kept)
    with pytest.raises(Conflict, match=f"task {first.id} works on snapshot 's1' .creating.: wait for it, or cancel it"):
        ask(kept)
    end(kept, first)
    second = ask(kept)
    assert second.arguments["snapshot"] == first.arguments["snapshot"]
    assert len(vm_snapshot_list(kept.ops, VmSnapshotList(vm="web"))) == 1


def test_it_is_not_taken_over_when_the_vm_has_other_disks_by_now(kept):
    end(kept, ask(kept))
    kept.write_spec(kept.web, disks=kept.spec(kept.web).disks[:1])
    with pytest.raises(Conflict, match="the VM had other disks: delete what is left of it first"):
        ask(kept)


def _moving(kept):
    kept.claim(kept.web, "hv2", migration_to="hv1")


def _no_snapshots(kept):
    for node in ("hv1", "hv2", "hv3"):
        kept.report_node(node, plugins=(replace(ABLE, capabilities=("storage:dir",)),))


def _not_where_it_runs(kept):
    kept.claim(kept.web, "hv2")
    kept.report_node("hv2", plugins=(replace(ABLE, capabilities=("storage:dir",)),))


def _no_node(kept):
    for node in ("hv1", "hv2", "hv3"):
        kept.store.commit(Delete(keys.lease(node).path, ANY))


def _creating(kept):
    kept.report_volume(volume_info(kept.ops, VolumeQuery(volume="ssd/db")).id, state=VolumeState.CREATING)


def _no_disks(kept):
    kept.write_spec(kept.web, disks=())


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (_no_disks, InvalidRequest, "VM 'web' has no disks of which a snapshot could be made"),
        (
            _no_snapshots,
            InvalidRequest,
            "volume ssd/web is in pool 'ssd', whose driver 'dir' has no snapshots on any node that works now",
        ),
        (
            _not_where_it_runs,
            InvalidRequest,
            "runs on node hv2, which cannot create snapshots of its volumes: it has no",
        ),
        (_no_node, NoNodeFits, "no node can create snapshots of its volumes: hv1: its lease is gone"),
        (_moving, Conflict, "VM 'web' is moving to node hv1: repeat it when it has arrived"),
        (_creating, Conflict, "volume ssd/db is creating: a snapshot of it cannot be made now"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_what_cannot_be_is_refused_and_changes_nothing(kept, prepare, error, message):
    prepare(kept)
    before = kept.dump()
    with pytest.raises(error, match=message):
        ask(kept)
    assert kept.dump() == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda o: vm_snapshot_create(o, VmSnapshotCreate(vm="nix")), NotFound, "no VM named 'nix'"),
        (
            lambda o: vm_snapshot_create(o, VmSnapshotCreate(vm="web", snapshot="a@b")),
            InvalidRequest,
            "not a valid name",
        ),
        (
            lambda o: vm_snapshot_delete(o, VmSnapshotQuery(vm="web", snapshot="befor")),
            NotFound,
            "no snapshot of VM 'web' named 'befor'; did you mean 'before'",
        ),
        (
            lambda o: vm_snapshot_rollback(o, VmSnapshotRollback(vm="web", snapshot="a/b")),
            NotFound,
            "no snapshot of VM 'web' named 'a/b'",
        ),
        (
            lambda o: vm_snapshot_rename(o, VmSnapshotRename(vm="web", snapshot="before", name="")),
            InvalidRequest,
            "not a valid name",
        ),
    ],
)
def test_wrong_requests_change_nothing(kept, call, error, message):
    finished(kept, ask(kept, "before"))
    before = kept.dump()
    with pytest.raises(error, match=message):
        call(kept.ops)
    assert kept.dump() == before


def test_a_vm_without_agent_cannot_be_frozen_on_demand(kept):
    kept.write_spec(kept.web, guest_agent=False)
    with pytest.raises(InvalidRequest, match="is defined without a guest agent"):
        ask(kept, freeze=True)


def test_a_volume_that_is_removed_at_the_same_moment_is_noticed(kept):
    db = volume_info(kept.ops, VolumeQuery(volume="ssd/db")).id
    holder = keys.volume_holder(db)
    kept.before_commit(
        "/vm-snapshot/", lambda: kept.store.commit(Delete(holder, ANY), Delete(keys.ref("volume", db), ANY))
    )
    with pytest.raises(Conflict):
        ask(kept)
    assert vm_snapshot_list(kept.ops, VmSnapshotList(vm="web")) == []


def test_the_claim_that_is_taken_at_the_same_moment_keeps_it_from_being_rolled_back(kept):
    finished(kept, ask(kept))
    kept.before_commit("/task/", lambda: kept.claim(kept.web, "hv2"))
    with pytest.raises(InUse, match="runs or is about to"):
        vm_snapshot_rollback(kept.ops, VmSnapshotRollback(vm="web", snapshot="s1"))
    assert kept.spec(kept.web).rollback is None


def test_the_claim_that_is_taken_when_it_begins_keeps_it_from_being_rolled_back(kept):
    finished(kept, ask(kept))
    task = vm_snapshot_rollback(kept.ops, VmSnapshotRollback(vm="web", snapshot="s1"))
    kept.before_commit(kept.web, lambda: kept.claim(kept.web, "hv2"))
    with pytest.raises(InUse, match="runs on node hv2"):
        rollback_begin(kept.ops, task, ())
    assert not kept.spec(kept.web).rollback.begun


def test_a_snapshot_cannot_be_deleted_at_the_same_moment_as_it_is_rolled_back_to(kept):
    finished(kept, ask(kept))
    roll_back = VmSnapshotRollback(vm="web", snapshot="s1")
    kept.before_commit("/task/", lambda: vm_snapshot_rollback(kept.connect(), roll_back))
    with pytest.raises(InUse, match="are being rolled back to snapshot 's1'"):
        vm_snapshot_delete(kept.ops, VmSnapshotQuery(vm="web", snapshot="s1"))
    assert vm_snapshot_list(kept.ops, VmSnapshotList(vm="web"))[0].state == "complete"


def test_a_snapshot_cannot_be_rolled_back_to_at_the_same_moment_as_it_is_deleted(kept):
    finished(kept, ask(kept))
    kept.before_commit("/task/", lambda: vm_snapshot_delete(kept.connect(), VmSnapshotQuery(vm="web", snapshot="s1")))
    with pytest.raises(Conflict, match=r"works on snapshot 's1' .deleting."):
        vm_snapshot_rollback(kept.ops, VmSnapshotRollback(vm="web", snapshot="s1"))
    assert kept.spec(kept.web).rollback is None


def test_a_vm_that_is_removed_at_the_same_moment_leaves_no_snapshot(kept):
    asked = VmSnapshotCreate(vm="web", snapshot="s1")
    kept.before_commit(keys.vm_spec(kept.web).path, lambda: vm_snapshot_create(kept.connect(), asked))
    assert vm_remove(kept.ops, VmRemove(vm="web")).snapshots == ("s1",)
    assert [path for path in kept.dump() if "/vm-snapshot/" in path] == []


def test_a_protected_part_keeps_it_from_being_deleted(kept):
    snapshot = finished(kept, ask(kept))
    kept.report_volume(snapshot.disks[1].volume, snapshots=(Snapshot(name="s1", protected=True),))
    before = kept.dump()
    with pytest.raises(InUse, match="snapshot ssd/db@s1 is protected"):
        vm_snapshot_delete(kept.ops, VmSnapshotQuery(vm="web", snapshot="s1"))
    assert kept.dump() == before
