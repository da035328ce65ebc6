"""What a definition does not model of a domain's XML, as an overlay."""

import copy
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as ET

from pvc_core.hypervisor.domainxml import AGENT_CHANNEL, IOTUNE, MARK
from pvc_core.hypervisor.nicxml import BANDWIDTH
from pvc_core.hypervisor.overlay import LAY

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
        "clock",
        "features",
        "metadata",
        "devices",
    ]
)
_PVCS_OWN: Final = frozenset(["resource", "seclabel", "on_poweroff", "on_reboot", "on_crash", "on_lockfailure"])
"""What happens after a guest's end is PVC's decision; the rest libvirt fills in."""
_OS: Final = frozenset(["type", "kernel", "initrd", "cmdline", "loader", "nvram", "firmware", "boot"])
_FEATURES: Final = frozenset({"acpi", "apic", "tcg"})
_TIMERS: Final = frozenset(
    {("rtc", "tickpolicy", "catchup"), ("pit", "tickpolicy", "delay"), ("hpet", "present", "no")}
)
_DISK: Final = frozenset(
    ["source", "target", "driver", "readonly", "address", "alias", "boot", "backingStore", "mirror"]
)
_DRIVER: Final = frozenset(["name", "type", "cache", "discard"])
_NIC: Final = frozenset(["source", "target", "mac", "model", "link", "address", "alias", "boot"])
_DROPPED_DEVICES: Final = frozenset({"emulator", "disk", "interface", "panic"})
_RANDOM: Final = ("/dev/random", "/dev/urandom")


class Rest:
    """Collects the overlay."""

    def __init__(self, notes: list[str]) -> None:
        """``notes``: gets a sentence for each thing that is left out."""
        self._notes = notes
        self._root = ET.Element("domain")
        self._devices = ET.Element("devices")

    def keep_domain(self, domain: ET.Element, *, name: str, cpu: bool, vnc: bool) -> None:
        """Keep everything but disks and NICs of the VM called ``name``.

        ``cpu``: the <cpu> too; ``vnc``: the definition has a VNC display.
        """
        title = domain.findtext("title")
        if title and title != name:
            ET.SubElement(self._root, "title").text = title
        for child in domain:
            if child.tag in _PVCS_OWN:
                continue
            if (child.tag == "cpu" and cpu) or (child.tag == "clock" and not _is_usual_clock(child)):
                self._root.append(_replacing(child))
            elif child.tag == "os":
                self._keep_children(child, [c for c in child if c.tag not in _OS])
            elif child.tag == "features":
                self._keep_children(child, [c for c in child if c.tag not in _FEATURES])
            elif child.tag == "metadata":
                # libvirt takes elements with a namespace only.
                self._keep_children(child, [c for c in child if c.tag.startswith("{") and c.tag != MARK])
            elif child.tag not in _MODELLED:
                self._root.append(copy.deepcopy(child))
        for device in domain.iterfind("devices/*"):
            self._keep_device(device, vnc=vnc)

    def keep_disks(self, disks: Sequence[ET.Element], targets: Sequence[str]) -> None:
        """Keep what disks have beyond the definition (serial numbers, kinds of limits); ``targets``: their rendered names."""
        for disk, target in zip(disks, targets, strict=True):
            kept = ET.Element("disk")
            driver = disk.find("driver")
            options = {k: v for k, v in driver.attrib.items() if k not in _DRIVER} if driver is not None else {}
            if options:
                ET.SubElement(kept, "driver", options)
            kept.extend(copy.deepcopy(c) for c in disk if c.tag not in _DISK)
            _without_limits(kept)
            if len(kept):
                ET.SubElement(kept, "target", dev=target)
                self._devices.append(kept)

    def keep_nics(self, nics: Sequence[ET.Element]) -> None:
        """Keep what NICs have beyond the definition; one without a MAC address cannot be named, so it loses it."""
        for nic in nics:
            kept = ET.Element("interface")
            kept.extend(copy.deepcopy(c) for c in nic if c.tag not in _NIC)
            _without_nic_settings(kept)
            mac = nic.find("mac")
            if not len(kept):
                continue
            if mac is None:
                tags = ", ".join(f"<{c.tag}>" for c in kept)
                self._notes.append(f"{tags} of an interface without a MAC address is left out: give it a <mac>")
                continue
            kept.append(copy.deepcopy(mac))
            self._devices.append(kept)

    def text(self) -> str:
        """Return the overlay; empty when nothing is left."""
        if len(self._devices):
            self._root.append(self._devices)
        if not len(self._root):
            return ""
        for element in self._root.iter():
            # The source's indentation would make the dump hard to read.
            element.tail = None
            if len(element) and element.text and not element.text.strip():
                element.text = None
        ET.indent(self._root)
        return ET.tostring(self._root, encoding="unicode")

    def _keep_children(self, parent: ET.Element, children: list[ET.Element]) -> None:
        if children:
            ET.SubElement(self._root, parent.tag).extend(copy.deepcopy(c) for c in children)

    def _keep_device(self, device: ET.Element, *, vnc: bool) -> None:
        if device.tag in _DROPPED_DEVICES or _is_usual_device(device):
            return
        kept = copy.deepcopy(device)
        for made_up in (*kept.findall("address"), *kept.findall("alias")):
            # A <source>'s own <address> (of a passed-through device) lies deeper, and stays.
            kept.remove(made_up)
        if device.tag == "graphics" and device.get("type") == "vnc":
            if not self._vnc(kept):
                return
        elif device.tag == "video" and vnc:
            model = device.find("model")
            if model is None or model.get("type") == "vga":
                return
            kept.set(LAY, "replace")
        elif device.tag == "hostdev":
            self._notes.append("a passed-through device stays in the overlay: the VM can run only where it is")
        self._devices.append(kept)

    def _vnc(self, graphics: ET.Element) -> bool:
        """Strip what belongs to one host from a VNC display; return whether anything is left to keep."""
        for attribute in ("port", "autoport", "websocket", "listen", "socket"):
            graphics.attrib.pop(attribute, None)
        for secret in ("passwd", "passwdValidTo"):
            if graphics.attrib.pop(secret, None) is not None:
                self._notes.append(f"the VNC {secret} is left out: it would be stored in clear")
        for listen in graphics.findall("listen"):
            graphics.remove(listen)
        return len(graphics) > 0 or set(graphics.attrib) != {"type"}


def _without_limits(disk: ET.Element) -> None:
    """Take from a disk the limits that the definition models."""
    iotune = disk.find("iotune")
    if iotune is None:
        return
    for limit in [child for child in iotune if child.tag in IOTUNE.values()]:
        iotune.remove(limit)
    if not len(iotune):
        disk.remove(iotune)


def _without_nic_settings(nic: ET.Element) -> None:
    """Take from a NIC the queues and limits that the definition models."""
    for way, what in BANDWIDTH.values():
        for part in nic.iterfind(f"bandwidth/{way}"):
            part.attrib.pop(what, None)
    for driver in nic.iterfind("driver"):
        driver.attrib.pop("queues", None)
    for parent in (*nic.findall("bandwidth"), nic):
        for child in [c for c in parent if c.tag in ("inbound", "outbound", "bandwidth", "driver")]:
            if not (len(child) or child.attrib):
                parent.remove(child)


def _replacing(element: ET.Element) -> ET.Element:
    kept = copy.deepcopy(element)
    kept.set(LAY, "replace")
    return kept


def _is_usual_clock(clock: ET.Element) -> bool:
    usual = all(any(t.get("name") == n and t.get(a) == v and len(t.attrib) == 2 for n, a, v in _TIMERS) for t in clock)
    return clock.get("offset") == "utc" and usual


def _is_usual_device(device: ET.Element) -> bool:
    """Say whether a device is one that PVC renders itself or libvirt adds by itself."""
    target, model = device.find("target"), device.get("model")
    match device.tag:
        case "controller":
            plain = all(child.tag in ("address", "alias", "target", "master") for child in device)
            usual_scsi = model in (None, "virtio-scsi", "virtio-transitional", "virtio-non-transitional")
            return plain and (device.get("type") != "scsi" or usual_scsi)
        case "serial" | "console":
            return device.get("type") == "pty"
        case "channel":
            return target is not None and target.get("name") == AGENT_CHANNEL
        case "input":
            return device.get("bus") == "ps2" or (device.get("type"), device.get("bus")) == ("tablet", "usb")
        case "memballoon":
            return model in (None, "virtio") and all(c.tag in ("address", "alias", "stats") for c in device)
        case "rng":
            backend = (device.findtext("backend") or "").strip()
            return backend in _RANDOM and device.find("rate") is None
        case "audio":
            return device.get("type") == "none"
        case _:
            return False
