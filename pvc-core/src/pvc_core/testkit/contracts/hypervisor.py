"""What every hypervisor must do.

Subclass ``HypervisorContract`` in a test module and override the fixture ``bench``.
"""

import contextlib
import threading
import uuid
from collections.abc import Callable
from typing import Protocol
from xml.etree import ElementTree as ET

import pytest

from pvc_core.hypervisor.api import (
    Domain,
    DomainPlan,
    DomainState,
    ExitReason,
    Hypervisor,
    HypervisorError,
    HypervisorUnavailable,
    JobState,
    MigrationOptions,
)
from pvc_core.hypervisor.domainxml import render_scsi_controller
from pvc_core.model.disk import NO_LIMITS, DiskLimits
from pvc_core.model.vm import Nic, NicLimits
from pvc_core.testkit.contracts.hypervisor_nics import NicContract
from pvc_core.testkit.contracts.hypervisor_standstill import StandstillContract


class HypervisorBench(Protocol):
    """Two hosts without guests, and what happens to them."""

    here: Hypervisor
    there: Hypervisor
    there_address: str
    nowhere_address: str
    """An address in the same network that no host has."""

    def restart_there(self) -> None:
        """Cut the power of the host ``there``, and give it back; ``there`` is a connection to it afterwards."""

    def plan(self, vm: str, name: str, *, deaf: bool = False, heavy: bool = False) -> DomainPlan:
        """Return the plan of a guest that powers off when its button is pressed, unless it is ``deaf``.

        ``heavy``: its migration takes so long that the test can do something meanwhile.
        """

    def console_log(self, vm: str) -> str:
        """Return the file that the consoles of this VM's guests are logged to, on both hosts."""

    def spare_disk(self, volume: str, target: str) -> str:
        """Return the XML of another disk on virtio, with its image: ``pool/volume`` as its volume."""

    def keeps_devices(self, vm: str) -> None:
        """Have the guest keep all devices; one that is ``deaf`` may do so anyway."""

    def limits(self, vm: str, target: str) -> DiskLimits:
        """Return the limits of a disk of the guest running ``here``."""

    def spare_nic(self, nic: Nic) -> str:
        """Return the XML of a NIC, in a network that both hosts have."""

    def nic(self, vm: str, mac: str) -> tuple[bool, NicLimits]:
        """Return whether the link of a NIC of the guest running ``here`` is up, and the NIC's limits."""

    def booted(self, vm: str) -> None:
        """Wait until the guest started ``here`` reacts to its power button."""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Let time pass until the condition is true; AssertionError naming ``what`` when it never is."""

    def crash(self, vm: str) -> None:
        """Have the guest running ``here`` crash."""

    def stop_hypervisor(self) -> None:
        """Have the hypervisor ``here`` end; its guests go on."""

    def start_hypervisor(self) -> None:
        """Start the hypervisor ``here`` again."""

    def stop_hypervisor_there(self) -> None:
        """Have the hypervisor ``there`` end for good."""

    def reconnect(self) -> Hypervisor:
        """Return a new connection ``here``, as of a restarted daemon."""


class HypervisorContract(NicContract, StandstillContract):
    """The suite."""

    @pytest.fixture
    def bench(self) -> HypervisorBench:
        """Return a bench whose hosts have no guests."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def vm(self) -> str:
        return str(uuid.uuid4())

    # Starting and looking.

    def test_a_started_domain_is_running_and_listed(self, bench: HypervisorBench, vm: str) -> None:
        plan = bench.plan(vm, "web")
        bench.here.start(plan)
        domain = _present(bench.here, vm)
        assert (domain.id, domain.name, domain.state) == (vm, "web", DomainState.RUNNING)
        assert (domain.memory_mib, domain.vcpus) == (plan.vm.memory_mib, plan.vm.vcpus)
        assert domain.accelerator in bench.here.facts().accelerators
        assert domain.job is None
        assert set(bench.here.domains()) == {vm}
        assert bench.there.domains() == {}
        assert bench.there.domain(vm) is None

    def test_a_domain_is_not_started_twice(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        with pytest.raises(HypervisorError, match="cannot start web"):
            bench.here.start(bench.plan(vm, "web"))
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_two_vms_of_one_name_do_not_meet(self, bench: HypervisorBench, vm: str) -> None:
        other = str(uuid.uuid4())
        bench.here.start(bench.plan(vm, "web"))
        bench.here.start(bench.plan(other, "web"))
        assert set(bench.here.domains()) == {vm, other}

    def test_the_age_of_a_domain_counts_from_its_start(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        assert 0 <= _present(bench.here, vm).running_for_s < 30

    def test_facts_describe_the_host(self, bench: HypervisorBench) -> None:
        facts = bench.here.facts()
        assert facts.cpus >= 1
        assert facts.memory_mib >= facts.free_mib > 0
        assert facts.version
        assert "tcg" in facts.accelerators
        assert "q35" in facts.machine_types

    def test_usage_has_every_domain(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        assert set(bench.here.usage()) == {vm}
        assert bench.here.usage()[vm].memory_used_mib > 0
        assert bench.there.usage() == {}

    # Ending.

    def test_destroy_returns_when_the_domain_is_gone(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.destroy(vm)
        assert bench.here.domain(vm) is None
        assert bench.here.exit_reason(vm) is ExitReason.DESTROYED
        assert bench.here.domains() == {}

    def test_destroying_an_absent_domain_is_success(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.destroy(vm)

    def test_a_guest_that_is_asked_shuts_down(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.shutdown(vm)
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to end")
        assert bench.here.exit_reason(vm) is ExitReason.SHUTDOWN

    def test_a_deaf_guest_may_be_asked_again_and_runs_on(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web", deaf=True))
        bench.booted(vm)
        bench.here.shutdown(vm)
        bench.here.shutdown(vm)
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_shutting_down_an_absent_domain_fails(self, bench: HypervisorBench, vm: str) -> None:
        with pytest.raises(HypervisorError):
            bench.here.shutdown(vm)

    def test_a_crash_is_told_from_a_shutdown(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.crash(vm)
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to end")
        assert bench.here.exit_reason(vm) is ExitReason.CRASHED

    def test_the_end_of_an_unknown_vm_has_no_reason(self, bench: HypervisorBench, vm: str) -> None:
        assert bench.here.exit_reason(vm) is ExitReason.UNKNOWN

    def test_a_new_start_forgets_the_reason_of_the_last_end(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.destroy(vm)
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.shutdown(vm)
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to end")
        assert bench.here.exit_reason(vm) is ExitReason.SHUTDOWN

    def test_watchers_are_told_of_start_and_end(self, bench: HypervisorBench, vm: str) -> None:
        told: list[str] = []
        bench.here.watch(told.append)
        bench.here.start(bench.plan(vm, "web"))
        bench.until(lambda: vm in told, "word of the start")
        told.clear()
        bench.here.destroy(vm)
        bench.until(lambda: vm in told, "word of the end")

    # Live migration.

    def test_a_migrated_guest_runs_at_the_target_only(self, bench: HypervisorBench, vm: str) -> None:
        here: list[str] = []
        there: list[str] = []
        bench.here.watch(here.append)
        bench.there.watch(there.append)
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        here.clear()
        bench.here.migrate(vm, _to(bench, vm))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
        assert bench.here.exit_reason(vm) is ExitReason.MIGRATED
        domain = _present(bench.there, vm)
        assert (domain.name, domain.state, domain.job) == ("web", DomainState.RUNNING, None)
        stats = bench.there.migration_stats(vm)
        assert stats.downtime_ms is not None
        assert stats.total_ms is not None
        assert 0 <= stats.downtime_ms <= stats.total_ms
        bench.until(lambda: vm in here and vm in there, "word of it on both sides")

    def test_a_migrated_guest_is_the_same_guest(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.migrate(vm, _to(bench, vm))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
        bench.there.shutdown(vm)
        bench.until(lambda: bench.there.domain(vm) is None, "the guest to end")
        assert bench.there.exit_reason(vm) is ExitReason.SHUTDOWN

    def test_the_target_of_a_migration_does_not_execute_before_its_end(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        assert _present(bench.here, vm).state is DomainState.RUNNING
        assert _present(bench.there, vm).state is DomainState.INCOMING
        job = _present(bench.here, vm).job
        assert job is not None
        assert job.state is JobState.ACTIVE
        assert 0 <= job.progress < 1

    def test_an_aborted_migration_leaves_the_guest_running_here(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        bench.here.abort_migration(vm)
        _wait_for_failure(bench, vm)
        bench.until(lambda: bench.there.domain(vm) is None, "the target's half to vanish")
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_a_failed_job_is_seen_until_it_is_forgotten(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.migrate(vm, MigrationOptions(target_address=bench.nowhere_address, admission="", unsafe=True))
        _wait_for_failure(bench, vm)
        job = _present(bench.here, vm).job
        assert job is not None
        assert job.error
        assert _present(bench.here, vm).job is not None
        bench.here.forget_job(vm)
        assert _present(bench.here, vm).job is None

    def test_a_migration_can_be_tried_again(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.migrate(vm, MigrationOptions(target_address=bench.nowhere_address, admission="", unsafe=True))
        _wait_for_failure(bench, vm)
        bench.here.migrate(vm, _to(bench, vm))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
        assert bench.here.exit_reason(vm) is ExitReason.MIGRATED

    def test_a_guest_that_was_not_admitted_stays_where_it_is(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        earlier = _to(bench, vm)
        now = _to(bench, vm)
        _refused(bench, vm, earlier)
        bench.there.dismiss(vm)
        _refused(bench, vm, now)
        bench.here.migrate(vm, _to(bench, vm))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")

    def test_a_host_that_was_restarted_has_admitted_nobody(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        before = _to(bench, vm)
        bench.restart_there()
        _refused(bench, vm, before)

    def test_a_migration_is_not_begun_twice(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        with pytest.raises(HypervisorError, match="already"):
            bench.here.migrate(vm, _to(bench, vm))

    def test_only_a_running_domain_is_migrated(self, bench: HypervisorBench, vm: str) -> None:
        with pytest.raises(HypervisorError):
            bench.here.migrate(vm, _to(bench, vm))

    def test_aborting_without_a_job_is_success(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.abort_migration(vm)
        bench.here.start(bench.plan(vm, "web"))
        bench.here.abort_migration(vm)
        bench.here.forget_job(vm)
        assert _present(bench.here, vm).job is None

    def test_a_guest_destroyed_while_it_is_migrated_is_gone_on_both_sides(
        self, bench: HypervisorBench, vm: str
    ) -> None:
        _begin_heavy(bench, vm)
        bench.here.destroy(vm)
        bench.until(lambda: bench.there.domain(vm) is None, "the target's half to vanish")
        assert bench.here.domain(vm) is None
        assert bench.here.exit_reason(vm) is ExitReason.DESTROYED

    def test_destroying_the_incoming_half_leaves_the_guest_at_the_source(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        bench.there.destroy(vm)
        assert bench.there.domain(vm) is None
        assert bench.there.exit_reason(vm) is ExitReason.FAILED
        _wait_for_failure(bench, vm)
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_when_the_target_hypervisor_ends_the_guest_goes_on_at_the_source(
        self, bench: HypervisorBench, vm: str
    ) -> None:
        _begin_heavy(bench, vm)
        bench.stop_hypervisor_there()
        _wait_for_failure(bench, vm)
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_when_the_source_hypervisor_ends_the_guest_goes_on_there(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        bench.stop_hypervisor()
        bench.until(lambda: bench.there.domain(vm) is None, "the target's half to vanish")
        bench.start_hypervisor()
        _wait_for_failure(bench, vm)
        assert _present(bench.here, vm).state is DomainState.RUNNING

    def test_a_restarted_daemon_finds_the_migration_it_had_begun(self, bench: HypervisorBench, vm: str) -> None:
        _begin_heavy(bench, vm)
        bench.here.close()
        again = bench.reconnect()
        job = _present(again, vm).job
        assert job is not None
        assert job.state is JobState.ACTIVE
        again.abort_migration(vm)
        _wait_for_failure(bench, vm, again)
        assert _present(again, vm).state is DomainState.RUNNING

    # The hypervisor goes and comes.

    def test_calls_fail_while_the_hypervisor_is_away_and_guests_are_adopted_after(
        self, bench: HypervisorBench, vm: str
    ) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.stop_hypervisor()
        with pytest.raises(HypervisorUnavailable):
            bench.here.domains()
        with pytest.raises(HypervisorUnavailable):
            bench.here.domain(vm)
        with pytest.raises(HypervisorUnavailable):
            bench.here.destroy(vm)
        bench.start_hypervisor()
        assert _present(bench.here, vm).state is DomainState.RUNNING
        bench.here.shutdown(vm)
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to end")
        assert bench.here.exit_reason(vm) is ExitReason.SHUTDOWN

    def test_a_restarted_daemon_finds_the_guests(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.close()
        assert set(bench.reconnect().domains()) == {vm}

    def test_a_restarted_daemon_does_not_know_why_a_domain_ended_before(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.destroy(vm)
        bench.here.close()
        assert bench.reconnect().exit_reason(vm) is ExitReason.UNKNOWN

    def test_a_closed_connection_answers_nothing(self, bench: HypervisorBench) -> None:
        bench.here.close()
        bench.here.close()
        with pytest.raises(HypervisorUnavailable):
            bench.here.domains()

    # Devices and consoles.

    def test_only_a_disk_that_exists_is_resized(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.resize_disk(vm, "vda", 2 << 20)
        with pytest.raises(HypervisorError, match="no disk vdb"):
            bench.here.resize_disk(vm, "vdb", 2 << 20)

    def test_a_domain_says_which_volumes_it_has(self, bench: HypervisorBench, vm: str) -> None:
        plan = bench.plan(vm, "web")
        bench.here.start(plan)
        (disk,) = _present(bench.here, vm).disks
        assert (disk.target, disk.bus, disk.volume) == ("vda", "virtio", plan.vm.disks[0].path)

    def test_a_disk_that_is_plugged_in_is_the_domains_last_and_goes_where_the_guest_goes(
        self, bench: HypervisorBench, vm: str
    ) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.attach_device(vm, bench.spare_disk("p/spare.1", "vdb"))
        disks = _present(bench.here, vm).disks
        assert [disk.target for disk in disks] == ["vda", "vdb"]
        assert disks[1].volume == "p/spare.1"
        bench.here.migrate(vm, _to(bench, vm))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
        assert _present(bench.there, vm).disks == disks

    def test_a_target_that_is_taken_is_not_plugged_in_again(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        with pytest.raises(HypervisorError):
            bench.here.attach_device(vm, bench.spare_disk("p/spare", "vda"))
        assert len(_present(bench.here, vm).disks) == 1

    def test_a_guest_that_never_heard_of_it_keeps_a_device_and_is_asked_again(
        self, bench: HypervisorBench, vm: str
    ) -> None:
        bench.here.start(bench.plan(vm, "web", deaf=True))
        bench.booted(vm)
        bench.keeps_devices(vm)
        bench.here.attach_device(vm, bench.spare_disk("p/spare", "vdb"))
        bench.here.detach_device(vm, "<disk><target dev='vdb'/></disk>")
        with contextlib.suppress(HypervisorError):  # some QEMUs refuse a second request before the first is answered
            bench.here.detach_device(vm, "<disk><target dev='vdb'/></disk>")
        assert [disk.target for disk in _present(bench.here, vm).disks] == ["vda", "vdb"]

    def test_scsi_needs_a_controller_that_can_be_plugged_in(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        assert "scsi" not in _present(bench.here, vm).controllers
        bench.here.attach_device(vm, ET.tostring(render_scsi_controller(), encoding="unicode"))
        assert "scsi" in _present(bench.here, vm).controllers

    def test_limits_of_a_disk_are_changed_and_lifted(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        for limits in (
            DiskLimits(iops=100, iops_burst=200, read_bandwidth=1 << 20),
            DiskLimits(read_iops=50, bandwidth=1 << 22, bandwidth_burst=1 << 23),
            NO_LIMITS,
        ):
            bench.here.limit_disk(vm, "vda", limits)
            assert bench.limits(vm, "vda") == limits
        with pytest.raises(HypervisorError, match="no disk vdb"):
            bench.here.limit_disk(vm, "vdb", NO_LIMITS)

    def test_unplugging_an_absent_device_is_success(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.detach_device(
            vm, "<interface type='bridge'><source bridge='none'/><mac address='52:54:00:00:00:01'/></interface>"
        )

    def test_a_device_that_is_not_xml_is_refused(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        with pytest.raises(HypervisorError, match="not valid XML"):
            bench.here.attach_device(vm, "<disk")

    def test_closing_a_console_ends_a_blocked_read(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        console = bench.here.console(vm)
        reader = threading.Thread(target=lambda: _read_to_end(console.read))
        reader.start()
        console.close()
        console.close()
        reader.join(10)
        assert not reader.is_alive()

    def test_a_second_client_takes_the_console(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        first = bench.here.console(vm)
        second = bench.here.console(vm)
        _read_to_end(first.read)
        second.write(b"x")
        second.close()

    def test_a_console_ends_with_its_guest(self, bench: HypervisorBench, vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        console = bench.here.console(vm)
        bench.here.destroy(vm)
        _read_to_end(console.read)
        console.close()

    def test_an_absent_domain_has_no_console(self, bench: HypervisorBench, vm: str) -> None:
        with pytest.raises(HypervisorError):
            bench.here.console(vm)


def _present(hypervisor: Hypervisor, vm: str) -> Domain:
    domain = hypervisor.domain(vm)
    assert domain is not None
    return domain


def _to(bench: HypervisorBench, vm: str) -> MigrationOptions:
    """Have a guest admitted by the other host, and return how it gets there."""
    admission = bench.there.admit(vm, uuid.uuid4().hex, bench.console_log(vm))
    return MigrationOptions(target_address=bench.there_address, admission=admission, unsafe=True)


def _begin_heavy(bench: HypervisorBench, vm: str) -> None:
    """Begin a migration that takes long, and return when the target has its half."""
    bench.here.start(bench.plan(vm, "web", heavy=True))
    bench.booted(vm)
    bench.here.migrate(vm, _to(bench, vm))

    def arriving() -> bool:
        half = bench.there.domain(vm)
        return half is not None and half.state is DomainState.INCOMING

    bench.until(arriving, "the target to get its half")


def _refused(bench: HypervisorBench, vm: str, options: MigrationOptions) -> None:
    """Try a migration, and check that the target takes nothing of it."""
    bench.here.migrate(vm, options)
    _wait_for_failure(bench, vm)
    assert _present(bench.here, vm).state is DomainState.RUNNING
    assert bench.there.domain(vm) is None


def _wait_for_failure(bench: HypervisorBench, vm: str, hypervisor: Hypervisor | None = None) -> None:
    source = hypervisor or bench.here

    def failed() -> bool:
        domain = source.domain(vm)
        return domain is not None and domain.job is not None and domain.job.state is JobState.FAILED

    bench.until(failed, "the migration to fail")


def _read_to_end(read: Callable[[], bytes]) -> None:
    while read():
        pass
