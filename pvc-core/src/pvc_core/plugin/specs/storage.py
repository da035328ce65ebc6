"""Storage drivers: pools, volumes, snapshots, disks of VMs, and the storage proof of fencing.

Kind: driver hooks; the pool's ``driver`` names the one that answers.  Thread: the plugin's own pool of
daemon threads; calls for different volumes may run at the same time, calls for one volume never do.
Sizes are bytes.  Every call is idempotent: asked for what is there already, it does nothing.
An exception means "not done": ``DriverError`` and its kinds for what happens in operation, retried with
back-off while ``retryable``; anything else is logged with its traceback and counted against the plugin.
"""

# ruff: noqa: ARG002 - the arguments of a default are the specification

import abc
from collections.abc import Callable
from typing import Literal

import msgspec

from pvc_core.model.storage import PoolSpec, PoolUsage, Snapshot
from pvc_core.plugin.errors import Unsupported
from pvc_core.plugin.markers import hookspec

Progress = Callable[[float], bool]
"""Called with the part done (0.0-1.0); returns True when the job shall stop: clean up and raise ``Cancelled``."""


class StorageCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver can do; core asks this, never a driver's name."""

    snapshots: bool = False
    clones: bool = False
    """Copy-on-write clones; full copies are always possible."""
    resize_attached: bool = False
    """Grow a volume while a VM uses it."""
    formats: tuple[str, ...] = ("raw",)
    """Formats of a volume, the default first."""
    import_formats: tuple[str, ...] = ("raw",)
    shared: bool = True
    """Every node with this driver sees every volume: needed for migration and recovery."""
    blocks_nodes: bool = False
    """``node_block`` gives the proof ``storage-blocked``."""
    streams: bool = False
    """Incremental export and import."""


class VolumeRef(msgspec.Struct, frozen=True, kw_only=True):
    """A volume in its pool."""

    pool: PoolSpec
    name: str


class VolumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as the backend has it."""

    name: str
    size_bytes: int
    used_bytes: int = 0
    format: str = "raw"
    snapshots: tuple[Snapshot, ...] = ()
    """In the order in which they were made."""
    parent: str = ""
    """``name@snapshot`` or ``name`` when it shares blocks with another."""


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that this node holds for a VM."""

    pool: str
    """Id of the pool."""
    volume: str
    """Name of the volume."""
    vm: str
    """Id of the VM."""


class DiskSource(msgspec.Struct, frozen=True, kw_only=True):
    """How the hypervisor reaches a volume: the parts of libvirt's ``<disk>`` that only the driver knows."""

    type: Literal["file", "block", "network"]
    source_xml: str
    """The ``<source>`` element, with everything in it."""
    format: str = "raw"
    cache: str = ""
    """Cache mode the driver insists on; empty: what the VM's disk says."""
    migrate_unsafe: bool = False
    """libvirt cannot see that the storage is shared, but the driver vouches for it."""


class BlockResult(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a request to keep a dead node from writing."""

    blocked: bool
    """True only when the backend confirmed that no client of the node can write any more."""
    evidence: str = ""
    """What was blocked and what confirmed it, for the fence record."""


class Cancelled(Exception):
    """Raised by a driver that stopped because ``progress`` said so, after it removed what was half done."""


class StorageDriver(abc.ABC):
    """A storage backend.  Constructed as ``Driver(context, config)``; the constructor does no I/O."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def storage_capabilities(self) -> StorageCapabilities:
        """Say what this driver can do here.  Deadline 5 s; called once, after ``storage_preflight``."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def storage_preflight(self) -> bool:
        """Check without side effects that the backend can be used on this node; True, or raise NotReady.

        Deadline 30 s.  A failure makes the driver's capability disappear from the node; it is called
        again every minute until it succeeds.
        """

    @hookspec(firstresult=True)
    def storage_close(self) -> bool:
        """Release everything; may be called twice.  Deadline 10 s."""
        return True

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def pool_ensure(self, pool: PoolSpec) -> bool:
        """Create the pool, or adopt and check the one that is there.  Deadline 60 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def pool_delete(self, pool: PoolSpec) -> bool:
        """Delete an empty pool; raise ObjectBusy when it holds volumes.  Deadline 60 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def pool_usage(self, pool: PoolSpec) -> PoolUsage:
        """Return the pool's bytes, as guests could use them.  Deadline 10 s; called every minute.

        Raises NotReady or ObjectMissing when the pool is not there, and never makes it: core asks this first
        before it calls ``pool_ensure`` for a pool that was made once, on whatever node.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_list(self, pool: PoolSpec) -> list[VolumeInfo]:
        """Return all volumes of the pool, in a bounded number of requests.  Deadline 60 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_info(self, volume: VolumeRef) -> VolumeInfo:
        """Return one volume; raise ObjectMissing when there is none.  Deadline 10 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_create(self, volume: VolumeRef, size_bytes: int, format: str) -> bool:
        """Create an empty volume of exactly this size; ``format`` "" is the default.  Deadline 60 s.

        One of this name and size is taken as made by an earlier try; of another size: ObjectExists.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_delete(self, volume: VolumeRef) -> bool:
        """Delete a volume with its snapshots; an absent one is success.  Deadline 600 s.

        One that takes longer is asked for again, and has to go on then.  Raises ObjectBusy while it is attached, or a clone
        shares its blocks.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_resize(self, volume: VolumeRef, size_bytes: int) -> bool:
        """Grow a volume; shrinking raises DriverError, not retryable.  Deadline 60 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_rename(self, volume: VolumeRef, new_name: str) -> bool:
        """Rename a volume that no VM uses; done already is success.  Deadline 60 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_clone(self, source: VolumeRef, snapshot: str, target: VolumeRef, full_copy: bool) -> bool:
        """Create ``target`` with the contents of ``source`` (of its snapshot, unless "").  Deadline one day.

        The same clone made by an earlier try is success; any other volume of the target's name: ObjectExists.
        A half-made target is invisible or is removed by the next try, which may come from another node.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def volume_import(self, volume: VolumeRef, path: str, format: str, progress: Progress) -> bool:
        """Create the volume from an image file on this node.  Runs in a task, under its time limit.

        ``format`` is one of ``import_formats``.  On failure or Cancelled no volume is left.
        """

    @hookspec(firstresult=True)
    def volume_export(self, volume: VolumeRef, snapshot: str, path: str, format: str, progress: Progress) -> bool:
        """Write the volume (or a snapshot of it) to a new image file on this node.  Runs in a task."""
        raise Unsupported("this storage driver does not export volumes")

    @hookspec(firstresult=True)
    def volume_diff_export(self, volume: VolumeRef, base: str, snapshot: str, path: str, progress: Progress) -> bool:
        """Write what changed from snapshot ``base`` ("" = everything) to ``snapshot``.  Runs in a task.

        Only with capability ``streams``.  The file's format is the driver's own.
        """
        raise Unsupported("this storage driver has no incremental streams")

    @hookspec(firstresult=True)
    def volume_diff_import(self, volume: VolumeRef, path: str, progress: Progress) -> bool:
        """Apply a file made by ``volume_diff_export``; refuse one whose base is not there.  Runs in a task."""
        raise Unsupported("this storage driver has no incremental streams")

    @hookspec(firstresult=True)
    def snapshot_create(self, volume: VolumeRef, snapshot: str) -> bool:
        """Keep the contents of this instant under a name; there already is success.  Deadline 60 s.

        For a snapshot of a whole VM the guest stands still until this is done for all its volumes, at the same time; after
        10 s that is given up.
        """
        raise Unsupported("this storage driver has no snapshots")

    @hookspec(firstresult=True)
    def snapshot_delete(self, volume: VolumeRef, snapshot: str) -> bool:
        """Delete a snapshot; absent is success; protected or cloned: ObjectBusy.  Deadline one day."""
        raise Unsupported("this storage driver has no snapshots")

    @hookspec(firstresult=True)
    def snapshot_rename(self, volume: VolumeRef, snapshot: str, new_name: str) -> bool:
        """Rename a snapshot.  Deadline 60 s."""
        raise Unsupported("this storage driver has no snapshots")

    @hookspec(firstresult=True)
    def snapshot_protect(self, volume: VolumeRef, snapshot: str, protected: bool) -> bool:
        """Forbid or allow deleting a snapshot.  Deadline 60 s."""
        raise Unsupported("this storage driver does not protect snapshots")

    @hookspec(firstresult=True)
    def snapshot_rollback(self, volume: VolumeRef, snapshot: str, progress: Progress) -> bool:
        """Give an unused volume the contents of a snapshot.  Runs in a task; repeated after a crash."""
        raise Unsupported("this storage driver has no snapshots")

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def disk_attach(self, volume: VolumeRef, vm: str, epoch: int, incoming: bool) -> DiskSource:
        """Make a volume usable by a VM's domain on this node, and say how.  Deadline 30 s.

        ``epoch`` is that of the VM's claim: a driver with locks stores it and refuses a smaller one, so a
        late call of a former holder fails.  ``incoming``: for the target of a live migration, while the
        source still has it.  Otherwise a volume attached on another node raises ObjectBusy, naming it, unless our
        epoch is higher: then the claim was revoked with a proof, and the other node's hold ends.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def disk_detach(self, volume: VolumeRef, vm: str) -> bool:
        """Give up this node's use of a volume, never another's; not attached is success.  Deadline 30 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def disk_attachments(self) -> list[Attachment]:
        """Return all volumes this node holds for VMs, from the backend or a file, not from memory.

        Deadline 10 s.  Called at daemon start, to release what a killed daemon left.
        """

    @hookspec(firstresult=True)
    def disk_flush_locks(self, volume: VolumeRef, vm: str, epoch: int) -> list[str]:
        """Break what still holds a volume for a VM that runs nowhere; return what was broken, in words.  Deadline 30 s.

        Asked for by a person, when nobody holds the VM's claim; ``epoch`` is that of the claim.  Raises ObjectBusy, and breaks
        nothing, when the volume was attached with a later one, or belongs to another VM.
        """
        return []

    @hookspec(firstresult=True)
    def node_identity(self) -> dict[str, str]:
        """Return what ``node_block`` must know to block this node; recorded while it is healthy.  Deadline 5 s.

        Such as its address in the storage network.  It must hold for every client of the node, also for those of guests
        that start after it was recorded.  Asked every few seconds, only with capability ``blocks_nodes``.
        """
        return {}

    @hookspec(firstresult=True)
    def node_block(self, node: str, identity: dict[str, str], volumes: list[VolumeRef], epoch: int) -> BlockResult:
        """Keep every client of a dead node from writing, and confirm it.  Deadline 30 s; runs on a coordinator.

        Only with capability ``blocks_nodes``.  ``identity`` is the recorded ``node_identity``; ``volumes`` are those that
        guests of the node may be writing to, of all pools of this driver; ``epoch`` is the generation of the lease that
        the node lost, the same for every try.  It holds until ``node_unblock``, also for clients that the node starts
        later; what was unblocked with this epoch or a later one is not blocked any more by a late call.  After an exception or ``blocked`` false the node may be blocked all the same: it is unblocked too.
        """
        raise Unsupported("this storage driver cannot block a node")

    @hookspec(firstresult=True)
    def node_unblock(self, node: str, identity: dict[str, str], epoch: int) -> bool:
        """Let a node that returned clean write again; one that is not blocked is success.  Deadline 30 s.

        ``identity`` and ``epoch`` are those that ``node_block`` was given, whatever the node reports now.  What was
        blocked with a later epoch stays blocked, and that is success too: a call that hung for longer than its
        deadline must not open what was closed since, as a proof may rest on that.  So the storage remembers the epoch.
        """
        raise Unsupported("this storage driver cannot block a node")
