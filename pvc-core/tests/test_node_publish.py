"""The node's report: how much it writes, what it says, and what happens when the hypervisor is away."""

import pytest
from msgspec.structs import replace

from pvc_core.hypervisor.api import DomainPlan, HypervisorUnavailable
from pvc_core.model.storage import PoolSpec
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmClaim, VmSpec
from pvc_core.node.publish import MemoryLimits
from pvc_core.ops.node import NodeList, node_list
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.storage import VolumeRef
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.stepped import SteppedCluster


class Site:
    def __init__(self, drivers=None, **assembly):
        self.cluster = SteppedCluster()
        self.node = self.cluster.add("hv1", memory_mib=8192, drivers=drivers, **assembly)
        self.cluster.settle()

    def status(self):
        return documents.read(self.cluster.operator, keys.node_status("hv1")).value

    def usage(self):
        return documents.read(self.cluster.operator, keys.usage("hv1"))

    def start_guest(self, id_="a", memory_mib=1024):
        vm = VmSpec(id=id_, name=id_, memory_mib=memory_mib, vcpus=2)
        self.node.hypervisor.start(DomainPlan(vm=vm, disks=(), nics=()))

    def count_writes(self, seconds):
        writes = []
        watcher = self.cluster.tree.connect(clock=self.cluster.clock)
        for path in (keys.node_status("hv1").path, keys.usage("hv1").path):
            watcher.watch(path, writes.append)
        self.cluster.run(seconds)
        watcher.close()
        return len(writes)


@pytest.fixture
def site():
    return Site()


def test_an_idle_node_writes_once_per_interval(site):
    site.cluster.run(30)
    assert site.count_writes(100) <= 10


def test_a_node_with_guests_writes_twice_per_interval_however_many_there_are(site):
    for number in range(40):
        site.start_guest(f"vm{number}", 64)
    site.cluster.run(30)
    assert site.count_writes(100) <= 20


def test_a_storm_of_changes_costs_one_write_a_second(site):
    site.cluster.run(30)

    def storm():
        for number in range(200):
            site.node.parts.state.set_condition("Weather", ok=bool(number % 2))
            site.cluster.settle()

    writes = []
    site.cluster.operator.watch(keys.node_status("hv1").path, writes.append)
    storm()
    assert len(writes) <= 1
    site.cluster.run(1.1)
    assert len(writes) <= 2


def test_the_report_has_the_facts(site):
    site.start_guest("a", 1024)
    site.cluster.run(11)
    status = site.status()
    assert (status.daemon, status.scheduling, status.lease, status.role) == ("running", "ready", 1, "coordinator")
    assert (status.running, status.allocated_mib, status.allocated_vcpus) == (("a",), 1024, 2)
    assert (status.kernel, status.boot_id, status.load1) == ("6.1.0", "boot-1", 0.25)
    assert status.memory.total_mib == 8192
    assert status.version
    assert site.usage().value.guests.keys() == {"a"}


def test_the_last_guests_end_is_written_and_then_nothing(site):
    site.start_guest("a")
    site.cluster.run(11)
    site.node.hypervisor.destroy("a")
    site.cluster.run(11)
    entry = site.usage()
    assert entry.value.guests == {}
    site.cluster.run(60)
    assert site.usage().version == entry.version


def test_memory_that_the_configuration_gives_bounds_what_is_free():
    site = Site(limits=MemoryLimits(total_mib=2048, reserved_mib=256))
    site.start_guest("a", 512)
    site.cluster.run(11)
    memory = site.status().memory
    assert (memory.total_mib, memory.reserved_mib, memory.free_mib) == (2048, 256, 2048 - 256 - 512)


def test_plugins_and_what_they_can_do_are_in_the_report():
    site = Site(DirectDrivers(storage={"fake": FakeStorage(FakeBackend(), "hv1")}))
    assert site.status().capabilities() == {"storage:fake", "snapshots:fake"}
    site.node.drivers.break_driver("fake", "the disk is away")
    site.cluster.run(11)
    assert site.status().capabilities() == frozenset()
    assert site.status().plugins[0].error == "the disk is away"


def test_a_hypervisor_that_is_away_is_told_and_its_guests_stay_in_the_report(site, monkeypatch):
    site.start_guest("a")
    site.cluster.run(11)

    def away(*_):
        raise HypervisorUnavailable("libvirt does not answer: connection refused")

    for name in ("facts", "domains", "usage"):
        monkeypatch.setattr(site.node.hypervisor, name, away)
    site.cluster.run(21)
    status = site.status()
    condition = next(c for c in status.conditions if c.type == "Hypervisor")
    assert not condition.ok
    assert "connection refused" in condition.message
    assert status.running == ("a",)
    (row,) = node_list(site.cluster.ops, NodeList())
    assert (row.ready, row.reason) == (False, "its hypervisor does not answer")
    monkeypatch.undo()
    site.cluster.run(11)
    assert next(c for c in site.status().conditions if c.type == "Hypervisor").ok


def test_an_accelerator_that_does_not_work_and_guests_of_others_are_told(site, monkeypatch):
    facts = site.node.hypervisor.facts()
    told = replace(facts, unusable={"kvm": "a guest did not start with it"}, foreign=("old-vm",))
    monkeypatch.setattr(site.node.hypervisor, "facts", lambda: told)
    site.cluster.run(11)
    conditions = {c.type: c for c in site.status().conditions}
    assert not conditions["Accelerator/kvm"].ok
    assert "a guest did not start with it" in conditions["Accelerator/kvm"].message
    assert "old-vm" in conditions["ForeignGuests"].message
    monkeypatch.undo()
    site.cluster.run(11)
    assert {c.type for c in site.status().conditions} == {"Hypervisor"}


def test_a_node_that_is_to_emulate_does_not_complain_of_it(monkeypatch):
    site = Site(emulation_is_bad=False)
    told = replace(site.node.hypervisor.facts(), unusable={"kvm": "switched off"})
    monkeypatch.setattr(site.node.hypervisor, "facts", lambda: told)
    site.cluster.run(11)
    assert {c.type for c in site.status().conditions} == {"Hypervisor"}


def test_everything_is_looked_at_again_when_the_hypervisor_is_back(site, monkeypatch):
    asked = []
    site.node.agent.register({"network": type("Seen", (), {"reconcile": lambda _, id_: asked.append(id_)})()})

    def away(*_):
        raise HypervisorUnavailable("away")

    monkeypatch.setattr(site.node.hypervisor, "domains", away)
    site.cluster.run(11)
    monkeypatch.undo()
    asked.clear()
    site.cluster.run(11)
    assert asked


def test_a_condition_keeps_the_time_since_when_it_is_so(site):
    state = site.node.parts.state
    state.set_condition("Weather", ok=False, message="rain")
    since = next(c for c in state.conditions if c.type == "Weather").since
    site.cluster.run(50)
    state.set_condition("Weather", ok=False, message="rain")
    assert next(c for c in state.conditions if c.type == "Weather").since == since


def test_a_status_that_somebody_else_wrote_is_written_over(site):
    entry = documents.read(site.cluster.operator, keys.node_status("hv1"))
    site.cluster.operator.commit(entry.put(entry.value))
    site.cluster.run(21)
    assert site.status().published > entry.value.published


# --- recovery of attachments --------------------------------------------------------------------------------

POOL = PoolSpec(id="p1", name="ssd", driver="fake")


class Disks:
    """A killed daemon left one volume attached for each VM."""

    def __init__(self, *vms):
        self.backend = FakeBackend()
        self.storage = FakeStorage(self.backend, "hv1")
        self.storage.pool_ensure(POOL)
        for vm in vms:
            ref = VolumeRef(pool=POOL, name=f"disk-{vm}")
            self.storage.volume_create(ref, 1 << 20, "raw")
            self.storage.disk_attach(ref, vm, 1, False)
        self.cluster = SteppedCluster()
        self.cluster.operator.commit(create(keys.pool_spec("p1"), POOL))

    def start(self):
        self.node = self.cluster.add("hv1", drivers=DirectDrivers(storage={"fake": self.storage}))
        self.cluster.settle()

    def attached(self):
        return sorted(attachment.vm for attachment in self.storage.disk_attachments())


def test_attachments_of_vms_that_are_elsewhere_now_are_released():
    disks = Disks("mine", "gone", "coming", "theirs")
    prepare = MigrationRecord(target="hv1", attempt="1", phase=MigrationPhase.PREPARE)
    disks.cluster.operator.commit(
        create(keys.claim("mine"), VmClaim(vm="mine", node="hv1", lease=1, epoch=1)),
        create(keys.claim("theirs"), VmClaim(vm="theirs", node="hv2", lease=1, epoch=2)),
        create(keys.claim("coming"), VmClaim(vm="coming", node="hv2", lease=1, epoch=1, migration=prepare)),
    )
    disks.start()
    assert disks.attached() == ["coming", "mine"]


def test_attachments_of_a_domain_that_runs_here_are_kept():
    disks = Disks("stray")
    node = disks.cluster.add("hv1", drivers=DirectDrivers(storage={"fake": disks.storage}))
    node.hypervisor.start(DomainPlan(vm=VmSpec(id="stray", name="stray", memory_mib=64, vcpus=1), disks=(), nics=()))
    disks.cluster.settle()
    assert disks.attached() == ["stray"]


def test_a_driver_that_is_not_ready_yet_is_recovered_when_it_is(caplog):
    disks = Disks("gone")
    disks.storage.faults.fail("disk_detach", DriverError("not yet"), times=1)
    disks.start()
    assert "recovery-failed" in caplog.text
    assert disks.attached() == ["gone"]
    disks.cluster.run(disks.cluster.timing.publish + 1)
    assert disks.attached() == []


def test_an_attachment_is_not_touched_while_its_vm_is_in_work():
    disks = Disks("busy")
    disks.start()
    queue = disks.node.agent.queue
    disks.storage.disk_attach(VolumeRef(pool=POOL, name="disk-busy"), "busy", 1, False)
    recovery = disks.node.agent._reconcilers["recovery"]
    recovery._done.clear()
    assert queue.take(("vm", "busy"))
    assert recovery.reconcile("") is not None
    assert disks.attached() == ["busy"]
    queue.done(("vm", "busy"))
    assert recovery.reconcile("") is None
    assert disks.attached() == []
