"""Additions that are not over, on this node's disk: written before the first effect, removed after the last.

What is found when a task begins is of one that was cut off: the daemon was killed, or the node lost its power.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from pvc_ceph.osd.values import Store
from pvc_core.plugin import DriverError


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """OSDs that are being made."""

    stores: tuple[Store, ...]
    device_class: str = ""
    weight: float | None = None
    replaces: int | None = None
    """Id of the destroyed OSD that the only one of them replaces."""


class Unfinished:
    """The file with them: one at a time, as tasks of a node take turns."""

    def __init__(self, directory: Path) -> None:
        self._path: Final = directory / "unfinished.json"

    def load(self) -> Addition | None:
        """Return what is not over.  Raises DriverError when the file cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Addition)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise DriverError(
                f"{self._path} cannot be read ({error}): it says which OSDs were being made when the daemon ended; look "
                "with `ceph osd tree` and `ceph-bluestore-tool show-label` for half-made ones, and remove the file",
                retryable=False,
            ) from error

    def begin(self, addition: Addition) -> None:
        """Write it; it is on the disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(addition))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def end(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)
