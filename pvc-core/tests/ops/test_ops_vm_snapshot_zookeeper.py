"""The transactions about snapshots of VMs on a real ZooKeeper, the node's among them."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import InUse
from pvc_core.model.node import PluginStatus
from pvc_core.model.task import TaskState
from pvc_core.model.vm_snapshot import VmSnapshotState
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_modify import VmModify, VmPatch, vm_modify
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_snapshot import VmSnapshotCreate, VmSnapshotQuery, vm_snapshot_create, vm_snapshot_delete
from pvc_core.ops.vm_snapshot_documents import removal_operations, snapshots_of
from pvc_core.ops.vm_snapshot_rollback import (
    VmSnapshotRollback,
    rollback_begin,
    rollback_end,
    vm_snapshot_rollback,
)
from pvc_core.ops.vm_snapshot_views import VmSnapshotList, vm_snapshot_list
from pvc_core.ops.volume import VolumeQuery, volume_info, volume_remove
from pvc_core.store import keys
from pvc_core.store.documents import read
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.real

DISKS = (DiskDefinition(pool="ssd", volume="web"), DiskDefinition(pool="ssd", volume="db"))
ABLE = PluginStatus(name="test", state="healthy", capabilities=("storage:dir", "snapshots:dir"))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper"), 1) as running:
        yield running


@pytest.fixture
def real(ensemble, small_type):
    store = ensemble.connect(session_timeout_s=10.0)
    small = small_type(store)
    small.add_node("hv1")
    small.report_node("hv1", plugins=(ABLE,))
    small.pool()
    for name in ("web", "db"):
        small.volume(name)
    small.web = small.define("web", disks=DISKS, node="hv1")
    yield small
    store.close()


def end(real, task):
    entry = read(real.store, keys.task(task.id))
    real.store.commit(entry.put(replace(entry.value, state=TaskState.DONE, finished=real.now)))


def test_the_life_of_a_snapshot(real):
    before = set(real.dump())
    task = vm_snapshot_create(real.ops, VmSnapshotCreate(vm="web", snapshot="s1"))
    entry = read(real.store, keys.vm_snapshot(task.arguments["snapshot"]))
    real.store.commit(entry.put(replace(entry.value, state=VmSnapshotState.COMPLETE, names=("s1",))))
    for disk in entry.value.disks:
        real.report_volume(disk.volume, snapshots=("s1",))
    end(real, task)

    vm_modify(real.ops, VmModify(vm="web", patch=VmPatch(disks=DISKS[:1])))
    assert volume_info(real.ops, VolumeQuery(volume="ssd/db")).vm is None
    with pytest.raises(InUse, match="is part of snapshot 's1' of VM 'web'"):
        volume_remove(real.ops, VolumeQuery(volume="ssd/db"))
    roll_back = vm_snapshot_rollback(real.ops, VmSnapshotRollback(vm="web", snapshot="s1", definition=True))
    assert volume_info(real.ops, VolumeQuery(volume="ssd/db")).vm == "web"
    rollback_begin(real.ops, roll_back, ())
    assert real.spec(real.web).rollback.begun
    rollback_end(real.ops, roll_back, (), done=True)
    assert real.spec(real.web).rollback is None
    end(real, roll_back)

    delete = vm_snapshot_delete(real.ops, VmSnapshotQuery(vm="web", snapshot="s1"))
    real.store.commit(*removal_operations(real.store, snapshots_of(real.store, real.web)))
    assert vm_snapshot_list(real.ops, VmSnapshotList()) == []
    tasks = {keys.task(made.id).path for made in (task, roll_back, delete)}
    assert set(real.dump()) == before | tasks

    vm_snapshot_create(real.ops, VmSnapshotCreate(vm="web", snapshot="s2"))
    assert vm_remove(real.ops, VmRemove(vm="web", volumes=True)).snapshots == ("s2",)
    assert not [path for path in real.dump() if "/vm-snapshot/" in path or "/ref/volume/" in path]
