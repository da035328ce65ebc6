"""Where a gateway's files are: one directory per network below the node's run directory, gone after a reboot.

Written so that a daemon killed at any moment leaves the file as it was or as it shall be.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from msgspec import Struct

from pvc_core.plugin import DriverError

_CONFIG: Final = "dnsmasq-"


class Directory(Struct, frozen=True):
    """The files of one network's gateway."""

    path: Path

    @property
    def hosts(self) -> Path:
        """Who gets which address: dnsmasq's ``dhcp-hostsfile``."""
        return self.path / "hosts"

    @property
    def names(self) -> Path:
        """Names of addresses that are somebody's for good: dnsmasq's ``addn-hosts``."""
        return self.path / "names"

    @property
    def loaded(self) -> Path:
        """Digest of the hosts and names that the running dnsmasq was told to read."""
        return self.path / "loaded"

    @property
    def leases(self) -> Path:
        """What dnsmasq starts with, in the format of its lease file."""
        return self.path / "leases"

    @property
    def pid(self) -> Path:
        """Written by dnsmasq."""
        return self.path / "pid"

    @property
    def spool(self) -> Path:
        """Changes of leases, a file for each address, as the script wrote them."""
        return self.path / "spool"

    @property
    def taken(self) -> Path:
        """Those that are being published."""
        return self.path / "taken"

    @property
    def masquerade(self) -> Path:
        """The prefix that leaves under the node's own address; absent: none does."""
        return self.path / "masquerade"

    def config(self, text: str) -> Path:
        """Return the path of a configuration: by its name a process tells which one it runs."""
        return self.path / f"{_CONFIG}{digest(text)}.conf"

    def configs(self) -> list[Path]:
        """Return all configurations that are there."""
        return list(self.path.glob(f"{_CONFIG}*.conf"))

    def make(self) -> None:
        """Make it and what is in it; dnsmasq, which gives up root's rights, must be able to read the files."""
        for path in (*reversed(self.path.parents[:2]), self.path, self.spool, self.taken):
            try:
                path.mkdir(parents=True, exist_ok=True)
                # Whatever the daemon's umask.
                path.chmod(0o755)
            except OSError as error:
                raise DriverError(f"cannot make {path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove it and all in it; gone already is success."""
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise DriverError(f"cannot remove {self.path}: {error.strerror}") from error


def digest(*texts: str) -> str:
    """Return what tells texts from others."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def write(path: Path, text: str, *, mode: int = 0o644) -> bool:
    """Have a file hold a text, all of it or not at all; return whether that changed it."""
    if read(path) == text:
        return False
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        os.replace(new, path)  # noqa: PTH105  (says what it is)
    except OSError as error:
        raise DriverError(f"cannot write {path}: {error.strerror}") from error
    return True


def read(path: Path) -> str:
    """Return the text of a file, empty when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DriverError(f"cannot read {path}: {error.strerror}") from error
