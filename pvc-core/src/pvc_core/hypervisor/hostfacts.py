"""What a host says of itself: memory and boot from the kernel, machine types from libvirt's capabilities."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from pvc_core.hypervisor.api import HypervisorError
from pvc_core.hypervisor.domainxml import MACHINE_FAMILIES

_PROC: Final = Path("/proc")


def memory_mib(proc: Path = _PROC) -> tuple[int, int]:
    """Return the host's total and available memory in MiB.

    From ``/proc/meminfo``: libvirt's ``virNodeGetInfo`` (9.0) adds up ``/sys/devices/system/node``, which
    falls short on kernels that initialise memory lazily.
    """
    figures = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        figures[name] = rest.split()
    try:
        return int(figures["MemTotal"][0]) // 1024, int(figures["MemAvailable"][0]) // 1024
    except (KeyError, IndexError, ValueError) as error:
        raise HypervisorError(f"{proc / 'meminfo'} cannot be read: {error!r}") from error


def boot_id(proc: Path = _PROC) -> str:
    """Return an identifier of the kernel's present run."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def machine_types(capabilities: str) -> tuple[str, ...]:
    """Return the machine types of the host's own architecture that libvirt offers, without deprecated ones.

    On x86 the q35 and pc families only: the rest are for special purposes.
    """
    root = ET.fromstring(capabilities)  # noqa: S314 - from libvirt
    host = root.findtext("host/cpu/arch", "")
    found = set()
    for arch in root.iterfind("guest/arch"):
        if arch.get("name") == host:
            found |= {m.text or "" for m in arch.iter("machine") if m.get("deprecated") != "yes"}
    if host == "x86_64":
        found = {m for m in found if m in MACHINE_FAMILIES or m.startswith(tuple(MACHINE_FAMILIES.values()))}
    return tuple(sorted(found))


def offers_kvm(capabilities: str) -> bool:
    """Return whether libvirt would start KVM guests of the host's own architecture at all."""
    root = ET.fromstring(capabilities)  # noqa: S314 - from libvirt
    host = root.findtext("host/cpu/arch", "")
    return any(
        arch.get("name") == host and arch.find("domain[@type='kvm']") is not None
        for arch in root.iterfind("guest/arch")
    )


def is_x86(capabilities: str) -> bool:
    """Return whether the host is an x86-64."""
    return ET.fromstring(capabilities).findtext("host/cpu/arch") == "x86_64"  # noqa: S314 - from libvirt
