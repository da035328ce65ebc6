"""Carries out what ``plan.vm.disks`` decides about the disks of a running guest, and frees those that were taken from a VM."""

import logging
from typing import Final
from xml.etree import ElementTree as ET

from msgspec.structs import replace

from pvc_core.hypervisor.domainxml import render_disk, render_scsi_controller
from pvc_core.model.disk import Disk, bus_of
from pvc_core.node.reconcile import resources
from pvc_core.node.reconcile.vm_devices import Devices, same_claim
from pvc_core.node.reconcile.vm_view import VmDocuments
from pvc_core.plan import vm as plan
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.plugin.specs.storage import VolumeRef
from pvc_core.store import keys
from pvc_core.store.api import Delete, Operation

log = logging.getLogger(__name__)

ACTIONS: Final = (plan.PlugController, plan.PlugDisk, plan.UnplugDisk, plan.LimitDisk, plan.ReleaseDisks)


class VmDisks:
    """Changes disks; each call is one effect, or one transaction.  What fails is tried again after a pause, and told.

    Calls for one VM must not overlap; for different VMs they may.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._c = devices.context

    def do(self, id_: str, action: plan.Action, s: plan.Snapshot, read: VmDocuments) -> None:
        """Carry one of ``ACTIONS`` out."""
        match action:
            case plan.PlugController():
                self._devices.attempt(id_, "plug", action.volume, s, lambda: self._plug_controller(id_))
            case plan.PlugDisk():
                self._devices.attempt(id_, "plug", action.disk.path, s, lambda: self._plug(id_, action, s))
            case plan.UnplugDisk():
                self._devices.ask(id_, action.volume, s, f"<disk><target dev='{action.target}'/></disk>")
            case plan.LimitDisk():
                self._devices.attempt(id_, "adjust", action.disk.path, s, lambda: self._limit(id_, action, s, read))
            case plan.ReleaseDisks() if s.domain is None:
                self._release(id_, action, s, read)
            case plan.ReleaseDisks():
                # Its guest has other needs, which are not to wait for the storage of a disk that it does not have any more.
                self._devices.attempt(id_, "release", action.volumes[0], s, lambda: self._release(id_, action, s, read))
            case _:
                raise AssertionError(f"no way to carry out {action}")

    # --- the guest ----------------------------------------------------------------------------------

    def _plug_controller(self, id_: str) -> None:
        self._c.hypervisor.attach_device(id_, ET.tostring(render_scsi_controller(), encoding="unicode"))
        log.info("controller-plugged vm=%s type=scsi", id_)

    def _plug(self, id_: str, action: plan.PlugDisk, s: plan.Snapshot) -> None:
        assert s.vm is not None
        assert s.claim is not None
        disk = action.disk
        volume = self._ready_volume(s, disk)
        self._devices.attached[id_] = self._devices.held(id_, s).with_volumes((volume,))
        source = self._c.drivers.storage(volume.pool.driver).disk_attach(volume, id_, s.claim.epoch, False)
        element = render_disk(disk, source, action.target, bus_of(disk, s.vm.machine))
        self._devices.plug(id_, s, ET.tostring(element, encoding="unicode"))
        log.info("disk-plugged vm=%s volume=%s target=%s", id_, disk.path, action.target)

    def _ready_volume(self, s: plan.Snapshot, disk: Disk) -> VolumeRef:
        assert s.vm is not None
        needs = resources.find(self._c.store, replace(s.vm, disks=(disk,), nics=()))
        unready = resources.unready_volume(self._c.store, needs)
        if unready:
            raise NotReady(unready)
        return needs.volumes[0]

    def _limit(self, id_: str, action: plan.LimitDisk, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.status is not None
        self._c.hypervisor.limit_disk(id_, action.target, action.disk.limits)
        self._devices.writes.status(id_, plan.recorded(s.status, action.disk), read)
        log.info("disk-limited vm=%s volume=%s", id_, action.disk.path)

    # --- freeing ------------------------------------------------------------------------------------

    def _release(self, id_: str, action: plan.ReleaseDisks, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.vm is not None
        assert read.vm is not None
        mine = s.claim is not None and s.claim.node == s.me
        if mine:
            # Without the claim nothing of it can be attached here: it is detached before the claim is given up.
            disks = tuple(disk for disk in s.vm.disks if disk.path in action.volumes)
            needs = resources.find(self._c.store, replace(s.vm, disks=disks, nics=()))
            for volume in needs.volumes:
                self._detach(id_, volume, s)
            held = self._devices.attached.get(id_)
            if held is not None:
                self._devices.attached[id_] = held.without_volumes(action.volumes)
        status = read.status.value if read.status is not None else None
        vm, said = plan.released(read.vm.value, status, action.volumes)
        writes: list[Operation] = [read.vm.put(vm), *self._holds(id_, action.volumes), same_claim(id_, read)]
        if read.status is not None and said is not None:
            writes.append(read.status.put(said))
        self._devices.writes.commit(*writes)
        self._devices.forget(id_, action.volumes)
        log.info("disks-released vm=%s volumes=%s", id_, ",".join(action.volumes))

    def _detach(self, id_: str, volume: VolumeRef, s: plan.Snapshot) -> None:
        driver = self._c.drivers.storage(volume.pool.driver)
        if s.domain is None and s.claim is not None:
            # A node that died with the guest may hold it still, which keeps every other VM from it: our epoch is higher.
            try:
                driver.disk_attach(volume, id_, s.claim.epoch, False)
            except DriverError as error:
                log.info("hold-not-taken-over vm=%s volume=%s error=%s", id_, volume.name, error)
        driver.disk_detach(volume, id_)

    def _holds(self, id_: str, volumes: tuple[str, ...]) -> list[Operation]:
        """Return the deletion of the VM's hold on volumes; one that another VM has (a tree edited by hand) is left alone."""
        store = self._c.store
        names = store.get_many([keys.volume_name(*volume.split("/", 1)) for volume in volumes])
        paths = [keys.volume_holder(name.value.decode()) for name in names if name is not None]
        return [
            Delete(path, node.version)
            for path, node in zip(paths, store.get_many(paths), strict=True)
            if node is not None and node.value.decode() == id_
        ]
