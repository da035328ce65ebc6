"""Domain XML from elsewhere as a VM's definition."""

from xml.etree import ElementTree as ET

import pytest

from pvc_core.hypervisor.api import DomainPlan
from pvc_core.hypervisor.domainxml import render
from pvc_core.hypervisor.xmlimport import vm_from_xml
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.vm import Disk, Nic, VmSpec
from pvc_core.plugin.specs.network import NicSource
from pvc_core.plugin.specs.storage import DiskSource

UUID = "7b0e3a44-2f6c-4a2e-9d53-0c1f6d0a9b11"


def imported(inner="", *, attributes="type='kvm'", memory="<memory unit='MiB'>512</memory>", **names):
    return vm_from_xml(f"<domain {attributes}><name>web</name>{memory}{inner}</domain>", "web.xml", **names)


def fields(inner="", **options):
    return imported(inner, **options).definition


def overlay(inner):
    return imported(inner).definition["overlay_xml"]


def disk(source, more="", *, kind="file", bus="virtio"):
    return f"<devices><disk type='{kind}' device='disk'>{source}<target dev='sdq' bus='{bus}'/>{more}</disk></devices>"


def refused(inner="", **options):
    with pytest.raises(InvalidRequest) as caught:
        imported(inner, **options)
    return str(caught.value)


def test_least_definition():
    assert fields() == {
        "name": "web",
        "memory": 512,
        "vcpus": 1,
        "cpu_model": "",
        "vnc": False,
        "guest_agent": False,
        "disks": [],
        "nics": [],
        "overlay_xml": "",
    }


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory>1048577</memory>", 1025),
        ("<memory unit='b'>1048576</memory>", 1),
        ("<memory unit='bytes'>1048577</memory>", 2),
        ("<memory unit='KB'>1000000</memory>", 954),
        ("<memory unit='k'>2048</memory>", 2),
        ("<memory unit='M'>512</memory>", 512),
        ("<memory unit='MB'>1024</memory>", 977),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='g'>2</memory>", 2048),
        ("<memory unit='TiB'>1</memory>", 1 << 20),
    ],
)
def test_memory_is_converted_and_never_less(memory, mib):
    assert fields(memory=memory)["memory"] == mib


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory": ""}, "the domain has no <memory>"),
        ({"memory": "<memory>lots</memory>"}, "<memory> is 'lots': expected a whole number"),
        ({"memory": "<memory unit='stone'>1</memory>"}, "the unit 'stone', which libvirt does not know"),
        ({"inner": "<vcpu>two</vcpu>"}, "<vcpu> is 'two'"),
        ({"inner": "<uuid>123</uuid>"}, "'123', which is no UUID"),
        ({"inner": "<os><type>linux</type></os>"}, "only hvm"),
        ({"inner": disk("<source dev='/dev/sdb'/>", kind="block")}, "/dev/sdb, which is no volume of this cluster"),
        ({"inner": disk("<source file='/web.raw'/>")}, "/web.raw, which is no volume"),
        ({"inner": disk("<source protocol='rbd' name='a/b/c'/>", kind="network")}, "a/b/c, which is no volume"),
        ({"inner": disk("<source file='/p/v'/>", bus="xen")}, "the bus 'xen': expected one of virtio"),
        ({"inner": "<devices><interface type='user'/></devices>"}, "type 'user' names no network"),
        (
            {"inner": "<devices><interface><source network='n'/><model type='ne2k'/></interface></devices>"},
            "a NIC is a 'ne2k'",
        ),
    ],
)
def test_what_cannot_be_a_vm_is_refused_with_the_name_of_the_text(options, said):
    message = refused(**options)
    assert message.startswith("web.xml: ")
    assert said in message


def test_text_that_is_no_domain_is_refused():
    with pytest.raises(InvalidRequest, match=r"x.xml is not valid XML: line 1, column \d+"):
        vm_from_xml("<domain>", "x.xml")
    with pytest.raises(InvalidRequest, match="begins with <pool>"):
        vm_from_xml("<pool/>", "x.xml")


def test_identity_is_kept():
    found = fields(f"<uuid>{UUID.upper()}</uuid><description> the web server </description><title>Web</title>")
    assert (found["id"], found["description"]) == (UUID, "the web server")
    assert "<title>Web</title>" in found["overlay_xml"]


@pytest.mark.parametrize(
    ("source", "kind", "names", "expected"),
    [
        ("<source pool='ssd' volume='root'/>", "volume", {}, ("ssd", "root")),
        ("<source protocol='rbd' name='vms/web_root'><host name='m'/></source>", "network", {}, ("vms", "web_root")),
        ("<source file='/srv/images/web.qcow2'/>", "file", {}, ("images", "web")),
        ("<source file='/srv/images/web.v2'/>", "file", {}, ("images", "web.v2")),
        ("<source file='/srv/images/web.raw'/>", "file", {"pools": {"/srv/images": "nfs"}}, ("nfs", "web")),
        ("<source protocol='rbd' name='vms/a'/>", "network", {"pools": {"vms": "ssd"}}, ("ssd", "a")),
    ],
)
def test_source_of_a_disk_names_its_volume(source, kind, names, expected):
    found = fields(disk(source, kind=kind), **names)["disks"]
    assert [(d["pool"], d["volume"]) for d in found] == [expected]


def test_disk_options_are_kept():
    options = "<driver name='qemu' type='raw' cache='writeback' discard='ignore'/><readonly/>"
    found = fields(disk("<source file='/p/v'/>", options, bus="scsi"))["disks"][0]
    assert (found["bus"], found["cache"], found["discard"], found["read_only"]) == ("scsi", "writeback", False, True)


def test_unknown_cache_mode_becomes_none():
    assert fields(disk("<source file='/p/v'/>", "<driver cache='default'/>"))["disks"][0]["cache"] == "none"


def test_empty_drive_is_no_disk():
    assert fields("<devices><disk type='file' device='cdrom'><target dev='hda'/></disk></devices>")["disks"] == []


def test_rest_of_a_disk_is_laid_over_the_disk_as_it_will_be_called():
    tuned = "<driver name='qemu' io='native'/><iotune><read_iops_sec>9</read_iops_sec><size_iops_sec>4096</size_iops_sec></iotune>"
    definition = fields(disk("<source file='/p/v'/>", tuned))
    vm = VmSpec(id=UUID, name="web", memory_mib=512, vcpus=1, overlay_xml=definition["overlay_xml"])
    vm = VmSpec(**{f: getattr(vm, f) for f in vm.__struct_fields__} | {"disks": (Disk(pool="p", volume="v"),)})
    source = DiskSource(type="file", source_xml="<source file='/p/v'/>")
    domain = ET.fromstring(render(DomainPlan(vm=vm, disks=(source,), nics=()), "kvm"))
    (rendered,) = domain.findall("devices/disk")
    assert rendered.find("target").get("dev") == "vda"
    assert definition["disks"][0]["limits"] == {"read_iops": 9}
    assert [(limit.tag, limit.text) for limit in rendered.find("iotune")] == [("size_iops_sec", "4096")]
    assert rendered.find("driver").get("io") == "native"
    assert rendered.find("address") is None


@pytest.mark.parametrize(
    ("source", "names", "network"),
    [
        ("<source network='lan'/>", {}, "lan"),
        ("<source bridge='br0'/>", {}, "br0"),
        ("<source bridge='br0'/>", {"networks": {"br0": "lan"}}, "lan"),
    ],
)
def test_source_of_a_nic_names_its_network(source, names, network):
    found = fields(f"<devices><interface type='x'>{source}</interface></devices>", **names)["nics"]
    assert found == [{"network": network, "mac": "", "model": "virtio", "link_up": True}]


def test_queues_and_limits_of_a_nic_are_the_definitions():
    settings = (
        "<driver name='vhost' queues='4'/><bandwidth><inbound average='9' burst='2'/><outbound peak='7'/></bandwidth>"
    )
    nic = f"<interface><source network='lan'/><mac address='52:54:00:00:00:01'/>{settings}</interface>"
    (found,) = fields(f"<devices>{nic}</devices>")["nics"]
    assert (found["queues"], found["limits"]) == (4, {"in_average": 9, "in_burst": 2, "out_peak": 7})
    text = overlay(f"<devices>{nic}</devices>")
    assert "vhost" in text
    assert "bandwidth" not in text
    assert "queues" not in text
    assert "whole number" in refused(f"<devices>{nic.replace('average=', 'peak=')}</devices>".replace("'9'", "'x'"))


def test_rest_of_a_nic_is_laid_over_it_by_its_mac():
    mac = "<mac address='52:54:00:00:00:01'/>"
    nic = f"<interface><source network='lan'/>{mac}<bandwidth><inbound average='9' floor='5'/></bandwidth></interface>"
    text = overlay(f"<devices>{nic}</devices>")
    vm = VmSpec(
        id=UUID,
        name="web",
        memory_mib=512,
        vcpus=1,
        nics=(Nic(network="lan", mac="52:54:00:00:00:01"),),
        overlay_xml=text,
    )
    source = NicSource(type="bridge", inner_xml="<source bridge='b'/>")
    domain = ET.fromstring(render(DomainPlan(vm=vm, disks=(), nics=(source,)), "kvm"))
    (rendered,) = domain.findall("devices/interface")
    assert rendered.find("bandwidth/inbound").attrib == {"floor": "5"}


def test_rest_of_a_nic_without_mac_is_left_out_and_told():
    found = imported(
        "<devices><interface><source network='lan'/><filterref filter='clean-traffic'/></interface></devices>"
    )
    assert found.definition["overlay_xml"] == ""
    assert found.notes == ("<filterref> of an interface without a MAC address is left out: give it a <mac>",)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("pc-q35-7.2", "q35"), ("pc-i440fx-6.2", "pc"), ("pc-1.0", "pc"), ("microvm", "microvm")],
)
def test_versioned_machine_type_becomes_the_alias(machine, expected):
    assert fields(f"<os><type machine='{machine}'>hvm</type></os>")["machine"] == expected


@pytest.mark.parametrize(
    "os_", ["<os firmware='efi'><type>hvm</type></os>", "<os><loader type='pflash'>/OVMF.fd</loader></os>"]
)
def test_uefi_is_recognised(os_):
    assert fields(os_)["firmware"] == "uefi"
    assert overlay(os_) == ""


def test_direct_kernel_is_recognised():
    found = fields("<os><kernel>/k</kernel><cmdline>quiet</cmdline><bootmenu enable='yes'/></os>")
    assert found["direct_kernel"] == {"kernel": "/k", "initrd": "", "cmdline": "quiet"}
    assert "<bootmenu" in found["overlay_xml"]


@pytest.mark.parametrize(
    ("cpu", "model"),
    [
        ("<cpu mode='custom' match='exact' check='partial'><model>EPYC</model></cpu>", "EPYC"),
        ("<cpu><model>EPYC</model></cpu>", "EPYC"),
        ("<cpu mode='host-passthrough' check='none' migratable='on'/>", "host-passthrough"),
        ("<cpu mode='host-model'/>", "host-model"),
    ],
)
def test_plain_cpu_is_a_model(cpu, model):
    assert fields(cpu)["cpu_model"] == model
    assert overlay(cpu) == ""


@pytest.mark.parametrize(
    "cpu",
    [
        "<cpu><model>EPYC</model><feature name='svm' policy='require'/></cpu>",
        "<cpu match='minimum'><model>EPYC</model></cpu>",
        "<cpu mode='host-model'><topology sockets='1' cores='2' threads='1'/></cpu>",
    ],
)
def test_any_other_cpu_replaces_the_rendered_one(cpu):
    text = overlay(cpu)
    vm = VmSpec(id=UUID, name="web", memory_mib=512, vcpus=2, overlay_xml=text)
    rendered = ET.fromstring(render(DomainPlan(vm=vm, disks=(), nics=()), "kvm")).find("cpu")
    wanted = ET.fromstring(cpu)
    assert rendered.attrib == wanted.attrib
    assert [c.tag for c in rendered] == [c.tag for c in wanted]


def test_emulated_domain_stays_emulated():
    assert fields(attributes="type='qemu'")["accelerator"] == "tcg"
    assert "accelerator" not in fields()


@pytest.mark.parametrize(
    "inner",
    [
        "<on_crash>restart</on_crash><seclabel type='dynamic'/><resource><partition>/machine</partition></resource>",
        "<clock offset='utc'><timer name='rtc' tickpolicy='catchup'/><timer name='hpet' present='no'/></clock>",
        "<features><acpi/><apic/></features><os><boot dev='hd'/><nvram>/x</nvram></os><metadata><x/></metadata>",
        (
            "<devices><emulator>/q</emulator><controller type='pci' model='pcie-root-port' index='3'><target port='0x8'/>"
            "<address type='pci'/></controller><controller type='scsi' model='virtio-scsi'/><input type='mouse' bus='ps2'/>"
            "<serial type='pty'/><console type='pty'/><audio id='1' type='none'/><memballoon model='virtio'/>"
            "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices>"
        ),
        (
            "<devices><graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0'><listen type='address'/></graphics>"
            "<video><model type='vga'/></video></devices>"
        ),
    ],
)
def test_what_pvc_or_libvirt_makes_up_anew_is_dropped(inner):
    assert overlay(inner) == ""


@pytest.mark.parametrize(
    ("inner", "kept"),
    [
        ("<cputune><shares>2048</shares></cputune>", "<shares>2048</shares>"),
        ("<features><acpi/><hyperv><relaxed state='on'/></hyperv></features>", "<relaxed"),
        ("<clock offset='localtime'/>", 'offset="localtime"'),
        ("<metadata><l:os xmlns:l='urn:l'/></metadata>", "urn:l"),
        ("<devices><watchdog model='itco'><alias name='w'/></watchdog></devices>", '<watchdog model="itco" />'),
        ("<devices><controller type='scsi' model='lsilogic'/></devices>", "lsilogic"),
        ("<devices><memballoon model='none'/></devices>", '<memballoon model="none" />'),
        ("<devices><serial type='tcp'/></devices>", "<serial"),
        ("<devices><video><model type='virtio'/></video></devices>", "<video>"),
        ("<devices><graphics type='vnc' keymap='de'/></devices>", 'keymap="de"'),
        ("<devices><channel type='spicevmc'/></devices>", "spicevmc"),
        ("<devices><input type='tablet' bus='virtio'/></devices>", "<input"),
    ],
)
def test_what_the_definition_does_not_model_is_kept(inner, kept):
    assert kept in overlay(inner)


def test_display_of_another_kind_replaces_the_rendered_one():
    text = overlay("<devices><graphics type='vnc'/><video><model type='virtio'/></video></devices>")
    vm = VmSpec(id=UUID, name="web", memory_mib=512, vcpus=1, vnc=True, overlay_xml=text)
    domain = ET.fromstring(render(DomainPlan(vm=vm, disks=(), nics=()), "kvm"))
    assert [m.get("type") for m in domain.iterfind("devices/video/model")] == ["virtio"]


def test_secrets_and_ties_to_a_host_are_told():
    found = imported(
        "<vcpu current='1' cpuset='0-3'>2</vcpu><currentMemory>1</currentMemory><devices>"
        "<graphics type='vnc' passwd='hunter2'/><hostdev mode='subsystem'/></devices>"
    )
    assert "hunter2" not in found.definition["overlay_xml"]
    assert [note.split()[0:3] for note in found.notes] == [
        ["<currentMemory>", "is", "left"],
        ["<vcpu", "current=...>", "is"],
        ["<vcpu", "cpuset=...>", "is"],
        ["the", "VNC", "passwd"],
        ["a", "passed-through", "device"],
    ]
