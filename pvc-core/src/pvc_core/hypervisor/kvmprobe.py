"""Whether KVM really runs guests here: a guest that needs what every 64-bit kernel needs, and then switches itself off.

``/dev/kvm`` and libvirt's capabilities are not enough to know: nested and paravirtual hosts have both, and
then stop a Linux guest at an instruction that they do not emulate.
"""

import json
import logging
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from pvc_core.hypervisor import hostfacts
from pvc_core.hypervisor.api import ExitReason, HypervisorError, HypervisorUnavailable
from pvc_core.hypervisor.exits import Exits
from pvc_core.hypervisor.overlay import NAMESPACE

if TYPE_CHECKING:
    from pvc_core.hypervisor.libvirt_calls import Connection

log = logging.getLogger(__name__)

_DEADLINE_S: Final = 30.0
_EVENT_PATIENCE_S: Final = 3.0

PROBE_MARK: Final = f"{{{NAMESPACE}}}probe"
"""The metadata element of the probe's domain."""

# 16-bit code at 0x7c00, assembled with GNU as:
#   cli; xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7c00; cld
#   mov di,0x1000; mov cx,0x1800; rep stosw              page tables and a scratch page, zeroed
#   mov word [0x1000],0x2003; mov word [0x2000],0x3003; mov word [0x3000],0x83      first 2 MiB, one to one
#   mov eax,cr4; or eax,0x220; mov cr4,eax               PAE, OSFXSR
#   mov eax,0x1000; mov cr3,eax
#   mov ecx,0xc0000080; rdmsr; or eax,0x100; wrmsr       EFER.LME
#   mov eax,cr0; or eax,0x80000001; mov cr0,eax          paging, protection
#   lgdt [gdtr]; ljmp 8,long
# 64-bit code:
#   long: lock cmpxchg16b [0x4000]; fxsave [0x4000]; fxrstor [0x4000]
#         mov dx,0x604; mov ax,0x2000; out dx,ax         q35's ACPI PM1a control: S5, off
#         hlt; jmp $-1
#   gdt:  .quad 0, 0x00af9b000000ffff
#   gdtr: .word 15; .long gdt
_CODE: Final = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfcbf0010b90018f3abc70600100320c70600200330c70600308300"
    "0f20e00d20020f22e066b8001000000f22d866b9800000c00f320d00010f300f20c0660d010000800f22c0"
    "0f0116987cea5c7c0800f0480fc70c25004000000fae0425004000000fae0c2500400000"
    "66ba040666b8002066eff4ebfd0f1f440000"
    "0000000000000000ffff0000009baf000f00887c0000"
)
BOOT_IMAGE: Final = _CODE.ljust(510, b"\0") + b"\x55\xaa" + bytes((1 << 20) - 512)
"""A disk with the guest in its boot sector.  SeaBIOS does not boot from a disk of one sector."""


def probe_xml(image: Path, accelerator: str = "kvm") -> str:
    """Return the XML of the probe's domain."""
    domain = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    ET.SubElement(domain, "name").text = f"pvc-probe-{os.getpid()}"
    ET.SubElement(ET.SubElement(domain, "metadata"), PROBE_MARK)
    ET.SubElement(domain, "memory", unit="MiB").text = "16"
    ET.SubElement(domain, "vcpu").text = "1"
    ET.SubElement(ET.SubElement(domain, "os"), "type", machine="q35").text = "hvm"
    ET.SubElement(ET.SubElement(domain, "features"), "acpi")
    cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
    ET.SubElement(cpu, "model").text = "kvm64"
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        ET.SubElement(domain, event).text = "destroy"
    devices = ET.SubElement(domain, "devices")
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=str(image))
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    ET.SubElement(disk, "readonly")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    return ET.tostring(domain, encoding="unicode")


def write_image(directory: Path) -> Path:
    """Write the probe's disk for QEMU to read, and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "kvm-probe.img"
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        file.write(BOOT_IMAGE)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    return path


class Verdict:
    """What an earlier probe found, kept in the run directory: it holds until a reboot or another version."""

    def __init__(self, directory: Path, version: str) -> None:
        self._path = directory / "kvm-probe.json"
        self._key = f"{platform.release()} {version}"

    def load(self) -> str | None:
        """Return why KVM cannot be used ("" when it can), None when that is not known."""
        try:
            known = json.loads(self._path.read_text())
            return str(known["reason"]) if known["for"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent, or cut short by a crash: it is found out anew

    def save(self, reason: str) -> None:
        """Keep a result."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
            json.dump({"for": self._key, "reason": reason}, file)
        Path(file.name).replace(self._path)


class KvmProbe:
    """Answers once whether guests can use KVM here.  May be used from any thread."""

    def __init__(self, directory: Path, accelerator: str, exits: Exits) -> None:
        """``accelerator``: the node's setting; only ``auto`` is probed."""
        self._directory = directory
        self._accelerator = accelerator
        self._exits = exits
        self._lock = threading.Lock()
        self._problem: str | None = {"kvm": "", "tcg": "this node is configured to use tcg"}.get(accelerator)

    def problem(self, connection: "Connection", capabilities: str, version: str) -> str:
        """Return why KVM cannot be used, an empty string when it can.  The first call may take seconds.

        ``version``: of libvirt and QEMU; what was found with another one is found out anew.
        """
        with self._lock:
            if self._problem is None:
                if not hostfacts.offers_kvm(capabilities):
                    return "libvirt offers none: /dev/kvm is absent, or not open to it"
                verdict = Verdict(self._directory, version)
                found = verdict.load()
                if found is None:
                    found = self._start_guest(connection) if hostfacts.is_x86(capabilities) else ""
                    verdict.save(found)
                    log.info("kvm-probed usable=%s reason=%r", not found, found)
                self._problem = found
            return self._problem

    def _start_guest(self, connection: "Connection") -> str:
        from pvc_core.hypervisor.libvirt_calls import Phase

        try:
            guest = connection.create(probe_xml(write_image(self._directory)), autodestroy=True)
        except HypervisorUnavailable:
            raise
        except HypervisorError as error:
            return f"a test guest could not be started: {error}"
        vm = guest.vm
        self._exits.seen(vm, guest.run)
        self._exits.executed(vm)
        deadline = time.monotonic() + _DEADLINE_S
        while connection.find(vm) is not None:
            try:
                phase = guest.phase()
            except HypervisorUnavailable:
                raise
            except HypervisorError:
                phase = Phase.ENDING  # at this moment; should it be something else, the deadline ends the wait
            if phase is Phase.PAUSED or time.monotonic() > deadline:
                guest.destroy()
                if phase is Phase.PAUSED:
                    return "a 64-bit test guest was stopped at an instruction that KVM here cannot carry out"
                return f"a test guest did not come to its end within {_DEADLINE_S:g} s"
            time.sleep(0.02)
        reason = self._exits.reason(vm, _EVENT_PATIENCE_S)
        return "" if reason is ExitReason.SHUTDOWN else f"a test guest ended unexpectedly ({reason.value})"
