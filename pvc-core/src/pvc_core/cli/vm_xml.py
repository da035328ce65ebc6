"""libvirt domain XML as the definition of a VM.

What the definition models is taken out of the XML; what it does not model becomes its XML overlay; what
libvirt made up by itself (addresses, aliases, controllers) is dropped, because it is made up anew.
"""

import copy
from collections.abc import Callable
from typing import Any, Final, get_args
from xml.etree import ElementTree as ET

from pvc_core.hypervisor.overlay import check_overlay, parse_xml
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.vm import DirectKernel, DiskBus, NicModel
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine

_MIB: Final = 1024 * 1024
_UNITS: Final = {
    "b": 1,
    "bytes": 1,
    "kb": 1000,
    "k": 1024,
    "kib": 1024,
    "mb": 1000**2,
    "m": _MIB,
    "mib": _MIB,
    "gb": 1000**3,
    "g": 1024**3,
    "gib": 1024**3,
    "tb": 1000**4,
    "t": 1024**4,
    "tib": 1024**4,
}
"""Units of libvirt's <memory>; without one it is KiB."""

_CACHES: Final = ("none", "writeback", "writethrough", "directsync", "unsafe")
_MODELLED: Final = frozenset(
    [
        "name",
        "uuid",
        "title",
        "description",
        "memory",
        "currentMemory",
        "vcpu",
        "os",
        "cpu",
        "metadata",
        "resource",
        "seclabel",
        "on_poweroff",
        "on_reboot",
        "on_crash",
        "devices",
    ]
)
_MODELLED_FEATURES: Final = frozenset({"acpi", "apic"})
_OWN_DEVICES: Final = frozenset(
    ["emulator", "disk", "interface", "controller", "console", "serial", "memballoon", "rng", "panic", "input", "audio"]
)
"""Devices that PVC renders itself, or that libvirt adds by itself."""
_AGENT: Final = "org.qemu.guest_agent.0"


def definition_from_xml(text: str, name: str) -> VmDefine:
    """Return the VM that domain XML describes; ``name`` is what messages call the text.

    Disks must name a volume of PVC: ``<disk type='volume'>`` with ``<source pool='P' volume='V'/>``, or an RBD
    source named ``P/V``.  NICs name their network: ``<source network='N'/>`` or ``<source bridge='N'/>``.
    Raises InvalidRequest.
    """
    domain = parse_xml(text, name)
    if domain.tag != "domain":
        raise InvalidRequest(
            f"{name} begins with <{domain.tag}>: expected libvirt domain XML, which begins with <domain>"
        )
    fields: dict[str, Any] = {
        "name": _required(domain, "name", name),
        "memory": _memory(domain, name),
        "vcpus": _whole(domain.findtext("vcpu", "1"), "vcpu", name),
        "description": (domain.findtext("description") or "").strip(),
        "disks": tuple(_disks(domain, name)),
        "nics": tuple(_nics(domain, name)),
        "vnc": domain.find("devices/graphics[@type='vnc']") is not None,
        "guest_agent": any(target.get("name") == _AGENT for target in domain.iterfind("devices/channel/target")),
        **_operating_system(domain),
    }
    if domain.findtext("uuid"):
        fields["id"] = _required(domain, "uuid", name)
    if domain.get("type") == "qemu":
        fields["accelerator"] = "tcg"
    cpu = domain.find("cpu")
    if cpu is not None and _simple_cpu(cpu):
        fields["cpu_model"] = _simple_cpu(cpu)
        cpu = None
    fields["overlay_xml"] = _overlay(domain, cpu, vnc=fields["vnc"])
    return VmDefine(**fields)


def _required(domain: ET.Element, tag: str, name: str) -> str:
    text = (domain.findtext(tag) or "").strip()
    if not text:
        raise InvalidRequest(f"{name}: the domain has no <{tag}>")
    return text


def _whole(text: str, tag: str, name: str) -> int:
    if not text.strip().isdecimal():
        raise InvalidRequest(f"{name}: <{tag}> is {text.strip()!r}: expected a whole number")
    return int(text)


def _memory(domain: ET.Element, name: str) -> int:
    """Return the memory in MiB, rounded up: guests written in odd numbers of KiB must not lose a part."""
    amount = _whole(_required(domain, "memory", name), "memory", name)
    element = domain.find("memory")
    unit = (element.get("unit", "KiB") if element is not None else "KiB").lower()
    if unit not in _UNITS:
        raise InvalidRequest(f"{name}: <memory> has the unit {unit!r}, which libvirt does not know")
    return -(-amount * _UNITS[unit] // _MIB)


def _operating_system(domain: ET.Element) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    os_ = domain.find("os")
    if os_ is None:
        return fields
    machine = os_.find("type").get("machine", "") if os_.find("type") is not None else ""  # type: ignore[union-attr]
    if machine:
        # A dump has the versioned machine type of its host; the plain one is the newest that all nodes have.
        fields["machine"] = "q35" if "q35" in machine else "pc" if machine.startswith(("pc-", "i440fx")) else machine
    loader = os_.find("loader")
    if os_.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash"):
        fields["firmware"] = "uefi"
    kernel = (os_.findtext("kernel") or "").strip()
    if kernel:
        fields["direct_kernel"] = DirectKernel(
            kernel=kernel,
            initrd=(os_.findtext("initrd") or "").strip(),
            cmdline=(os_.findtext("cmdline") or "").strip(),
        )
    return fields


def _disks(domain: ET.Element, name: str) -> list[DiskDefinition]:
    disks = []
    for disk in domain.iterfind("devices/disk"):
        source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
        if source is None:
            continue  # an empty CD or floppy drive
        bus = target.get("bus", "virtio") if target is not None else "virtio"
        if bus not in get_args(DiskBus):
            raise InvalidRequest(f"{name}: a disk has the bus {bus!r}: expected one of {', '.join(get_args(DiskBus))}")
        cache = driver.get("cache", "none") if driver is not None else "none"
        pool, volume = _volume(disk, source, name)
        disks.append(
            DiskDefinition(
                pool=pool,
                volume=volume,
                bus=bus,  # type: ignore[arg-type]  # checked above
                read_only=disk.find("readonly") is not None or disk.get("device") == "cdrom",
                cache=cache if cache in _CACHES else "none",  # type: ignore[arg-type]
                discard=driver is None or driver.get("discard", "unmap") == "unmap",
            )
        )
    return disks


def _volume(disk: ET.Element, source: ET.Element, name: str) -> tuple[str, str]:
    if disk.get("type") == "volume" and source.get("pool") and source.get("volume"):
        return source.get("pool", ""), source.get("volume", "")
    if source.get("protocol") == "rbd":
        pool, slash, volume = source.get("name", "").partition("/")
        if slash and "/" not in volume:
            return pool, volume
    where = source.get("file") or source.get("dev") or source.get("name") or "its source"
    raise InvalidRequest(
        f"{name}: a disk is at {where}, which is no volume of this cluster: import it with `pvc storage volume import`, "
        "and write <disk type='volume'> with <source pool='POOL' volume='VOLUME'/>"
    )


def _nics(domain: ET.Element, name: str) -> list[NicDefinition]:
    nics = []
    for nic in domain.iterfind("devices/interface"):
        source, model, mac, link = (nic.find(tag) for tag in ("source", "model", "mac", "link"))
        network = (source.get("network") or source.get("bridge") or "") if source is not None else ""
        if not network:
            raise InvalidRequest(
                f"{name}: an interface of type {nic.get('type', '')!r} names no network: write <source network='NETWORK'/>"
            )
        kind = model.get("type", "virtio") if model is not None else "virtio"
        if kind not in get_args(NicModel):
            raise InvalidRequest(f"{name}: a NIC is a {kind!r}: expected one of {', '.join(get_args(NicModel))}")
        nics.append(
            NicDefinition(
                network=network,
                mac=mac.get("address", "") if mac is not None else "",
                model=kind,  # type: ignore[arg-type]  # checked above
                link_up=link is None or link.get("state") != "down",
            )
        )
    return nics


def _simple_cpu(cpu: ET.Element) -> str:
    """Return the model or mode of a <cpu> that says no more than that, else an empty string."""
    if any(child.tag != "model" for child in cpu):
        return ""
    return (cpu.findtext("model") or "").strip() or cpu.get("mode", "")


def _overlay(domain: ET.Element, cpu: ET.Element | None, *, vnc: bool) -> str:
    kept = ET.Element("domain")
    if cpu is not None:
        kept.append(copy.deepcopy(cpu))
    for child in domain:
        if child.tag == "features":
            _keep(kept, child, lambda feature: feature.tag not in _MODELLED_FEATURES)
        elif child.tag == "devices":
            _keep(kept, child, lambda device: _is_foreign(device, vnc=vnc))
        elif child.tag not in _MODELLED:
            kept.append(copy.deepcopy(child))
    if not len(kept):
        return ""
    for device in kept.iterfind("devices/*"):
        for made_up in (*device.findall("address"), *device.findall("alias")):
            device.remove(made_up)
    for element in kept.iter():
        # Indentation of the source would be kept as text, and make the dump hard to read.
        element.tail = None
        if len(element) and element.text and not element.text.strip():
            element.text = None
    ET.indent(kept)
    text = ET.tostring(kept, encoding="unicode")
    check_overlay(text)
    return text


def _keep(kept: ET.Element, parent: ET.Element, wanted: Callable[[ET.Element], bool]) -> None:
    children = [copy.deepcopy(child) for child in parent if wanted(child)]
    if children:
        ET.SubElement(kept, parent.tag, parent.attrib).extend(children)


def _is_foreign(device: ET.Element, *, vnc: bool) -> bool:
    """Say whether a device is one that the definition does not model."""
    if device.tag in _OWN_DEVICES:
        return False
    if device.tag == "graphics":
        return device.get("type") != "vnc"
    if device.tag == "video":
        return not vnc
    if device.tag == "channel":
        target = device.find("target")
        return target is None or target.get("name") != _AGENT
    return True
