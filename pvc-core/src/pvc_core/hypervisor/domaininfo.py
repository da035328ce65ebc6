"""What does not change while a domain runs, read from its live XML once."""

from collections.abc import Iterable, Sequence
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from pvc_core.hypervisor.api import DomainDisk
from pvc_core.hypervisor.domainxml import MARK, NOTE, volume_of
from pvc_core.hypervisor.kvmprobe import PROBE_MARK
from pvc_core.hypervisor.nicxml import mac_of

_TO_MIB = {"b": 2**-20, "bytes": 2**-20, "KiB": 2**-10, "k": 2**-10, "MiB": 1.0, "M": 1.0, "GiB": 2.0**10, "G": 2.0**10}


class DomainInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A domain as its XML describes it."""

    run: int
    """libvirt's id of this run of the domain: another run may have another description."""
    ours: bool
    """It carries PVC's mark."""
    probe: bool = False
    name: str
    memory_mib: int
    vcpus: int
    accelerator: str
    vnc: str
    disks: tuple[DomainDisk, ...]
    """Those it was started with, in the order of the VM's definition, then later ones."""
    controllers: frozenset[str] = frozenset()
    nics: tuple[str, ...] = ()
    """MAC addresses, of all that it has."""
    boot_id: str = ""
    started_s: float = 0.0
    """When it was started, in seconds since that boot."""
    note: str = ""


def read_domain(xml: str, run: int) -> DomainInfo:
    """Return the description in a domain's live XML."""
    root = ET.fromstring(xml)  # noqa: S314 - from libvirt
    mark = root.find(f"metadata/{MARK}")
    memory = root.find("memory")
    size = float(memory.text or 0) * _TO_MIB.get(memory.get("unit", "KiB"), 2**-10) if memory is not None else 0
    graphics = root.find("devices/graphics[@type='vnc']")
    defined = mark.get("disks", "").split() if mark is not None else []
    return DomainInfo(
        run=run,
        ours=mark is not None,
        probe=root.find(f"metadata/{PROBE_MARK}") is not None,
        name=mark.get("name", "") if mark is not None else root.findtext("name", ""),
        memory_mib=round(size),
        vcpus=int(root.findtext("vcpu", "0")),
        accelerator="kvm" if root.get("type") == "kvm" else "tcg",
        vnc=_vnc(graphics) if graphics is not None else "",
        disks=domain_disks(root.findall("devices/disk"), defined),
        controllers=frozenset(kind for c in root.iterfind("devices/controller") if (kind := controller_kind(c))),
        nics=tuple(mac for nic in root.iterfind("devices/interface") if (mac := nic_of(nic))),
        boot_id=mark.get("boot", "") if mark is not None else "",
        started_s=float(mark.get("started", "0")) if mark is not None else 0.0,
        note=root.findtext(f"metadata/{NOTE}", ""),
    )


def domain_disks(elements: Iterable[ET.Element], defined: Sequence[str]) -> tuple[DomainDisk, ...]:
    """Return the disks in a domain's ``<disk>`` elements; ``defined``: targets of those it was started with, in order."""
    found = {disk.target: disk for disk in (_disk(element, defined) for element in elements)}
    first = [found.pop(target) for target in defined if target in found]
    return (*first, *found.values())


def _disk(element: ET.Element, defined: Sequence[str]) -> DomainDisk:
    target, alias = element.find("target"), element.find("alias")
    name, bus = (target.get("dev", ""), target.get("bus", "")) if target is not None else ("", "")
    volume = volume_of(alias.get("name", "")) if alias is not None else None
    if volume is None and name not in defined:
        volume = ""
    return DomainDisk(target=name, bus=bus, volume=volume)


def controller_kind(element: ET.Element) -> str:
    """Return the kind of a controller that disks may be plugged into, or an empty string."""
    kind, model = element.get("type", ""), element.get("model")
    return kind if kind == "scsi" or (kind == "usb" and model != "none") else ""


def nic_of(element: ET.Element) -> str | None:
    """Return the MAC address of an ``<interface>``, by its alias where that names one, None when it has none.

    An overlay may have put an interface of its own in the place of the rendered one.
    """
    alias, mac = element.find("alias"), element.find("mac")
    named = mac_of(alias.get("name", "")) if alias is not None else None
    return named or (mac.get("address", "").lower() or None if mac is not None else None)


def _vnc(graphics: ET.Element) -> str:
    port = graphics.get("port", "-1")
    listen = graphics.get("listen") or "127.0.0.1"
    return "" if port == "-1" else f"[{listen}]:{port}" if ":" in listen else f"{listen}:{port}"


_KEYS: Final = (("target", "dev"), ("mac", "address"), ("alias", "name"))
_NIC_KEYS: Final = (("mac", "address"), ("alias", "name"), ("target", "dev"))
"""A NIC's target is made anew on each host."""


def device_key(xml: str) -> tuple[str, str, str] | None:
    """Return tag, path and value of what tells a device from others of its kind, None when nothing does."""
    element = ET.fromstring(xml)  # noqa: S314 - checked by the caller
    for path, attribute in _KEYS if element.tag != "interface" else _NIC_KEYS:
        found = element.find(path)
        if found is not None and found.get(attribute):
            return element.tag, f"{path}@{attribute}", found.get(attribute, "").lower()
    return None


def find_device(domain_xml: str, key: tuple[str, str, str]) -> ET.Element | None:
    """Return a domain's device with this key, None when it has none."""
    tag, place, value = key
    path, _, attribute = place.partition("@")
    for device in ET.fromstring(domain_xml).iterfind(f"devices/{tag}"):  # noqa: S314 - from libvirt
        found = device.find(path)
        if found is not None and found.get(attribute, "").lower() == value:
            return device
    return None
