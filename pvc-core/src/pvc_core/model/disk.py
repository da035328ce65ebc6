"""Disks of VMs: what is wanted of one, what it may do per second, and how it is named in the guest."""

from collections.abc import Collection
from typing import Annotated, Final, Literal

from msgspec import Meta

from pvc_core.model.base import Value

DiskBus = Literal["virtio", "scsi", "sata", "ide", "usb"]
DiskCache = Literal["none", "writeback", "writethrough", "directsync", "unsafe"]

Rate = Annotated[int, Meta(ge=0, le=1_000_000_000_000_000)]
"""Per second; 0: no limit.  The upper bound is QEMU's (THROTTLE_VALUE_MAX)."""

HOT_PLUGGED: Final = frozenset({"virtio", "scsi", "usb"})
"""Buses whose disks come and go while the guest runs; QEMU cannot do that with IDE and SATA."""


class DiskLimits(Value, frozen=True, kw_only=True):
    """What a disk may do at most; 0: as much as it can.

    A total excludes limits of reading and writing of its kind.  A burst is the rate that is allowed for a second, over
    the limit that it belongs to (libvirt's ``<iotune>``, QEMU's throttling).
    """

    iops: Rate = 0
    """Reads and writes per second."""
    read_iops: Rate = 0
    write_iops: Rate = 0
    bandwidth: Rate = 0
    """Bytes read and written per second."""
    read_bandwidth: Rate = 0
    write_bandwidth: Rate = 0
    iops_burst: Rate = 0
    read_iops_burst: Rate = 0
    write_iops_burst: Rate = 0
    bandwidth_burst: Rate = 0
    read_bandwidth_burst: Rate = 0
    write_bandwidth_burst: Rate = 0

    def problem(self) -> str:
        """Return what no hypervisor would take, for people; empty: nothing."""
        for kind in ("iops", "bandwidth"):
            parts = [name for name in (f"read_{kind}", f"write_{kind}") if getattr(self, name)]
            if getattr(self, kind) and parts:
                return f"limit {kind} is that of reading and writing together: it excludes {parts[0]}"
        for name in (field for field in self.__struct_fields__ if not field.endswith("_burst")):
            limit, burst = getattr(self, name), getattr(self, f"{name}_burst")
            if burst and not limit:
                return f"limit {name}_burst needs a limit {name}"
            if burst and burst < limit:
                return f"limit {name}_burst is {burst}, less than {name}, which is {limit}"
        return ""


NO_LIMITS: Final = DiskLimits()


class Disk(Value, frozen=True, kw_only=True):
    """A volume as a disk of the VM.  The order in the VM is the boot order."""

    pool: str
    volume: str
    bus: DiskBus = "virtio"
    read_only: bool = False
    cache: DiskCache = "none"
    discard: bool = True
    limits: DiskLimits = NO_LIMITS
    removing: bool = False
    """It is to be taken away, and the running guest may still have it: until it has not, the volume is the VM's."""

    @property
    def path(self) -> str:
        """``pool/volume``."""
        return f"{self.pool}/{self.volume}"


def is_q35(machine: str) -> bool:
    """Return whether a machine type has PCI Express."""
    return "q35" in machine


def bus_of(disk: Disk, machine: str) -> str:
    """Return the bus a disk is put on: q35 has no IDE, so IDE disks become SATA there."""
    return "sata" if disk.bus == "ide" and is_q35(machine) else disk.bus


def disk_target(bus: str, taken: Collection[str]) -> str:
    """Return the first name that no disk has in libvirt (vda, sda, ...), for one on this bus."""
    prefix = "vd" if bus == "virtio" else "hd" if bus == "ide" else "sd"
    index = 0
    while (name := prefix + _letters(index)) in taken:
        index += 1
    return name


def disk_index(target: str) -> int:
    """Return the number that a name in libvirt stands for: 0 for sda, 26 for sdaa."""
    index = 0
    for letter in target[2:]:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def disk_targets(disks: Collection[Disk], machine: str) -> list[str]:
    """Return the names that disks get in libvirt when a guest is started with them, in order."""
    names: list[str] = []
    for disk in disks:
        names.append(disk_target(bus_of(disk, machine), names))
    return names


def _letters(index: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    name = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        name = chr(ord("a") + digit) + name
    return name
