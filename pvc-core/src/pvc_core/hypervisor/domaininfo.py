"""What does not change while a domain runs, read from its live XML once."""

from xml.etree import ElementTree as ET

import msgspec

from pvc_core.hypervisor.domainxml import MARK
from pvc_core.hypervisor.kvmprobe import PROBE_MARK

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
    disks: tuple[str, ...]
    """Target names (vda, ...) of the disks: those of the VM's definition in its order, then later ones."""
    boot_id: str = ""
    started_s: float = 0.0
    """When it was started, in seconds since that boot."""


def read_domain(xml: str, run: int) -> DomainInfo:
    """Return the description in a domain's live XML."""
    root = ET.fromstring(xml)  # noqa: S314 - from libvirt
    mark = root.find(f"metadata/{MARK}")
    memory = root.find("memory")
    size = float(memory.text or 0) * _TO_MIB.get(memory.get("unit", "KiB"), 2**-10) if memory is not None else 0
    graphics = root.find("devices/graphics[@type='vnc']")
    present = [d.get("dev", "") for d in root.iterfind("devices/disk[@device='disk']/target")]
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
        disks=(*defined, *(d for d in present if d not in defined)),
        boot_id=mark.get("boot", "") if mark is not None else "",
        started_s=float(mark.get("started", "0")) if mark is not None else 0.0,
    )


def _vnc(graphics: ET.Element) -> str:
    port = graphics.get("port", "-1")
    listen = graphics.get("listen") or "127.0.0.1"
    return "" if port == "-1" else f"[{listen}]:{port}" if ":" in listen else f"{listen}:{port}"


def device_key(xml: str) -> tuple[str, str, str] | None:
    """Return tag, path and value of what tells a device from others of its kind, None when nothing does."""
    element = ET.fromstring(xml)  # noqa: S314 - checked by the caller
    for path, attribute in (("target", "dev"), ("mac", "address"), ("alias", "name")):
        found = element.find(path)
        if found is not None and found.get(attribute):
            return element.tag, f"{path}@{attribute}", found.get(attribute, "").lower()
    return None


def has_device(domain_xml: str, key: tuple[str, str, str]) -> bool:
    """Return whether a domain has a device with this key."""
    tag, place, value = key
    path, _, attribute = place.partition("@")
    root = ET.fromstring(domain_xml)  # noqa: S314 - from libvirt
    return any(e.get(attribute, "").lower() == value for e in root.iterfind(f"devices/{tag}/{path}"))
