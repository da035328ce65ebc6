"""Random writes of 4 KiB: of librbd (`rbd bench`), of QEMU without a guest, and of a guest."""

import json
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from _cluster import note, tell_all
from _storage_site import MIB, POOL, WAIT_S, Site

from pvc_sandbox.images import LINUX_MEMORY_MIB, tiny_linux
from pvc_sandbox.images.cpio import Archive

DEPTHS: Final = (1, 16)
SIZE_MIB: Final = 64
_BLOCK: Final = 4096
_PROBE_S: Final = 0.5
_FIRST_WRITES: Final = 100
_STEP: Final = 9973 * _BLOCK
"""A prime number of blocks: going on by it, round and round, visits all blocks of a volume, and each time another object."""
_RBD: Final = "rbd bench"
_QEMU: Final = "qemu-img bench"
_DISKS: Final = {"guest virtio-blk": "vda", "guest virtio-scsi": "sda"}
_VM: Final = "writer"
_HERE: Final = Path(__file__).parent

Write = Callable[[int, float], float]
"""Writes with a queue of such a depth for about so many seconds; returns the writes per second."""


class Guest:
    """A VM that writes when it is told to."""

    def __init__(self, site: Site) -> None:
        _define(site)
        id_ = str(site.sandbox.pvc.json("vm", "info", _VM)["view"]["id"])
        self._console, said = site.client.service(site.node).console(id_)
        self._said = said
        self._read_until(rb"GUEST-READY")

    def write(self, disk: str, depth: int, seconds: float) -> float:
        """Return the writes per second."""
        self._console.sendall(f"{disk} {depth} {seconds}\n".encode())
        found = self._read_until(rb"random-write: (?:writes=(\d+) seconds=([\d.]+)|(.*))\r?\n")
        if found[3] is not None:
            raise SystemExit(f"the guest cannot write: {found[3].decode(errors='replace')}")
        return int(found[1]) / float(found[2])

    def close(self) -> None:
        """Let go of its console."""
        self._console.close()

    def _read_until(self, pattern: bytes) -> re.Match[bytes]:
        """Return what the guest says, and forget all before it."""
        deadline = time.monotonic() + WAIT_S
        while (found := re.search(pattern, self._said)) is None:
            self._console.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self._console.recv(4096)
            except TimeoutError:
                part = b""
            if not part:
                raise SystemExit(f"the guest said nothing that is {pattern!r}, but: {self._said[-400:]!r}")
            self._said += part
        self._said = self._said[found.end() :]
        return found


def writes(site: Site, rounds: int, seconds: float) -> None:
    """Measure all in turn, so that a busy moment of the machine hits all alike."""
    for name in ("plain", "qemu", *_DISKS.values()):
        site.add_volume(name, SIZE_MIB * MIB, filled=True)
    guest = Guest(site)
    note("the guest is up")
    ways: dict[str, Write] = {
        _RBD: _for_seconds(lambda depth, count: _rbd_bench(site, depth, count)),
        _QEMU: _for_seconds(lambda depth, count: _qemu_bench(site, depth, count)),
        **{way: partial(guest.write, disk) for way, disk in _DISKS.items()},
    }
    try:
        rates = _rates(ways, rounds, seconds)
    finally:
        guest.close()
    for depth in DEPTHS:
        middle = {way: median(rates[way, depth]) for way in ways}
        for way in ways:
            ratios = {
                name: round(middle[way] / middle[other], 2)
                for name, other in (("ratio_to_rbd", _RBD), ("ratio_to_qemu", _QEMU))
                if way not in (_RBD, other)
            }
            tell_all("storage", "random_writes", rates[way, depth], unit="1/s", way=way, depth=depth, **ratios)
    site.sandbox.pvc("vm", "stop", _VM, "--yes")


def _rates(ways: dict[str, Write], rounds: int, seconds: float) -> dict[tuple[str, int], list[float]]:
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for depth in DEPTHS:
            for way, write in ways.items():
                rate = write(depth, seconds if number else _PROBE_S)
                if number:  # the first round only warms up
                    rates[way, depth].append(rate)
    return rates


def _for_seconds(write: Callable[[int, int], float]) -> Write:
    """Return a way that is told seconds, of one that is told a number of writes: it goes by its last rate."""
    known: dict[int, float] = {}

    def run(depth: int, seconds: float) -> float:
        count = int(known.get(depth, _FIRST_WRITES / seconds) * seconds)
        known[depth] = write(depth, max(count, depth))
        return known[depth]

    return run


def _rbd_bench(site: Site, depth: int, count: int) -> float:
    said = site.program(
        *("rbd", "bench", "--io-type", "write", "--io-pattern", "rand", "--io-size", str(_BLOCK)),
        *("--io-threads", str(depth), "--io-total", str(count * _BLOCK), "--rbd-cache=false", f"{POOL}/plain"),
    )
    return float(_found(r"ops/sec: ([\d.]+)", said))


def _qemu_bench(site: Site, depth: int, count: int) -> float:
    said = site.program(
        *("qemu-img", "bench", "-w", "-t", "none", "-f", "raw", "-s", str(_BLOCK), "-S", str(_STEP)),
        *("-d", str(depth), "-c", str(count), f"rbd:{POOL}/qemu"),
    )
    return count / float(_found(r"completed in ([\d.]+) seconds", said))


def _found(pattern: str, said: str) -> str:
    found = re.search(pattern, said)
    if found is None:
        raise SystemExit(f"this should say {pattern!r}: {said!r}")
    return found[1]


def _define(site: Site) -> None:
    """Start the VM, with one volume on each kind of disk."""
    linux = tiny_linux()
    initrd = site.sandbox.shared / "writer.initrd"
    initrd.write_bytes(_padded(linux.initrd.read_bytes()) + _program(site.sandbox.shared))
    definition = {
        "name": _VM,
        "memory": LINUX_MEMORY_MIB,
        "direct_kernel": {"kernel": str(linux.kernel), "initrd": str(initrd), "cmdline": linux.command_line()},
        "disks": [
            {"pool": POOL, "volume": "vda", "bus": "virtio", "cache": "none"},
            {"pool": POOL, "volume": "sda", "bus": "scsi", "cache": "none"},
        ],
    }
    file = site.sandbox.shared / "writer.yml"
    file.write_text(json.dumps(definition))
    site.sandbox.pvc("vm", "define", str(file), "--node", site.node, "--start")


def _program(directory: Path) -> bytes:
    """Return an archive with what this guest has beyond, or instead of, the files of the tiny Linux."""
    binary = directory / "random-write"
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", binary, _HERE / "_storage_writer.c"], check=True)
    archive = Archive()
    archive.file("bin/random-write", binary.read_bytes(), executable=True)
    archive.file("init", (_HERE / "_storage_guest_init.sh").read_bytes(), executable=True)
    return archive.finish()


def _padded(data: bytes) -> bytes:
    """Return an archive after which the kernel finds another one: at a multiple of four."""
    return data + b"\0" * (-len(data) % 4)
