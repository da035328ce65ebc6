"""Facts of this host that the kernel tells, not the hypervisor."""

import math
import os
import platform
import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_INIT: Final = Path("/proc/1/stat")
_START_TIME: Final = 19
"""Index of field 22 of proc_pid_stat(5), counted from the state, which follows the name in parentheses."""


class HostFigures(NamedTuple):
    """The host as its kernel sees it."""

    kernel: str
    architecture: str
    boot_id: str
    """Changes with every start of the host: guests that ran under another one are gone."""
    load1: float
    uptime_s: float = math.inf
    """Since the host was started."""


class Host(Protocol):
    """Where the figures come from, so that the simulator can have its own."""

    def figures(self) -> HostFigures:
        """Return the figures now."""


class LinuxHost:
    """The host this process runs on."""

    def figures(self) -> HostFigures:
        """Read the kernel's figures."""
        began = _began()
        return HostFigures(
            kernel=platform.release(),
            architecture=platform.machine(),
            boot_id=f"{_BOOT_ID.read_text(encoding='ascii').strip()}.{began}",
            load1=os.getloadavg()[0],
            uptime_s=time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK"),
        )


def _began() -> int:
    """Return when the host's first process began, in clock ticks since the kernel did.

    Nodes that are namespaces of one kernel share that kernel, but not their first process: so a power cut of one of
    them is seen as what it stands for.
    """
    return int(_INIT.read_text(encoding="utf-8").rpartition(")")[2].split()[_START_TIME])
