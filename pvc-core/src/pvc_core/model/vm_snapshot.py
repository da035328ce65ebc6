"""Snapshots of whole VMs: the contents of all disks at one instant, with the definition of that time."""

import enum

from pvc_core.model.base import Document, Value
from pvc_core.model.vm import VmSpec


class VmSnapshotState(enum.StrEnum):
    """What is going on with a snapshot; only a complete one can be rolled back to."""

    CREATING = "creating"
    COMPLETE = "complete"
    RENAMING = "renaming"
    DELETING = "deleting"


class Consistency(enum.StrEnum):
    """What the disks of a snapshot are like for who starts from them."""

    FILESYSTEM = "filesystem"
    """The guest agent had frozen all file systems: they are clean."""
    CRASH = "crash"
    """As after a power cut: one instant, file systems in the middle of something."""
    OFFLINE = "offline"
    """The VM did not run."""


class SnapshotDisk(Value, frozen=True, kw_only=True):
    """A volume of which a snapshot of the same name belongs to the VM's snapshot."""

    volume: str
    """Id of the volume."""
    path: str
    """``pool/volume`` as it was called then, for people."""
    size_bytes: int = 0
    """Its size then."""


class VmSnapshot(Document, frozen=True, kw_only=True):
    """A VM's snapshot.  Written by operations, and by the task that they begin, each with the expected version.

    A node makes and changes snapshots of volumes only under names that were recorded in ``names`` before, so whatever
    became of its task, this document says what may be left and has to go.
    """

    id: str
    vm: str
    """Id of the VM."""
    name: str
    """Unique among the snapshots of the VM.  The snapshots of the volumes have it too."""
    state: VmSnapshotState = VmSnapshotState.CREATING
    task: str = ""
    """The task that works on it, or did last."""
    begun: bool = False
    """That task may have changed volumes: until then it can be taken back as if it had not been asked for."""
    names: tuple[str, ...] = ()
    """Names that snapshots of its volumes may have, the newest last; none before the first of them is made."""
    description: str = ""
    disks: tuple[SnapshotDisk, ...] = ()
    """In the order of the definition's disks."""
    consistency: Consistency | None = None
    """None until it is complete."""
    created: float = 0.0
    """When the disks were like this, in seconds since the epoch on the clock of the node that made it."""
    definition: VmSpec
    """The VM as it was defined when the snapshot was asked for."""
