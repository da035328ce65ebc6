"""QEMU's guest agent, as Debian builds it, with the libraries that it needs, from this machine."""

import re
import shutil
from pathlib import Path
from typing import Final

from pvc_core.plugin.process import run
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.images.cache import cached
from pvc_sandbox.images.debian import download

_PACKAGE: Final = "qemu-guest-agent"
_AGENT: Final = "usr/sbin/qemu-ga"
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
"""A line of ldd: ``libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)``."""


def guest_agent(cache: Path) -> dict[str, bytes]:
    """Return the files by their paths in the guest, without the first slash.

    The first call downloads the package (0.3 MB) with apt.  Raises SandboxError when it can be neither found in the cache
    nor made, or this machine lacks one of the libraries.
    """
    program = cached("agent-1", _make, cache) / "qemu-ga"
    answer = run(["ldd", str(program)], deadline_s=30)
    missing = [line.split()[0] for line in answer.stdout.splitlines() if "not found" in line]
    if answer.returncode or missing:
        raise SandboxError(
            f"QEMU's guest agent needs {', '.join(missing) or 'libraries'}, which this machine lacks; install the package "
            f"{_PACKAGE} once, and remove it: its libraries stay"
        )
    paths = _LIBRARY.findall(answer.stdout)
    return {_AGENT: program.read_bytes()} | {path.lstrip("/"): Path(path).read_bytes() for path in paths}


def _make(work: Path) -> None:
    unpacked = download(_PACKAGE, work)
    shutil.move(unpacked / _AGENT, work / "qemu-ga")
    shutil.rmtree(unpacked)
