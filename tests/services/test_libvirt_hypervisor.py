"""The libvirt hypervisor on two real hosts (namespaces, libvirtd, QEMU): the contract, and what only libvirt does."""

import contextlib
import os
import re
import shutil
import signal
import time
import uuid
from xml.etree import ElementTree as ET

import msgspec
import pytest

from pvc_core.hypervisor.api import (
    DomainPlan,
    DomainState,
    ExitReason,
    HypervisorError,
    HypervisorUnavailable,
    JobState,
    MigrationOptions,
)
from pvc_core.hypervisor.domainxml import SPARE_PORTS, limits_of, render_disk, render_scsi_controller
from pvc_core.hypervisor.kvmprobe import BOOT_IMAGE, probe_xml
from pvc_core.hypervisor.libvirt import LibvirtHypervisor
from pvc_core.hypervisor.nicxml import is_link_up, nic_limits_of, render_nic
from pvc_core.model.disk import Disk, DiskLimits
from pvc_core.model.vm import DirectKernel, Nic, NicLimits, VmSpec
from pvc_core.plugin.process import run
from pvc_core.plugin.specs.network import NicSource
from pvc_core.plugin.specs.storage import DiskSource
from pvc_core.testkit.contracts.hypervisor import HypervisorContract
from pvc_core.testkit.guest import GUEST_UP, guest_image, guest_plan
from pvc_core.testkit.lan import entered
from pvc_core.testkit.shaping import shaping
from pvc_core.testkit.waiting import eventually
from pvc_sandbox.host import Host
from pvc_sandbox.images.linux import LINUX_MEMORY_MIB, LINUX_UP, tiny_linux
from pvc_sandbox.layout import claim_layout
from pvc_sandbox.sandbox import Sandbox

pytestmark = pytest.mark.real

HEAVY_MIB = 64
TEST_BRIDGE = NicSource(type="bridge", inner_xml="<source bridge='brtest'/>")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hypervisor")
    layout = claim_layout(directory, f"hypervisor-{os.getpid()}")
    hosts = [Host(layout, number) for number in (1, 2)]
    tiny_linux()  # from a cache; if it is empty, from the outside, which cannot be reached from inside
    try:
        for host in hosts:
            host.start()
        # The daemon is on its host; here its sockets are opened where every host can be reached.
        with entered(layout.switch):
            yield hosts
    finally:
        Sandbox(layout.name, directory).down()


class _Bench:
    def __init__(self, hosts, directory):
        self.hosts = hosts
        self.directory = directory
        self.connections = []
        self.heavy = set()
        self.shaped = False
        self.stack = contextlib.ExitStack()
        for host in hosts:
            host.start()
        self.here, self.there = self.connect(0), self.connect(1)
        self.there_address = hosts[1].address
        self.nowhere_address = hosts[0].layout.cluster_address(200)

    def connect(self, number, accelerator="tcg", **settings):
        settings = {"run_directory": str(self.run_directory(number)), "keepalive_s": 1} | settings
        connection = LibvirtHypervisor(self.hosts[number].uri, accelerator=accelerator, **settings)
        self.connections.append(connection)
        return connection

    def run_directory(self, number):
        """Return what is below /run for the daemon, in a place that has the same name on both hosts and here."""
        return self.directory / f"run{number}"

    def restart_there(self):
        self.hosts[1].power_cut()
        shutil.rmtree(self.run_directory(1))
        self.hosts[1].start()
        eventually(lambda: _answers(self.there), "the connection to the other host", within_s=30)

    def to(self, vm, **options):
        """Have a guest admitted by the other host, and return how it gets there."""
        admission = self.there.admit(vm, uuid.uuid4().hex, str(self.log(vm)))
        return MigrationOptions(target_address=self.there_address, admission=admission, **options)

    def plan(self, vm, name, *, deaf=False, heavy=False):
        image = self.directory / f"{vm}.raw"
        image.write_bytes(guest_image(fill_mib=HEAVY_MIB if heavy else 0, deaf=deaf))
        if heavy:
            self.heavy.add(vm)
        return guest_plan(vm, name, image, console_log=str(self.log(vm)), memory_mib=HEAVY_MIB + 8 if heavy else 16)

    def log(self, vm):
        return self.directory / f"{vm}.log"

    def console_log(self, vm):
        return str(self.log(vm))

    def spare_disk(self, volume, target):
        return _disk_xml(self.image(f"{target}.raw"), target, volume)

    def keeps_devices(self, vm):
        """A boot sector handles no ACPI event for a device: it keeps all of them."""

    def limits(self, vm, target):
        xml = ET.fromstring(_virsh(self.hosts[0], "dumpxml", vm))
        return limits_of(xml.find(f"devices/disk/target[@dev='{target}']/.."))

    def spare_nic(self, nic):
        if not self.shaped:
            self.shaped = True
            for host in self.hosts:
                self.stack.enter_context(shaping(host.exec))
                if host.exec(["ip", "link", "show", "brtest"]).returncode:
                    host.exec(["ip", "link", "add", "brtest", "type", "bridge"]).check()
        return ET.tostring(render_nic(nic, TEST_BRIDGE), encoding="unicode")

    def nic(self, vm, mac):
        xml = ET.fromstring(_virsh(self.hosts[0], "dumpxml", vm))
        nic = xml.find(f"devices/interface/mac[@address='{mac}']/..")
        return is_link_up(nic), nic_limits_of(nic)

    def booted(self, vm):
        eventually(lambda: GUEST_UP in self.log(vm).read_text(errors="replace"), "the guest to boot", within_s=60)
        if vm in self.heavy:
            self.hosts[0].exec(["virsh", "migrate-setspeed", vm, "1"]).check()  # MiB/s

    def until(self, condition, what):
        eventually(condition, what, within_s=60)

    def crash(self, vm):
        # The emulator of this guest: its command line has the VM's UUID.
        found = self.hosts[0].exec(["pgrep", "-f", f"uuid {vm}"]).check().stdout.split()
        self.hosts[0].exec(["kill", "-SEGV", *found]).check()

    def stop_hypervisor(self):
        self.hosts[0].stop_service("libvirtd")

    def start_hypervisor(self):
        self.hosts[0].start()
        eventually(lambda: _answers(self.here), "a new connection", within_s=30)

    def stop_hypervisor_there(self):
        self.hosts[1].stop_service("libvirtd")

    def reconnect(self):
        return self.connect(0)

    def image(self, name, **options):
        path = self.directory / name
        path.write_bytes(guest_image(**options))
        return path

    def failed_job(self, vm):
        """Wait for an outgoing migration to fail and return its record."""
        return eventually(lambda: _failed_job(self.here, vm), "the migration to fail", within_s=60)

    def begin_heavy(self, vm):
        self.here.start(self.plan(vm, "web", heavy=True))
        self.booted(vm)
        self.here.migrate(vm, self.to(vm, unsafe=True, max_downtime_ms=123))
        eventually(lambda: self.there.domain(vm), "the target to get its half", within_s=60)

    def close(self):
        self.stack.close()
        for connection in self.connections:
            connection.close()
        for host in self.hosts:
            host.start()
            for vm in _virsh(host, "list", "--uuid").split():
                _virsh(host, "destroy", vm)


def _answers(hypervisor):
    try:
        hypervisor.facts()
    except HypervisorUnavailable:
        return False
    return True


def _answer(hypervisor, vm):
    """Return the domain, None while libvirt is away."""
    try:
        return hypervisor.domain(vm)
    except HypervisorUnavailable:
        return None


def _failed_job(hypervisor, vm):
    """Return the record of a failed outgoing migration, None while there is none."""
    domain = _answer(hypervisor, vm)
    job = domain.job if domain is not None else None
    return job if job is not None and job.state is JobState.FAILED else None


def _virsh(host, *argv):
    return run(["virsh", "-q", "-c", host.uri, *argv], deadline_s=60).stdout


@pytest.fixture
def bench(hosts, tmp_path):
    bench = _Bench(hosts, tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def vm():
    return str(uuid.uuid4())


class TestLibvirtHypervisorKeepsTheContract(HypervisorContract):
    @pytest.fixture
    def bench(self, hosts, tmp_path):
        bench = _Bench(hosts, tmp_path)
        yield bench
        bench.close()


def _linux_plan(vm, image, **changes):
    linux = tiny_linux()
    plan = guest_plan(vm, "linux", image, memory_mib=LINUX_MEMORY_MIB, console_log=str(image.with_suffix(".log")))
    kernel = DirectKernel(kernel=str(linux.kernel), initrd=str(linux.initrd), cmdline=linux.command_line())
    return msgspec.structs.replace(plan, vm=msgspec.structs.replace(plan.vm, direct_kernel=kernel, **changes))


def _disk_xml(image, target, volume="p/more", bus="virtio"):
    source = DiskSource(type="file", source_xml=f"<source file='{image}'/>")
    pool, _, name = volume.partition("/")
    return ET.tostring(render_disk(Disk(pool=pool, volume=name, bus=bus), source, target, bus), encoding="unicode")


UNPLUG = "<disk><target dev='vdb'/></disk>"


def _targets(hypervisor, vm):
    return [disk.target for disk in hypervisor.domain(vm).disks]


# libvirtd and hosts in trouble.


def test_a_killed_libvirtd_is_found_again_with_its_guests(bench, vm):
    told = []
    bench.here.start(bench.plan(vm, "web"))
    bench.booted(vm)
    bench.here.watch(told.append)
    bench.hosts[0].signal_service("libvirtd", signal.SIGKILL)
    eventually(lambda: vm in told, "word of the reconnection", within_s=30)
    assert bench.here.domain(vm).state is DomainState.RUNNING
    bench.here.destroy(vm)
    assert bench.here.exit_reason(vm) is ExitReason.DESTROYED


def test_a_hung_libvirtd_is_given_up_and_comes_back(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    bench.hosts[0].signal_service("libvirtd", signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(HypervisorUnavailable, match="gone"):
            bench.here.domains()
        assert time.monotonic() - began < 10
        patient = bench.connect(0, patience_s=0.5)
        with pytest.raises(HypervisorUnavailable, match="no reply yet"):
            patient.domains()
    finally:
        bench.hosts[0].signal_service("libvirtd", signal.SIGCONT)
    bench.start_hypervisor()
    assert set(bench.here.domains()) == {vm}


def test_a_guest_that_ends_while_libvirtd_is_away_has_no_reason(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    bench.booted(vm)
    bench.stop_hypervisor()
    bench.crash(vm)
    bench.start_hypervisor()
    bench.until(lambda: bench.here.domain(vm) is None, "libvirt to notice")
    assert bench.here.exit_reason(vm) in (ExitReason.UNKNOWN, ExitReason.CRASHED)


def test_a_migration_to_a_host_that_loses_power_fails_and_the_guest_goes_on(bench, vm):
    bench.begin_heavy(vm)
    bench.hosts[1].power_cut()
    assert bench.failed_job(vm).error
    assert bench.here.domain(vm).state is DomainState.RUNNING


def test_a_migration_over_a_cut_link_fails_and_the_guest_goes_on(bench, vm):
    bench.begin_heavy(vm)
    bench.hosts[1].cut_link()
    try:
        assert bench.failed_job(vm).error
        assert bench.here.domain(vm).state is DomainState.RUNNING
        bench.until(lambda: bench.there.domain(vm) is None, "the target's half to vanish")
    finally:
        bench.hosts[1].heal_link()


def test_the_half_of_a_guest_vanishes_when_the_source_loses_power(bench, vm):
    bench.begin_heavy(vm)
    bench.hosts[0].power_cut()
    bench.until(lambda: bench.there.domain(vm) is None, "the target's half to vanish")
    assert bench.there.exit_reason(vm) is ExitReason.FAILED


# Live migration.


def test_the_maximum_downtime_reaches_qemu(bench, vm):
    bench.begin_heavy(vm)
    answer = _virsh(bench.hosts[0], "qemu-monitor-command", vm, "--hmp", "info migrate_parameters")
    assert re.search(r"downtime-limit: 123 ms", answer)


def test_disks_that_libvirt_cannot_see_to_be_shared_are_migrated_only_on_request(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    bench.here.migrate(vm, bench.to(vm))
    assert "nsafe" in bench.failed_job(vm).error


def test_a_guest_is_not_migrated_onto_a_leftover_of_itself(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    other = msgspec.structs.replace(bench.plan(vm, "web"), disks=())
    bench.there.start(msgspec.structs.replace(other, vm=msgspec.structs.replace(other.vm, disks=())))
    bench.here.migrate(vm, bench.to(vm, unsafe=True))
    assert "already" in bench.failed_job(vm).error
    assert bench.here.domain(vm).state is DomainState.RUNNING


def test_the_console_log_goes_on_after_a_migration(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    bench.booted(vm)
    bench.here.migrate(vm, bench.to(vm, unsafe=True))
    bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
    dots = bench.log(vm).read_text().count(".")
    bench.until(lambda: bench.log(vm).read_text().count(".") > dots + 1, "the guest to write")
    assert bench.log(vm).read_text().startswith(GUEST_UP)


SILENT_TARGET = "table inet pvctest {\nchain out { type filter hook output priority 0; tcp sport 16509 meta length > 100 drop\n}\n}\n"
"""The target's libvirtd hears the source's, but its answers are lost, and all that comes after the first one.  Answers to keepalive
probes have 80 bytes: so the transfer, however long it takes, is not given up before the guest has changed sides."""


@pytest.mark.parametrize("killed", [None, 0, 1])
def test_a_source_that_does_not_learn_the_end_keeps_a_copy_that_never_executes(bench, vm, killed):
    # Which of the two executes must be certain whatever breaks at the moment the guest changes sides: libvirt
    # leaves the source's copy paused, and the node's daemon never resumes it.
    bench.begin_heavy(vm)
    eventually(lambda: bench.here.domain(vm).job.progress > 0, "the transfer to be on its way", within_s=30)
    bench.hosts[1].exec(["nft", "-f", "-"], stdin=SILENT_TARGET.encode()).check()
    try:
        bench.hosts[0].exec(["virsh", "migrate-setspeed", vm, "1000"]).check()
        eventually(lambda: bench.there.domain(vm).state is DomainState.RUNNING, "the guest to arrive", within_s=30)
        assert bench.here.domain(vm).state is DomainState.PAUSED
        if killed is not None:
            bench.hosts[killed].signal_service("libvirtd", signal.SIGKILL)
        assert bench.failed_job(vm).error
        assert bench.here.domain(vm).state is DomainState.PAUSED
        arrived = eventually(lambda: _answer(bench.there, vm), "the target's libvirtd", within_s=30)
        assert arrived.state is DomainState.RUNNING
    finally:
        bench.hosts[1].exec(["nft", "delete", "table", "inet", "pvctest"]).check()


# Domains of others.


def test_a_domain_that_is_not_pvcs_is_named_and_left_alone(bench, vm):
    image = bench.directory / "foreign.raw"
    image.write_bytes(bytes(1 << 20))
    xml = bench.directory / "foreign.xml"
    xml.write_text(
        f"<domain type='qemu'><name>old-server</name><uuid>{vm}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>"
        f"<os><type machine='q35'>hvm</type></os><devices>{_disk_xml(image, 'vda')}</devices></domain>"
    )
    assert "created" in _virsh(bench.hosts[0], "create", str(xml)) or _virsh(bench.hosts[0], "list", "--uuid")
    assert bench.here.facts().foreign == ("old-server",)
    assert bench.here.domains() == {}
    assert bench.here.domain(vm) is None
    assert bench.here.usage() == {}
    with pytest.raises(HypervisorError, match="PVC did not start it"):
        bench.here.destroy(vm)


# Accelerators.


def test_kvm_is_listed_only_where_a_64_bit_guest_runs_with_it(bench):
    facts = bench.connect(0, "auto").facts()
    assert facts.accelerators == (("tcg",) if facts.unusable else ("kvm", "tcg"))
    verdict = bench.directory / "run0/kvm-probe.json"
    if "libvirt offers none" not in facts.unusable.get("kvm", ""):
        found = verdict.read_text()
        assert bench.connect(0, "auto").facts().accelerators == facts.accelerators
        assert verdict.read_text() == found
    assert bench.here.facts().foreign == ()


def test_the_test_guest_of_the_kvm_probe_switches_itself_off(bench):
    # With the emulator, because it must come to its end wherever KVM does what a processor does.
    image = bench.directory / "probe.img"
    image.write_bytes(BOOT_IMAGE)
    xml = bench.directory / "probe.xml"
    xml.write_text(probe_xml(image, "tcg"))
    run(["virsh", "-c", bench.hosts[0].uri, "create", str(xml)], deadline_s=60).check()
    bench.until(lambda: not _virsh(bench.hosts[0], "list", "--uuid").split(), "it to end")


def test_a_vm_that_wants_kvm_is_refused_on_a_node_for_tcg(bench, vm):
    with pytest.raises(HypervisorError, match=r"cannot start web: it wants kvm, .* configured to use tcg"):
        bench.here.start(guest_plan(vm, "web", bench.image("x.raw"), accelerator="kvm"))


# What is rendered is what libvirt takes.


def test_every_bus_and_a_bridge_start_and_take_more_devices(bench, vm):
    bench.hosts[0].exec(["ip", "link", "add", "brtest", "type", "bridge"])
    buses = ("virtio", "virtio", "scsi", "scsi", "sata", "ide", "usb")
    disks = tuple(Disk(pool="p", volume=f"v{i}", bus=bus, discard=bool(i % 2)) for i, bus in enumerate(buses))
    images = [bench.image(f"v{i}.raw") for i in range(len(buses) + 4)]
    models = ("virtio", "e1000", "e1000e", "rtl8139")
    nics = tuple(Nic(network="n", mac=f"52:54:00:00:00:0{i}", model=m, link_up=i != 1) for i, m in enumerate(models))
    spec = VmSpec(id=vm, name="web", memory_mib=64, vcpus=2, vnc=True, disks=disks, nics=nics, cpu_model="qemu64")
    plan = DomainPlan(
        vm=spec,
        disks=tuple(DiskSource(type="file", source_xml=f"<source file='{i}'/>") for i in images[: len(buses)]),
        nics=tuple(NicSource(type="bridge", inner_xml="<source bridge='brtest'/>") for _ in nics),
    )
    bench.here.start(plan)
    assert re.fullmatch(r".+:59\d\d", bench.here.domain(vm).vnc)
    plugged = (("vdc", "virtio"), ("vdd", "virtio"), ("sdf", "scsi"), ("sdg", "usb"))
    for image, (target, bus) in zip(images[len(buses) :], plugged, strict=True):
        bench.here.attach_device(vm, _disk_xml(image, target, f"p/{target}", bus))
    assert [disk.volume for disk in bench.here.domain(vm).disks] == [
        *(f"p/v{i}" for i in range(len(buses))),
        *(f"p/{target}" for target, _ in plugged),
    ]
    assert bench.here.domain(vm).controllers == {"scsi", "usb"}
    bench.here.resize_disk(vm, "vdd", 3 << 20)
    assert images[len(buses) + 1].stat().st_size == 3 << 20
    bench.here.resize_disk(vm, "vda", 2 << 20)
    assert images[0].stat().st_size == 2 << 20


def test_a_scsi_disk_is_plugged_into_a_guest_that_had_no_controller_and_goes_where_it_goes(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    bench.booted(vm)
    bench.here.attach_device(vm, ET.tostring(render_scsi_controller(), encoding="unicode"))
    bench.here.attach_device(vm, _disk_xml(bench.image("s.raw"), "sda", "p/s", "scsi"))
    xml = ET.fromstring(_virsh(bench.hosts[0], "dumpxml", vm))
    assert [c.get("model") for c in xml.iterfind("devices/controller[@type='scsi']")] == ["virtio-scsi"]
    assert xml.find("devices/disk/target[@dev='sda']/../driver").get("discard") == "unmap"
    bench.here.migrate(vm, bench.to(vm, unsafe=True))
    bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
    assert bench.there.domain(vm).controllers == {"scsi"}
    assert [disk.volume for disk in bench.there.domain(vm).disks][1:] == ["p/s"]


def test_all_scsi_disks_are_on_the_one_controller_however_many(bench, vm):
    image = bench.image("s.raw")
    copies = [image.with_name(f"s{number}.raw") for number in range(19)]
    for copy in copies:
        copy.write_bytes(bytes(1 << 20))
    plan = bench.plan(vm, "web")
    disks = tuple(Disk(pool="p", volume=f"s{number}", bus="scsi") for number in range(17))
    sources = tuple(DiskSource(type="file", source_xml=f"<source file='{copy}'/>") for copy in copies[:17])
    spec = msgspec.structs.replace(plan.vm, disks=(*plan.vm.disks, *disks))
    bench.here.start(msgspec.structs.replace(plan, vm=spec, disks=(*plan.disks, *sources)))
    bench.booted(vm)
    for target, copy in zip(("sdr", "sds"), copies[17:], strict=True):
        bench.here.attach_device(vm, _disk_xml(copy, target, f"p/{target}", "scsi"))
    xml = ET.fromstring(_virsh(bench.hosts[0], "dumpxml", vm))
    assert [c.get("model") for c in xml.iterfind("devices/controller[@type='scsi']")] == ["virtio-scsi"]
    assert len(bench.here.domain(vm).disks) == 1 + 19
    bench.here.migrate(vm, bench.to(vm, unsafe=True))
    bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
    assert len(bench.there.domain(vm).disks) == 1 + 19


def test_a_guest_starts_with_the_limits_of_its_disk(bench, vm):
    plan = bench.plan(vm, "web")
    limits = DiskLimits(iops=100, iops_burst=500, write_bandwidth=1 << 20)
    disks = tuple(msgspec.structs.replace(disk, limits=limits) for disk in plan.vm.disks)
    bench.here.start(msgspec.structs.replace(plan, vm=msgspec.structs.replace(plan.vm, disks=disks)))
    assert bench.limits(vm, "vda") == limits


def test_nics_start_and_are_plugged_in_with_queues_and_limits_both_ways(bench, vm):
    plan = bench.plan(vm, "web")
    limits = NicLimits(in_average=100, in_peak=200, in_burst=64, out_average=50, out_peak=70, out_burst=32)
    first, later = (Nic(network="n", mac=f"52:54:00:00:00:0{n}", queues=2, limits=limits) for n in (1, 2))
    bench.spare_nic(first)  # the bridge
    spec = msgspec.structs.replace(plan.vm, nics=(first,), vcpus=2)
    bench.here.start(msgspec.structs.replace(plan, vm=spec, nics=(TEST_BRIDGE,)))
    bench.here.attach_device(vm, bench.spare_nic(later))
    assert bench.here.domain(vm).nics == (first.mac, later.mac)
    xml = ET.fromstring(_virsh(bench.hosts[0], "dumpxml", vm))
    assert [nic.get("queues") for nic in xml.iterfind("devices/interface/driver")] == ["2", "2"]
    for nic in (first, later):
        assert bench.nic(vm, nic.mac) == (True, limits)
        target = xml.find(f"devices/interface/mac[@address='{nic.mac}']/../target").get("dev")
        classes = bench.hosts[0].exec(["tc", "class", "show", "dev", target]).check().stdout
        assert "rate 800Kbit ceil 1600Kbit" in classes


def test_a_bridge_that_is_not_there_is_named_and_nothing_is_plugged_in(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    source = NicSource(type="bridge", inner_xml="<source bridge='brnone'/>")
    nic = ET.tostring(render_nic(Nic(network="n", mac="52:54:00:00:00:01"), source), encoding="unicode")
    with pytest.raises(HypervisorError, match="brnone"):
        bench.here.attach_device(vm, nic)
    assert bench.here.domain(vm).nics == ()


def test_more_nics_than_places_are_refused_and_the_guest_goes_on(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    macs = [f"52:54:00:00:01:{n:02x}" for n in range(SPARE_PORTS + 1)]
    models = ("virtio", "e1000")
    for n, mac in enumerate(macs[:-1]):
        bench.here.attach_device(vm, bench.spare_nic(Nic(network="n", mac=mac, model=models[n % 2])))
    for model in models:
        with pytest.raises(HypervisorError, match="PCI"):
            bench.here.attach_device(vm, bench.spare_nic(Nic(network="n", mac=macs[-1], model=model)))
    assert bench.here.domain(vm).nics == tuple(macs[:-1])
    assert bench.here.domain(vm).state is DomainState.RUNNING


def test_an_overlay_is_part_of_the_domain(bench, vm):
    overlay = "<domain><devices><watchdog model='i6300esb' action='none'/></devices><title>mine</title></domain>"
    plan = bench.plan(vm, "web")
    bench.here.start(msgspec.structs.replace(plan, vm=msgspec.structs.replace(plan.vm, overlay_xml=overlay)))
    xml = _virsh(bench.hosts[0], "dumpxml", vm)
    assert "i6300esb" in xml
    assert "<title>mine</title>" in xml


def test_libvirt_says_what_is_wrong_with_a_plan(bench, vm):
    plan = msgspec.structs.replace(bench.plan(vm, "web"), machine="pc-q35-99.0")
    with pytest.raises(HypervisorError, match=r"cannot start web: .*pc-q35-99.0"):
        bench.here.start(plan)
    assert bench.here.domain(vm) is None


# Guests that talk.


def test_what_is_typed_reaches_the_guest_and_comes_back(bench, vm):
    bench.here.start(bench.plan(vm, "web"))
    console = bench.here.console(vm)
    bench.booted(vm)
    console.write(b"hello")
    heard = b""
    while not all(letter in heard.replace(GUEST_UP.encode(), b"") for letter in (b"h", b"e", b"l", b"o")):
        heard += console.read()
    console.close()
    with pytest.raises(HypervisorError, match="closed"):
        console.write(b"x")


def test_linux_boots_gives_a_disk_back_and_shuts_down(bench, vm):
    image = bench.image("linux.raw")
    bench.here.start(_linux_plan(vm, image))
    log = image.with_suffix(".log")
    eventually(lambda: LINUX_UP in log.read_text(errors="replace"), "Linux to boot", within_s=90)
    assert bench.here.usage()[vm].memory_used_mib > 0
    bench.here.attach_device(vm, _disk_xml(bench.image("more.raw"), "vdb"))
    other = bench.connect(0)
    assert _targets(other, vm) == ["vda", "vdb"]
    told = []
    bench.here.watch(told.append)
    bench.here.detach_device(vm, UNPLUG)
    # Both connections learn it by libvirt's event, also the one that did not ask.
    bench.until(lambda: _targets(bench.here, vm) == _targets(other, vm) == ["vda"], "Linux to give the disk back")
    assert vm in told
    bench.here.shutdown(vm)
    bench.until(lambda: bench.here.domain(vm) is None, "Linux to shut down")
    assert bench.here.exit_reason(vm) is ExitReason.SHUTDOWN


def test_the_load_of_a_busy_guest_is_seen(bench, vm):
    bench.here.start(_linux_plan(vm, bench.image("linux.raw")))
    bench.here.usage()
    bench.until(lambda: bench.here.usage()[vm].cpu_percent > 0, "the load of a booting Linux")


def test_kvm_guests_start_and_migrate(bench, vm):
    facts = bench.connect(0, "auto").facts()
    if "libvirt offers none" in facts.unusable.get("kvm", ""):
        pytest.fail("this machine has no /dev/kvm: run the tests that need it elsewhere")
    source = bench.connect(0, "kvm")
    source.start(guest_plan(vm, "web", bench.image("k.raw"), console_log=str(bench.log(vm)), accelerator="kvm"))
    bench.booted(vm)
    assert source.domain(vm).accelerator == "kvm"
    source.migrate(vm, bench.to(vm, unsafe=True))
    bench.until(lambda: source.domain(vm) is None, "the guest to leave")
    assert bench.there.domain(vm).state is DomainState.RUNNING
