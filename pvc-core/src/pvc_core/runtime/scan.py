"""The plugins that are installed, read from ``entry_points.txt`` files directly.

What ``importlib.metadata`` would say, without importing it: that costs 20 ms of the 55 that ``pvc --help``
takes in all.  Knows what pip and Debian install (``*.dist-info`` and ``*.egg-info`` directories), not eggs
in zip files.  The daemon uses ``discover``.
"""

# ruff: noqa: PTH118, PTH123, PTH208 - a list of names and open() is all that is needed, at a third of the time

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_SUFFIXES: Final = (".dist-info", ".egg-info")


class ScannedEntry(NamedTuple):
    """An entry point; has of ``importlib.metadata.EntryPoint`` what a manifest is read with."""

    name: str
    value: str
    group: str
    info: str
    """Directory with the distribution's metadata."""

    @property
    def dist(self) -> "Distribution":
        """The distribution, read when it is asked for."""
        from importlib.metadata import Distribution

        return Distribution.at(self.info)

    @property
    def module(self) -> str:
        """The module to import."""
        return self.value.partition(":")[0].strip()

    def load(self) -> Any:
        """Import the module and return the object."""
        value: Any = importlib.import_module(self.module)
        for attribute in filter(None, self.value.partition(":")[2].partition("[")[0].strip().split(".")):
            value = getattr(value, attribute)
        return value


def scan(group: str) -> tuple[ScannedEntry, ...]:
    """Return a group's entry points; of a distribution that is there twice, those of the first on the path."""
    found: list[ScannedEntry] = []
    seen: set[str] = set()
    for directory in sys.path:
        try:
            names = sorted(name for name in os.listdir(directory or ".") if name.endswith(_SUFFIXES))
        except OSError:  # not a directory, or not there: Python ignores such entries of the path too
            continue
        for name in names:
            project = name.rpartition(".")[0].partition("-")[0].lower().replace(".", "_").replace("-", "_")
            if project not in seen:
                seen.add(project)
                found += _entries(os.path.join(directory, name), group)
    return tuple(found)


def _entries(info: str, group: str) -> list[ScannedEntry]:
    try:
        with open(os.path.join(info, "entry_points.txt"), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    entries = []
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif section == group and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            entries.append(ScannedEntry(name.strip(), value.strip(), group, info))
    return entries
