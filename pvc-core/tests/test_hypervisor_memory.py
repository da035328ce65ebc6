"""The in-memory hypervisor: the contract, and what only a world can show."""

import uuid
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pvc_core.hypervisor.api import DomainState, ExitReason, HypervisorError, HypervisorUnavailable, MigrationOptions
from pvc_core.hypervisor.domainxml import disk_alias
from pvc_core.hypervisor.memory import MemoryWorld, Pace
from pvc_core.hypervisor.nicxml import render_nic
from pvc_core.plugin.specs.network import NicSource
from pvc_core.testkit.contracts.hypervisor import HypervisorContract
from pvc_core.testkit.guest import guest_plan

VM = "7b0e3a44-2f6c-4a2e-9d53-0c1f6d0a9b11"


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class _Bench:
    there_address = "10.0.0.2"
    nowhere_address = "10.0.0.9"

    def __init__(self) -> None:
        self.clock = _Clock()
        self.world = MemoryWorld(self.clock, Pace(boot_s=1.0))
        self.here = self.world.host("one", "10.0.0.1")
        self.there = self.world.host("two", self.there_address)

    def console_log(self, vm):
        return f"/none/{vm}.log"

    def to(self, vm):
        """Have a guest admitted by the other host, and return how it gets there."""
        admission = self.there.admit(vm, f"attempt of {vm}", self.console_log(vm))
        return MigrationOptions(target_address=self.there_address, admission=admission)

    def restart_there(self):
        self.world.power_off("two")
        self.world.power_on("two")

    def plan(self, vm, name, *, deaf=False, heavy=False):
        faults = self.world.vm_faults(vm)
        faults.ignores_acpi, faults.migration_stalls = deaf, heavy
        return guest_plan(vm, name, Path("/none.raw"))

    def spare_disk(self, volume, target):
        return f"<disk><target dev='{target}' bus='virtio'/><alias name='{disk_alias(volume)}'/></disk>"

    def keeps_devices(self, vm):
        self.world.vm_faults(vm).keeps_devices = True

    def limits(self, vm, target):
        return self.world.limits("one", vm)[target]

    def spare_nic(self, nic):
        source = NicSource(type="bridge", inner_xml="<source bridge='none'/>")
        return ET.tostring(render_nic(nic, source), encoding="unicode")

    def nic(self, vm, mac):
        return self.world.nics("one", vm)[mac]

    def booted(self, vm):
        self.clock.now += self.world.pace.boot_s
        assert self.world.running(vm)

    def until(self, condition, what):
        while not condition():
            due = self.world.next_event_time()
            assert due is not None, f"nothing will happen any more: {what}"
            self.clock.now = due

    def crash(self, vm):
        self.world.crash("one", vm)

    def stop_hypervisor(self):
        self.world.stop_libvirtd("one")

    def start_hypervisor(self):
        self.world.start_libvirtd("one")

    def stop_hypervisor_there(self):
        self.world.stop_libvirtd("two")

    def reconnect(self):
        return self.world.connect("one")


@pytest.fixture
def bench():
    return _Bench()


class TestMemoryHypervisorKeepsTheContract(HypervisorContract):
    @pytest.fixture
    def bench(self):
        return _Bench()


@pytest.fixture
def running(bench):
    """A bench with one booted guest on host one."""
    bench.here.start(bench.plan(VM, "web"))
    bench.booted(VM)
    return bench


def _begin_migration(bench):
    bench.here.migrate(VM, bench.to(VM))


def test_a_migration_changes_sides_at_one_instant(running):
    _begin_migration(running)
    due = running.world.next_event_time()
    running.clock.now = due - 0.001
    assert running.world.running(VM) == ["one"]
    running.clock.now = due
    assert running.world.running(VM) == ["two"]


def test_events_happen_at_their_time_however_late_they_are_noticed(running):
    running.here.shutdown(VM)
    running.clock.now += 1000.0
    assert running.world.running(VM) == []
    assert running.world.next_event_time() is None


def test_a_power_cut_ends_all_guests_and_tells_nobody(running):
    told = []
    running.here.watch(told.append)
    running.world.power_off("one")
    assert running.world.running(VM) == []
    with pytest.raises(HypervisorUnavailable, match="no power"):
        running.here.domains()
    running.world.power_on("one")
    assert running.here.domains() == {}
    assert running.here.exit_reason(VM) is ExitReason.UNKNOWN
    assert told == []


def test_the_half_of_a_guest_vanishes_after_the_source_lost_power(running):
    _begin_migration(running)
    running.world.power_off("one")
    assert running.world.present(VM) == {"two": DomainState.INCOMING}
    running.until(lambda: not running.world.present(VM), "the half to vanish")
    assert running.there.exit_reason(VM) is ExitReason.FAILED


def test_a_guest_goes_on_after_the_target_lost_power(running):
    _begin_migration(running)
    running.world.power_off("two")
    running.until(lambda: running.here.domain(VM).job.error, "the migration to fail")
    assert running.world.running(VM) == ["one"]


def test_a_migration_over_a_cut_link_fails_after_the_keepalive(running):
    _begin_migration(running)
    running.world.cut_link("two", "one")
    began = running.clock.now
    running.until(lambda: running.here.domain(VM).job.error, "the migration to fail")
    assert running.clock.now - began == running.world.pace.keepalive_s
    assert running.world.present(VM) == {"one": DomainState.RUNNING}
    _begin_migration(running)
    assert running.there.domain(VM) is None
    running.world.heal_link("one", "two")
    running.until(lambda: running.here.domain(VM).job.error, "the second try to fail")
    _begin_migration(running)
    running.until(lambda: running.world.running(VM) == ["two"], "the third to succeed")


def test_a_migration_may_fail_at_its_very_end(running):
    running.world.faults("one").migration_error = "no space left"
    _begin_migration(running)
    running.until(lambda: running.here.domain(VM).job.error == "no space left", "the migration to fail")
    assert running.world.present(VM) == {"one": DomainState.RUNNING}


def test_a_migration_whose_end_is_not_confirmed_leaves_a_paused_source(running):
    running.world.vm_faults(VM).migration_unconfirmed = True
    _begin_migration(running)
    running.until(lambda: running.here.domain(VM).state is DomainState.PAUSED, "the end")
    assert running.world.running(VM) == ["two"]
    assert running.here.domain(VM).job.error


def test_a_start_fails_as_told_on_a_host_or_for_a_vm(bench):
    bench.world.faults("one").start_error = "no memory"
    with pytest.raises(HypervisorError, match="no memory"):
        bench.here.start(bench.plan(VM, "web"))
    bench.world.vm_faults(VM).start_error = "bad disk"
    with pytest.raises(HypervisorError, match="bad disk"):
        bench.there.start(bench.plan(VM, "web"))
    assert bench.world.present(VM) == {}


def test_two_executing_copies_are_possible_and_seen(bench):
    bench.here.start(bench.plan(VM, "web"))
    bench.there.start(bench.plan(VM, "web"))
    assert bench.world.running(VM) == ["one", "two"]


def test_a_guest_that_is_shutting_down_ends_where_it_was_migrated_to(running):
    running.world.pace.shutdown_s = 60.0
    running.here.shutdown(VM)
    _begin_migration(running)
    running.until(lambda: running.world.running(VM) == ["two"], "the migration")
    running.until(lambda: running.there.domain(VM) is None, "the shutdown")
    assert running.there.exit_reason(VM) is ExitReason.SHUTDOWN


def test_a_guest_that_boots_does_not_heed_its_power_button(bench):
    bench.here.start(bench.plan(VM, "web"))
    bench.here.shutdown(VM)
    assert bench.world.next_event_time() is None
    bench.booted(VM)
    bench.here.shutdown(VM)
    bench.until(lambda: bench.here.domain(VM) is None, "the guest to end")


def test_a_guest_that_ends_while_libvirtd_is_away_has_no_reason(running):
    running.world.stop_libvirtd("one")
    running.world.guest_shutdown("one", VM)
    running.world.start_libvirtd("one")
    assert running.here.domain(VM) is None
    assert running.here.exit_reason(VM) is ExitReason.UNKNOWN


def test_the_same_events_happen_in_the_same_order(bench):
    def life():
        fresh, log = _Bench(), []
        fresh.here.watch(lambda vm: log.append((fresh.clock.now, "one", vm)))
        fresh.there.watch(lambda vm: log.append((fresh.clock.now, "two", vm)))
        vms = [str(uuid.UUID(int=i)) for i in range(5)]
        for vm in vms:
            fresh.here.start(fresh.plan(vm, "web"))
            fresh.booted(vm)
        for vm in vms:
            fresh.here.migrate(vm, fresh.to(vm))
            fresh.here.shutdown(vm)
        while fresh.world.next_event_time() is not None:
            fresh.clock.now = fresh.world.next_event_time()
            fresh.world.advance()
        return log

    assert life() == life()


def test_devices_and_typed_bytes_travel_with_the_guest(running):
    running.here.attach_device(VM, "<interface><mac address='52:54:00:00:00:01'/></interface>")
    console = running.here.console(VM)
    console.write(b"date\n")
    running.world.guest_writes("one", VM, b"today")
    assert console.read() == b"today"
    _begin_migration(running)
    running.until(lambda: running.world.running(VM) == ["two"], "the migration")
    assert running.world.heard("two", VM) == b"date\n"
    assert console.read() == b""


def test_device_changes_fail_as_told(running):
    running.world.faults("one").device_error = "no slot"
    with pytest.raises(HypervisorError, match="no slot"):
        running.here.attach_device(VM, "<interface><mac address='52:54:00:00:00:01'/></interface>")


def _unplug(bench):
    bench.here.detach_device(VM, "<disk><target dev='vdb'/></disk>")


def _targets(hypervisor):
    return [disk.target for disk in hypervisor.domain(VM).disks]


def test_a_guest_that_is_asked_lets_go_of_a_disk_and_watchers_are_told(running):
    running.here.attach_device(VM, running.spare_disk("p/spare", "vdb"))
    told = []
    running.here.watch(told.append)
    _unplug(running)
    assert _targets(running.here) == ["vda", "vdb"]
    running.until(lambda: _targets(running.here) == ["vda"], "the guest to let go")
    assert told == [VM]


def test_a_guest_that_was_asked_twice_keeps_what_is_plugged_in_afterwards(running):
    running.here.attach_device(VM, running.spare_disk("p/spare", "vdb"))
    _unplug(running)
    running.clock.now += 0.1
    _unplug(running)
    running.until(lambda: _targets(running.here) == ["vda"], "the guest to let go")
    running.here.attach_device(VM, running.spare_disk("p/other", "vdb"))
    running.clock.now += 10.0
    assert running.world.volumes("one", VM)[1:] == ["p/other"]


def test_a_guest_that_has_not_booted_does_not_hear_that_it_is_asked(bench):
    bench.here.start(bench.plan(VM, "web"))
    bench.here.attach_device(VM, bench.spare_disk("p/spare", "vdb"))
    _unplug(bench)
    bench.clock.now += 10.0
    assert _targets(bench.here) == ["vda", "vdb"]


def test_a_guest_lets_go_where_it_is_by_then(running):
    running.here.attach_device(VM, running.spare_disk("p/spare", "vdb"))
    running.world.pace.unplug_s = 100.0
    _unplug(running)
    _begin_migration(running)
    running.until(lambda: running.world.running(VM) == ["two"], "the migration")
    running.until(lambda: _targets(running.there) == ["vda"], "the guest to let go")


def test_a_vm_that_wants_an_accelerator_the_host_lacks_is_refused():
    world = MemoryWorld(_Clock())
    host = world.host("plain", "10.0.0.1", accelerators=("tcg",))
    with pytest.raises(HypervisorError, match="no usable kvm"):
        host.start(guest_plan(VM, "web", Path("/none.raw"), accelerator="kvm"))
