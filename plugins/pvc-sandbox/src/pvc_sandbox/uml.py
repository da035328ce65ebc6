"""Another Linux kernel on this machine's own files: Debian's user-mode-linux, for what this machine's kernel lacks.

It needs neither KVM nor privileges of its own, and is up in about two seconds.  Its root is this machine's file system, what it
writes is forgotten: the same interpreter, the same source tree, the same paths.  It has one CPU, on which Python takes about
five times as long; it sees no network but its own loopback, and disks that are made for it.

Source: https://docs.kernel.org/virt/uml/user_mode_linux_howto_v2.html (hostfs, ubd).
"""

import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pvc_core.plugin import DeadlineExceeded
from pvc_core.plugin.process import Completed, run
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.images.cache import cached
from pvc_sandbox.images.debian import download

_KERNEL: Final = "user-mode-linux"
_BOOT_S: Final = 30.0
"""On top of the command's time: the boot, and the end."""
_LAST_LINES: Final = 15
_MIB: Final = 1 << 20

_INIT: Final = """\
#!/bin/sh
export PATH={path} HOME=/root LANG=C.UTF-8
stop() {{ echo "$1"; sync; exec busybox poweroff -f; }}
mount -t tmpfs -o size=80% t /mnt
mkdir /mnt/upper /mnt/work /mnt/new
{overlay}
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work o /mnt/new || stop "no root file system"
cd /mnt/new
mount -t proc p proc && mount -t sysfs s sys && mount -t tmpfs r run || stop "no /proc, /sys, /run"
mount -t devtmpfs d dev || stop "no /dev"
mkdir -p dev/shm dev/pts exchange run/lock
mount -t tmpfs h dev/shm
mount -t devpts d dev/pts
mount -t hostfs -o {exchange} o exchange || stop "no way out"
exec busybox chroot /mnt/new /bin/sh /exchange/inside
"""
_INSIDE: Final = """\
cd {directory} || exec busybox poweroff -f
ip link set lo up
{modules}
/bin/sh /exchange/command </dev/null >/exchange/stdout 2>/exchange/stderr
echo $? >/exchange/status
sync
exec busybox poweroff -f
"""


def run_in_uml(
    argv: Sequence[str],
    *,
    deadline_s: float,
    modules: Sequence[str] = (),
    disks_mib: Sequence[int] = (),
    unpacked: Sequence[str] = (),
    memory_mib: int = 512,
) -> Completed:
    """Boot, run a program as root in the current directory, and return how it ended.

    ``modules`` are loaded first.  ``disks_mib``: sizes of empty disks, ``/dev/ubdb`` and so on.  ``unpacked``: Debian packages
    whose programs it finds, though they are not installed here.  ``deadline_s`` is the program's; the boot comes on top.
    Raises SandboxError when it does not boot or the program does not end, and for what cannot be downloaded.
    """
    kernel = _unpacked(_KERNEL)
    library = next((kernel / "usr/lib/uml/modules").iterdir())
    programs = [str(_unpacked(name) / place) for name in unpacked for place in ("bin", "sbin", "usr/bin", "usr/sbin")]
    with tempfile.TemporaryDirectory(prefix="pvc-uml-") as place:
        exchange = Path(place)
        disks = [_disk(exchange, number, size) for number, size in enumerate(disks_mib, 1)]
        init = exchange / "init"
        path = ":".join([*programs, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        init.write_text(_INIT.format(path=shlex.quote(path), overlay=_insmod(library, ["overlay"]), exchange=exchange))
        init.chmod(0o755)
        (exchange / "inside").write_text(
            _INSIDE.format(directory=shlex.quote(str(Path.cwd())), modules=_insmod(library, modules))
        )
        (exchange / "command").write_text(f"exec {shlex.join(argv)}\n")
        booted = _booted(
            exchange,
            [
                # All that it is made of ends with us, also when we are killed.
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"),
                *(str(kernel / "usr/bin/linux.uml"), f"mem={memory_mib}M", *disks),
                *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"),
                *("con=null", "con0=null,fd:1", "quiet", "panic=1"),
            ],
            deadline_s + _BOOT_S,
        )
        return _ended(argv, exchange, booted)


def load_order(dependencies: str, modules: Iterable[str]) -> list[str]:
    """Return the files of modules and of all that they need, in the order in which they are loaded.

    ``dependencies`` is the text of ``modules.dep``.  Raises SandboxError for a module that the kernel has not.
    """
    needs = {file: needed.split() for file, _, needed in (line.partition(":") for line in dependencies.splitlines())}
    files = {Path(file).name.partition(".ko")[0].replace("_", "-"): file for file in needs}
    order: list[str] = []
    for module in modules:
        file = files.get(module.replace("_", "-"))
        if file is None:
            raise SandboxError(f"this user-mode Linux has no module {module!r}")
        order += [each for each in (*reversed(needs[file]), file) if each not in order]
    return order


def _insmod(library: Path, modules: Iterable[str]) -> str:
    order = load_order((library / "modules.dep").read_text(), modules)
    return "\n".join(f"busybox insmod {shlex.quote(str(library / file))}" for file in order)


def _unpacked(package: str) -> Path:
    return cached(f"unpacked-{package}", lambda work: _unpack(package, work)) / "unpacked"


def _unpack(package: str, work: Path) -> None:
    download(package, work)


def _disk(exchange: Path, number: int, size_mib: int) -> str:
    image = exchange / f"disk{number}"
    with image.open("wb") as file:
        file.truncate(size_mib * _MIB)
    return f"ubd{chr(ord('a') + number)}={image}"


def _booted(exchange: Path, argv: Sequence[str], deadline_s: float) -> Completed:
    try:
        return run(argv, deadline_s=deadline_s)
    except DeadlineExceeded as error:
        said = exchange / "stderr"
        lines = said.read_text(errors="replace").splitlines()[-_LAST_LINES:] if said.exists() else []
        raise SandboxError(
            f"the program in user-mode Linux did not end in time; it said last: {' / '.join(lines)}"
        ) from error


def _ended(argv: Sequence[str], exchange: Path, booted: Completed) -> Completed:
    said = {name: exchange / name for name in ("status", "stdout", "stderr")}
    if not said["status"].exists():
        last = (booted.stdout + booted.stderr).strip().splitlines()[-_LAST_LINES:]
        raise SandboxError(f"user-mode Linux ended (status {booted.returncode}) without a result: {' / '.join(last)}")
    return Completed(
        argv=tuple(argv),
        returncode=int(said["status"].read_text()),
        stdout=said["stdout"].read_text(errors="replace"),
        stderr=said["stderr"].read_text(errors="replace"),
    )
