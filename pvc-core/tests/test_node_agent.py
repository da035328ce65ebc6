"""The agent: what an event makes it look at, what it drops, and that nothing stops it."""

from types import SimpleNamespace

import pytest

from pvc_core.model.base import Condition
from pvc_core.model.errors import PvcError
from pvc_core.model.task import Task
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmClaim, VmSpec
from pvc_core.node.lease import LeaseLost
from pvc_core.plugin.errors import DriverError
from pvc_core.store import documents, keys
from pvc_core.store.api import Delete
from pvc_core.store.documents import create
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.stepped import SteppedCluster


class Recorder:
    """A reconciler that notes what it was asked, and answers or raises as told."""

    def __init__(self):
        self.asked = []
        self.answer = None
        self.error = None

    def reconcile(self, id_):
        self.asked.append(id_)
        if self.error is not None:
            raise self.error
        return self.answer

    def take(self):
        asked, self.asked = sorted({id_ for id_ in self.asked if id_}), []
        return asked


@pytest.fixture
def site():
    cluster = SteppedCluster()
    recorders = {kind: Recorder() for kind in ("vm", "network", "pool", "volume")}
    node = cluster.add("hv1", reconcilers=lambda *_: recorders)
    cluster.settle()
    return SimpleNamespace(cluster=cluster, node=node, **recorders)


def put(site, *operations):
    site.cluster.operator.commit(*operations)
    site.cluster.settle()


def vm_spec(id_, node):
    return create(keys.vm_spec(id_), VmSpec(id=id_, name=id_, memory_mib=64, vcpus=1, node=node))


def claim(id_, node, target=None):
    record = None if target is None else MigrationRecord(target=target, attempt="1", phase=MigrationPhase.PREPARE)
    return create(keys.claim(id_), VmClaim(vm=id_, node=node, lease=1, epoch=1, migration=record))


def change(site, key, **changes):
    from msgspec.structs import replace

    entry = documents.read(site.cluster.operator, key)
    put(site, entry.put(replace(entry.value, **changes)))


def test_a_vm_placed_here_is_looked_at_and_one_placed_elsewhere_is_not(site):
    put(site, vm_spec("mine", "hv1"), vm_spec("other", "hv2"))
    assert site.vm.take() == ["mine"]


def test_a_vm_claimed_here_is_looked_at_wherever_it_is_placed(site):
    put(site, vm_spec("leaving", "hv2"))
    assert site.vm.take() == []
    put(site, claim("leaving", "hv1"))
    assert site.vm.take() == ["leaving"]


def test_the_target_of_a_migration_looks_at_the_vm(site):
    put(site, claim("coming", "hv2", target="hv1"))
    assert site.vm.take() == ["coming"]


def test_a_vm_that_left_is_looked_at_once_more(site):
    put(site, vm_spec("a", "hv1"))
    site.vm.take()
    change(site, keys.vm_spec("a"), node="hv2")
    assert site.vm.take() == ["a"]
    change(site, keys.vm_spec("a"), description="x")
    assert site.vm.take() == []


def test_networks_pools_and_volumes_are_given_to_their_reconcilers_by_name_of_the_change(site):
    for kind in ("network", "pool", "volume"):
        site.node.agent.on_change(f"{keys.SPEC}/{kind}/x")
        site.node.agent.on_change(f"{keys.STATUS}/{kind}/y")
    site.cluster.settle()
    assert (site.network.take(), site.pool.take(), site.volume.take()) == (["x"], ["x"], ["x"])


def test_own_objects_are_looked_at_again_at_every_resync(site):
    put(site, vm_spec("a", "hv1"), vm_spec("b", "hv2"))
    site.vm.take()
    site.cluster.run(site.cluster.timing.resync + 1)
    assert site.vm.take() == ["a"]


def test_what_a_lost_event_hid_is_found_by_the_resync(site):
    site.node.store._no_more_watches()
    put(site, vm_spec("new", "hv1"), claim("claimed", "hv1"))
    assert site.vm.take() == []
    site.cluster.run(site.cluster.timing.resync + 1)
    assert site.vm.take() == ["claimed", "new"]


def test_a_change_that_a_lost_event_hid_is_found_by_a_full_scan(site):
    put(site, vm_spec("a", "hv2"))
    site.node.store._no_more_watches()
    change(site, keys.vm_spec("a"), node="hv1")
    site.cluster.until(lambda: site.vm.take() == ["a"], site.cluster.timing.resync * 11)


def test_on_a_large_cluster_nodes_read_everything_at_different_moments_after_a_disturbance(site, monkeypatch):
    from pvc_core.node import agent as agent_module

    monkeypatch.setattr(agent_module, "_SMALL", 0)
    put(site, vm_spec("mine", "hv1"), vm_spec("coming", "hv2"))
    site.cluster.run(site.cluster.timing.resync + 1)
    site.node.store.suspend()
    change(site, keys.vm_spec("coming"), node="hv1")
    put(site, vm_spec("new", "hv1"))
    site.vm.take()
    site.node.store.resume()
    site.cluster.settle()
    assert site.vm.take() == ["mine", "new"]
    took = site.cluster.until(lambda: "coming" in site.vm.asked, site.cluster.timing.resync + 1)
    assert took > 0


def test_a_domain_without_any_document_is_looked_at(site):
    site.node.agent._on_domain("stray")
    site.cluster.settle()
    assert site.vm.take() == ["stray"]


def test_a_failure_is_repeated_with_pauses_and_does_not_stop_others(site, caplog):
    site.vm.error = DriverError("disk is away")
    put(site, vm_spec("a", "hv1"))
    site.cluster.run(3)
    assert 2 <= len(site.vm.asked) <= 4
    assert "disk is away" in caplog.text
    assert "Traceback" not in caplog.text
    put(site, vm_spec("b", "hv1"))
    assert "b" in site.vm.take()


def test_a_defect_is_told_with_its_traceback_and_survived(site, caplog):
    site.vm.error = KeyError("oops")
    put(site, vm_spec("a", "hv1"))
    assert "reconcile-defect" in caplog.text
    assert "Traceback" in caplog.text
    site.vm.error = None
    site.vm.take()
    site.cluster.until(lambda: site.vm.asked == ["a"], 5)


def test_a_delay_that_a_reconciler_asks_for_is_kept(site):
    site.vm.answer = 7
    put(site, vm_spec("a", "hv1"))
    site.vm.answer = None
    site.vm.take()
    assert 6 < site.cluster.until(lambda: site.vm.asked == ["a"], 10) <= 7


def test_without_a_lease_nothing_is_decided_and_afterwards_everything_is_looked_at(site):
    put(site, vm_spec("a", "hv1"))
    site.vm.take()
    site.node.store.expire()
    site.node.agent.on_change(keys.vm_spec("a").path)
    site.cluster.run(30)
    assert site.vm.take() == []
    site.node.store.reconnect()
    site.cluster.settle()
    assert site.vm.take() == ["a"]
    assert site.node.agent.lease.generation() == 2


def test_keys_dropped_while_the_daemon_was_frozen_are_looked_at_when_it_goes_on(site, monkeypatch):
    put(site, vm_spec("a", "hv1"))
    site.vm.take()
    heard = site.node.store.last_heard()
    monkeypatch.setattr(type(site.node.store), "last_heard", lambda _: heard)
    site.cluster.clock.move_to(heard + 60)
    site.cluster.settle()
    assert site.vm.take() == []
    monkeypatch.undo()
    site.cluster.run(2)
    assert site.vm.take() == ["a"]


def test_work_that_met_the_loss_of_the_lease_is_dropped_and_done_later(site):
    site.vm.error = LeaseLost("gone")
    put(site, vm_spec("a", "hv1"))
    assert site.vm.take() == ["a"]
    site.vm.error = None
    site.cluster.run(2)
    assert site.vm.take() == ["a"]


def test_a_task_of_another_node_is_read_once_only(site):
    put(site, create(keys.task("t"), Task(id="t", kind="x", node="hv2")))
    assert site.node.agent.interest.is_foreign_task("t")
    site.node.agent.on_change(keys.task("t").path)
    assert ("task", "t") not in site.node.ready()


def test_a_document_that_cannot_be_read_costs_only_itself(site, caplog):
    from pvc_core.store.api import Create

    site.cluster.operator.commit(Create(keys.vm_spec("bad").path, b"{"), vm_spec("good", "hv1"))
    site.node.agent.on_change(None)
    site.cluster.settle()
    assert site.vm.take() == ["good"]
    assert keys.vm_spec("bad").path in caplog.text


def test_the_lease_going_on_purpose_stops_the_work(site):
    site.node.agent.lease.release()
    put(site, vm_spec("a", "hv1"))
    assert site.vm.take() == []


class Widgets:
    def __init__(self):
        self.seen = []

    def __call__(self, *, kind, id, spec):
        self.seen.append((kind, id, spec))
        return None if spec is None else {"observed": spec["n"]}


def test_resources_of_plugins_get_the_status_their_plugin_answers():
    cluster, widgets = SteppedCluster(), Widgets()
    cluster.add("hv1", drivers=DirectDrivers(collectors={"resource_reconcile": [widgets]}), resource_kinds=("widget",))
    cluster.settle()
    from pvc_core.store.api import Create

    cluster.operator.commit(Create(f"{keys.SPEC}/widget/w", b'{"n":1}'))
    cluster.settle()
    assert cluster.operator.get(f"{keys.STATUS}/widget/w").value == b'{"observed":1}'
    cluster.operator.commit(Delete(f"{keys.SPEC}/widget/w"))
    cluster.settle()
    assert widgets.seen[-1] == ("widget", "w", None)
    assert cluster.operator.get(f"{keys.STATUS}/widget/w") is None


def test_health_checks_become_conditions_and_go_with_their_check():
    answers = [[Condition(type="Fans", ok=False, reason="Slow", message="fan 2 stands still")]]
    cluster = SteppedCluster()
    node = cluster.add("hv1", drivers=DirectDrivers(collectors={"health_checks": [lambda: answers[0]]}))
    cluster.settle()
    assert [c.message for c in node.parts.state.conditions if c.type == "Fans"] == ["fan 2 stands still"]
    answers[0] = []
    cluster.run(16)
    assert "Fans" not in [c.type for c in node.parts.state.conditions]


def test_pvc_errors_are_not_defects(site, caplog):
    site.vm.error = PvcError("plain")
    put(site, vm_spec("a", "hv1"))
    assert "reconcile-failed" in caplog.text
