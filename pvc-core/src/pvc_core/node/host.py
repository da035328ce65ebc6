"""Facts of this host that the kernel tells, not the hypervisor."""

import os
import platform
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class HostFigures(NamedTuple):
    """The host as its kernel sees it."""

    kernel: str
    architecture: str
    boot_id: str
    """Changes with every start of the host: guests that ran under another one are gone."""
    load1: float


class Host(Protocol):
    """Where the figures come from, so that the simulator can have its own."""

    def figures(self) -> HostFigures:
        """Return the figures now."""


class LinuxHost:
    """The host this process runs on.

    ``boot_file`` holds the boot id; where several nodes share one kernel (a sandbox) each has a file of its own.
    """

    def __init__(self, boot_file: Path = _BOOT_ID) -> None:
        self._boot_file = boot_file

    def figures(self) -> HostFigures:
        """Read the kernel's figures."""
        return HostFigures(
            kernel=platform.release(),
            architecture=platform.machine(),
            boot_id=self._boot_file.read_text(encoding="ascii").strip(),
            load1=os.getloadavg()[0],
        )
