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

from pvc_core.model.base import Condition, with_condition, without_condition
from pvc_core.model.disk import HOT_PLUGGED, Disk, bus_of, disk_target
from pvc_core.model.vm import VmSpec, VmStatus, kept_disks, removed_disks
from pvc_core.plan.backoff import backoff, least
from pvc_core.plan.vm.action import Action, LimitDisk, PlugController, PlugDisk, ReleaseDisks, SetStatus, UnplugDisk
from pvc_core.plan.vm.status import left
from pvc_core.plan.vm.view import DiskTry, DomainView, GuestDisk, Snapshot

DISKS: Final = "Disks"
"""Type of the condition that says what is not done yet about the disks of a running guest."""

UNPLUGGING: Final = "Unplugging"
"""Its reason while the guest may still be about to let go; any other says that something does not work."""

ASK_AGAIN_S: Final = 10.0
"""First pause before a guest is asked again for a disk: one that was still booting did not hear it."""


def plugging(s: Snapshot, vm: VmSpec, domain: DomainView) -> Action | None:
    """Return what is to be done now about the disks of the guest that runs here, None when there is nothing."""
    status = s.status
    if status is None or not _is_open(status, domain):
        return None
    have = _known(domain)
    for volume in removed_disks(vm):
        if volume not in have and not _may_come(s, volume) and not _pause(s, volume, "release"):
            return ReleaseDisks(volumes=(volume,))
    for disk in kept_disks(vm):
        action = _adjust(s, status, disk, have[disk.path]) if disk.path in have else _plug(s, status, vm, disk, domain)
        if action is not None:
            return action
    for volume, target in _to_unplug(vm, domain):
        if not _pause(s, volume, "unplug"):
            return UnplugDisk(volume=volume, target=target)
    return None


def still_tried(vm: VmSpec, tries: Mapping[str, DiskTry]) -> dict[str, DiskTry]:
    """Return what was tried and is still wanted: a removal that was taken back, and is asked for again, begins anew."""
    removed, kept = removed_disks(vm), {disk.path for disk in kept_disks(vm)}
    return {
        volume: tried
        for volume, tried in tries.items()
        if tried.unsure or volume in (removed if tried.what in ("unplug", "release") else kept)
    }


def again_in(s: Snapshot, vm: VmSpec) -> float | None:
    """Return in how many seconds the next of what is pending is due, None when nothing is."""
    tries = {disk.path: s.memory.disk_tries[disk.path] for disk in vm.disks if disk.path in s.memory.disk_tries}
    pauses = [_pause(s, volume, tried.what) for volume, tried in tries.items()]
    unsure = [left(tried.last + s.limits.unplug_s, s.now) for tried in tries.values() if tried.unsure]
    return least(*(pause for pause in (*pauses, *unsure) if pause))


def disk_conditions(
    s: Snapshot, vm: VmSpec, domain: DomainView, conditions: tuple[Condition, ...]
) -> tuple[Condition, ...]:
    """Return the conditions with that on what is pending about the disks; without it when nothing is."""
    problems = [found for disk in vm.disks if (found := _problem(s, disk, domain))]
    if not problems:
        return without_condition(conditions, DISKS)
    reason = next((reason for reason, _ in problems if reason != UNPLUGGING), UNPLUGGING)
    message = "; ".join(message for _, message in problems)
    return with_condition(conditions, Condition(type=DISKS, ok=False, reason=reason, message=message))


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
    kept = [disk.path for disk in kept_disks(vm) if disk.path in has]
    if kept != [volume for volume in has if volume in kept]:
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
    return replace(status, guest_disks=known, running_disks=running)


def released(vm: VmSpec, status: VmStatus | None, volumes: tuple[str, ...]) -> tuple[VmSpec, VmStatus | None]:
    """Return spec and status of a VM that some disks were taken from; none of its guests has them any more."""
    new = replace(vm, disks=tuple(d for d in vm.disks if d.path not in volumes), generation=vm.generation + 1)
    if status is None:
        return new, None
    known, running = status.guest_disks, status.running_disks
    changes: dict[str, object] = {
        "guest_disks": known and tuple(disk for disk in known if disk.path not in volumes),
        "running_disks": running and tuple(volume for volume in running if volume not in volumes),
        "conditions": without_condition(status.conditions, DISKS),
    }
    # It is the node's own change: nothing waits for it, and it starts no guest that ended for good.
    for field in ("observed_generation", "halted"):
        if getattr(status, field) == vm.generation:
            changes[field] = new.generation
    return new, replace(status, **changes)


def _is_open(status: VmStatus, domain: DomainView) -> bool:
    """Return whether the devices of a guest may be changed now, and are known."""
    return domain.executing and not domain.transfer and status.guest_disks is not None and _is_told(domain)


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


def _may_come(s: Snapshot, volume: str) -> bool:
    """Return whether a disk may still be plugged in by a request of which the hypervisor's answer was lost.

    A hypervisor that hung carries out what it was asked before as soon as it goes on, also for a client that is gone.
    """
    tried = s.memory.disk_tries.get(volume)
    return tried is not None and tried.unsure and s.now < tried.last + s.limits.unplug_s


def _adjust(s: Snapshot, status: VmStatus, disk: Disk, has: GuestDisk) -> Action | None:
    given = next((old for old in status.guest_disks or () if old.path == disk.path), None)
    if given is None or given.limits == disk.limits or _pause(s, disk.path, "limit"):
        return None
    return LimitDisk(disk=replace(given, limits=disk.limits), target=has.target)


def _plug(s: Snapshot, status: VmStatus, vm: VmSpec, disk: Disk, domain: DomainView) -> Action | None:
    bus = bus_of(disk, vm.machine)
    if not _is_hot(bus, usb="usb" in domain.controllers) or _pause(s, disk.path, "plug"):
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


def _pause(s: Snapshot, volume: str, what: str) -> float:
    """Return the seconds until something is done to a disk that was tried before, 0: it is due."""
    tried = s.memory.disk_tries.get(volume)
    if tried is None or tried.what != what:
        return 0.0
    first = ASK_AGAIN_S if what == "unplug" else s.limits.backoff_s
    return left(tried.last + backoff(tried.count, first, s.limits.backoff_max_s), s.now)


def _problem(s: Snapshot, disk: Disk, domain: DomainView) -> tuple[str, str] | None:
    """Return reason and message about what was tried on a disk and has not come of it."""
    tried: DiskTry | None = s.memory.disk_tries.get(disk.path)
    if tried is None:
        return None
    has = _known(domain).get(disk.path)
    if disk.removing:
        if has is None and _may_come(s, disk.path):
            return UNPLUGGING, f"{disk.path} may be plugged in yet: {tried.error}"
        if tried.what == "release" and has is None:
            return "ReleaseFailed", f"the guest has let go of {disk.path}, and its storage does not: {tried.error}"
        if tried.what != "unplug" or has is None:
            return None
        said = f" ({tried.error})" if tried.error else ""
        if s.now - tried.first < s.limits.unplug_s:
            return UNPLUGGING, f"the guest was asked to let go of {disk.path}{said}"
        return "GuestKeepsDisk", (
            f"the guest does not let go of {disk.path}{said}: it is asked again; shut the VM down or restart it, or take "
            "the removal back by adding the disk again"
        )
    if has is None and tried.what == "plug":
        return "PlugFailed", f"{disk.path} cannot be plugged in: {tried.error}"
    if has is not None and tried.what == "limit":
        return "LimitFailed", f"the limits of {disk.path} cannot be changed: {tried.error}"
    return None
