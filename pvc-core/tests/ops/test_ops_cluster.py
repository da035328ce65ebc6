"""The cluster's status, settings, backup."""

import stat

import pytest
from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.errors import AlreadyExists, InUse, InvalidRequest, NotFound
from pvc_core.model.node import PluginStatus, Primary
from pvc_core.ops.backup import ClusterBackup, ClusterRestore, cluster_backup, cluster_restore
from pvc_core.ops.cluster import (
    ClusterMaintenance,
    ClusterSettings,
    cluster_maintenance,
    cluster_settings,
    cluster_status,
)
from pvc_core.ops.message import decode_request
from pvc_core.ops.node_service import Nothing
from pvc_core.ops.task import TaskCreate, task_create
from pvc_core.store import keys
from pvc_core.store.documents import read
from pvc_core.store.memory import MemoryTree, Moment


def status(small):
    return cluster_status(small.ops, Nothing())


@pytest.fixture
def healthy(equipped):
    entry = read(equipped.store, keys.PRIMARY)
    equipped.store.commit(entry.put(Primary(node="hv1", term=3, stage="active")))
    for name in ("hv1", "hv2", "hv3"):
        equipped.declare(name, 20.0)
    return equipped


def test_healthy_cluster_with_counts(healthy):
    healthy.run("a", memory="2G")
    healthy.define("b")
    task_create(healthy.ops, TaskCreate(kind="x", node="hv1"))
    found = status(healthy)
    assert (found.health, found.problems) == ("healthy", ())
    assert (found.nodes, found.nodes_alive, found.nodes_ready) == (3, 3, 3)
    assert (found.vms, found.vms_by_state) == (2, {"running": 1, "stopped": 1})
    assert (found.networks, found.pools, found.volumes, found.tasks) == (1, 1, 2, 1)
    assert (found.primary.node, found.primary.term) == ("hv1", 3)
    assert (found.capacity.running_mib, found.capacity.available_mib) == (2048, 16384)


def test_more_than_n_minus_1_memory_is_degraded_with_the_numbers(healthy):
    for number in range(3):
        healthy.run(f"v{number}", memory="6G")
    found = status(healthy)
    assert found.health == "degraded"
    assert len(found.problems) == 1
    assert found.problems[0].startswith("running VMs may use 18 GiB, more than the 16 GiB that the others have when")


def test_lost_node_counts_once_in_n_minus_1(healthy):
    healthy.run("a", memory="8G", node="hv1")
    healthy.run("b", memory="8G", node="hv2")
    healthy.kill("hv3")
    found = status(healthy)
    assert not found.capacity.degraded
    assert found.problems == ("node hv3 is lost: its lease is gone",)


@pytest.mark.parametrize(
    ("prepare", "running_mib"),
    [
        (lambda s, vm: None, 1024),
        (lambda s, vm: s.claim(vm, "hv1", migration_to="hv2"), 1024),
        (lambda s, vm: s.write_spec(vm, power="stopped"), 1024),
        (lambda s, vm: s.kill("hv1"), 1024),
        (lambda s, vm: s.report(vm, "stopped", halted=s.spec(vm).generation), 0),
        (lambda s, vm: (s.report(vm, "stopped"), s.write_spec(vm, power="stopped")), 0),
    ],
    ids=["running", "moving counts once", "still shutting down", "on a lost node", "ended for good", "stopped"],
)
def test_memory_that_running_vms_need(healthy, prepare, running_mib):
    prepare(healthy, healthy.run(node="hv1"))
    assert status(healthy).capacity.running_mib == running_mib


def test_every_problem_is_named(healthy):
    pool = healthy.ids("pool")[0]
    healthy.report_pool(pool, conditions=(Condition(type="Ready", ok=False, message="/srv is full"),))
    healthy.report_node(
        "hv2",
        conditions=(Condition(type="Clock", ok=False, message="late"),),
        plugins=(PluginStatus(name="ceph", state="failed", error="no key"),),
    )
    for number in range(7):
        healthy.report(healthy.define(f"f{number}", node="hv2"), "failed")
    healthy.run("lost", node="hv1")
    healthy.kill("hv1")
    found = status(healthy)
    assert found.problems == (
        "no coordinator is primary now",
        "node hv1 is lost: its lease is gone",
        "node hv2: Clock: late",
        "node hv2: plugin ceph is failed: no key",
        "VMs failed: f0, f1, f2, f3, f4 and 2 more",
        "VMs were on nodes that are not alive: lost",
        "storage pool: /srv is full",
    )
    assert found.conditions == {"hv2": (Condition(type="Clock", ok=False, message="late"),)}
    assert found.vms_by_state == {"failed": 7, "unknown": 1}


def test_node_in_maintenance_is_no_problem(healthy):
    healthy.set_node("hv3", maintenance=True)
    healthy.kill("hv3")
    assert status(healthy).problems == ()


def test_maintenance_of_the_cluster_shows_and_hides_nothing(healthy):
    healthy.kill("hv3")
    assert cluster_maintenance(healthy.ops, ClusterMaintenance(maintenance=True)).maintenance
    found = status(healthy)
    assert (found.health, found.maintenance, len(found.problems)) == ("maintenance", True, 1)
    cluster_maintenance(healthy.ops, ClusterMaintenance(maintenance=False))
    assert status(healthy).health == "degraded"


def test_status_takes_a_fixed_number_of_reads(healthy):
    def reads():
        count = []
        healthy.tree.fault = lambda moment, *_: count.append(moment) if moment is Moment.READ else None
        status(healthy)
        healthy.tree.fault = None
        return len(count)

    few = reads()
    for number in range(30):
        healthy.define(f"v{number}")
    assert reads() == few <= 8


def test_maintenance_may_end_by_itself(healthy):
    def switch(**asked):
        return cluster_maintenance(healthy.ops, ClusterMaintenance(**asked)).maintenance_until

    assert switch(maintenance=True, for_s=60.0) == healthy.now + 60
    assert status(healthy).maintenance_until == healthy.now + 60
    assert switch(maintenance=True) == 0
    switch(maintenance=True, for_s=60.0)
    assert switch(maintenance=False) == 0
    for asked, why in (
        ({"maintenance": False, "for_s": 60.0}, "switched on, not off"),
        ({"maintenance": True, "for_s": 0.0}, "more than 0 s and at most a year"),
        ({"maintenance": True, "for_s": 400 * 86400.0}, "at most a year"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            switch(**asked)


def test_settings_of_recovery(healthy):
    changed = cluster_settings(
        healthy.ops, ClusterSettings(recovery=("watchdog", "power"), power_on_after_fence=True, return_after_fence=True)
    )
    assert (changed.recovery, changed.power_on_after_fence, changed.return_after_fence) == (
        ("watchdog", "power"),
        True,
        True,
    )
    assert cluster_settings(healthy.ops, ClusterSettings(recovery=())).recovery == ()
    with pytest.raises(InvalidRequest, match="recovery: power is given 2 times"):
        cluster_settings(healthy.ops, ClusterSettings(recovery=("power", "storage", "power")))


def test_settings(healthy):
    generation = cluster_settings(healthy.ops, ClusterSettings()).generation
    changed = cluster_settings(healthy.ops, ClusterSettings(default_selector="vms", migrations_per_source=4))
    assert (changed.default_selector, changed.migrations_per_source, changed.generation) == ("vms", 4, generation + 1)
    assert cluster_settings(healthy.ops, ClusterSettings(default_selector="vms")).generation == generation + 1
    healthy.run("big", memory="1G", node="hv2")
    healthy.run("a", node="hv1")
    healthy.run("b", node="hv1")
    assert healthy.spec(healthy.run("c")).node == "hv3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_selector": "mme"}, "no selector 'mme'; did you mean 'mem'"),
        ({"default_selector": ""}, "selector '' is not a valid name"),
        ({"name": "a b"}, "cluster name 'a b' is not a valid name"),
        ({"migrations_per_source": 0}, "Expected `int` >= 1"),
        ({"selector": "mem"}, "unknown field `selector`.*did you mean 'default_selector'"),
    ],
)
def test_bad_settings_are_refused(healthy, changes, message):
    before = healthy.dump()
    with pytest.raises(InvalidRequest, match=message):
        cluster_settings(healthy.ops, decode_request(ClusterSettings, changes, "settings"))
    assert healthy.dump() == before


def test_settings_of_a_cluster_that_was_never_started():
    from pvc_core.ops.context import Ops

    with pytest.raises(NotFound, match="never started"):
        cluster_settings(Ops(MemoryTree().connect()), ClusterSettings())


# --- backup -----------------------------------------------------------------------------------------


def test_backup_brings_back_what_was_there(healthy, empty, tmp_path):
    vm = healthy.run()
    file = tmp_path / "state.json"
    view = cluster_backup(healthy.ops, ClusterBackup(path=str(file)))
    assert (view.cluster, view.path, view.created, view.bytes) == ("pvc", str(file), 1000.0, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    other = MemoryTree().connect()
    restored = cluster_restore(healthy.ops._replace(store=other), ClusterRestore(path=str(file)))
    assert restored.documents == view.documents
    assert read(other, keys.vm_spec(vm)).value == healthy.spec(vm)


def test_backup_does_not_overwrite_unless_told(healthy, tmp_path):
    file = tmp_path / "state.json"
    file.write_text("precious")
    with pytest.raises(AlreadyExists, match=r"state\.json exists"):
        cluster_backup(healthy.ops, ClusterBackup(path=str(file)))
    assert file.read_text() == "precious"
    cluster_backup(healthy.ops, ClusterBackup(path=str(file), overwrite=True))
    assert "pvc-state" in file.read_text()


def test_backup_to_nowhere_says_so(healthy, tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be written: No such file or directory"):
        cluster_backup(healthy.ops, ClusterBackup(path=str(tmp_path / "none" / "x")))


def test_restore_over_a_live_cluster_needs_force(healthy, tmp_path):
    file = tmp_path / "state.json"
    vm = healthy.define(description="then")
    cluster_backup(healthy.ops, ClusterBackup(path=str(file)))
    healthy.write_spec(vm, description="now")
    before = healthy.dump()
    with pytest.raises(InUse, match="the cluster is alive"):
        cluster_restore(healthy.ops, ClusterRestore(path=str(file)))
    assert healthy.dump() == before
    cluster_restore(healthy.ops, ClusterRestore(path=str(file), force=True))
    assert healthy.spec(vm).description == "then"


def test_restore_of_something_else_is_refused(healthy, tmp_path):
    file = tmp_path / "x.json"
    before = healthy.dump()
    with pytest.raises(InvalidRequest, match=r"x\.json cannot be read"):
        cluster_restore(healthy.ops, ClusterRestore(path=str(file)))
    file.write_text("{}")
    with pytest.raises(InvalidRequest, match=r"x\.json: this is not a backup"):
        cluster_restore(healthy.ops, ClusterRestore(path=str(file), force=True))
    assert healthy.dump() == before
    assert replace(status(healthy), name="x").name == "x"
