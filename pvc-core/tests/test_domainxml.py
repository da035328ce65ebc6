"""A VM as libvirt domain XML, and back."""

import re
import uuid
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.hypervisor.api import DomainPlan, HypervisorError
from pvc_core.hypervisor.domaininfo import device_key, find_device, read_domain
from pvc_core.hypervisor.domainxml import (
    DEFAULT_CPU,
    SPARE_PORTS,
    Origin,
    disk_alias,
    domain_name,
    newest_common_machine,
    render,
    render_disk,
    volume_of,
)
from pvc_core.hypervisor.nicxml import is_link_up, mac_of, nic_limits_of, render_nic, with_link
from pvc_core.hypervisor.rootports import free_root_port, placed
from pvc_core.hypervisor.xmlimport import vm_from_xml
from pvc_core.model.disk import DiskLimits, disk_target, disk_targets
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.vm import DirectKernel, Disk, Nic, NicLimits, VmSpec
from pvc_core.plugin.specs.network import NicSource
from pvc_core.plugin.specs.storage import DiskSource

VM = "7b0e3a44-2f6c-4a2e-9d53-0c1f6d0a9b11"
FILE = DiskSource(type="file", source_xml="<source file='/pool/v.raw'/>")
BRIDGE = NicSource(type="bridge", inner_xml="<source bridge='br0'/><mtu size='1400'/>")


def spec(**fields):
    return VmSpec(**({"id": VM, "name": "web", "memory_mib": 512, "vcpus": 2} | fields))


def domain(vm, accelerator="kvm", *, disk=FILE, nic=BRIDGE, **plan):
    sources = {"disks": (disk,) * len(vm.disks), "nics": (nic,) * len(vm.nics)} | plan
    return ET.fromstring(render(DomainPlan(vm=vm, **sources), accelerator))


def disks(*buses, **fields):
    return tuple(Disk(pool="p", volume=f"v{i}", bus=bus, **fields) for i, bus in enumerate(buses))


def nics(*models):
    return tuple(Nic(network="n", mac=f"52:54:00:00:00:0{i}", model=m) for i, m in enumerate(models))


def test_identity_and_size_are_the_vms():
    xml = domain(spec())
    assert xml.findtext("uuid") == VM
    assert xml.findtext("title") == "web"
    assert (xml.findtext("memory"), xml.find("memory").get("unit")) == ("512", "MiB")
    assert xml.findtext("vcpu") == "2"
    assert xml.find("os/type").get("machine") == "q35"


def test_name_is_unique_even_when_a_renamed_vm_still_has_it():
    assert domain_name(spec()) != domain_name(spec(id=str(uuid.uuid4())))
    assert domain_name(spec()).startswith("web-")


@pytest.mark.parametrize(("accelerator", "type_"), [("kvm", "kvm"), ("tcg", "qemu")])
def test_accelerator_is_the_domains_type(accelerator, type_):
    xml = domain(spec(), accelerator)
    assert xml.get("type") == type_
    assert (xml.find("features/tcg/tb-cache") is not None) == (accelerator == "tcg")


def test_same_plan_gives_the_same_text():
    plan = DomainPlan(vm=spec(disks=disks("virtio")), disks=(FILE,), nics=())
    assert render(plan, "kvm") == render(plan, "kvm")


def test_machine_of_the_plan_replaces_the_alias():
    assert domain(spec(), machine="pc-q35-7.2").find("os/type").get("machine") == "pc-q35-7.2"


@pytest.mark.parametrize(
    ("vm", "cluster", "model"), [("", "", DEFAULT_CPU), ("", "EPYC", "EPYC"), ("Nehalem", "EPYC", "Nehalem")]
)
def test_cpu_model_is_the_vms_then_the_clusters_then_the_default(vm, cluster, model):
    cpu = domain(spec(cpu_model=vm), cpu_model=cluster).find("cpu")
    assert (cpu.get("mode"), cpu.findtext("model"), cpu.get("check")) == ("custom", model, "partial")


def test_generic_cpu_model_comes_without_the_feature_that_no_intel_host_has():
    cpu = domain(spec(cpu_model="qemu64")).find("cpu")
    assert cpu.find("feature[@name='svm']").get("policy") == "disable"


@pytest.mark.parametrize("mode", ["host-passthrough", "host-model", "maximum"])
def test_cpu_modes_are_no_models(mode):
    cpu = domain(spec(cpu_model=mode)).find("cpu")
    assert cpu.get("mode") == mode
    assert cpu.find("model") is None


def test_emulated_cpu_is_not_compared_with_the_hosts():
    assert domain(spec(cpu_model="EPYC"), "tcg").find("cpu").get("check") == "none"


def test_disks_are_assembled_from_driver_and_spec():
    disk = DiskSource(type="network", source_xml="<source protocol='rbd' name='p/v'/>", cache="writeback")
    xml = domain(spec(disks=disks("virtio", discard=False)), disk=disk).find("devices/disk")
    assert xml.get("type") == "network"
    assert xml.find("driver").attrib == {"name": "qemu", "type": "raw", "cache": "writeback", "discard": "ignore"}
    assert xml.find("source").get("name") == "p/v"
    assert xml.find("target").attrib == {"dev": "vda", "bus": "virtio"}
    assert xml.find("boot").get("order") == "1"


def test_disk_targets_count_per_prefix_and_boot_in_order():
    vm = spec(disks=disks("virtio", "scsi", "sata", "virtio", "ide", "usb"))
    assert disk_targets(vm.disks, vm.machine) == ["vda", "sda", "sdb", "vdb", "sdc", "sdd"]
    xml = domain(vm)
    assert [d.find("boot").get("order") for d in xml.iterfind("devices/disk")] == list("123456")
    assert xml.find("devices/controller[@type='scsi']").get("model") == "virtio-scsi"


def test_many_disks_get_two_letters():
    assert disk_targets(disks(*["virtio"] * 28), "q35")[25:] == ["vdz", "vdaa", "vdab"]


def test_ide_is_kept_on_a_machine_that_has_it():
    vm = spec(machine="pc", disks=disks("ide"))
    assert disk_targets(vm.disks, vm.machine) == ["hda"]
    assert domain(vm).find("devices/controller[@type='pci']") is None


@pytest.mark.parametrize(("bus", "device"), [("virtio", "disk"), ("scsi", "disk"), ("sata", "cdrom"), ("ide", "cdrom")])
def test_read_only_disk_is_a_cd_where_only_those_can_be(bus, device):
    xml = domain(spec(disks=disks(bus, read_only=True))).find("devices/disk")
    assert xml.get("device") == device
    assert xml.find("readonly") is not None


def test_nics_are_assembled_from_driver_and_spec():
    down = (*nics("virtio"), Nic(network="n", mac="52:54:00:00:00:09", model="e1000", link_up=False))
    first, second = domain(spec(nics=down, disks=disks("virtio"))).findall("devices/interface")
    assert (first.get("type"), first.find("source").get("bridge"), first.find("mtu").get("size")) == (
        "bridge",
        "br0",
        "1400",
    )
    assert (first.find("mac").get("address"), first.find("model").get("type")) == ("52:54:00:00:00:00", "virtio")
    assert first.find("link") is None
    assert second.find("link").get("state") == "down"
    assert first.find("boot") is None


def test_passed_through_nic_has_no_model():
    source = NicSource(type="hostdev", inner_xml="<source><address type='pci'/></source>", has_model=False)
    xml = domain(spec(nics=nics("virtio"), disks=disks("virtio")), nic=source).find("devices/interface")
    assert xml.find("model") is None


def test_vm_without_disks_boots_from_the_network():
    xml = domain(spec(nics=nics("virtio", "virtio")))
    assert [n.find("boot").get("order") for n in xml.iterfind("devices/interface")] == ["1", "2"]


def test_direct_kernel_needs_no_boot_order():
    kernel = DirectKernel(kernel="/k", initrd="/i", cmdline="console=ttyS0 a<b")
    xml = domain(spec(direct_kernel=kernel, disks=disks("virtio"), nics=nics("virtio")))
    assert [xml.findtext(f"os/{tag}") for tag in ("kernel", "initrd", "cmdline")] == ["/k", "/i", "console=ttyS0 a<b"]
    assert xml.find("devices//boot") is None
    plain = domain(spec(direct_kernel=DirectKernel(kernel="/k")))
    assert plain.find("os/initrd") is None


def test_uefi_without_secure_boot():
    os_ = domain(spec(firmware="uefi")).find("os")
    assert os_.get("firmware") == "efi"
    assert os_.find("firmware/feature").attrib == {"enabled": "no", "name": "secure-boot"}


@pytest.mark.parametrize("vm", [spec(), spec(disks=disks("virtio", "scsi"), nics=nics("virtio"), vnc=True)])
def test_spare_ports_are_free_for_later_devices(vm):
    xml = domain(vm)
    ports = len(xml.findall("devices/controller[@model='pcie-root-port']"))
    virtio_disks = sum(d.bus == "virtio" for d in vm.disks)
    on_ports = virtio_disks + len(vm.nics) + vm.vnc + ("scsi" in {d.bus for d in vm.disks}) + 3  # agent, rng, balloon
    assert ports == on_ports + SPARE_PORTS
    assert xml.find("devices/controller[@model='pcie-root']").get("index") == "0"


def test_console_is_logged_to_the_file_and_appended():
    log = domain(spec(), console_log="/log/x.log").find("devices/serial/log")
    assert log.attrib == {"file": "/log/x.log", "append": "on"}
    assert domain(spec()).find("devices/serial/log") is None


def test_options_bring_their_devices():
    full, bare = domain(spec(vnc=True)), domain(spec(guest_agent=False))
    assert full.find("devices/graphics").get("type") == "vnc"
    assert full.find("devices/graphics").get("listen") is None
    assert full.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"
    assert bare.find("devices/graphics") is None
    assert bare.find("devices/channel") is None
    assert bare.find("devices/controller[@type='usb']").get("model") == "none"
    for xml in (full, bare):
        assert xml.find("devices/rng") is not None
        assert xml.find("devices/memballoon/stats") is not None
        assert xml.find("devices/panic") is not None


def test_a_guests_end_is_left_to_pvc():
    xml = domain(spec())
    assert (xml.findtext("on_poweroff"), xml.findtext("on_crash")) == ("destroy", "destroy")


def test_drivers_bad_xml_is_told_with_its_volume():
    with pytest.raises(HypervisorError, match=r"source of volume p/v0 .* not valid XML"):
        domain(spec(disks=disks("virtio")), disk=DiskSource(type="file", source_xml="<source"))
    with pytest.raises(HypervisorError, match="the NIC in network n"):
        domain(spec(nics=nics("virtio")), nic=NicSource(type="bridge", inner_xml="<a></b>"))


def test_bad_overlay_is_told():
    with pytest.raises(InvalidRequest, match="line 2"):
        domain(spec(overlay_xml="<domain>\n<oops></domain>"))


def test_what_is_rendered_can_be_read_again():
    vm = spec(vnc=True, disks=disks("virtio", "sata", "virtio"), generation=7)
    text = render(DomainPlan(vm=vm, disks=(FILE,) * 3, nics=()), "tcg", origin=Origin(boot_id="b1", since_boot_s=12.5))
    info = read_domain(text, 4)
    assert info.ours
    assert not info.probe
    assert (info.run, info.name, info.memory_mib, info.vcpus, info.accelerator) == (4, "web", 512, 2, "tcg")
    assert [disk.target for disk in info.disks] == ["vda", "sda", "vdb"]
    assert (info.boot_id, info.started_s) == ("b1", 12.5)
    assert info.vnc == ""


@pytest.mark.parametrize(
    ("graphics", "address"),
    [
        ("<graphics type='vnc' port='5901' listen='0.0.0.0'/>", "0.0.0.0:5901"),
        ("<graphics type='vnc' port='5901' listen='::1'/>", "[::1]:5901"),
        ("<graphics type='vnc' port='5900'/>", "127.0.0.1:5900"),
        ("<graphics type='spice' port='5900'/>", ""),
    ],
)
def test_where_vnc_listens_is_read_from_the_live_domain(graphics, address):
    xml = f"<domain><name>a</name><devices>{graphics}</devices></domain>"
    assert read_domain(xml, 1).vnc == address


def test_foreign_domain_is_not_ours():
    info = read_domain("<domain type='kvm'><name>old</name><memory unit='GiB'>2</memory></domain>", 1)
    assert (info.ours, info.name, info.memory_mib) == (False, "old", 2048)


def test_disks_plugged_later_follow_those_of_the_definition():
    text = render(DomainPlan(vm=spec(disks=disks("virtio", "sata")), disks=(FILE,) * 2, nics=()), "kvm")
    plugged = f"<disk device='disk'><target dev='vdb' bus='virtio'/><alias name='{disk_alias('p/later')}'/></disk>"
    later = read_domain(text.replace("<devices>", f"<devices>{plugged}"), 1).disks
    assert [(d.target, d.bus, d.volume) for d in later] == [
        ("vda", "virtio", "p/v0"),
        ("sda", "sata", "p/v1"),
        ("vdb", "virtio", "p/later"),
    ]


def test_a_disk_that_does_not_say_which_it_is_is_told_from_those_of_the_overlay():
    text = render(DomainPlan(vm=spec(disks=disks("virtio")), disks=(FILE,), nics=()), "kvm")
    older = text.replace(disk_alias("p/v0"), "virtio-disk0")
    overlaid = older.replace("</devices>", "<disk device='cdrom'><target dev='sda' bus='sata'/></disk></devices>")
    assert [(d.target, d.volume) for d in read_domain(overlaid, 1).disks] == [("vda", None), ("sda", "")]


@given(st.text(alphabet="abcXYZ019._-", min_size=1), st.text(alphabet="abcXYZ019._-", min_size=1))
def test_the_alias_of_a_disk_names_its_volume_in_letters_that_libvirt_takes(pool, volume):
    alias = disk_alias(f"{pool}/{volume}")
    assert re.fullmatch(r"ua-[A-Za-z0-9_-]+", alias)
    assert volume_of(alias) == f"{pool}/{volume}"
    assert volume_of("virtio-disk0") is None


@pytest.mark.parametrize(
    ("disk_buses", "vnc", "controllers"),
    [
        ((), False, set()),
        (("virtio", "scsi"), False, {"scsi"}),
        (("usb",), False, {"usb"}),
        (("virtio",), True, {"usb"}),
    ],
)
def test_a_domain_says_which_controllers_for_disks_it_has(disk_buses, vnc, controllers):
    vm = spec(disks=disks(*disk_buses), vnc=vnc)
    info = read_domain(render(DomainPlan(vm=vm, disks=(FILE,) * len(disk_buses), nics=()), "kvm"), 1)
    assert info.controllers == controllers


def test_the_next_disk_gets_the_first_free_name():
    assert disk_target("virtio", ["vda", "vdc", "sda"]) == "vdb"
    assert disk_target("scsi", ["vda", "sda", "sdb"]) == "sdc"


def test_scsi_is_virtio_scsi_and_discards():
    xml = domain(spec(disks=disks("scsi")))
    assert xml.find("devices/controller[@type='scsi']").attrib == {"type": "scsi", "index": "0", "model": "virtio-scsi"}
    assert xml.find("devices/disk/driver").get("discard") == "unmap"


def test_limits_are_rendered_where_there_are_any():
    assert domain(spec(disks=disks("virtio"))).find("devices/disk/iotune") is None
    limits = DiskLimits(iops=300, iops_burst=900, read_bandwidth=1 << 20)
    found = domain(spec(disks=disks("virtio", limits=limits))).find("devices/disk/iotune")
    assert {limit.tag: limit.text for limit in found} == {
        "total_iops_sec": "300",
        "total_iops_sec_max": "900",
        "read_bytes_sec": str(1 << 20),
    }


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"iops": 1, "read_iops": 1}, "limit iops is that of reading and writing together: it excludes read_iops"),
        (
            {"bandwidth": 1, "write_bandwidth": 1},
            "limit bandwidth is that of reading and writing together: it excludes",
        ),
        ({"iops_burst": 5}, "limit iops_burst needs a limit iops"),
        (
            {"read_bandwidth": 10, "read_bandwidth_burst": 5},
            "limit read_bandwidth_burst is 5, less than read_bandwidth",
        ),
        ({"iops": 1, "read_bandwidth": 1, "write_bandwidth": 2, "write_bandwidth_burst": 2}, ""),
    ],
)
def test_limits_that_contradict_each_other_are_named(limits, problem):
    found = DiskLimits(**limits).problem()
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_devices_are_told_apart():
    disk = ET.tostring(render_disk(Disk(pool="p", volume="v"), FILE, "vdb", "virtio"), encoding="unicode")
    nic = ET.tostring(render_nic(nics("virtio")[0], BRIDGE), encoding="unicode")
    assert device_key(disk) == ("disk", "target@dev", "vdb")
    assert device_key(nic) == ("interface", "mac@address", "52:54:00:00:00:00")
    assert device_key("<rng/>") is None
    xml = render(DomainPlan(vm=spec(disks=disks("virtio"), nics=nics("virtio")), disks=(FILE,), nics=(BRIDGE,)), "kvm")
    assert find_device(xml, device_key(disk)) is None
    assert find_device(xml, device_key(nic)).find("mac").get("address") == "52:54:00:00:00:00"


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("q35", [["q35", "pc-q35-7.2", "pc-q35-10.0"], ["pc-q35-7.2", "pc-q35-8.1"]], "pc-q35-7.2"),
        ("q35", [["pc-q35-7.2", "pc-q35-10.0", "pc-q35-9.2"]], "pc-q35-10.0"),
        ("q35", [["pc-q35-7.2"], ["pc-q35-8.0"]], "q35"),
        ("q35", [], "q35"),
        ("pc", [["pc-i440fx-7.2", "pc-q35-9.0"]], "pc-i440fx-7.2"),
        ("pc-q35-6.0", [["pc-q35-7.2"]], "pc-q35-6.0"),
        ("q35", [["pc-q35-custom", "pc-q35-4.0.1", "pc-q35-4.0"]], "pc-q35-4.0.1"),
    ],
)
def test_newest_machine_type_that_all_hosts_have(wanted, offered, chosen):
    assert newest_common_machine(wanted, offered) == chosen


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
any_disk = st.builds(
    Disk,
    pool=names,
    volume=names,
    bus=st.sampled_from(["virtio", "scsi", "sata", "usb"]),
    read_only=st.booleans(),
    cache=st.sampled_from(["none", "writeback", "directsync"]),
    discard=st.booleans(),
    limits=st.sampled_from([DiskLimits(), DiskLimits(iops=100, iops_burst=200), DiskLimits(read_bandwidth=1 << 20)]),
)
any_nic = st.builds(
    Nic,
    network=names,
    mac=st.from_regex(r"52:54:00(:[0-9a-f]{2}){3}", fullmatch=True),
    model=st.sampled_from(["virtio", "e1000", "e1000e", "rtl8139"]),
    link_up=st.booleans(),
)
any_vm = st.builds(
    VmSpec,
    id=st.uuids().map(str),
    name=names,
    memory_mib=st.integers(16, 1 << 20),
    vcpus=st.integers(1, 64),
    cpu_model=st.sampled_from(["EPYC", "Nehalem", "host-passthrough"]),
    firmware=st.sampled_from(["bios", "uefi"]),
    direct_kernel=st.none() | st.builds(DirectKernel, kernel=st.just("/k"), initrd=st.just("/i"), cmdline=names),
    vnc=st.booleans(),
    guest_agent=st.booleans(),
    disks=st.lists(any_disk, max_size=4).map(tuple),
    nics=st.lists(any_nic, max_size=3).map(tuple),
)


@given(any_vm, st.sampled_from(["kvm", "tcg"]))
def test_import_of_what_was_rendered_gives_the_same_vm(vm, accelerator):
    plan = DomainPlan(
        vm=vm,
        disks=tuple(
            DiskSource(type="network", source_xml=f"<source protocol='rbd' name='{d.pool}/{d.volume}'/>")
            for d in vm.disks
        ),
        nics=tuple(NicSource(type="network", inner_xml=f"<source network='{n.network}'/>") for n in vm.nics),
        console_log="/log/x",
    )
    found = vm_from_xml(render(plan, accelerator))
    fields = found.definition
    assert (fields["id"], fields["name"], fields["memory"], fields["vcpus"]) == (
        vm.id,
        vm.name,
        vm.memory_mib,
        vm.vcpus,
    )
    assert fields["disks"] == [
        {f: getattr(d, f) for f in ("pool", "volume", "bus", "read_only", "cache", "discard")}
        | ({"limits": msgspec.to_builtins(d.limits)} if d.limits != DiskLimits() else {})
        for d in vm.disks
    ]
    assert fields["nics"] == [{f: getattr(n, f) for f in ("network", "mac", "model", "link_up")} for n in vm.nics]
    assert fields.get("firmware", "bios") == vm.firmware
    assert (fields["vnc"], fields["guest_agent"], fields["cpu_model"]) == (vm.vnc, vm.guest_agent, vm.cpu_model)
    kernel = vm.direct_kernel
    assert fields.get("direct_kernel") == (
        {"kernel": kernel.kernel, "initrd": kernel.initrd, "cmdline": kernel.cmdline} if kernel else None
    )
    assert fields["overlay_xml"] == ""
    assert found.notes == ()


LIMITS = NicLimits(in_average=100, in_peak=200, in_burst=50, out_average=30)


def nic_element(source=BRIDGE, **fields):
    return render_nic(Nic(**({"network": "n", "mac": "52:54:00:00:00:01"} | fields)), source)


def test_a_nic_is_rendered_with_queues_limits_link_and_its_own_alias():
    nic = nic_element(queues=4, limits=LIMITS, link_up=False)
    assert nic.find("driver").attrib == {"queues": "4"}
    assert nic.find("bandwidth/inbound").attrib == {"average": "100", "peak": "200", "burst": "50"}
    assert nic.find("bandwidth/outbound").attrib == {"average": "30"}
    assert (nic_limits_of(nic), is_link_up(nic)) == (LIMITS, False)
    assert mac_of(nic.find("alias").get("name")) == "52:54:00:00:00:01"
    plain = nic_element()
    assert {child.tag for child in plain} == {"source", "mtu", "mac", "alias", "model"}
    assert (nic_limits_of(plain), is_link_up(plain)) == (NicLimits(), True)
    assert nic_element(model="e1000", queues=4).find("driver") is None


def test_a_nic_that_is_passed_through_has_no_settings_of_an_emulated_one():
    source = NicSource(type="hostdev", inner_xml="<source><address type='pci'/></source>", has_model=False)
    nic = nic_element(source, queues=4, limits=LIMITS, link_up=False)
    assert {child.tag for child in nic} == {"source", "mac", "alias"}


def test_a_target_of_the_driver_stays():
    source = NicSource(type="ethernet", inner_xml="<target dev='tap7' managed='no'/>")
    assert nic_element(source).find("target").attrib == {"dev": "tap7", "managed": "no"}
    assert device_key(ET.tostring(nic_element(source), encoding="unicode")) == (
        "interface",
        "mac@address",
        "52:54:00:00:00:01",
    )


@pytest.mark.parametrize("alias", ["", "net0", "ua-nic-", "ua-nic-5254000000", "ua-nic-52540000000x", "ua-disk-a"])
def test_other_aliases_name_no_nic(alias):
    assert mac_of(alias) is None


def test_with_link_changes_nothing_else():
    nic = nic_element(limits=LIMITS)
    down = ET.fromstring(with_link(nic, up=False))
    assert (is_link_up(nic), is_link_up(down), nic_limits_of(down)) == (True, False, LIMITS)
    assert is_link_up(ET.fromstring(with_link(down, up=True)))


def test_a_conventional_device_gets_the_first_free_root_port_of_a_running_guest():
    devices = "".join(
        f"<controller type='pci' index='{index}' model='pcie-root-port'><address type='pci' bus='0x00'/></controller>"
        for index in (1, 2, 3, 10)
    )
    taken = "".join(f"<disk><address type='pci' bus='{bus}'/></disk>" for bus in ("0x01", "0x02"))
    xml = f"<domain><devices>{devices}{taken}</devices></domain>"
    assert free_root_port(xml) == 3
    assert free_root_port(xml.replace("</devices>", "<rng><address type='pci' bus='0x03'/></rng></devices>")) == 10
    assert placed(nic_element(model="rtl8139"), xml).find("address").get("bus") == "0x3"
    assert placed(nic_element(model="e1000e"), xml).find("address") is None
    assert placed(nic_element(model="e1000"), "<domain><devices/></domain>").find("address") is None


def test_what_nics_a_domain_has_is_read_by_alias_or_address():
    overlaid = "<interface type='user'><mac address='52:54:00:00:00:0A'/><alias name='net1'/></interface>"
    ours = ET.tostring(nic_element(), encoding="unicode")
    found = read_domain(f"<domain><devices>{ours}{overlaid}<interface/></devices></domain>", 1)
    assert found.nics == ("52:54:00:00:00:01", "52:54:00:00:00:0a")
