"""What a host does when its power comes on: kept on its disk, so that its power button needs to know nothing else."""

from pathlib import Path

import msgspec

from pvc_sandbox.control import Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """A host's watchdog; see module ``watchdog``."""

    reboot_s: float = 1.0
    """After a reset the power comes back after so many seconds; below 0: it stays off."""


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What comes up with a host."""

    services: tuple[Service, ...] = ()
    """In the order of their start."""
    watchdog: Watchdog | None = None


def boot_file(state: Path) -> Path:
    """Return where it is kept on the disk of the host with this state directory."""
    return state / "boot.json"


def write_boot(state: Path, boot: Boot) -> None:
    """Keep it for later boots."""
    write_atomically(boot_file(state), msgspec.json.encode(boot))


def load_boot(state: Path) -> Boot:
    """Return what was kept; raises SandboxError when the host was never started, or is removed."""
    path = boot_file(state)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Boot)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise SandboxError(f"nothing to boot from: {path}: {error}; start it with: pvc sandbox up") from error
