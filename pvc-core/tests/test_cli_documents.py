"""Definitions of VMs from YAML and from libvirt XML."""

from pathlib import Path

import pytest

from pvc_core.cli.documents import Text, definition, definitions, read_text
from pvc_core.cli.patch import Edits, patch_of
from pvc_core.model.errors import InvalidRequest, PvcError
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine
from pvc_core.plugin.errors import ConfigError


def yaml_error(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        definitions(Text("vm.yml", text))
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()


def test_several_documents_are_several_vms() -> None:
    found = definitions(Text("vm.yml", "name: a\nmemory: 2G\n---\nname: b\nmemory: 512\nvcpus: 2\n---\n"))
    assert [(vm.name, vm.memory, vm.vcpus) for vm in found] == [("a", "2G", 1), ("b", 512, 2)]


def test_an_unknown_key_is_told_with_line_and_the_nearest_key() -> None:
    (line,) = yaml_error("name: a\nmemry: 2G\nmemory: 1G\n")
    assert line == "vm.yml:2: memry: unknown key; did you mean 'memory'?"


def test_an_unknown_key_within_a_list_is_told_with_its_place() -> None:
    (line,) = yaml_error(
        "name: a\nmemory: 1G\ndisks:\n  - pool: p\n    volume: v\n  - pool: p\n    volum: w\n    volume: w\n"
    )
    assert line == "vm.yml:7: disks[1].volum: unknown key; did you mean 'volume'?"


def test_everything_that_is_wrong_is_told_at_once_in_all_documents() -> None:
    lines = yaml_error("name: a\nmemory: 1G\nvcpus: many\n---\nname: b\nautostart: yes\n")
    assert [line.split(": ")[0] for line in lines] == ["vm.yml:3", "vm.yml:5", "vm.yml:6"]
    assert "'memory' is missing" in lines[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [a\n", "vm.yml:2: this is not valid YAML"),
        ("name: a\nname: b\nmemory: 1\n", "vm.yml:2: found the key 'name' a second time"),
        ("", "vm.yml defines no VM: it is empty"),
        ("---\n---\n", "vm.yml defines no VM: it is empty"),
        ("- a\n- b\n", "expected a mapping"),
        ("just words\n", "expected a mapping"),
        ("name: a\nmemory: !!python/object:os.system x\n", "plain values only"),
    ],
)
def test_what_is_no_definition_is_refused(text: str, said: str) -> None:
    (line,) = yaml_error(text)
    assert said in line


def test_one_definition_is_wanted_where_one_vm_is_changed() -> None:
    with pytest.raises(ConfigError, match="defines 2 VMs: expected one"):
        definition(Text("x", "name: a\nmemory: 1\n---\nname: b\nmemory: 1\n"))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot read .*: No such file"), (b"\xff\xfe\x00", "is not UTF-8 text")]
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "vm.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said):
        read_text(str(path))


XML = """<?xml version='1.0'?>
<domain type='kvm' id='4' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name>
  <uuid>11111111-2222-4333-8444-555555555555</uuid>
  <description>the web server</description>
  <metadata><x/></metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static'>4</vcpu>
  <cputune><shares>2048</shares></cputune>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/><hyperv><relaxed state='on'/></hyperv></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>Skylake-Server</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='writeback' discard='unmap'/>
      <source protocol='rbd' name='vms/web1_root'><host name='mon1' port='6789'/></source>
      <target dev='sda' bus='scsi'/>
      <address type='drive' controller='0'/>
    </disk>
    <disk type='volume' device='cdrom'>
      <source pool='images' volume='debian'/>
      <target dev='sdb' bus='sata'/><readonly/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sdc' bus='sata'/></disk>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <interface type='bridge'>
      <mac address='52:54:00:12:34:56'/><source bridge='lan'/><model type='virtio'/><alias name='net0'/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:12:34:57'/><source network='dmz'/><model type='e1000'/><link state='down'/>
    </interface>
    <serial type='pty'/>
    <console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='vnc' port='5900'/>
    <video><model type='vga'/></video>
    <watchdog model='itco' action='reset'><alias name='watchdog0'/><address type='pci' bus='0x01'/></watchdog>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""


def test_libvirt_xml_becomes_a_definition() -> None:
    vm = definition(Text("web1.xml", XML))
    assert (vm.name, vm.id, vm.description) == ("web1", "11111111-2222-4333-8444-555555555555", "the web server")
    assert (vm.memory, vm.vcpus, vm.machine, vm.firmware) == (2048, 4, "q35", "uefi")
    assert (vm.cpu_model, vm.accelerator, vm.vnc, vm.guest_agent) == ("Skylake-Server", "auto", True, True)
    assert vm.disks == (
        DiskDefinition(pool="vms", volume="web1_root", bus="scsi", cache="writeback"),
        DiskDefinition(pool="images", volume="debian", bus="sata", read_only=True),
    )
    assert vm.nics == (
        NicDefinition(network="lan", mac="52:54:00:12:34:56"),
        NicDefinition(network="dmz", mac="52:54:00:12:34:57", model="e1000", link_up=False),
    )


def test_what_the_definition_does_not_model_becomes_the_overlay() -> None:
    overlay = definition(Text("web1.xml", XML)).overlay_xml
    for kept in ("<shares>2048</shares>", "<relaxed", '<watchdog model="itco"'):
        assert kept in overlay
    for dropped in (
        "<acpi",
        "<emulator",
        "<disk",
        "<interface",
        "<controller",
        "<address",
        "<alias",
        "<uuid",
        "<video",
    ):
        assert dropped not in overlay


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='GiB'>2</memory>", 2048),
        ("<memory unit='M'>512</memory>", 512),
        ("<memory unit='KiB'>1048577</memory>", 1025),
        ("<memory unit='GB'>1</memory>", 954),
    ],
)
def test_memory_in_xml_has_its_unit(memory: str, mib: int) -> None:
    assert definition(Text("x", f"<domain><name>a</name>{memory}</domain>")).memory == mib


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<domain>", "web.xml is not valid XML: line 1"),
        ("<network/>", "begins with <network>"),
        ("<domain><memory>1</memory></domain>", "the domain has no <name>"),
        ("<domain><name>a</name></domain>", "the domain has no <memory>"),
        ("<domain><name>a</name><memory>lots</memory></domain>", "expected a whole number"),
        ("<domain><name>a</name><memory unit='stone'>1</memory></domain>", "the unit 'stone'"),
        (
            "<domain><name>a</name><memory>1</memory><devices><disk type='file'><source file='/x.img'/></disk></devices></domain>",
            "a disk is at /x.img, which is no volume of this cluster",
        ),
        (
            "<domain><name>a</name><memory>1</memory><devices><interface type='user'/></devices></domain>",
            "names no network",
        ),
        ("<!DOCTYPE x [<!ENTITY y 'z'>]><domain/>", "document type declaration"),
    ],
)
def test_xml_that_cannot_become_a_vm_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        definitions(Text("web.xml", text))
    assert said in str(caught.value)


CURRENT = VmDefine(
    name="web1",
    memory=1024,
    disks=(DiskDefinition(pool="ssd", volume="web1"),),
    nics=(NicDefinition(network="lan", mac="52:54:00:00:00:01"), NicDefinition(network="lan", mac="52:54:00:00:00:02")),
)


def test_settings_become_a_patch_with_the_fields_types() -> None:
    settings = (
        "memory=4G",
        "vcpus=4",
        "autostart=true",
        "description=2024",
        "node_limit=[n1, n2]",
        "max-downtime-ms=500",
    )
    patch = patch_of(CURRENT, Edits(settings=settings))
    assert (patch.memory, patch.vcpus, patch.autostart, patch.description) == ("4G", 4, True, "2024")
    assert (patch.node_limit, patch.max_downtime_ms) == (("n1", "n2"), 500)


def test_disks_and_nics_are_added_and_removed() -> None:
    edits = Edits(
        add_disks=("ssd/data,bus=scsi,read_only=true",),
        remove_disks=("ssd/web1",),
        add_nics=("dmz,model=e1000",),
        remove_nics=("52-54-00-00-00-01".replace("-", ":"),),
    )
    patch = patch_of(CURRENT, edits)
    assert patch.disks == (DiskDefinition(pool="ssd", volume="data", bus="scsi", read_only=True),)
    assert patch.nics == (
        NicDefinition(network="lan", mac="52:54:00:00:00:02"),
        NicDefinition(network="dmz", model="e1000"),
    )


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (Edits(settings=("memry=1G",)), "no field 'memry'; did you mean 'memory'?"),
        (Edits(settings=("memory",)), "not of the form KEY=VALUE"),
        (Edits(settings=("vcpus=lots",)), "vcpus: expected a whole number"),
        (Edits(settings=("firmware=ufi",)), "did you mean 'uefi'"),
        (Edits(remove_disks=("ssd/web2",)), "has no disk 'ssd/web2'; did you mean 'ssd/web1'?"),
        (Edits(add_disks=("web2",)), "write pool/volume"),
        (Edits(add_disks=("ssd/x,bus=scisi",)), "did you mean 'scsi'"),
        (Edits(add_disks=("ssd/x,fast",)), "not of the form key=value"),
        (Edits(remove_nics=("lan",)), "has 2 NICs in network 'lan': name one by its MAC"),
        (Edits(remove_nics=("dmz",)), "has no NIC 'dmz'"),
        (Edits(add_nics=("lan,mdoel=virtio",)), "did you mean 'model'"),
    ],
)
def test_edits_that_make_no_sense_are_refused(edits: Edits, said: str) -> None:
    with pytest.raises(PvcError) as caught:
        patch_of(CURRENT, edits)
    assert said in str(caught.value)
    assert caught.value.exit_status == 2
