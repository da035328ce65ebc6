"""What comes too late: the node is back, or lost again, by the time that something decided earlier takes effect."""

import pytest

from pvc_core.hypervisor.api import ExitReason
from pvc_core.model.errors import Conflict
from pvc_core.model.fence import FenceDevice, FenceLevel, FenceStage
from pvc_core.model.vm import MigrationPhase
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm
from pvc_core.ops.pool import PoolAdd, pool_add
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.store import keys
from pvc_core.store.api import Put, StoreUnavailable
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.fence_site import ClosableSite, FenceSite


@pytest.fixture
def site():
    return FenceSite()


def back_and(site, then):
    """Let the call that would cut the power of hv3 wait for its turn, and hv3 come back meanwhile."""
    site.held = True
    site.isolated("hv3")
    site.until(lambda: site.pending)
    site.reconnected("hv3")
    site.cluster.settle()
    site.cluster.run(3.0)
    then()
    site.answer()


def test_power_is_not_cut_for_a_loss_that_is_over_when_the_node_was_stopped_in_good_order_since(site):
    vm = site.vm("web")
    hv3 = site.cluster.nodes["hv3"]

    def stop():
        assert hv3.agent.lease.release()
        hv3.kill()
        site.cluster.settle()

    back_and(site, stop)
    assert site.power.read("hv3") is PowerState.ON
    assert (site.running(vm), site.stage()) == (["hv3"], FenceStage.CANCELLED)


def test_power_is_not_cut_for_a_loss_that_is_over_when_the_node_is_lost_again_within_its_grace(site):
    vm = site.vm("web")
    back_and(site, lambda: site.isolated("hv3"))
    assert site.power.read("hv3") is PowerState.ON
    assert (site.running(vm), site.record().lease, site.stage()) == (["hv3"], 2, FenceStage.SUSPECTED)


def test_a_node_is_not_switched_on_once_it_is_in_maintenance(site):
    site.change(keys.CLUSTER, power_on_after_fence=True)
    switch = site.power.write

    def busy(node, power):
        if power is PowerState.ON:
            raise DriverError("it is busy")
        return switch(node, power)

    site.power.write = busy
    site.isolated("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.run(3)
    site.change(keys.node_spec("hv3"), maintenance=True)
    site.power.write = switch
    site.cluster.run(300)
    assert site.power.read("hv3") is PowerState.OFF
    site.change(keys.node_spec("hv3"), maintenance=False)
    site.until(lambda: site.power.read("hv3") is PowerState.ON)


def test_a_node_that_was_lost_in_maintenance_has_its_grace_time_when_that_ends(site):
    site.change(keys.node_spec("hv3"), maintenance=True)
    site.isolated("hv3")
    site.cluster.run(100)
    site.change(keys.node_spec("hv3"), maintenance=False)
    site.cluster.run(site.cluster.timing.grace - 0.5)
    assert (site.power.read("hv3"), site.stage()) == (PowerState.ON, FenceStage.SUSPECTED)
    site.until(lambda: site.stage() is FenceStage.RECOVERED)


def test_the_other_devices_of_a_level_are_not_told_when_the_node_is_back(site):
    both = FenceLevel(devices=(FenceDevice(driver="fake"), FenceDevice(driver="other")))
    site.change(keys.node_spec("hv3"), fence_levels=(both,))
    site.power.stuck.add("hv3")
    site.isolated("hv3")
    first = site.power.write

    def write(node, power):
        site.reconnected("hv3")
        site.cluster.nodes["hv3"].agent.session.step()
        return first(node, power)

    site.power.write = write
    site.until(lambda: site.stage() is FenceStage.CANCELLED)
    assert site.other.read("hv3") is PowerState.ON


def test_an_operators_word_is_not_taken_for_another_loss_than_the_one_that_was_shown(site):
    vm = site.vm("web")
    site.power.silent.add("hv3")
    site.isolated("hv3")
    site.cluster.run(10)
    shown = FenceConfirm(node="hv3", by="me@desk", lease=site.record().lease)
    site.reconnected("hv3")
    site.cluster.run(10)
    site.isolated("hv3")
    site.cluster.run(1)
    with pytest.raises(Conflict, match=r"has been back since, and is lost again \(lease 2, not 1\)"):
        fence_confirm(site.cluster.ops, shown)
    site.cluster.run(20)
    assert (site.record().proofs, site.running(vm)) == ((), ["hv3"])


# --- storage -------------------------------------------------------------------------------------------------


def test_nothing_is_closed_that_could_not_be_recorded_before():
    site = ClosableSite()
    vm = site.vm_on("a", "shared")
    primary = site.cluster.nodes["hv1"].store
    commit, failed = primary.commit, []

    def fails_once(*operations):
        closing = [op for op in operations if isinstance(op, Put) and b'"blocked":[{' in op.value]
        if closing and not failed:
            failed.append(True)
            raise StoreUnavailable("connection lost")
        return commit(*operations)

    primary.commit = fails_once
    site.isolated("hv3")
    site.until(lambda: site.backend.blocked)
    assert failed
    assert site.record().blocked
    site.until(lambda: site.running(vm) != ["hv3"])
    site.reconnected("hv3")
    site.until(lambda: not site.backend.blocked)
    assert site.stage() is FenceStage.RETURNED


class TwoStorages(ClosableSite):
    """One more storage, which can be told not to answer."""

    def __init__(self):
        self.second, self.silent = FakeBackend(), False
        super().__init__()
        pool_add(self.cluster.ops, PoolAdd(name="two", driver="second"))
        self.cluster.run(30.0)

    def _drivers(self, name):
        site, drivers = self, super()._drivers(name)

        class Second(FakeStorage):
            def node_block(self, *given):
                if site.silent:
                    raise DriverError("the monitors do not answer")
                return super().node_block(*given)

        storage = {kind: drivers.storage(kind) for kind in ("fake", "plain")}
        return DirectDrivers(
            fencing={kind: drivers.fencing(kind) for kind in ("fake", "other")},
            storage={**storage, "second": Second(self.second, name)},
        )


def test_storage_that_did_not_answer_at_first_is_closed_later_and_its_vms_are_recovered_too():
    site = TwoStorages()
    one, other = site.vm_on("a", "shared"), site.vm_on("b", "two")
    site.silent = True
    site.isolated("hv3")
    site.until(lambda: site.read(keys.claim(one)).node != "hv3")
    site.cluster.run(120)
    assert site.read(keys.claim(other)).node == "hv3"
    site.silent = False
    site.until(lambda: site.read(keys.claim(other)).node != "hv3", 120)
    assert site.second.blocked == {"hv3"}
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert len(site.record().proofs) == 2


# --- migrations ----------------------------------------------------------------------------------------------


def test_a_guest_whose_left_copy_is_killed_belongs_to_the_target_on_which_it_executes(site):
    vm, world = site.vm("web"), site.cluster.world
    complete = world._complete

    def killed(migration):
        world.vm_faults(vm).migration_unconfirmed = True
        complete(migration)
        world.end(migration.source, vm, ExitReason.CRASHED)

    world._complete = killed
    site.change(keys.vm_spec(vm), node="hv2", move_method="live")
    site.until(lambda: (m := site.read(keys.claim(vm)).migration) and m.phase is MigrationPhase.TRANSFER)
    site.cluster.nodes["hv2"].kill()
    site.until(lambda: site.read(keys.claim(vm)).node == "hv2")
    site.power.silent.add("hv2")
    site.loses_lease("hv2")
    site.cluster.run(120)
    assert site.running(vm) == ["hv2"]


def test_an_older_guest_does_not_come_any_more_when_it_has_begun_anew(monkeypatch):
    site = ClosableSite()
    vm, world = site.vm_on("a", "shared"), site.cluster.world
    storage = site.cluster.nodes["hv3"].drivers.storage("fake")
    attach, hung = type(storage).disk_attach, []

    def hangs(self, *given, **more):
        source = attach(self, *given, **more)
        record = site.read(keys.claim(vm)).migration
        if self is storage and record is not None and record.phase is MigrationPhase.TRANSFER and not hung:
            hung.append(True)
            site.isolated("hv3")
            site.until(lambda: "hv2" in site.running(vm), 120)
            site.cluster.run(30)
            world.crash("hv2", vm)
        return source

    monkeypatch.setattr(type(storage), "disk_attach", hangs)
    site.change(keys.vm_spec(vm), node="hv2", move_method="live")
    site.until(lambda: bool(hung))
    assert "hv2" not in world.present(vm), "it crashed just now, and nothing comes from hv3"
    site.until(lambda: "hv2" in site.running(vm))
    fresh = world.present(vm)
    site.cluster.run(30)
    assert world.present(vm) == fresh
    assert world.admitted("hv2", vm) is False
