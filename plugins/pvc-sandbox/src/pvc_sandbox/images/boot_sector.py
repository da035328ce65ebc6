"""A guest in 512 bytes: it says that it is up on the serial port, then writes a dot every second.

Between the dots the processor sleeps (HLT), so dozens of them cost next to nothing; and it is real mode
only, so it runs where KVM cannot run a real kernel.
"""

import struct
from pathlib import Path
from typing import Final

from pvc_sandbox.images.cache import CACHE, cached

BOOT_MARK: Final = "BOOTSECTOR-UP"
"""What it writes first."""

_LOADED_AT: Final = 0x7C00
_SECTOR: Final = 512
_IMAGE_SIZE: Final = 1 << 20
_TICKS_PER_DOT: Final = 18
"""The BIOS's timer interrupts 18.2 times a second."""


def boot_sector(cache: Path = CACHE) -> Path:
    """Return a raw disk image of 1 MiB that boots the sector from its first disk."""
    return cached("boot-sector-1", lambda work: _write(work / "boot.raw"), cache) / "boot.raw"


def _write(path: Path) -> None:
    path.write_bytes(assemble().ljust(_IMAGE_SIZE, b"\0"))


def assemble() -> bytes:
    """Return the sector's 512 bytes."""
    code = bytearray()
    code += b"\xfa\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c\xfb"  # cli; ds = ss = 0; sp = 7c00; sti
    code += b"\xbe\0\0\xba\xf8\x03"  # si = message (filled in below); dx = COM1
    message_at = len(code) - 5
    code += b"\xac\x84\xc0\x74\x03\xee\xeb\xf8"  # next: lodsb; test al, al; jz wait; out dx, al; jmp next
    wait = len(code)
    code += b"\x31\xdb\xf4\x43\x83\xfb" + bytes([_TICKS_PER_DOT]) + b"\x72\xf9"  # wait: bx = 0; hlt until 18 ticks
    code += b"\xba\xf8\x03\xb0\x2e\xee"  # out COM1, '.'
    code += bytes([0xEB, (wait - len(code) - 2) & 0xFF])  # jmp wait
    code[message_at : message_at + 2] = struct.pack("<H", _LOADED_AT + len(code))
    code += BOOT_MARK.encode() + b"\r\n\0"
    return bytes(code).ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"
