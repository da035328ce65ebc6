"""Taking a node out of service and back: evacuation, parking, return, autostart.  With real VM reconcilers."""

import pytest
from msgspec.structs import replace

from pvc_core.config.schema import Timing
from pvc_core.model.vm import VmSpec
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import NodeFlush, node_flush, node_ready
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.stepped import SteppedCluster

MIB = 1024
TIMING = Timing(shutdown=20.0, resync=30.0)


class Site:
    def __init__(self, nodes=("hv1", "hv2", "hv3"), memory_mib=8 * MIB):
        self.cluster = SteppedCluster(("hv1",), TIMING)
        for name in nodes:
            self.add(name, memory_mib)
        self.cluster.settle()

    def add(self, name, memory_mib=8 * MIB):
        def reconcilers(context, node):
            return {"vm": VmReconciler(context, parked=node.parked, new_id=self.new_id)}

        return self.cluster.add(name, memory_mib=memory_mib, reconcilers=reconcilers)

    attempts = 0

    def new_id(self):
        self.attempts += 1
        return str(self.attempts)

    def define(self, id_, node, memory_mib=2 * MIB, power="running", **fields):
        spec = VmSpec(
            id=id_, name=id_, memory_mib=memory_mib, vcpus=1, node=node, power=power, shutdown_timeout_s=10, **fields
        )
        self.cluster.operator.commit(create(keys.vm_spec(id_), spec))

    def runs(self, id_, node):
        return lambda: self.cluster.world.running(id_) == [node]

    def until(self, condition, seconds=120.0):
        return self.cluster.until(condition, seconds)

    def flush(self, node):
        node_flush(self.cluster.ops, NodeFlush(node=node, force=True))

    def ready(self, node):
        node_ready(self.cluster.ops, NodeQuery(node=node))

    def status(self, node):
        return documents.read(self.cluster.operator, keys.node_status(node)).value

    def spec(self, id_):
        return documents.read(self.cluster.operator, keys.vm_spec(id_)).value

    def is_in(self, node, scheduling):
        return lambda: self.status(node).scheduling == scheduling


@pytest.fixture
def site():
    return Site()


def test_a_drained_node_has_no_guest_and_each_went_on_elsewhere(site):
    for id_ in ("a", "b", "c"):
        site.define(id_, "hv2")
    site.until(lambda: all(site.cluster.world.running(vm) == ["hv2"] for vm in "abc"))
    site.flush("hv2")
    site.until(site.is_in("hv2", "draining"))
    site.until(site.is_in("hv2", "drained"))
    for vm in "abc":
        (where,) = site.cluster.world.running(vm)
        assert where in ("hv1", "hv3")
        assert site.spec(vm).home == "hv2"
    assert site.status("hv2").observed_generation == 2


def test_a_drained_node_stays_so_over_a_restart_of_its_daemon(site):
    site.flush("hv2")
    site.until(site.is_in("hv2", "drained"))
    site.cluster.nodes["hv2"].kill()
    site.cluster.nodes["hv2"].start()
    site.cluster.settle()
    assert site.cluster.nodes["hv2"].parts.state.scheduling == "drained"


def test_ready_brings_the_vms_home_and_is_told_when_they_are_there(site):
    site.define("a", "hv2")
    site.until(site.runs("a", "hv2"))
    site.flush("hv2")
    site.until(site.is_in("hv2", "drained"))
    site.ready("hv2")
    site.until(site.is_in("hv2", "returning"))
    site.until(site.is_in("hv2", "ready"))
    assert site.cluster.world.running("a") == ["hv2"]
    assert site.spec("a").home is None


def test_ready_is_not_held_up_by_a_vm_that_cannot_come(site):
    site.define("a", "hv2")
    site.until(site.runs("a", "hv2"))
    site.flush("hv2")
    site.until(site.is_in("hv2", "drained"))
    site.cluster.world.vm_faults("a").migration_error = "no"
    site.ready("hv2")
    site.until(site.is_in("hv2", "ready"), 600)
    assert len(site.cluster.world.running("a")) == 1


def test_a_vm_that_fits_nowhere_is_shut_down_after_a_while_and_waits_for_room():
    site = Site(("hv1", "hv2"), memory_mib=4 * MIB)
    site.define("big", "hv2", memory_mib=2500)
    site.define("other", "hv1", memory_mib=2500)
    site.until(lambda: site.runs("big", "hv2")() and site.runs("other", "hv1")())
    site.flush("hv2")
    site.cluster.run(TIMING.resync - 2)
    assert site.cluster.world.running("big") == ["hv2"]
    condition = next(c for c in site.status("hv2").conditions if c.type == "Drain")
    assert "big" in condition.message
    assert "hv1" in condition.message
    site.until(site.is_in("hv2", "drained"))
    assert site.cluster.world.running("big") == []
    assert site.spec("big").power == "running"
    site.add("hv3", 4 * MIB)
    site.until(site.runs("big", "hv3"))


def test_a_vm_that_fits_when_another_node_comes_back_in_time_is_not_shut_down():
    site = Site(("hv1", "hv2"), memory_mib=4 * MIB)
    site.define("big", "hv2", memory_mib=2500)
    site.define("other", "hv1", memory_mib=2500)
    site.until(lambda: site.runs("big", "hv2")() and site.runs("other", "hv1")())
    site.flush("hv2")
    site.cluster.run(TIMING.resync / 2)
    site.add("hv3", 4 * MIB)
    site.until(site.runs("big", "hv3"))
    site.until(site.is_in("hv2", "drained"))
    assert not [c for c in site.status("hv2").conditions if c.type == "Drain"]


def test_ready_before_the_end_takes_a_flush_back(site):
    site.define("a", "hv2")
    site.until(site.runs("a", "hv2"))
    site.flush("hv2")
    site.cluster.settle()
    site.ready("hv2")
    site.until(site.is_in("hv2", "ready"))
    site.until(site.runs("a", "hv2"))
    assert not site.cluster.nodes["hv2"].parts.node.parked("a")


def test_a_restarted_host_starts_what_has_autostart_and_a_restarted_daemon_does_not(site):
    node = site.cluster.nodes["hv3"]
    site.define("auto", "hv3", power="stopped", autostart=True)
    site.define("off", "hv3", power="stopped")
    site.cluster.settle()
    node.kill()
    node.start()
    site.cluster.run(5)
    assert site.spec("auto").power == "stopped"
    node.kill()
    node.host.boot_id = "boot-2"
    node.start()
    site.until(site.runs("auto", "hv3"))
    assert site.spec("off").power == "stopped"


def test_autostart_waits_until_the_node_is_ready(site):
    node = site.cluster.nodes["hv3"]
    site.flush("hv3")
    site.until(site.is_in("hv3", "drained"))
    site.define("auto", "hv3", power="stopped", autostart=True)
    site.cluster.run(5)
    node.kill()
    node.host.boot_id = "boot-2"
    node.start()
    site.cluster.run(5)
    assert site.spec("auto").power == "stopped"
    site.ready("hv3")
    site.until(site.runs("auto", "hv3"))


def test_a_changed_role_in_the_configuration_reaches_the_spec(site):
    node = site.cluster.nodes["hv2"]
    node._role = "coordinator"
    node.kill()
    node.start()
    site.cluster.settle()
    spec = documents.read(site.cluster.operator, keys.node_spec("hv2")).value
    assert (spec.role, spec.generation) == ("coordinator", 2)


def test_a_node_removed_while_it_runs_says_so_and_does_not_come_back_by_itself(site):
    entry = documents.read(site.cluster.operator, keys.node_spec("hv2"))
    site.cluster.operator.commit(entry.delete())
    site.cluster.run(70)
    assert documents.read(site.cluster.operator, keys.node_spec("hv2")) is None
    condition = next(c for c in site.status("hv2").conditions if c.type == "Member")
    assert not condition.ok


def test_a_daemon_killed_in_the_middle_of_a_drain_goes_on_with_it(site):
    for id_ in ("a", "b", "c", "d"):
        site.define(id_, "hv2", memory_mib=1024)
    site.until(lambda: all(site.cluster.world.running(vm) == ["hv2"] for vm in "abcd"))
    site.flush("hv2")
    site.until(lambda: any(site.cluster.world.running(vm) != ["hv2"] for vm in "abcd"))
    site.cluster.nodes["hv2"].kill()
    site.cluster.run(3)
    site.cluster.nodes["hv2"].start()
    site.until(site.is_in("hv2", "drained"), 300)
    assert all(len(site.cluster.world.running(vm)) == 1 for vm in "abcd")


def test_maintenance_alone_moves_nothing(site):
    site.define("a", "hv2")
    site.until(site.runs("a", "hv2"))
    entry = documents.read(site.cluster.operator, keys.node_spec("hv2"))
    site.cluster.operator.commit(entry.put(replace(entry.value, maintenance=True, generation=2)))
    site.cluster.run(100)
    assert site.cluster.world.running("a") == ["hv2"]
    assert site.status("hv2").scheduling == "ready"


def test_a_vm_that_waits_for_a_transfer_to_end_is_moved_at_once_when_it_does(site):
    site.cluster.world.pace.migration_s = 0.3
    vms = [f"vm{n}" for n in range(6)]
    for id_ in vms:
        site.define(id_, "hv2", memory_mib=MIB)
    site.until(lambda: all(site.cluster.world.running(vm) == ["hv2"] for vm in vms))
    site.flush("hv2")
    site.until(lambda: site.spec("vm0").node != "hv2")
    took = site.until(lambda: all(site.cluster.world.running(vm) != ["hv2"] for vm in vms))
    # Two at a time.
    assert took == pytest.approx(3 * 0.3, abs=0.2)
