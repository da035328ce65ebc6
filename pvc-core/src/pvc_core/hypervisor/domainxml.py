"""A VM as libvirt domain XML.  Pure: same plan, same text.

libvirt's domain format: https://libvirt.org/formatdomain.html
"""

import re
from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from pvc_core.hypervisor.api import DomainPlan
from pvc_core.hypervisor.fragment import fragment
from pvc_core.hypervisor.nicxml import render_nic
from pvc_core.hypervisor.overlay import NAMESPACE, lay_over
from pvc_core.model.disk import Disk, DiskLimits, bus_of, disk_index, disk_targets, is_q35
from pvc_core.model.vm import VmSpec
from pvc_core.plugin.specs.storage import DiskSource

MARK: Final = f"{{{NAMESPACE}}}vm"
"""The metadata element by which PVC knows its own domains."""

NOTE_NAMESPACE: Final = f"{NAMESPACE}/note"
"""A namespace of its own: libvirt keeps one element of metadata for each."""

NOTE: Final = f"{{{NOTE_NAMESPACE}}}note"
"""The metadata element with a word that a daemon leaves for the next one."""

DEFAULT_CPU: Final = "Westmere"
"""CPU model where nobody chose one: x86-64-v2 with AES, which every server processor since 2011 (Intel and
AMD) can give, so that guests can move between all nodes."""

CPU_MODES: Final = ("host-passthrough", "host-model", "maximum")
"""Words that are no model but a mode; guests with one of these move only between equal processors."""

SPARE_PORTS: Final = 8
"""PCIe root ports kept free for devices that are plugged in later: q35 cannot add ports to a running guest."""

AGENT_CHANNEL: Final = "org.qemu.guest_agent.0"

MACHINE_FAMILIES: Final = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
"""Alias of an x86 machine type -> how its versioned names begin."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when a domain was started, kept in its metadata: its age on this host follows from it."""

    boot_id: str = ""
    since_boot_s: float = 0.0


def domain_name(vm: VmSpec) -> str:
    """Return libvirt's name of a VM's domain: unique even while an old name is still in use by a renamed VM."""
    return f"{vm.name}-{vm.id[:8]}"


def render(plan: DomainPlan, accelerator: str, *, origin: Origin | None = None) -> str:
    """Return the XML of a VM's domain for ``accelerator`` (kvm or tcg), with its overlay laid over it.

    Raises InvalidRequest for a bad overlay, HypervisorError for XML from a driver that cannot be read.
    """
    vm = plan.vm
    domain = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    _text(domain, "name", domain_name(vm))
    _text(domain, "uuid", vm.id)
    _text(domain, "title", vm.name)
    _mark(domain, vm, origin or Origin())
    _text(domain, "memory", str(vm.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(vm.vcpus), placement="static")
    _operating_system(domain, plan)
    _features(domain, vm, accelerator)
    _cpu(domain, vm.cpu_model or plan.cpu_model or DEFAULT_CPU, accelerator)
    _clock(domain, accelerator)
    # PVC decides what follows a guest's end, so libvirt restarts nothing but a guest that reboots itself.
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, plan)
    lay_over(domain, vm.overlay_xml)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _mark(domain: ET.Element, vm: VmSpec, origin: Origin) -> None:
    attributes = {
        "name": vm.name,
        "generation": str(vm.generation),
        "disks": " ".join(disk_targets(vm.disks, vm.machine)),
    }
    if origin.boot_id:
        attributes |= {"boot": origin.boot_id, "started": f"{origin.since_boot_s:.3f}"}
    ET.SubElement(ET.SubElement(domain, "metadata"), MARK, attributes)


def _operating_system(domain: ET.Element, plan: DomainPlan) -> None:
    vm = plan.vm
    os_ = ET.SubElement(domain, "os")
    _text(os_, "type", "hvm", machine=plan.machine or vm.machine)
    if vm.firmware == "uefi":
        os_.set("firmware", "efi")
        ET.SubElement(ET.SubElement(os_, "firmware"), "feature", enabled="no", name="secure-boot")
    if vm.direct_kernel is not None:
        _text(os_, "kernel", vm.direct_kernel.kernel)
        if vm.direct_kernel.initrd:
            _text(os_, "initrd", vm.direct_kernel.initrd)
        if vm.direct_kernel.cmdline:
            _text(os_, "cmdline", vm.direct_kernel.cmdline)


def _features(domain: ET.Element, vm: VmSpec, accelerator: str) -> None:
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if accelerator == "tcg":
        # QEMU's own default for translated code is 1 GiB per guest.
        size = max(8, min(64, vm.memory_mib // 4))
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(size), unit="MiB")


def _cpu(domain: ET.Element, model: str, accelerator: str) -> None:
    if model in CPU_MODES:
        ET.SubElement(domain, "cpu", mode=model, check="none" if accelerator == "tcg" else "partial")
        return
    # With KVM libvirt refuses a model that the host cannot give; the emulator gives what it can (tests only).
    check = "none" if accelerator == "tcg" else "partial"
    cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check=check)
    _text(cpu, "model", model, fallback="forbid")
    if model.startswith("qemu64"):
        # QEMU's generic model contains AMD's virtualization extension, which no Intel host can give.
        ET.SubElement(cpu, "feature", policy="disable", name="svm")


def _clock(domain: ET.Element, accelerator: str) -> None:
    clock = ET.SubElement(domain, "clock", offset="utc")
    if accelerator == "kvm":
        ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
        ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")


def _devices(domain: ET.Element, plan: DomainPlan) -> None:
    vm = plan.vm
    devices = ET.SubElement(domain, "devices")
    for disk in render_disks(plan):
        devices.append(disk)
    for index, (nic, source) in enumerate(zip(vm.nics, plan.nics, strict=True)):
        element = render_nic(nic, source)
        if not vm.disks and vm.direct_kernel is None:
            ET.SubElement(element, "boot", order=str(index + 1))
        devices.append(element)
    _controllers(devices, vm)
    _serial(devices, plan.console_log)
    if vm.guest_agent:
        channel = ET.SubElement(devices, "channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    if vm.vnc:
        # Where it listens is the host's setting (qemu.conf, vnc_listen): an address here would not fit the
        # target of a migration.
        ET.SubElement(devices, "graphics", type="vnc", port="-1", autoport="yes")
        ET.SubElement(ET.SubElement(devices, "video"), "model", type="vga", vram="16384")
        ET.SubElement(devices, "input", type="tablet", bus="usb")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    ET.SubElement(balloon, "stats", period="10")
    ET.SubElement(devices, "panic", model="isa")


def _serial(devices: ET.Element, log: str) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    if log:
        ET.SubElement(serial, "log", file=log, append="on")
    ET.SubElement(serial, "target", port="0")
    console = ET.SubElement(devices, "console", type="pty")
    ET.SubElement(console, "target", type="serial", port="0")


def _controllers(devices: ET.Element, vm: VmSpec) -> None:
    buses = [bus_of(disk, vm.machine) for disk in vm.disks]
    usb = vm.vnc or "usb" in buses
    ET.SubElement(devices, "controller", type="usb", model="qemu-xhci" if usb else "none")
    if "scsi" in buses:
        devices.append(render_scsi_controller())
    if not is_q35(vm.machine):
        return
    plugged = buses.count("virtio") + len(vm.nics)
    plugged += usb + ("scsi" in buses) + vm.guest_agent + 2  # rng, balloon
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for _ in range(plugged + SPARE_PORTS):
        ET.SubElement(devices, "controller", type="pci", model="pcie-root-port")


def render_scsi_controller() -> ET.Element:
    """Return the controller that SCSI disks are on, as also plugged into a running guest that has none.

    Only guests with SCSI disks have one, so that no other gets hardware that it has no use for.  One that was plugged in
    later is in the domain's live XML, from which libvirt makes the target of a migration: both sides agree.  Without
    it libvirt would add one of its own choice, which is not virtio-scsi.
    """
    return ET.Element("controller", type="scsi", index="0", model="virtio-scsi")


def render_disks(plan: DomainPlan) -> Iterable[ET.Element]:
    """Yield the ``<disk>`` elements of a VM."""
    vm = plan.vm
    targets = disk_targets(vm.disks, vm.machine)
    for index, (disk, source, target) in enumerate(zip(vm.disks, plan.disks, targets, strict=True)):
        element = render_disk(disk, source, target, bus_of(disk, vm.machine))
        if vm.direct_kernel is None:
            ET.SubElement(element, "boot", order=str(index + 1))
        yield element


def render_disk(disk: Disk, source: DiskSource, target: str, bus: str) -> ET.Element:
    """Return one ``<disk>`` element, as also used for plugging one into a running guest."""
    # Of SATA and IDE devices only CD drives can be read-only.
    device = "cdrom" if disk.read_only and bus in ("sata", "ide") else "disk"
    element = ET.Element("disk", type=source.type, device=device)
    discard = "unmap" if disk.discard else "ignore"
    cache = source.cache or disk.cache
    ET.SubElement(element, "driver", name="qemu", type=source.format, cache=cache, discard=discard)
    element.append(fragment(source.source_xml, f"the source of volume {disk.path}"))
    ET.SubElement(element, "target", dev=target, bus=bus)
    ET.SubElement(element, "alias", name=disk_alias(disk.path))
    if bus == "scsi":
        # Left alone libvirt puts 15 on a controller, and brings more controllers, of a kind of its own choice.
        number = str(disk_index(target))
        ET.SubElement(element, "address", type="drive", controller="0", bus="0", target=number, unit="0")
    if disk.read_only:
        ET.SubElement(element, "readonly")
    rates = limit_parameters(disk.limits)
    if any(rates.values()):
        iotune = ET.SubElement(element, "iotune")
        for name, rate in rates.items():
            if rate:
                _text(iotune, name, str(rate))
    return element


ALIAS_PREFIX: Final = "ua-disk-"
"""Of the aliases of disks: libvirt keeps those that begin with ``ua-`` as they are, over migrations too."""


def disk_alias(volume: str) -> str:
    """Return the alias of a disk, which names its volume (``pool/volume``): so the domain itself says what it has."""
    return ALIAS_PREFIX + re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):02x}", volume)


def volume_of(alias: str) -> str | None:
    """Return the ``pool/volume`` that an alias names, None when it is not one of ``disk_alias``."""
    if not alias.startswith(ALIAS_PREFIX):
        return None
    return re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), alias.removeprefix(ALIAS_PREFIX))


_IOTUNE: Final = {
    "iops": "total_iops_sec",
    "read_iops": "read_iops_sec",
    "write_iops": "write_iops_sec",
    "bandwidth": "total_bytes_sec",
    "read_bandwidth": "read_bytes_sec",
    "write_bandwidth": "write_bytes_sec",
}

IOTUNE: Final = _IOTUNE | {f"{field}_burst": f"{name}_max" for field, name in _IOTUNE.items()}
"""Field of a disk's limits -> its name in libvirt, in ``<iotune>`` and in calls."""


def limits_of(disk: ET.Element) -> DiskLimits:
    """Return the limits that a ``<disk>`` has, as far as ``DiskLimits`` knows them."""
    return DiskLimits(**{field: int(disk.findtext(f"iotune/{name}", "0")) for field, name in IOTUNE.items()})


def limit_parameters(limits: DiskLimits) -> dict[str, int]:
    """Return all limits, those that are not set as 0, by their names in libvirt."""
    return {name: getattr(limits, field) for field, name in IOTUNE.items()}


def newest_common_machine(wanted: str, offered: Iterable[Iterable[str]]) -> str:
    """Return the newest versioned machine type that all hosts offer for the alias ``wanted`` (q35, pc).

    A guest started with the alias gets its host's newest, which an older host then refuses to take.  A
    versioned name, or no common one, is returned as it is wanted.
    """
    stem = MACHINE_FAMILIES.get(wanted)
    sets = [frozenset(each) for each in offered]
    if stem is None or not sets:
        return wanted
    common = [(version, m) for m in frozenset.intersection(*sets) if (version := _version(m, stem)) is not None]
    return max(common)[1] if common else wanted


def _version(machine: str, stem: str) -> tuple[int, ...] | None:
    parts = machine.removeprefix(stem).split(".")
    if not machine.startswith(stem) or not all(p.isdigit() for p in parts):
        return None
    return tuple(int(p) for p in parts)
