"""A guest of 512 bytes for tests of hypervisors: up in 0.15 s with TCG, real mode, next to no load.

It writes ``GUEST_UP`` on its serial port, then a dot every second; it writes back what it gets there; it
powers off when the ACPI power button is pressed, unless it is deaf.  It can fill memory first, so that a live
migration has something to copy.
"""

import struct
from pathlib import Path
from typing import Final

from pvc_core.hypervisor.api import DomainPlan
from pvc_core.model.disk import Disk
from pvc_core.model.vm import VmSpec
from pvc_core.plugin.specs.storage import DiskSource

GUEST_UP: Final = "GUEST-UP"
MEMORY_MIB: Final = 16

# Assembled with GNU as; loaded at 0x7c00:
#   cli; ds = es = ss = 0; sp = 0x7c00
#   ES gets a limit of 4 GiB ("unreal mode": lgdt, CR0.PE on, mov es,8, CR0.PE off); A20 on (port 0x92)
#   ecx = fill << 18; edi = 2 MiB; while ecx--: es:[edi] = edi, edi += 4
#   port 0x602 |= 0x100                          PM1 enable: the power button sets its status bit
#   sti; write the message
#   again: bx = 0
#   tick:  hlt                                   18.2 times a second
#          if heed and port 0x600 & 0x100: out 0x604, 0x2000 (S5, off)
#          if port 0x3fd & 1: write what port 0x3f8 has
#          if ++bx < 18 goto tick; write '.'; goto again
_CODE: Final = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007c060f0116c07c0f20c00c010f22c0eb00bb08008ec324fe0f22c0eb00e4920c02e692"
    "660fb70ed17c66c1e11266bf0000200067e30d266766893f6683c7046649ebf007ba0206ed0d0001effbbec67cac"
    "84c07405e83300ebf631dbf4ba0006ed8426d37c751cbafd03eca8017407baf803ece815004383fb1272e0b02ee8"
    "0a00ebd7ba0406b80020eff45052bafd03eca82074fb5a5852baf803ee5ac38db400008d74000000000000000000"
    "ffff00000093cf000f00b07c0000"
    "47554553542d55500d0a00"
)
_IMAGE_SIZE: Final = 1 << 20


def guest_image(*, fill_mib: int = 0, deaf: bool = False) -> bytes:
    """Return a raw disk with the guest; ``fill_mib``: memory that it fills, below the VM's own less 2 MiB."""
    sector = _CODE + struct.pack("<HB", fill_mib, 0 if deaf else 1)
    return (sector.ljust(510, b"\0") + b"\x55\xaa").ljust(_IMAGE_SIZE, b"\0")


def guest_plan(
    vm: str,
    name: str,
    image: Path,
    *,
    console_log: str = "",
    memory_mib: int = MEMORY_MIB,
    accelerator: str = "auto",
) -> DomainPlan:
    """Return the plan of a VM that boots from an image file."""
    return DomainPlan(
        vm=VmSpec(
            id=vm,
            name=name,
            memory_mib=memory_mib,
            vcpus=1,
            accelerator=accelerator,  # type: ignore[arg-type]  # one of its three words
            disks=(Disk(pool="test", volume=image.stem),),
        ),
        disks=(DiskSource(type="file", source_xml=f"<source file='{image}'/>"),),
        nics=(),
        console_log=console_log,
    )
