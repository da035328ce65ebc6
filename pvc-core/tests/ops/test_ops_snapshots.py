"""Snapshots of volumes, which are made by tasks."""

import pytest

from pvc_core.model.errors import AlreadyExists, InUse, InvalidRequest, NotFound
from pvc_core.model.storage import Snapshot
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.volume import VolumeQuery, volume_info
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

DISK = DiskDefinition(pool="ssd", volume="web")


@pytest.fixture
def kept(equipped):
    """Volume ssd/web with the snapshots ``old`` and (protected) ``safe``."""
    equipped.web = volume_info(equipped.ops, VolumeQuery(volume="ssd/web")).id
    equipped.report_volume(
        equipped.web,
        snapshots=(Snapshot(name="safe", protected=True, created=2.0), Snapshot(name="old", created=1.0)),
    )
    return equipped


def test_snapshots_are_listed_oldest_first(kept):
    assert [s.name for s in snapshot_list(kept.ops, SnapshotList(volume="ssd/web"))] == ["old", "safe"]


def test_create_is_a_task_on_the_volumes_node(kept):
    task = snapshot_create(kept.ops, SnapshotCreate(volume="ssd/web", snapshot="new"))
    assert (task.kind, task.node, task.subject) == ("snapshot.create", "hv1", "snapshot ssd/web@new")
    assert task.arguments == {"volume": kept.web, "snapshot": "new"}


def test_snapshot_without_a_name_is_named_after_the_time(kept):
    kept.now = 86400.0 * 365
    task = snapshot_create(kept.ops, SnapshotCreate(volume="ssd/web"))
    assert task.arguments["snapshot"] == "19710101-000000"


def test_task_runs_where_the_volume_is_in_use(kept):
    vm = kept.run(node="hv2", disks=(DISK,))
    assert snapshot_create(kept.ops, SnapshotCreate(volume="ssd/web", snapshot="new")).node == "hv2"
    kept.report_stopped(vm)
    assert snapshot_create(kept.ops, SnapshotCreate(volume="ssd/web", snapshot="new")).node == "hv1"
    kept.kill("hv1")
    assert snapshot_create(kept.ops, SnapshotCreate(volume="ssd/web", snapshot="new")).node == "hv2"


def test_arguments_of_the_other_tasks(kept):
    rename = snapshot_rename(kept.ops, SnapshotRename(volume="ssd/web", snapshot="old", name="older"))
    assert (rename.kind, rename.arguments["name"]) == ("snapshot.rename", "older")
    protect = snapshot_protect(kept.ops, SnapshotProtect(volume="ssd/web", snapshot="old"))
    assert (protect.kind, protect.arguments["protected"]) == ("snapshot.protect", True)
    delete = snapshot_delete(kept.ops, SnapshotQuery(volume="ssd/web", snapshot="old"))
    assert (delete.kind, delete.arguments["snapshot"]) == ("snapshot.delete", "old")
    rollback = snapshot_rollback(kept.ops, SnapshotQuery(volume="ssd/web", snapshot="old"))
    assert (rollback.kind, rollback.arguments["volume"]) == ("snapshot.rollback", kept.web)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda o: snapshot_create(o, SnapshotCreate(volume="ssd/web", snapshot="old")), AlreadyExists,
         "volume ssd/web has a snapshot 'old' already"),
        (lambda o: snapshot_create(o, SnapshotCreate(volume="ssd/web", snapshot="a@b")), InvalidRequest, "not a valid name"),
        (lambda o: snapshot_create(o, SnapshotCreate(volume="ssd/nix", snapshot="x")), NotFound, "no volume named 'ssd/nix'"),
        (lambda o: snapshot_delete(o, SnapshotQuery(volume="ssd/web", snapshot="safe")), InUse,
         "snapshot ssd/web@safe is protected"),
        (lambda o: snapshot_delete(o, SnapshotQuery(volume="ssd/web", snapshot="sfae")), NotFound, "did you mean 'safe'"),
        (lambda o: snapshot_rename(o, SnapshotRename(volume="ssd/web", snapshot="old", name="safe")), AlreadyExists, "safe"),
        (lambda o: snapshot_protect(o, SnapshotProtect(volume="ssd/web", snapshot="x")), NotFound, "no snapshot 'x'"),
        (lambda o: snapshot_rollback(o, SnapshotQuery(volume="ssd/web", snapshot="x")), NotFound, "no snapshot 'x'"),
    ],
)  # fmt: skip
def test_bad_request_is_refused_and_nothing_is_changed(kept, call, error, message):
    before = kept.dump()
    with pytest.raises(error, match=message):
        call(kept.ops)
    assert kept.dump() == before


def test_running_guests_volume_is_not_rolled_back(kept):
    vm = kept.run(disks=(DISK,))
    query = SnapshotQuery(volume="ssd/web", snapshot="old")
    with pytest.raises(InUse, match="VM 'web' runs or is about to; shut it down first"):
        snapshot_rollback(kept.ops, query)
    kept.report_stopped(vm)
    with pytest.raises(InUse, match="is about to"):
        snapshot_rollback(kept.ops, query)
    kept.write_spec(vm, power="stopped")
    assert snapshot_rollback(kept.ops, query).kind == "snapshot.rollback"
    kept.before_commit("/task/", lambda: kept.claim(vm, "hv1"))
    with pytest.raises(InUse):
        snapshot_rollback(kept.ops, query)
