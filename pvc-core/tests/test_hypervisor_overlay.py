"""Laying raw XML over a rendered domain."""

from xml.etree import ElementTree as ET

import pytest

from pvc_core.hypervisor.overlay import NAMESPACE, check_overlay, lay_over
from pvc_core.model.errors import InvalidRequest

BASE = """<domain type='kvm'><name>a</name><memory unit='MiB'>1</memory><vcpu>1</vcpu>
<cpu mode='custom'><model>X</model><feature name='svm' policy='disable'/></cpu>
<devices>
<disk type='file'><source file='/a'/><target dev='vda'/></disk><disk type='file'><target dev='vdb'/></disk>
<interface type='bridge'><mac address='52:54:00:AA:00:01'/></interface>
<controller type='usb' model='none'/><controller type='pci' index='0'/>
<serial type='pty'/><memballoon model='virtio'/>
</devices></domain>"""


def laid(overlay):
    domain = ET.fromstring(BASE)
    lay_over(domain, overlay.replace("<domain", f"<domain xmlns:pvc='{NAMESPACE}'", 1))
    return domain


def devices(xml):
    return laid(f"<domain><devices>{xml}</devices></domain>").find("devices")


def test_new_element_is_added():
    assert laid("<domain><cputune><shares>9</shares></cputune></domain>").findtext("cputune/shares") == "9"


def test_partner_gets_attributes_text_and_children():
    cpu = laid("<domain><cpu check='none'><model fallback='allow'>Y</model></cpu></domain>").find("cpu")
    assert cpu.attrib == {"mode": "custom", "check": "none"}
    assert (cpu.findtext("model"), cpu.find("model").get("fallback")) == ("Y", "allow")
    assert len(cpu) == 2


def test_disks_are_found_by_target():
    found = devices("<disk><target dev='vdb'/><iotune/></disk>")
    first, second = found.findall("disk")
    assert first.find("iotune") is None
    assert second.find("iotune") is not None


def test_nics_are_found_by_mac_in_any_case():
    nic = devices("<interface><mac address='52:54:00:aa:00:01'/><bandwidth/></interface>").findall("interface")
    assert len(nic) == 1
    assert nic[0].find("bandwidth") is not None


@pytest.mark.parametrize(
    ("xml", "count"),
    [
        ("<disk type='file'><target dev='vdc'/></disk>", 3),
        ("<disk type='file'/>", 3),
        ("<controller type='usb' model='qemu-xhci'/>", 2),
        ("<controller type='pci' index='1'/>", 3),
        ("<serial type='unix'/>", 2),
        ("<hostdev/>", 1),
    ],
)
def test_element_without_partner_is_added_beside_others(xml, count):
    tag = ET.fromstring(xml).tag
    assert len(devices(xml).findall(tag)) == count


def test_two_added_devices_of_one_kind_stay_two():
    assert len(devices("<hostdev mode='a'/><hostdev mode='b'/>").findall("hostdev")) == 2


def test_replace_puts_an_element_in_place_of_its_partner():
    cpu = laid("<domain><cpu pvc:lay='replace' mode='host-passthrough'/></domain>").find("cpu")
    assert cpu.attrib == {"mode": "host-passthrough"}
    assert len(cpu) == 0
    serial = devices("<serial type='unix' pvc:lay='replace'/>").findall("serial")
    assert [s.attrib for s in serial] == [{"type": "unix"}]


def test_remove_takes_the_partner_away_and_needs_none():
    found = devices("<memballoon pvc:lay='remove'/><tpm pvc:lay='remove'/>")
    assert found.find("memballoon") is None
    assert found.find("tpm") is None


def test_add_adds_whatever_is_there():
    assert len(devices("<memballoon pvc:lay='add'/>").findall("memballoon")) == 2


def test_qemu_commandline_keeps_its_namespace():
    uri = "http://libvirt.org/schemas/domain/qemu/1.0"
    domain = laid(f"<domain xmlns:qemu='{uri}'><qemu:commandline><qemu:arg value='-s'/></qemu:commandline></domain>")
    assert "<qemu:arg" in ET.tostring(domain, encoding="unicode")


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_empty_overlay_changes_nothing(empty):
    domain = ET.fromstring(BASE)
    lay_over(domain, empty)
    check_overlay(empty)
    assert ET.tostring(domain) == ET.tostring(ET.fromstring(BASE))


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ("<domain>\n  <a></b>\n</domain>", "not valid XML: line 2, column 8: mismatched tag"),
        ("", None),
        ("<network/>", "begins with <network>"),
        ("<domain type='qemu'/>", "use the field `accelerator`"),
        ("<domain><name>x</name></domain>", "has <name>; set it by the VM's own field"),
        ("<domain><memory>1</memory></domain>", "has <memory>"),
        (f"<domain xmlns:p='{NAMESPACE}'><a p:lay='swap'/></domain>", 'pvc:lay="swap" at <a>'),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain/>", "document type declaration"),
    ],
)
def test_bad_overlay_is_refused(overlay, said):
    if said is None:
        check_overlay(overlay)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_overlay(overlay)
    assert said in str(caught.value)
