"""The disks of a running guest: plugged in, taken away and limited while it runs.

Invariants, on which the proof of closed storage and whoever wants a volume next rely:

* ``VmStatus.running_disks``, where it is known, names every volume that the guest may write to.
* A volume belongs to the VM for as long as a domain of it may have it.

They hold because of these rules, each of which is one action:

1. A disk is written into the status before it is plugged in.
2. A disk that is to be taken away stays in the spec, marked, and in the status.  The guest is asked for it.
3. It leaves spec, status and the VM's hold on the volume, in one transaction of the claim's holder, once the domain says
   itself that it has it no more, or once there is no domain and nobody else may execute the guest.
4. Nothing of that is done in a live migration: the target has attached what the spec names, and that contains what the
   domain has.

What a guest has is read from its domain, in which each disk carries the name of its volume: not from what this node
or another one remembers having done.  So the daemon may die between any two actions, an answer may be lost, and a guest
may let go late, or of its own accord.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.disk import HOT_PLUGGED, Disk, bus_of, disk_target
from pvc_core.model.vm import VmSpec, VmStatus, kept_disks, removed_disks
from pvc_core.plan.vm.action import Action, LimitDisk, PlugController, PlugDisk, ReleaseDisks, SetStatus, UnplugDisk
from pvc_core.plan.vm.devices import (
    Device,
    Kind,
    adjusting,
    after_release,
    device_conditions,
    in_other_order,
    is_free,
    pause,
    settled,
    to_release,
)
from pvc_core.plan.vm.view import DomainView, GuestDisk, Snapshot

DISKS: Final = Kind(
    condition="Disks",
    noun="disk",
    backend="storage",
    settings="limits",
    keeps="GuestKeepsDisk",
    fails="LimitFailed",
)


def plugging(s: Snapshot, vm: VmSpec, domain: DomainView) -> Action | None:
    """Return what is to be done now about the disks of the guest that runs here, None when there is nothing."""
    status = s.status
    if status is None or not _is_open(status, domain):
        return None
    have = _known(domain)
    released = to_release(s, removed_disks(vm), have)
    if released is not None:
        return ReleaseDisks(volumes=(released,))
    for disk in kept_disks(vm):
        action = _adjust(s, status, disk, have[disk.path]) if disk.path in have else _plug(s, status, vm, disk, domain)
        if action is not None:
            return action
    for volume, target in _to_unplug(vm, domain):
        if not pause(s, volume, "unplug"):
            return UnplugDisk(volume=volume, target=target)
    return None


def disk_conditions(
    s: Snapshot, vm: VmSpec, domain: DomainView, conditions: tuple[Condition, ...]
) -> tuple[Condition, ...]:
    """Return the conditions with that on what is pending about the disks; without it when nothing is."""
    known = _known(domain)
    devices = [Device(disk.path, disk.path, disk.removing, disk.path in known) for disk in vm.disks]
    return device_conditions(s, DISKS, devices, conditions)


def disks_behind(s: Snapshot, vm: VmSpec, domain: DomainView) -> tuple[str, ...]:
    """Return what the guest takes over of its disks only when it is started again."""
    status = s.status
    if status is None or status.guest_disks is None:
        return _unknown(vm)
    if not _is_told(domain):
        return _unknown(vm) or ((_OTHERS,) if kept_disks(vm) != status.guest_disks else ())
    # In the order in which it was given them: one that it let go of and got again may be elsewhere in the domain.
    known = _known(domain)
    has = {disk.path: disk for disk in status.guest_disks if disk.path in known}
    return behind(vm, has, usb="usb" in domain.controllers)


_OTHERS: Final = "its disks are others than those that it was started with"


def _unknown(vm: VmSpec) -> tuple[str, ...]:
    return tuple(f"{volume} is taken away when it stops" for volume in removed_disks(vm))


def behind(vm: VmSpec, has: Mapping[str, Disk], *, usb: bool) -> tuple[str, ...]:
    """Return what a guest takes over only when it is started again: of its disks, as sentences.

    ``has``: its disks as they were given to it, in order, by ``pool/volume``; ``usb``: it has a controller for USB.
    """
    first = next(iter(has), None)
    said: list[str] = []
    for disk in vm.disks:
        bus, given = bus_of(disk, vm.machine), has.get(disk.path)
        if given is None:
            if not (disk.removing or _is_hot(bus, usb=usb)):
                said.append(f"{disk.path} is not plugged in while it runs, for bus {bus} cannot do that")
        elif disk.removing:
            if disk.path == first or given.bus not in HOT_PLUGGED:
                said.append(f"{disk.path} is taken away when it stops")
        elif _fixed(given) != _fixed(disk):
            said.append(f"{disk.path} has other settings")
    if in_other_order((disk.path for disk in kept_disks(vm)), has):
        said.append("its disks are in another order")
    return tuple(said)


def recorded(status: VmStatus, disk: Disk) -> VmStatus:
    """Return the status of a guest that may have this disk from now on, or has it with these settings."""
    known, running = status.guest_disks or (), status.running_disks
    if any(old.path == disk.path for old in known):
        known = tuple(disk if old.path == disk.path else old for old in known)
    else:
        known = (*known, disk)
    if running is not None and disk.path not in running:
        running = (*running, disk.path)
    unsettled = settled(status, (disk.path,))
    return replace(status, guest_disks=known, running_disks=running, unsettled=unsettled)


def released(vm: VmSpec, status: VmStatus | None, volumes: tuple[str, ...]) -> tuple[VmSpec, VmStatus | None]:
    """Return spec and status of a VM that some disks were taken from; none of its guests has them any more."""
    new = replace(vm, disks=tuple(disk for disk in vm.disks if disk.path not in volumes))
    if status is None:
        return replace(new, generation=vm.generation + 1), None
    known, running = status.guest_disks, status.running_disks
    return after_release(
        vm,
        new,
        status,
        DISKS,
        volumes,
        guest_disks=known and tuple(disk for disk in known if disk.path not in volumes),
        running_disks=running and tuple(volume for volume in running if volume not in volumes),
    )


def _is_open(status: VmStatus, domain: DomainView) -> bool:
    """Return whether the devices of a guest may be changed now, and are known."""
    return is_free(domain) and status.guest_disks is not None and _is_told(domain)


def _is_told(domain: DomainView) -> bool:
    """Return whether each of its disks says which volume it is; not those that an earlier version started."""
    return all(disk.volume is not None for disk in domain.disks)


def _known(domain: DomainView) -> dict[str, GuestDisk]:
    return {disk.volume: disk for disk in domain.disks if disk.volume}


def _is_hot(bus: str, *, usb: bool) -> bool:
    return bus in HOT_PLUGGED and (usb or bus != "usb")


def _fixed(disk: Disk) -> tuple[object, ...]:
    """Return the settings of a disk that do not change while it is plugged in."""
    return disk.bus, disk.read_only, disk.cache, disk.discard


def _adjust(s: Snapshot, status: VmStatus, disk: Disk, has: GuestDisk) -> Action | None:
    given = next((old for old in status.guest_disks or () if old.path == disk.path), None)
    if given is None:
        return None
    action = LimitDisk(disk=replace(given, limits=disk.limits), target=has.target)
    return adjusting(s, status, disk.path, same=given.limits == disk.limits, action=action)


def _plug(s: Snapshot, status: VmStatus, vm: VmSpec, disk: Disk, domain: DomainView) -> Action | None:
    bus = bus_of(disk, vm.machine)
    if not _is_hot(bus, usb="usb" in domain.controllers) or pause(s, disk.path, "plug"):
        return None
    known = recorded(status, disk)
    if known != status:
        return SetStatus(status=known)
    if bus == "scsi" and "scsi" not in domain.controllers:
        return PlugController(volume=disk.path)
    return PlugDisk(disk=disk, target=disk_target(bus, [has.target for has in domain.disks]))


def _to_unplug(vm: VmSpec, domain: DomainView) -> list[tuple[str, str]]:
    """Return volume and target of the disks that the guest is to let go of: not its first, which it was booted from."""
    removed = removed_disks(vm)
    later = [disk for disk in domain.disks[1:] if disk.bus in HOT_PLUGGED]
    return [(disk.volume, disk.target) for disk in later if disk.volume and disk.volume in removed]
