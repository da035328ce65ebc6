"""A guest that writes down, several times a second, that it executes, and on which host: up in 0.15 s with TCG.

It appends records to the disk that it boots from, one in each sector behind the boot sector: in a sector that nobody
has written yet, behind all that were.  So the disk tells who executed in which order, and two copies at the same time
would show: see ``heartbeats``.  What it writes on the disk it writes on its serial port too.  It is real mode only, so
that it runs under KVM without hardware virtualization (up in 1.5 s there: the BIOS is emulated).  It is deaf to the power
button.

A record is text: ``beat 000017 of 063136-0787A28D on hv1``, a number that counts from 1 in each boot, the boot's time of
day and time-stamp counter, and the host's name as it is then: QEMU reads it when it starts, on the node where it starts.
"""

from typing import Final

HOST_OVERLAY: Final = """\
<domain>
  <sysinfo type='fwcfg'><entry name='opt/pvc/host' file='/proc/sys/kernel/hostname'/></sysinfo>
</domain>
"""
"""XML that is laid over the guest's domain and gives it its host's name."""

OVERLAY: Final = """\
<domain>
  <sysinfo type='fwcfg'><entry name='opt/pvc/host' file='/proc/sys/kernel/hostname'/></sysinfo>
  <devices><disk><target dev='vda'/><shareable/></disk></devices>
</domain>
"""
"""The same, which also takes from its disk, an image file, the lock with which QEMU keeps a second copy from starting on the same machine: nothing but PVC shall keep it from that."""

MEMORY_MIB: Final = 16
SECTOR: Final = 512
SECTORS: Final = 8192
"""Of the disk: enough for 20 minutes."""

# Assembled with GNU as; loaded at 0x7c00 and linked there.  At 0x7e00 is the packet of the BIOS's extended disk calls (at
# 0x7e08 its sector), at 0x7e10 the number of QEMU's file with the host's name, at 0x7e12 that of the disk; the record that is
# written at 0x8000, what was read last at 0x8200.
_LISTING: Final = """\
31c0                _start: xor %ax, %ax                    # segments, stack, memory that is cleared
8ed8                        mov %ax, %ds
8ec0                        mov %ax, %es
8ed0                        mov %ax, %ss
bc007c                      mov $0x7c00, %sp
fc                          cld
bf007e                      mov $packet, %di
b90003                      mov $0x300, %cx
f3ab                        rep stosw
8816127e                    mov %dl, drive                  # as the BIOS calls the disk it booted from
be3e7d                      mov $text, %si
bf0080                      mov $record, %di
b92200                      mov $name - text, %cx
f3a4                        rep movsb
bf0f80                      mov $record + 15, %di           # the id of this boot: time of day (BIOS), time-stamp counter
b402                clock:  mov $2, %ah
cd1a                        int $0x1a
72fa                        jc clock
89c8                        mov %cx, %ax
66c1e010                    shl $16, %eax
88f4                        mov %dh, %ah
b90600                      mov $6, %cx
e8db00                      call hex
47                          inc %di
0f31                        rdtsc
b90800                      mov $8, %cx
e8d200                      call hex
b81900                      mov $0x19, %ax                  # QEMU's directory of files: count, then 64 bytes each
e8c000                      call open
b90400                      mov $4, %cx
e8c000                      call get
8a1e0382                    mov found + 3, %bl
b94000              entry:  mov $64, %cx
e8b600                      call get
be607d                      mov $name, %si
bf0882                      mov $found + 8, %di
b90d00                      mov $bad - name, %cx
f3a6                        repe cmpsb
7404                        je named
fecb                        dec %bl
75e9                        jnz entry
a10482              named:  mov found + 4, %ax
86c4                        xchg %al, %ah
a3107e                      mov %ax, key
bd0010                      mov $4096, %bp                  # the last used sector
012e087e            search: add %bp, sector
e85e00                      call used
7404                        je half
292e087e                    sub %bp, sector
d1ed                half:   shr $1, %bp
75ef                        jnz search
ff06087e            beat:   incw sector                     # every 3 ticks: the next sector that nobody has used
e84d00                      call used
74f7                        je beat
a1107e                      mov key, %ax                    # the host's name as it is now
e87400                      call open
bf2280                      mov $record + 34, %di
b91000                      mov $16, %cx
f36c                        rep insb
bb0080                      mov $record, %bx
b443                        mov $0x43, %ah
e84e00                      call disk
be0080                      mov $record, %si
7307                        jnc done
ff0e087e                    decw sector
be6d7d                      mov $bad, %si
9c                  done:   pushf
e87100                      call print
9d                          popf
7210                        jc rest
bf0a80                      mov $record + 10, %di           # count on, in decimal digits
fe05                carry:  incb (%di)
803d39                      cmpb $'9', (%di)
7606                        jbe rest
c60530                      movb $'0', (%di)
4f                          dec %di
ebf3                        jmp carry
fb                  rest:   sti
8b1e6c04                    mov 0x46c, %bx                  # the BIOS's clock: 18.2 ticks a second
f4                  tick:   hlt
a16c04                      mov 0x46c, %ax
29d8                        sub %bx, %ax
83f803                      cmp $3, %ax
72f5                        jb tick
ebac                        jmp beat
bb0082              used:   mov $found, %bx                 # is the sector in use: equal
66c70700000000              movl $0, (%bx)
b442                        mov $0x42, %ah
e80a00                      call disk
66813e008262656174          cmpl $0x74616562, found
c3                          ret
be007e              disk:   mov $packet, %si                # extended read or write of the sector from or to bx
66c70410000100              movl $0x10010, (%si)
895c04                      mov %bx, 4(%si)
8a16127e                    mov drive, %dl
b000                        mov $0, %al
cd13                        int $0x13
c3                          ret
ba1005              open:   mov $0x510, %dx                 # select a file of QEMU's
ef                          out %ax, %dx
42                          inc %dx
c3                          ret
bf0082              get:    mov $found, %di                 # read cx bytes of it
f36c                        rep insb
c3                          ret
66c1c004            hex:    rol $4, %eax                    # write the upper cx digits of eax
50                          push %ax
240f                        and $15, %al
3c0a                        cmp $10, %al
1c69                        sbb $0x69, %al
2f                          das
aa                          stosb
58                          pop %ax
e2f0                        loop hex
c3                          ret
ac                  print:  lodsb                           # write a text on the serial port
84c0                        test %al, %al
7412                        jz end
88c4                        mov %al, %ah
bafd03                      mov $0x3fd, %dx
ec                  busy:   in %dx, %al
a820                        test $0x20, %al
74fb                        jz busy
88e0                        mov %ah, %al
baf803                      mov $0x3f8, %dx
ee                          out %al, %dx
ebe9                        jmp print
c3                  end:    ret
"""
_TEXT: Final = b"beat 000001 of hhmmss-tttttttt on opt/pvc/host\0disk error\n\0"
"""The template of a record, the name of QEMU's file, and a complaint."""


def heartbeat_image(sectors: int = SECTORS) -> bytes:
    """Return a raw disk with the guest, and room for so many records less one."""
    code = b"".join(bytes.fromhex(line[:20]) for line in _LISTING.splitlines())
    return ((code + _TEXT).ljust(SECTOR - 2, b"\0") + b"\x55\xaa").ljust(sectors * SECTOR, b"\0")
