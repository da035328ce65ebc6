"""The tiny Linux guest: Debian's kernel for clouds, unpacked and not installed, and a busybox initramfs."""

import gzip
import hashlib
import lzma
import platform
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.plugin.process import run
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.images.agent import guest_agent
from pvc_sandbox.images.cache import CACHE, cached
from pvc_sandbox.images.cpio import Archive
from pvc_sandbox.images.debian import download

LINUX_UP: Final = "GUEST-UP"
"""What it writes on its serial console when it is up; then "tick N UPTIME" every second."""
LINUX_MEMORY_MIB: Final = 128
"""What it needs: with 64 MiB Debian's kernel does not boot."""

_META_PACKAGE: Final = "linux-image-cloud-amd64"
_BUSYBOX: Final = Path("/bin/busybox")
_MODULES: Final = (
    "button", "evdev",  # the power button
    "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_net", "virtio_console", "virtio-rng", "virtio_balloon",
    "8021q", "dummy", "macvlan",
)  # fmt: skip


class TinyLinux(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's files, as the nodes of a sandbox see them too."""

    kernel: Path
    initrd: Path

    def command_line(self, **arguments: object) -> str:
        """Return a kernel command line; see ``guest-init.sh`` for the arguments."""
        words = ["console=ttyS0", "quiet", "panic=-1", *(f"{name}={value}" for name, value in arguments.items())]
        return " ".join(words)


def tiny_linux(cache: Path = CACHE, *, agent: bool = False) -> TinyLinux:
    """Return the guest; the first call downloads the kernel (27 MB) with apt and takes some seconds.

    ``agent``: with QEMU's guest agent.  Raises SandboxError when it can be neither found in the cache nor made.
    """
    kernel = _kernel(cache)
    if not _BUSYBOX.exists():
        raise SandboxError(f"{_BUSYBOX} is missing; install it: apt-get install busybox-static")
    script = resources.files("pvc_sandbox.images").joinpath("guest-init.sh").read_bytes()
    more = guest_agent(cache) if agent else {}
    parts = (script, _BUSYBOX.read_bytes(), kernel.name.encode(), " ".join(_MODULES).encode(), *more.values())
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:12]
    initrd = cached(f"initrd-{key}", lambda work: _write_initrd(work / "initrd.gz", kernel, script, more), cache)
    return TinyLinux(kernel=kernel / "vmlinuz", initrd=initrd / "initrd.gz")


def _kernel(cache: Path) -> Path:
    """Return the directory with ``vmlinuz`` and ``modules``: the one in the cache, so that no network is needed."""
    present = sorted(cache.glob("kernel-*/"))
    if present:
        return present[-1]
    if platform.machine() != "x86_64":
        raise SandboxError(f"the tiny Linux guest is for x86_64, this machine is {platform.machine()}")
    return cached(f"kernel-{_package()}", _download_kernel, cache)


def _package() -> str:
    answer = run(["apt-cache", "depends", "--important", _META_PACKAGE], deadline_s=60)
    for line in answer.stdout.splitlines():
        word, _, package = line.strip().partition(" ")
        if word == "Depends:":
            return package
    raise SandboxError(f"apt knows no package {_META_PACKAGE}; run: apt-get update, then try again")


def _download_kernel(work: Path) -> None:
    unpacked = download(_package(), work)
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    shutil.move(kernel, work / "vmlinuz")
    shutil.move(next((unpacked / "lib/modules").iterdir()) / "kernel", work / "modules")
    shutil.rmtree(unpacked)


def _write_initrd(path: Path, kernel: Path, script: bytes, more: Mapping[str, bytes]) -> None:
    archive = Archive()
    directories = {"bin", "dev", "etc", "modules", "proc", "sys", "tmp"}
    directories |= {str(parent) for name in more for parent in Path(name).parents if str(parent) != "."}
    for directory in sorted(directories):
        archive.directory(directory)
    archive.file("bin/busybox", _BUSYBOX.read_bytes(), executable=True)
    archive.file("init", script, executable=True)
    modules = _with_dependencies(kernel / "modules")
    for name, content in modules.items():
        archive.file(f"modules/{name}.ko", content)
    archive.file("modules/order", "\n".join(f"{name}.ko" for name in modules).encode())
    for name, content in more.items():
        archive.file(name, content, executable=True)
    path.write_bytes(gzip.compress(archive.finish(), compresslevel=6, mtime=0))


def _with_dependencies(tree: Path) -> dict[str, bytes]:
    """Return the wanted modules, each after those it needs, so that plain insmod loads them in this order."""
    files = {_plain(path.name.split(".ko")[0]): path for path in tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:  # one that is not there is built into the kernel
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        needs = next((entry for entry in content.split(b"\0") if entry.startswith(b"depends=")), b"depends=")
        for other in needs.removeprefix(b"depends=").decode().split(","):
            if other:
                add(_plain(other))
        ordered[name] = content

    for name in _MODULES:
        add(_plain(name))
    return ordered


def _plain(name: str) -> str:
    return name.replace("-", "_")
