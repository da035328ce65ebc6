"""libvirt domain XML, written by hand or by ``virsh dumpxml``, as a VM's definition.  Pure.

What the definition models is taken out of the XML; what it does not model becomes the overlay
(``xmlrest``); what libvirt makes up by itself (addresses, aliases, controllers) is dropped, because it is
made up anew.  libvirt's domain format: https://libvirt.org/formatdomain.html
"""

import re
import uuid
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final, get_args
from xml.etree import ElementTree as ET

import msgspec

from pvc_core.hypervisor.domainxml import AGENT_CHANNEL, CPU_MODES, IOTUNE, MARK
from pvc_core.hypervisor.nicxml import BANDWIDTH
from pvc_core.hypervisor.overlay import check_overlay, parse_xml
from pvc_core.hypervisor.xmlrest import Rest
from pvc_core.model.disk import Disk, DiskBus, disk_targets
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import MIB
from pvc_core.model.vm import NicModel

_POWERS: Final = "kmgtpe"
_UNIT: Final = re.compile(r"^([kmgtpe])(i?)b?$|^b(?:ytes)?$")
_IMAGE_SUFFIXES: Final = frozenset({".raw", ".img", ".qcow2"})
_CACHES: Final = ("none", "writeback", "writethrough", "directsync", "unsafe")


class ImportedVm(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in domain XML."""

    definition: dict[str, Any]
    """Fields of a VM's definition, in plain values: name, id, memory (MiB), vcpus, disks, nics, overlay_xml, ..."""
    notes: tuple[str, ...] = ()
    """What was left out or changed, for the person who imports it: one sentence each."""


def vm_from_xml(
    text: str,
    name: str = "the XML",
    *,
    pools: Mapping[str, str] | None = None,
    networks: Mapping[str, str] | None = None,
) -> ImportedVm:
    """Return the VM that domain XML describes; ``name`` is what messages call the text.

    A disk's source names a volume: ``<source pool='P' volume='V'/>``, an RBD image ``P/V``, or an image file
    ``.../P/V.qcow2``; a NIC's source names its network or bridge.  ``pools`` (directory or RBD pool -> pool) and
    ``networks`` (bridge or libvirt network -> network) translate them.  Raises InvalidRequest.
    """
    domain = parse_xml(text, name)
    if domain.tag != "domain":
        raise InvalidRequest(
            f"{name} begins with <{domain.tag}>: expected libvirt domain XML, which begins with <domain>"
        )
    reader = _Reader(domain, name, pools or {}, networks or {})
    return reader.read()


class _Reader:
    def __init__(self, domain: ET.Element, name: str, pools: Mapping[str, str], networks: Mapping[str, str]) -> None:
        self._domain = domain
        self._name = name
        self._pools = pools
        self._networks = networks
        self._notes: list[str] = []

    def read(self) -> ImportedVm:
        domain = self._domain
        fields: dict[str, Any] = {
            "name": self._vm_name(),
            "memory": self._memory(),
            "vcpus": self._vcpus(),
        }
        fields |= self._identity() | self._operating_system() | self._cpu()
        if domain.get("type") == "qemu":
            fields["accelerator"] = "tcg"
        vnc = domain.find("devices/graphics[@type='vnc']") is not None
        agent = any(t.get("name") == AGENT_CHANNEL for t in domain.iterfind("devices/channel/target"))
        disk_elements = [d for d in domain.iterfind("devices/disk") if d.find("source") is not None]
        nic_elements = domain.findall("devices/interface")
        fields |= {
            "vnc": vnc,
            "guest_agent": agent,
            "disks": [self._disk(element) for element in disk_elements],
            "nics": [self._nic(element) for element in nic_elements],
        }
        rest = Rest(self._notes)
        rest.keep_domain(domain, name=fields["name"], cpu="cpu_model" not in fields, vnc=vnc)
        machine = fields.get("machine", "q35")
        rest.keep_disks(disk_elements, _targets(fields["disks"], machine))
        rest.keep_nics(nic_elements)
        fields["overlay_xml"] = rest.text()
        check_overlay(fields["overlay_xml"])
        return ImportedVm(definition=fields, notes=tuple(self._notes))

    def _wrong(self, message: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name}: {message}")

    def _required(self, tag: str) -> str:
        text = (self._domain.findtext(tag) or "").strip()
        if not text:
            raise self._wrong(f"the domain has no <{tag}>")
        return text

    def _vm_name(self) -> str:
        mark = self._domain.find(f"metadata/{MARK}")  # a dump of a domain that PVC runs
        return (mark.get("name") if mark is not None else None) or self._required("name")

    def _whole(self, text: str, tag: str) -> int:
        if not text.strip().isdecimal():
            raise self._wrong(f"<{tag}> is {text.strip()!r}: expected a whole number")
        return int(text)

    def _memory(self) -> int:
        """Return MiB, rounded up: a guest written in odd numbers of KiB must not lose a part."""
        amount = self._whole(self._required("memory"), "memory")
        element = self._domain.find("memory")
        unit = element.get("unit", "KiB") if element is not None else "KiB"
        match = _UNIT.match(unit.lower())
        if match is None:
            raise self._wrong(f"<memory> has the unit {unit!r}, which libvirt does not know")
        # libvirt: k, KiB = 1024; KB = 1000.
        base = 1000 if match[1] and not match[2] and unit.lower().endswith("b") else 1024
        size = amount * base ** (_POWERS.index(match[1]) + 1) if match[1] else amount
        current = self._domain.findtext("currentMemory", "").strip()
        if current and current != (element.text or "").strip() if element is not None else False:
            self._notes.append("<currentMemory> is left out: the guest gets all of its memory")
        return -(-size // MIB)

    def _vcpus(self) -> int:
        element = self._domain.find("vcpu")
        if element is None:
            return 1
        for attribute in ("current", "cpuset"):
            if element.get(attribute):
                self._notes.append(f"<vcpu {attribute}=...> is left out")
        return self._whole(element.text or "1", "vcpu")

    def _identity(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        text = (self._domain.findtext("uuid") or "").strip()
        if text:
            try:
                fields["id"] = str(uuid.UUID(text))
            except ValueError as error:
                raise self._wrong(f"<uuid> is {text!r}, which is no UUID") from error
        description = (self._domain.findtext("description") or "").strip()
        if description:
            fields["description"] = description
        return fields

    def _operating_system(self) -> dict[str, Any]:
        os_ = self._domain.find("os")
        if os_ is None:
            return {}
        fields: dict[str, Any] = {}
        type_ = os_.find("type")
        if type_ is not None and (type_.text or "hvm").strip() != "hvm":
            raise self._wrong(f"<os><type> is {type_.text!r}: only hvm, full virtualization, is supported")
        machine = type_.get("machine", "") if type_ is not None else ""
        if machine:
            # A dump has the versioned name of its host; the plain one is the newest that all nodes have.
            fields["machine"] = (
                "q35" if "q35" in machine else "pc" if machine.startswith(("pc-", "i440fx")) else machine
            )
        loader = os_.find("loader")
        if os_.get("firmware") == "efi" or (loader is not None and loader.get("type") == "pflash"):
            fields["firmware"] = "uefi"
        kernel = (os_.findtext("kernel") or "").strip()
        if kernel:
            initrd, cmdline = ((os_.findtext(tag) or "").strip() for tag in ("initrd", "cmdline"))
            fields["direct_kernel"] = {"kernel": kernel, "initrd": initrd, "cmdline": cmdline}
        return fields

    def _cpu(self) -> dict[str, Any]:
        """Return the model of a <cpu> that says no more than that; any other stays in the overlay."""
        cpu = self._domain.find("cpu")
        if cpu is None:
            return {"cpu_model": ""}
        model, mode = (cpu.findtext("model") or "").strip(), cpu.get("mode", "custom")
        plain = all(child.tag == "model" for child in cpu) and cpu.get("match", "exact") == "exact"
        if plain and mode == "custom" and model:
            return {"cpu_model": model}
        if plain and mode in CPU_MODES:
            return {"cpu_model": mode}
        return {}

    def _disk(self, disk: ET.Element) -> dict[str, Any]:
        target, driver = disk.find("target"), disk.find("driver")
        bus = target.get("bus", "virtio") if target is not None else "virtio"
        if bus not in get_args(DiskBus):
            raise self._wrong(f"a disk has the bus {bus!r}: expected one of {', '.join(get_args(DiskBus))}")
        cache = driver.get("cache", "none") if driver is not None else "none"
        pool, volume = self._volume(disk)
        return {
            "pool": pool,
            "volume": volume,
            "bus": bus,
            "read_only": disk.find("readonly") is not None or disk.get("device") == "cdrom",
            "cache": cache if cache in _CACHES else "none",
            "discard": driver is None or driver.get("discard", "unmap") == "unmap",
            **self._limits(disk),
        }

    def _limits(self, disk: ET.Element) -> dict[str, Any]:
        """Return the limits that the definition models; the overlay keeps the others."""
        rates = {field: self._rate(disk, name) for field, name in IOTUNE.items()}
        limits = {field: rate for field, rate in rates.items() if rate}
        return {"limits": limits} if limits else {}

    def _rate(self, disk: ET.Element, name: str) -> int:
        text = disk.findtext(f"iotune/{name}")
        return self._whole(text, name) if text is not None else 0

    def _volume(self, disk: ET.Element) -> tuple[str, str]:
        source = disk.find("source")
        assert source is not None
        pool, volume = source.get("pool", ""), source.get("volume", "")
        if source.get("protocol") == "rbd":
            pool, _, volume = source.get("name", "").partition("/")
            pool = self._pools.get(pool, pool)
        elif disk.get("type") == "file" or source.get("file"):
            path = PurePosixPath(source.get("file", ""))
            pool = self._pools.get(str(path.parent), path.parent.name)
            volume = path.stem if path.suffix in _IMAGE_SUFFIXES else path.name
        elif pool:
            pool = self._pools.get(pool, pool)
        if pool and volume and "/" not in volume:
            return pool, volume
        where = source.get("file") or source.get("dev") or source.get("name") or "its source"
        raise self._wrong(
            f"a disk is at {where}, which is no volume of this cluster: import it with `pvc storage volume import`, "
            "and write <disk type='volume'> with <source pool='POOL' volume='VOLUME'/>"
        )

    def _nic(self, nic: ET.Element) -> dict[str, Any]:
        source, model, mac, link = (nic.find(tag) for tag in ("source", "model", "mac", "link"))
        network = (source.get("network") or source.get("bridge") or "") if source is not None else ""
        if not network:
            raise self._wrong(
                f"an interface of type {nic.get('type', '')!r} names no network: write <source network='NETWORK'/>"
            )
        kind = model.get("type", "virtio") if model is not None else "virtio"
        if kind not in get_args(NicModel):
            raise self._wrong(f"a NIC is a {kind!r}: expected one of {', '.join(get_args(NicModel))}")
        return {
            "network": self._networks.get(network, network),
            "mac": mac.get("address", "") if mac is not None else "",
            "model": kind,
            "link_up": link is None or link.get("state") != "down",
            **self._nic_settings(nic),
        }

    def _nic_settings(self, nic: ET.Element) -> dict[str, Any]:
        """Return queues and limits, as far as the definition models them; the overlay keeps the rest."""
        settings: dict[str, Any] = {}
        driver = nic.find("driver")
        if driver is not None and driver.get("queues"):
            settings["queues"] = self._whole(driver.get("queues", ""), "queues")
        limits = {
            field: self._whole(part.get(what, ""), what)
            for field, (way, what) in BANDWIDTH.items()
            if (part := nic.find(f"bandwidth/{way}")) is not None and part.get(what)
        }
        return settings | ({"limits": limits} if limits else {})


def _targets(disks: list[dict[str, Any]], machine: str) -> list[str]:
    """Return the names that the disks will have when they are rendered."""
    plain = tuple(Disk(pool=d["pool"], volume=d["volume"], bus=d["bus"]) for d in disks)
    return disk_targets(plain, machine)
