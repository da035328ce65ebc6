"""A VM with two disks on stepped nodes with fake storage: for tests of its snapshots.

Every call by which its guest is stopped, frozen or let go on ``hv1`` is an effect, before and after which the daemon may
die; a dead one has no more of them, whatever it still tries while it falls.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.task import Task, TaskState
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.vm_power import VmStart, vm_shutdown, vm_start
from pvc_core.ops.vm_snapshot import VmSnapshotCreate, VmSnapshotQuery, vm_snapshot_create, vm_snapshot_delete
from pvc_core.ops.vm_snapshot_rollback import VmSnapshotRollback, vm_snapshot_rollback
from pvc_core.ops.vm_snapshot_views import (
    VmSnapshotInfo,
    VmSnapshotList,
    VmSnapshotView,
    vm_snapshot_info,
    vm_snapshot_list,
)
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.ops.volume import VolumeAdd, VolumeQuery, volume_add, volume_info
from pvc_core.plugin.specs.storage import StorageCapabilities, VolumeRef
from pvc_core.testkit.doomed import Died
from pvc_core.testkit.storage_site import StorageSite

VOLUMES: Final = ("web-root", "web-data")
_EFFECTS: Final = ("set_note", "pause", "resume", "freeze", "thaw")


def each(*snapshots: str) -> dict[str, list[str]]:
    """Return what ``kept`` and ``told`` do when each volume has these snapshots."""
    return {name: list(snapshots) for name in VOLUMES}


class VmSite(StorageSite):
    """VM ``web`` on ``hv1``, not started, with two volumes of pool ``ssd``."""

    def __init__(self, *names: str, capabilities: StorageCapabilities | None = None) -> None:
        super().__init__(*(names or ("hv1",)), capabilities=capabilities)
        self._revived = False
        self._doom_guests()
        self.pool_id = self.pool()
        self.volumes = [self.add_volume(name) for name in VOLUMES]
        self.vm = self.define("web", *VOLUMES)

    def add_volume(self, name: str) -> str:
        """Add a volume, wait until it is there, and return its id."""
        volume = volume_add(self.ops, VolumeAdd(pool="ssd", name=name, size="4M")).id
        self.until(lambda: self.settled(volume))
        return volume

    def define(self, name: str, *volumes: str) -> str:
        """Define a VM with these volumes as disks and return its id."""
        disks = tuple(DiskDefinition(pool="ssd", volume=volume) for volume in volumes)
        return vm_define(self.ops, VmDefine(name=name, memory=64, node="hv1", disks=disks)).id

    def ref(self, name: str) -> VolumeRef:
        """Return a volume as drivers are given it."""
        return self._ref(self.pool_id, name)

    # --- the daemon -----------------------------------------------------------------------------------------

    def revive(self, name: str = "hv1") -> None:
        """Start a node's daemon again after it died."""
        super().revive(name)
        self._revived = True
        self._doom_guests()

    def _doom_guests(self) -> None:
        hypervisor = self.nodes["hv1"].hypervisor
        for name in _EFFECTS:
            setattr(hypervisor, name, self._doomed(getattr(hypervisor, name)))

    def _doomed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def around(*args: Any) -> Any:
            self._moment()
            result = call(*args)
            self._moment()
            return result

        return around

    def _moment(self) -> None:
        if self.doom.struck and not self._revived:
            raise Died
        self.doom.moment()

    # --- the VM ---------------------------------------------------------------------------------------------

    @property
    def world(self) -> MemoryWorld:
        """The hidden truth about guests."""
        return self.cluster.world

    def state(self) -> str:
        """Return the VM's state."""
        return vm_info(self.ops, VmQuery(vm="web")).view.state

    def start(self) -> None:
        """Start the VM and wait until it runs."""
        vm_start(self.ops, VmStart(vm="web"))
        self.until(lambda: self.state() == "running")

    def stop(self) -> None:
        """Shut the VM down and wait until it is off."""
        vm_shutdown(self.ops, VmQuery(vm="web"))
        self.until(lambda: self.state() == "stopped")

    def at_ease(self) -> bool:
        """Say whether the guest executes, is not frozen, and has no note."""
        domain = self.nodes["hv1"].hypervisor.domain(self.vm)
        runs = domain is not None and not domain.note and self.world.running(self.vm) == ["hv1"]
        return runs and not self.world.frozen("hv1", self.vm)

    # --- its snapshots --------------------------------------------------------------------------------------

    def create(self, name: str = "s1", **more: Any) -> Task:
        """Ask for a snapshot."""
        return vm_snapshot_create(self.ops, VmSnapshotCreate(vm="web", snapshot=name, **more))

    def delete(self, name: str = "s1") -> Task:
        """Ask for a snapshot to be deleted."""
        return vm_snapshot_delete(self.ops, VmSnapshotQuery(vm="web", snapshot=name))

    def roll_back(self, name: str = "s1", **more: Any) -> Task:
        """Ask for the VM to be rolled back."""
        return vm_snapshot_rollback(self.ops, VmSnapshotRollback(vm="web", snapshot=name, **more))

    def info(self, name: str = "s1") -> VmSnapshotInfo:
        """Return a snapshot."""
        return vm_snapshot_info(self.ops, VmSnapshotQuery(vm="web", snapshot=name))

    def snapshots(self) -> list[VmSnapshotView]:
        """Return the snapshots of the VM."""
        return vm_snapshot_list(self.ops, VmSnapshotList(vm="web"))

    def end(self, task: Task) -> Task:
        """Wait until a task is over, and return it as it is then."""
        self.until(lambda: self.ended(task.id))
        return self.task(task.id)

    def done(self, task: Task) -> Task:
        """Wait until a task is done, and return it as it is then."""
        ended = self.end(task)
        if ended.state is not TaskState.DONE:
            raise AssertionError(f"task {ended.kind} is {ended.state.value}: {ended.error}")
        return ended

    def kept(self) -> dict[str, list[str]]:
        """Return the names of the snapshots of each volume in the backend."""
        return {name: sorted(self.backend.volumes[(self.pool_id, name)].snapshots) for name in VOLUMES}

    def told(self) -> dict[str, list[str]]:
        """Return the names of the snapshots of each volume by their statuses."""
        found = {name: volume_info(self.ops, VolumeQuery(volume=f"ssd/{name}")) for name in VOLUMES}
        return {name: sorted(snapshot.name for snapshot in view.snapshots) for name, view in found.items()}

    def write_all(self, data: bytes) -> None:
        """Write the same to the beginning of each volume."""
        for name in VOLUMES:
            self.write(self.pool_id, name, data)

    def contents(self, length: int = 3) -> list[bytes]:
        """Return the beginning of each volume."""
        return [self.read(self.pool_id, name, length) for name in VOLUMES]

    def documents(self) -> list[str]:
        """Return the paths of all that the tree holds about snapshots of VMs."""
        paths = list(self.cluster.tree.dump())
        members = [p for p in paths if "/ref/volume/" in p and p.count("/") == _MEMBER and not p.endswith("/holder")]
        return sorted([*members, *(path for path in paths if "/vm-snapshot/" in path)])


_MEMBER: Final = 6
"""Slashes in the path of a reference to a volume."""
