"""Storage pools, volumes and snapshots."""

import enum

from pvc_core.model.base import Condition, Document, Value


class PoolSpec(Document, frozen=True, kw_only=True):
    """A place for volumes.  What ``parameters`` may hold is the driver's business."""

    id: str
    name: str
    generation: int = 1
    driver: str
    """Name of a storage driver, such as ``dir`` or ``ceph-rbd``."""
    description: str = ""
    parameters: dict[str, str | int | bool | list[str]] = {}
    node: str | None = None
    """The node that carries out changes; another takes over when its lease is gone."""
    deleting: bool = False


class PoolUsage(Value, frozen=True, kw_only=True):
    """Bytes of a pool as a guest could use them (after replication)."""

    total_bytes: int = 0
    used_bytes: int = 0
    free_bytes: int = 0


class PoolStatus(Document, frozen=True, kw_only=True):
    """Observed state of a pool."""

    id: str
    observed_generation: int = 0
    created: bool = False
    """It was made once: from then on it is only looked for, never made again."""
    usage: PoolUsage = PoolUsage()
    volumes_bytes: int = 0
    """Of ``usage``, what its volumes took, by their statuses at that time."""
    conditions: tuple[Condition, ...] = ()


class Snapshot(Value, frozen=True, kw_only=True):
    """A volume's contents at one instant."""

    name: str
    protected: bool = False
    size_bytes: int = 0
    created: float = 0.0


class VolumeState(enum.StrEnum):
    """What a volume is doing, as one word."""

    CREATING = "creating"
    READY = "ready"
    RESIZING = "resizing"
    DELETING = "deleting"
    FAILED = "failed"


class VolumeSpec(Document, frozen=True, kw_only=True):
    """A block device.  Its name is unique in its pool."""

    id: str
    name: str
    pool: str
    generation: int = 1
    size_bytes: int
    """Never shrinks; 0 with ``task``: what the image has."""
    format: str = ""
    """Image format where the driver has a choice (raw, qcow2); empty: the driver's default."""
    source: str = ""
    """Clone of this volume of the same pool (``name`` or ``name@snapshot``) at creation."""
    full_copy: bool = False
    """Copy the source instead of sharing its blocks."""
    task: str = ""
    """Task that makes its contents (``volume.import``): until that is done the volume is CREATING and the reconciler
    leaves it alone; when the task failed, was cancelled or is gone before the status says READY, the volume is FAILED."""
    description: str = ""
    node: str | None = None
    """The node that carries out changes; another takes over when its lease is gone."""
    deleting: bool = False


class VolumeStatus(Document, frozen=True, kw_only=True):
    """Observed state of a volume."""

    id: str
    state: VolumeState = VolumeState.CREATING
    observed_generation: int = 0
    name: str = ""
    """The name it has in the backend now: differs from the spec's until a rename is done."""
    size_bytes: int = 0
    used_bytes: int = 0
    expected_bytes: int = 0
    """While it is imported: at least what the image needs; kept free for it."""
    format: str = ""
    snapshots: tuple[Snapshot, ...] = ()
    conditions: tuple[Condition, ...] = ()
