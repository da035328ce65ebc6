"""A storage driver in memory, with the locks of a real one."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.model.storage import PoolSpec, PoolUsage, Snapshot
from pvc_core.plugin.errors import DriverError, ObjectBusy, ObjectExists, ObjectMissing, Unsupported
from pvc_core.plugin.specs.storage import (
    Attachment,
    BlockResult,
    Cancelled,
    DiskSource,
    Progress,
    StorageCapabilities,
    StorageDriver,
    VolumeInfo,
    VolumeRef,
)
from pvc_core.testkit.faults import Faults, faulty

_STEP: Final = 64 * 1024
_ALL: Final = StorageCapabilities(
    snapshots=True,
    clones=True,
    resize_attached=True,
    formats=("raw",),
    import_formats=("raw",),
    blocks_nodes=True,
)


class _Volume:
    """A volume: its size, what was written to it, and the copies kept as snapshots."""

    def __init__(self, size_bytes: int, data: bytes = b"", parent: str = "", origin: str = "") -> None:
        self.size_bytes = size_bytes
        self.data = data
        self.parent = parent
        self.origin: Final = origin
        """What a clone was asked to be made of."""
        self.snapshots: dict[str, Snapshot] = {}
        self.kept: dict[str, bytes] = {}


class _Holder(msgspec.Struct, frozen=True):
    vm: str
    node: str
    epoch: int


class FakeBackend:
    """What all nodes' drivers share: volumes, locks, blocked nodes.  Outlives the drivers, as a backend does."""

    def __init__(self, total_bytes: int = 1 << 40) -> None:
        self.total_bytes: Final = total_bytes
        self.lock: Final = threading.RLock()
        self.pools: Final[set[str]] = set()
        self.volumes: Final[dict[tuple[str, str], _Volume]] = {}
        self.holders: Final[dict[tuple[str, str], list[_Holder]]] = {}
        self.epochs: Final[dict[tuple[str, str], tuple[str, int]]] = {}
        """Highest epoch seen per volume, with the VM it is of."""
        self._closings: Final[dict[str, tuple[int, bool]]] = {}
        """Client -> the newest epoch in which it was closed to or opened, and whether it is closed."""

    @property
    def blocked(self) -> set[str]:
        """Clients that cannot write."""
        return {client for client, (_, closed) in self._closings.items() if closed}

    def close_to(self, client: str, epoch: int) -> bool:
        """Refuse a client from now on; False, and without effect, when it was opened in this epoch or a later one."""
        with self.lock:
            newest, closed = self._closings.get(client, (0, True))
            if epoch < newest or (epoch == newest and not closed):
                return False
            self._closings[client] = (epoch, True)
            return True

    def open_to(self, client: str, epoch: int) -> None:
        """Let a client write again, unless it was closed in a later epoch."""
        with self.lock:
            if epoch >= self._closings.get(client, (0, True))[0]:
                self._closings[client] = (epoch, False)

    def get(self, volume: VolumeRef) -> _Volume:
        """Return a volume; raise ObjectMissing."""
        found = self.volumes.get(_key(volume))
        if found is None:
            raise ObjectMissing(f"pool {volume.pool.name} has no volume {volume.name!r}")
        return found

    def write(self, volume: VolumeRef, offset: int, data: bytes) -> None:
        """Write to a volume as a guest would."""
        with self.lock:
            record = self.get(volume)
            old = record.data.ljust(offset + len(data), b"\0")
            record.data = old[:offset] + data + old[offset + len(data) :]

    def read(self, volume: VolumeRef, offset: int, length: int) -> bytes:
        """Read from a volume as a guest would."""
        with self.lock:
            return self.get(volume).data[offset : offset + length].ljust(length, b"\0")


def _key(volume: VolumeRef) -> tuple[str, str]:
    return volume.pool.id, volume.name


class FakeStorage(StorageDriver):
    """The driver of one node over a shared ``FakeBackend``.  ``faults`` says what goes wrong.

    The backend knows the node as ``client``: its name, unless a test changes that.
    """

    def __init__(
        self,
        backend: FakeBackend,
        node: str,
        *,
        faults: Faults | None = None,
        capabilities: StorageCapabilities | None = None,
        wall: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.backend: Final = backend
        self.node: Final = node
        self.client = node
        self.faults: Final = faults or Faults()
        self._capabilities: Final = capabilities or _ALL
        self._wall: Final = wall

    def __repr__(self) -> str:
        return f"FakeStorage(node={self.node!r})"

    @faulty
    def storage_capabilities(self) -> StorageCapabilities:
        return self._capabilities

    @faulty
    def storage_preflight(self) -> bool:
        return True

    @faulty
    def storage_close(self) -> bool:
        return True

    @faulty
    def pool_ensure(self, pool: PoolSpec) -> bool:
        self.backend.pools.add(pool.id)
        return True

    @faulty
    def pool_delete(self, pool: PoolSpec) -> bool:
        with self.backend.lock:
            names = sorted(name for owner, name in self.backend.volumes if owner == pool.id)
            if names:
                raise ObjectBusy(f"pool {pool.name} still holds {len(names)} volumes, such as {names[0]!r}")
            self.backend.pools.discard(pool.id)
            return True

    @faulty
    def pool_usage(self, pool: PoolSpec) -> PoolUsage:
        used = sum(info.used_bytes for info in self._list(pool))
        total = self.backend.total_bytes
        return PoolUsage(total_bytes=total, used_bytes=used, free_bytes=max(total - used, 0))

    @faulty
    def volume_list(self, pool: PoolSpec) -> list[VolumeInfo]:
        return self._list(pool)

    @faulty
    def volume_info(self, volume: VolumeRef) -> VolumeInfo:
        with self.backend.lock:
            return _info(volume.name, self.backend.get(volume))

    @faulty
    def volume_create(self, volume: VolumeRef, size_bytes: int, format: str) -> bool:
        if format and format not in self._capabilities.formats:
            raise DriverError(f"format {format!r} is not one of {self._capabilities.formats}", retryable=False)
        with self.backend.lock:
            found = self.backend.volumes.setdefault(_key(volume), _Volume(size_bytes))
            if found.size_bytes != size_bytes:
                raise ObjectExists(f"volume {volume.name!r} exists with {found.size_bytes} bytes, not {size_bytes}")
            return True

    @faulty
    def volume_delete(self, volume: VolumeRef) -> bool:
        with self.backend.lock:
            if _key(volume) not in self.backend.volumes:
                return True
            self._check_unused(volume)
            clones = self._clones(volume)
            if clones:
                raise ObjectBusy(f"volume {volume.name!r} has the clone {clones[0]!r}; delete that first")
            del self.backend.volumes[_key(volume)]
            self.backend.epochs.pop(_key(volume), None)
            return True

    @faulty
    def volume_resize(self, volume: VolumeRef, size_bytes: int) -> bool:
        with self.backend.lock:
            found = self.backend.get(volume)
            if size_bytes < found.size_bytes:
                raise DriverError(
                    f"volume {volume.name!r} has {found.size_bytes} bytes and cannot shrink to {size_bytes}",
                    retryable=False,
                )
            if not self._capabilities.resize_attached and size_bytes > found.size_bytes:
                self._check_unused(volume)
            found.size_bytes = size_bytes
            return True

    @faulty
    def volume_rename(self, volume: VolumeRef, new_name: str) -> bool:
        with self.backend.lock:
            target = VolumeRef(pool=volume.pool, name=new_name)
            if _key(volume) not in self.backend.volumes and _key(target) in self.backend.volumes:
                return True
            found = self.backend.get(volume)
            if _key(target) in self.backend.volumes:
                raise ObjectExists(f"pool {volume.pool.name} has a volume {new_name!r} already")
            self._check_unused(volume)
            for clone in self._clones(volume):
                child = self.backend.volumes[(volume.pool.id, clone)]
                child.parent = new_name + child.parent.removeprefix(volume.name)
            self.backend.volumes[_key(target)] = found
            del self.backend.volumes[_key(volume)]
            return True

    @faulty
    def volume_clone(self, source: VolumeRef, snapshot: str, target: VolumeRef, full_copy: bool) -> bool:
        self._require(able=full_copy or self._capabilities.clones, what="copy-on-write clones")
        with self.backend.lock:
            origin = self.backend.get(source)
            parent = f"{source.name}@{snapshot}" if snapshot else source.name
            wanted = f"{'copy' if full_copy else 'clone'} of {parent}"
            data, size = origin.data, origin.size_bytes
            if snapshot:
                data, size = self._kept(source, snapshot), origin.snapshots[snapshot].size_bytes
            new = _Volume(size, data, "" if full_copy else parent, wanted)
            if self.backend.volumes.setdefault(_key(target), new).origin != wanted:
                raise ObjectExists(f"pool {target.pool.name} has a volume {target.name!r} already")
            return True

    @faulty
    def volume_import(self, volume: VolumeRef, path: str, format: str, progress: Progress) -> bool:
        if format not in self._capabilities.import_formats:
            raise DriverError(f"format {format!r} is not one of {self._capabilities.import_formats}", retryable=False)
        with self.backend.lock:
            if _key(volume) in self.backend.volumes:
                raise ObjectExists(f"pool {volume.pool.name} has a volume {volume.name!r} already")
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise DriverError(f"cannot read {path}: {error.strerror}", retryable=False) from error
        _advance(len(data), progress)
        with self.backend.lock:
            self.backend.volumes[_key(volume)] = _Volume(len(data), data.rstrip(b"\0"))
        return True

    @faulty
    def volume_export(self, volume: VolumeRef, snapshot: str, path: str, format: str, progress: Progress) -> bool:
        if format != "raw":
            raise DriverError(f"format {format!r} is not 'raw', the only one exported", retryable=False)
        with self.backend.lock:
            found = self.backend.get(volume)
            data, size = found.data, found.size_bytes
            if snapshot:
                data, size = self._kept(volume, snapshot), found.snapshots[snapshot].size_bytes
        if Path(path).exists():
            raise ObjectExists(f"{path} exists already; choose another file")
        _advance(size, progress)
        with Path(path).open("xb") as file:
            file.write(data)
            file.truncate(size)
        return True

    @faulty
    def snapshot_create(self, volume: VolumeRef, snapshot: str) -> bool:
        self._require(able=self._capabilities.snapshots, what="snapshots")
        with self.backend.lock:
            found = self.backend.get(volume)
            if snapshot not in found.snapshots:
                found.kept[snapshot] = found.data
                found.snapshots[snapshot] = Snapshot(name=snapshot, size_bytes=found.size_bytes, created=self._wall())
            return True

    @faulty
    def snapshot_delete(self, volume: VolumeRef, snapshot: str) -> bool:
        self._require(able=self._capabilities.snapshots, what="snapshots")
        with self.backend.lock:
            found = self.backend.get(volume)
            if snapshot not in found.snapshots:
                return True
            if found.snapshots[snapshot].protected:
                raise ObjectBusy(f"snapshot {volume.name}@{snapshot} is protected")
            clones = self._clones(volume, snapshot)
            if clones:
                raise ObjectBusy(f"snapshot {volume.name}@{snapshot} has the clone {clones[0]!r}")
            del found.snapshots[snapshot], found.kept[snapshot]
            return True

    @faulty
    def snapshot_rename(self, volume: VolumeRef, snapshot: str, new_name: str) -> bool:
        self._require(able=self._capabilities.snapshots, what="snapshots")
        with self.backend.lock:
            found = self.backend.get(volume)
            if snapshot not in found.snapshots and new_name in found.snapshots:
                return True
            data = self._kept(volume, snapshot)
            if new_name in found.snapshots:
                raise ObjectExists(f"volume {volume.name!r} has a snapshot {new_name!r} already")
            for clone in self._clones(volume, snapshot):
                self.backend.volumes[(volume.pool.id, clone)].parent = f"{volume.name}@{new_name}"
            found.kept[new_name] = data
            found.snapshots[new_name] = msgspec.structs.replace(found.snapshots[snapshot], name=new_name)
            del found.snapshots[snapshot], found.kept[snapshot]
            return True

    @faulty
    def snapshot_protect(self, volume: VolumeRef, snapshot: str, protected: bool) -> bool:
        self._require(able=self._capabilities.snapshots, what="snapshots")
        with self.backend.lock:
            found = self.backend.get(volume)
            self._kept(volume, snapshot)
            found.snapshots[snapshot] = msgspec.structs.replace(found.snapshots[snapshot], protected=protected)
            return True

    @faulty
    def snapshot_rollback(self, volume: VolumeRef, snapshot: str, progress: Progress) -> bool:
        self._require(able=self._capabilities.snapshots, what="snapshots")
        with self.backend.lock:
            found = self.backend.get(volume)
            self._check_unused(volume)
            data = self._kept(volume, snapshot)
            _advance(len(data), progress)
            found.data, found.size_bytes = data, found.snapshots[snapshot].size_bytes
            return True

    @faulty
    def disk_attach(self, volume: VolumeRef, vm: str, epoch: int, incoming: bool) -> DiskSource:
        with self.backend.lock:
            self.backend.get(volume)
            if self.client in self.backend.blocked:
                raise ObjectBusy(f"node {self.node} is blocked: it was fenced and has not been let in again")
            holders = self.backend.holders.get(_key(volume), [])
            self._check_holders(volume, holders, vm, epoch, incoming=incoming)
            kept = [h for h in holders if h.node != self.node and (incoming or h.epoch >= epoch)]
            self.backend.holders[_key(volume)] = [*kept, _Holder(vm, self.node, epoch)]
            self.backend.epochs[_key(volume)] = (vm, epoch)
            return DiskSource(type="file", source_xml=f"<source file='/fake/{volume.pool.name}/{volume.name}'/>")

    @faulty
    def disk_detach(self, volume: VolumeRef, vm: str) -> bool:
        with self.backend.lock:
            holders = self.backend.holders.get(_key(volume), [])
            left = [h for h in holders if (h.vm, h.node) != (vm, self.node)]
            if left:
                self.backend.holders[_key(volume)] = left
            else:
                self.backend.holders.pop(_key(volume), None)
            return True

    @faulty
    def disk_attachments(self) -> list[Attachment]:
        with self.backend.lock:
            return [
                Attachment(pool=pool, volume=name, vm=holder.vm)
                for (pool, name), holders in sorted(self.backend.holders.items())
                for holder in holders
                if holder.node == self.node
            ]

    @faulty
    def disk_flush_locks(self, volume: VolumeRef, vm: str, epoch: int) -> list[str]:
        with self.backend.lock:
            self.backend.get(volume)
            holders = self.backend.holders.get(_key(volume), [])
            for holder in holders:
                if holder.vm != vm or holder.epoch > epoch:
                    raise ObjectBusy(f"volume {volume.name!r} is attached to VM {holder.vm} on node {holder.node}")
            self.backend.holders.pop(_key(volume), None)
            return [f"node {holder.node} held volume {volume.name!r}" for holder in holders]

    @faulty
    def node_identity(self) -> dict[str, str]:
        return {"client": self.client}

    @faulty
    def node_block(self, node: str, identity: dict[str, str], volumes: list[VolumeRef], epoch: int) -> BlockResult:
        self._require(able=self._capabilities.blocks_nodes, what="way to block a node")
        del volumes
        client = identity.get("client", "")
        if not client:
            return BlockResult(blocked=False, evidence=f"no client of node {node} is known")
        if not self.backend.close_to(client, epoch):
            return BlockResult(blocked=False, evidence=f"client {client} was opened since epoch {epoch}")
        return BlockResult(blocked=True, evidence=f"client {client} of node {node} is refused since epoch {epoch}")

    @faulty
    def node_unblock(self, node: str, identity: dict[str, str], epoch: int) -> bool:
        self._require(able=self._capabilities.blocks_nodes, what="way to block a node")
        del node
        self.backend.open_to(identity.get("client", ""), epoch)
        return True

    def _check_holders(self, volume: VolumeRef, holders: list[_Holder], vm: str, epoch: int, *, incoming: bool) -> None:
        last_vm, last_epoch = self.backend.epochs.get(_key(volume), ("", 0))
        if last_vm == vm and epoch < last_epoch:
            raise ObjectBusy(
                f"claim epoch {epoch} of VM {vm} is over: volume {volume.name!r} has seen epoch {last_epoch}",
                retryable=False,
            )
        for holder in holders:
            if holder.vm != vm:
                raise ObjectBusy(f"volume {volume.name!r} is attached to VM {holder.vm} on node {holder.node}")
            mine = any(h.node == self.node for h in holders)
            if not (incoming or mine) and holder.epoch >= epoch:
                raise ObjectBusy(f"volume {volume.name!r} is attached on node {holder.node}, epoch {holder.epoch}")

    def _require(self, *, able: bool, what: str) -> None:
        if not able:
            raise Unsupported(f"this fake storage driver has no {what}")

    def _check_unused(self, volume: VolumeRef) -> None:
        for holder in self.backend.holders.get(_key(volume), []):
            raise ObjectBusy(f"volume {volume.name!r} is attached to VM {holder.vm} on node {holder.node}")

    def _clones(self, volume: VolumeRef, snapshot: str = "") -> list[str]:
        parents = {f"{volume.name}@{snapshot}"}
        if not snapshot:
            kept = self.backend.volumes[_key(volume)].snapshots
            parents = {volume.name, *(f"{volume.name}@{name}" for name in kept)}
        return sorted(
            name
            for (pool, name), record in self.backend.volumes.items()
            if pool == volume.pool.id and record.parent in parents
        )

    def _kept(self, volume: VolumeRef, snapshot: str) -> bytes:
        kept = self.backend.get(volume).kept
        if snapshot not in kept:
            raise ObjectMissing(f"volume {volume.name!r} has no snapshot {snapshot!r}")
        return kept[snapshot]

    def _list(self, pool: PoolSpec) -> list[VolumeInfo]:
        with self.backend.lock:
            found = sorted((n, v) for (owner, n), v in self.backend.volumes.items() if owner == pool.id)
            return [_info(name, volume) for name, volume in found]


def _info(name: str, volume: _Volume) -> VolumeInfo:
    return VolumeInfo(
        name=name,
        size_bytes=volume.size_bytes,
        used_bytes=len(volume.data),
        snapshots=tuple(volume.snapshots.values()),
        parent=volume.parent,
    )


def _advance(size: int, progress: Progress) -> None:
    """Report progress in steps; raise Cancelled when told to stop."""
    for done in range(0, size + 1, _STEP):
        if progress(done / size if size else 1.0):
            raise Cancelled("stopped as asked; nothing was left behind")
    progress(1.0)
