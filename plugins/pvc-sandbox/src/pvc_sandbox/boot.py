"""What a host does when its power comes on: kept on its disk, so that its power button needs to know nothing else."""

from pathlib import Path
from typing import Final

import msgspec

from pvc_sandbox.control import Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically

_UNITS: Final = "units"
"""Below a host's state directory: the services that were enabled one by one, each in a file of its name."""


class Watchdog(msgspec.Struct, frozen=True, kw_only=True):
    """A host's watchdog; see module ``watchdog``."""

    reboot_s: float = 1.0
    """After a reset the power comes back after so many seconds; below 0: it stays off."""


class Equipment(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has beside its cables, from its next boot on."""

    disks: tuple[int, ...] = ()
    """Sizes of its disks in bytes; see module ``disks``."""
    binds: tuple[tuple[str, str], ...] = ()
    """Files and directories of the machine, and what each stands in place of on the host."""
    router: bool = False
    """Its default routes lead to the router outside the cluster; see module ``router``."""


NO_EQUIPMENT: Final = Equipment()


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What comes up with a host."""

    services: tuple[Service, ...] = ()
    """In the order of their start."""
    watchdog: Watchdog | None = None
    equipment: Equipment = NO_EQUIPMENT


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


def enable(state: Path, service: Service) -> None:
    """Let a service come up at each later boot too, after those of ``Boot``."""
    write_atomically(_unit_file(state, service.name), msgspec.json.encode(service))


def disable(state: Path, name: str) -> None:
    """Let a service that was enabled come up no more; one that was not is success."""
    _unit_file(state, name).unlink(missing_ok=True)


def is_enabled(state: Path, name: str) -> bool:
    """Return whether a service was enabled."""
    return _unit_file(state, name).exists()


def enabled(state: Path) -> list[Service]:
    """Return the services that were enabled, by name."""
    found = []
    for path in sorted((state / _UNITS).glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Service))
        except FileNotFoundError:  # it was disabled just now
            continue
        except msgspec.MsgspecError as error:
            raise SandboxError(f"{path} cannot be read ({error}); remove it") from error
    return found


def _unit_file(state: Path, name: str) -> Path:
    return state / _UNITS / f"{name}.json"
