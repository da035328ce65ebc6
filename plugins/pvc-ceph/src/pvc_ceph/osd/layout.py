"""How OSDs lie on the disks of a node: what the two layouts have in common.

Making is not repeated: what is left of a making that ended half-way is wiped (``wipe``), and all begins anew.  Everything
else is idempotent.  Nothing here judges: whether a disk is free, and whether an OSD may be stopped, was decided before.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

import msgspec

from pvc_ceph.osd.values import Found, Store


class NewOsd(msgspec.Struct, frozen=True, kw_only=True):
    """An OSD to be made."""

    store: Store
    device_class: str
    id: int | None = None
    """That of a destroyed one; None: the monitors choose."""


class Layout(Protocol):
    """Calls may take minutes; raises DriverError.  For one thread at a time."""

    def objection(self, stores: Sequence[Store]) -> str:
        """Return why this layout cannot have such stores, empty when it can."""

    def db_for(self, wanted: str, size_bytes: int, count: int, freed: AbstractSet[str] = frozenset()) -> str:
        """Return what is to hold the metadata of ``count`` OSDs, ``size_bytes`` each; ``wanted``: what was asked for.

        ``freed``: UUIDs of OSDs that make room first.
        Raises DriverError when there is none with enough room.
        """

    def found(self) -> list[Found]:
        """Return the OSDs, of whatever cluster, whose data is on this node's disks, running or not."""

    def make(self, new: NewOsd) -> int:
        """Make an OSD, and let the monitors know it; return its id.  It does not run yet."""

    def activate(self, osd: Found) -> None:
        """Let an OSD run, now and after every boot, whatever there is of its directory."""

    def deactivate(self, id_: int, fsid: str) -> None:
        """End an OSD's daemon, and let it never run again; return when it has ended."""

    def wipe(self, stores: Sequence[Store]) -> None:
        """Make the data of these OSDs, and nothing else, vanish from their disks, however much there is of it."""

    def make_db_group(self, device: str) -> str:
        """Make a volume group for metadata on an empty disk; return its name."""
