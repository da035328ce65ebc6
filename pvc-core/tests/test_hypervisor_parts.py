"""The parts of the libvirt hypervisor that need no libvirt."""

import sys
import threading
from pathlib import Path

import pytest

from pvc_core.hypervisor import hostfacts, kvmprobe
from pvc_core.hypervisor.api import (
    ExitReason,
    HypervisorError,
    HypervisorUnavailable,
    JobState,
    MigrationOptions,
)
from pvc_core.hypervisor.console import ConsoleBuffer
from pvc_core.hypervisor.exits import Exits
from pvc_core.hypervisor.libvirt import LibvirtHypervisor
from pvc_core.hypervisor.link import Link
from pvc_core.hypervisor.outgoing import OutgoingJobs
from pvc_core.hypervisor.transfers import Transfers
from pvc_core.hypervisor.usage import UsageMeter
from pvc_core.testkit.waiting import eventually

VM = "7b0e3a44-2f6c-4a2e-9d53-0c1f6d0a9b11"
MIB = 1 << 20


# Why domains ended.


@pytest.fixture
def exits():
    return Exits()


def test_reason_of_a_domain_that_was_never_seen_is_unknown(exits):
    assert exits.reason(VM, 0) is ExitReason.UNKNOWN


@pytest.mark.parametrize(
    ("executed", "libvirt", "reason"),
    [
        (True, ExitReason.SHUTDOWN, ExitReason.SHUTDOWN),
        (True, ExitReason.FAILED, ExitReason.CRASHED),
        (True, ExitReason.DESTROYED, ExitReason.DESTROYED),
        (False, ExitReason.FAILED, ExitReason.FAILED),
        (False, ExitReason.DESTROYED, ExitReason.FAILED),
    ],
)
def test_libvirts_words_mean_more_with_what_the_domain_did(exits, executed, libvirt, reason):
    exits.seen(VM, 1)
    if executed:
        exits.executed(VM)
    exits.ended(VM, libvirt)
    assert exits.reason(VM, 0) is reason


def test_reason_is_awaited_while_its_event_is_on_the_way(exits):
    exits.seen(VM, 1)
    found = []
    asker = threading.Thread(target=lambda: found.append(exits.reason(VM, 30)))
    asker.start()
    exits.executed(VM)
    exits.ended(VM, ExitReason.SHUTDOWN)
    asker.join(10)
    assert found == [ExitReason.SHUTDOWN]


@pytest.mark.parametrize(("executed", "reason"), [(True, ExitReason.UNKNOWN), (False, ExitReason.FAILED)])
def test_event_that_never_comes_is_not_awaited_twice(exits, executed, reason):
    exits.seen(VM, 1)
    if executed:
        exits.executed(VM)
    assert exits.reason(VM, 0.01) is reason
    assert exits.reason(VM, 30) is reason


def test_new_run_forgets_the_end_of_the_last_one_but_a_late_look_does_not(exits):
    exits.seen(VM, 1)
    exits.ended(VM, ExitReason.MIGRATED)
    exits.seen(VM, 1)
    exits.seen(VM, -1)
    assert exits.reason(VM, 0) is ExitReason.MIGRATED
    exits.seen(VM, 2)
    assert exits.reason(VM, 0) is ExitReason.FAILED


def test_nothing_seen_before_a_lost_connection_counts(exits):
    exits.seen(VM, 1)
    exits.ended(VM, ExitReason.MIGRATED)
    exits.forget_all()
    assert exits.reason(VM, 30) is ExitReason.UNKNOWN


# Records of migrations.


def test_only_one_migration_of_a_vm_is_active():
    jobs = OutgoingJobs()
    job = jobs.begin(VM)
    with pytest.raises(HypervisorError, match="already"):
        jobs.begin(VM)
    jobs.fail(VM, job, "no route")
    assert (jobs.view(VM).state, jobs.view(VM).error) == (JobState.FAILED, "no route")
    jobs.begin(VM)
    assert jobs.view(VM).state is JobState.ACTIVE


def test_record_of_a_domain_that_is_gone_goes_with_it():
    jobs = OutgoingJobs()
    jobs.adopt(VM)
    jobs.gone(VM)
    assert jobs.view(VM) is None


def test_record_that_a_thread_watches_is_left_to_it():
    jobs = OutgoingJobs()
    job = jobs.begin(VM)
    jobs.gone(VM)
    jobs.adopt(VM)
    assert jobs.view(VM).state is JobState.ACTIVE
    jobs.succeed(VM, job)
    assert jobs.vms() == []


def test_end_of_a_replaced_migration_does_not_touch_its_successor():
    jobs = OutgoingJobs()
    first = jobs.begin(VM)
    jobs.fail(VM, first, "one")
    jobs.begin(VM)
    jobs.fail(VM, first, "late")
    jobs.succeed(VM, first)
    assert jobs.view(VM).state is JobState.ACTIVE


class _Handle:
    vm = VM
    progress = None

    def __init__(self, migrate=None):
        self._migrate = migrate

    def outgoing_progress(self):
        return self.progress

    def migrate(self, options):
        self.options = options
        if self._migrate:
            self._migrate()


class _Connection:
    def __init__(self, handle):
        self.handle = handle
        self.closed = False

    def find(self, _vm):
        return self.handle

    def close(self):
        self.closed = True


@pytest.fixture
def told():
    return []


def _transfers(connection, told):
    return Transfers("test://{address}/", lambda: connection, told.append)


def test_migration_goes_over_a_connection_of_its_own(told):
    connection = _Connection(_Handle())
    transfers = _transfers(connection, told)
    transfers.begin(VM, MigrationOptions(target_address="fd00::2", admission="way", max_downtime_ms=70))
    eventually(lambda: told == [VM], "its end")
    options = connection.handle.options
    assert (options.target_uri, options.data_uri) == ("test://[fd00::2]/", "tcp://[fd00::2]")
    assert (options.console_log, options.max_downtime_ms) == ("way", 70)
    assert connection.closed
    assert transfers.view(VM) is None


@pytest.mark.parametrize("error", [HypervisorError("no memory there"), RuntimeError("a bug")])
def test_failed_migration_leaves_its_reason(told, error):
    def fail():
        raise error

    transfers = _transfers(_Connection(_Handle(fail)), told)
    transfers.begin(VM, MigrationOptions(target_address="h2", admission="way"))
    eventually(lambda: told == [VM], "its end")
    assert str(error.args[0]) in transfers.view(VM).error
    transfers.forget(VM)
    assert transfers.view(VM) is None


def test_migration_of_a_domain_that_is_gone_fails(told):
    transfers = _transfers(_Connection(None), told)
    transfers.begin(VM, MigrationOptions(target_address="h2", admission="way"))
    eventually(lambda: told == [VM], "its end")
    assert transfers.view(VM).error == "the domain ended"


def test_migration_whose_connection_broke_is_looked_at_instead(told):
    def lose():
        raise HypervisorUnavailable("libvirtd ended")

    transfers = _transfers(_Connection(_Handle(lose)), told)
    transfers.begin(VM, MigrationOptions(target_address="h2", admission="way"))
    eventually(lambda: told == [VM], "word of it")
    handle = _Handle()
    handle.progress = 0.4
    transfers.look(handle)
    assert (transfers.view(VM).state, transfers.view(VM).progress) == (JobState.ACTIVE, 0.4)
    handle.progress = None
    transfers.look(handle)
    assert transfers.view(VM).state is JobState.FAILED


def test_abort_is_repeated_until_libvirt_has_begun_the_job(told):
    begun, answers = threading.Event(), iter([False, False, True])

    def wait():
        begun.wait(10)
        raise HypervisorError("aborted")

    transfers = _transfers(_Connection(_Handle(wait)), told)
    transfers.begin(VM, MigrationOptions(target_address="h2", admission="way"))
    transfers.abort(VM, lambda: next(answers))
    assert next(answers, "used up") == "used up"
    begun.set()
    eventually(lambda: told == [VM], "its end")
    transfers.abort(VM, lambda: pytest.fail("a failed job cannot be aborted"))


def test_target_without_libvirt_is_told_before_anything_is_begun(told):
    transfers = Transfers("qemu+tcp://{address}:1/system", lambda: pytest.fail("not reached"), told.append)
    transfers.begin(VM, MigrationOptions(target_address="127.0.0.1", admission="way"))
    eventually(lambda: told == [VM], "its end")
    assert "cannot connect to libvirt of the target at 127.0.0.1 port 1: Connection refused" in transfers.view(VM).error


# The connection.


class _Opener:
    def __init__(self):
        self.results = []
        self.closed = []
        self.up = 0

    def open(self):
        result = self.results.pop(0) if self.results else object()
        if isinstance(result, Exception):
            raise result
        if isinstance(result, threading.Event):
            result.wait(30)
        return result

    def came_up(self):
        self.up += 1

    def link(self, patience_s=10.0):
        return Link("libvirt", self.open, self.closed.append, up=self.came_up, patience_s=patience_s)


def test_lost_connection_is_replaced_and_let_go():
    opener = _Opener()
    link = opener.link()
    first = link.get()
    link.lost(first, "it ended")
    eventually(lambda: opener.closed == [first], "the first to be let go")
    eventually(lambda: opener.up == 2, "the second")
    second = link.get()
    assert second is not first
    link.lost(first, "late news")
    assert link.get() is second
    link.close()
    link.close()
    eventually(lambda: opener.closed == [first, second], "the second to be let go")


def test_failed_attempt_is_told_at_once_and_repeated():
    opener = _Opener()
    opener.results = [HypervisorUnavailable("no socket")]
    link = opener.link(patience_s=30.0)
    with pytest.raises(HypervisorUnavailable, match="libvirt does not answer: no socket"):
        link.get()
    eventually(lambda: opener.up, "the next attempt")
    link.get()
    link.close()


def test_attempt_that_hangs_is_not_awaited_for_ever():
    opener, hang = _Opener(), threading.Event()
    opener.results = [hang]
    link = opener.link(patience_s=0.05)
    with pytest.raises(HypervisorUnavailable, match="no reply yet"):
        link.get()
    hang.set()
    eventually(lambda: opener.up, "the connection")
    link.get()
    link.close()
    with pytest.raises(HypervisorUnavailable, match="was closed"):
        link.get()


# Figures.


def test_load_is_the_difference_between_two_readings():
    meter = UsageMeter()
    assert meter.read({VM: {"cpu.time": 10**9}}, 100.0)[VM].cpu_percent == 0.0
    assert meter.read({VM: {"cpu.time": 4 * 10**9}}, 102.0)[VM].cpu_percent == 150.0
    assert meter.read({VM: {"cpu.time": 0}}, 104.0)[VM].cpu_percent == 0.0
    assert meter.read({}, 106.0) == {}
    assert meter.read({VM: {"cpu.time": 10**9}}, 108.0)[VM].cpu_percent == 0.0


def test_devices_are_summed_and_missing_figures_are_zero():
    stats = {
        "block.count": 2,
        "block.0.rd.bytes": 1,
        "block.1.rd.bytes": 2,
        "block.1.wr.bytes": 4,
        "net.count": 1,
        "net.0.rx.bytes": 8,
        "net.0.tx.bytes": 16,
        "balloon.rss": 3072,
    }
    usage = UsageMeter().read({VM: stats}, 1.0)[VM]
    assert (usage.disk_read_bytes, usage.disk_write_bytes, usage.net_rx_bytes, usage.net_tx_bytes) == (3, 4, 8, 16)
    assert usage.memory_used_mib == 3


def test_guests_own_word_on_its_memory_goes_first():
    stats = {"balloon.rss": 10 * 1024, "balloon.available": 8 * 1024, "balloon.usable": 6 * 1024}
    assert UsageMeter().read({VM: stats}, 1.0)[VM].memory_used_mib == 2


# The host.


def test_memory_is_the_kernels_word(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  2048000 kB\nMemAvailable:  1024000 kB\nHugePages_Total: 0\n")
    assert hostfacts.memory_mib(tmp_path) == (2000, 1000)
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    with pytest.raises(HypervisorError, match="MemAvailable"):
        hostfacts.memory_mib(tmp_path)


CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
<guest><arch name='i686'><machine>isapc</machine></arch></guest>
<guest><arch name='x86_64'><machine>pc-q35-7.2</machine><machine canonical='pc-q35-7.2'>q35</machine><machine>pc</machine>
<machine deprecated='yes'>pc-i440fx-1.5</machine><machine>microvm</machine>
<domain type='qemu'/><domain type='kvm'><machine>pc-q35-7.2</machine></domain></arch></guest></capabilities>"""


def test_machine_types_are_those_of_this_host():
    assert hostfacts.machine_types(CAPABILITIES) == ("pc", "pc-q35-7.2", "q35")
    arm = CAPABILITIES.replace("x86_64", "aarch64")
    assert "microvm" in hostfacts.machine_types(arm)
    assert hostfacts.is_x86(CAPABILITIES)
    assert not hostfacts.is_x86(arm)


def test_kvm_is_offered_where_libvirt_says_so():
    assert hostfacts.offers_kvm(CAPABILITIES)
    assert not hostfacts.offers_kvm(CAPABILITIES.replace("'kvm'", "'xen'"))


def test_verdict_holds_for_the_version_it_was_found_with(tmp_path):
    directory = tmp_path / "run"
    verdict = kvmprobe.Verdict(directory, "QEMU 7.2")
    assert verdict.load() is None
    verdict.save("no")
    assert kvmprobe.Verdict(directory, "QEMU 7.2").load() == "no"
    assert kvmprobe.Verdict(directory, "QEMU 8.0").load() is None
    (directory / "kvm-probe.json").write_text('{"for"')
    assert verdict.load() is None


def test_probe_is_a_boot_sector():
    assert len(kvmprobe.BOOT_IMAGE) == MIB
    assert kvmprobe.BOOT_IMAGE[510:512] == b"\x55\xaa"


class _NoConnection:
    def create(self, _xml, *, autodestroy):
        raise HypervisorError(f"no such CPU ({autodestroy})")


@pytest.mark.parametrize(
    ("accelerator", "capabilities", "problem"),
    [
        ("kvm", CAPABILITIES, ""),
        ("tcg", CAPABILITIES, "configured to use tcg"),
        ("auto", "<capabilities/>", "libvirt offers none"),
        ("auto", CAPABILITIES, "could not be started: no such CPU (True)"),
    ],
)
def test_probe_answers_without_a_guest_where_it_can(tmp_path, accelerator, capabilities, problem):
    probe = kvmprobe.KvmProbe(tmp_path, accelerator, Exits())
    assert problem in probe.problem(_NoConnection(), capabilities, "1")


# Consoles.


def test_console_gives_what_is_there_then_the_end():
    buffer = ConsoleBuffer()
    buffer.put(b"a")
    buffer.put(b"b")
    buffer.end()
    assert [buffer.get(), buffer.get(), buffer.get()] == [b"ab", b"", b""]


def test_console_that_nobody_reads_keeps_the_newest():
    buffer = ConsoleBuffer()
    for number in range(300):
        buffer.put(bytes([number % 256]) * 1024)
    data = buffer.get()
    assert len(data) <= 256 * 1024
    assert data.endswith(bytes([299 % 256]) * 1024)


def test_missing_binding_is_told_with_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.delitem(sys.modules, "pvc_core.hypervisor.libvirt_calls", raising=False)
    monkeypatch.delattr("pvc_core.hypervisor.libvirt_calls", raising=False)
    with pytest.raises(HypervisorError, match=r"pvc-core\[node\].*python3-libvirt"):
        LibvirtHypervisor(run_directory=str(Path("/nonexistent")))
