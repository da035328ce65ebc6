"""What disks and NICs of a running guest have in common: when what was tried on one is due again, and what is told of it.

A device is named by a key that no other one has: a disk by ``pool/volume``, a NIC by its MAC address.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.model.base import Condition, with_condition, without_condition
from pvc_core.model.vm import VmSpec, VmStatus, kept_disks, kept_nics, removed_disks, removed_nics
from pvc_core.plan.backoff import backoff, least
from pvc_core.plan.vm.action import Action, SetStatus
from pvc_core.plan.vm.status import left
from pvc_core.plan.vm.view import DeviceTry, DomainView, Snapshot

UNPLUGGING: Final = "Unplugging"
"""Reason of a condition while the guest may still be about to let go; any other says that something does not work."""

ASK_AGAIN_S: Final = 10.0
"""First pause before a guest is asked again for a device: one that was still booting did not hear it."""


class Kind(NamedTuple):
    """One kind of devices, in words."""

    condition: str
    """Type of the condition that says what is not done yet about the devices of a running guest."""
    noun: str
    backend: str
    """What has to let go of it after the guest."""
    settings: str
    """What of it changes while the guest runs."""
    keeps: str
    """Reason of the condition when a guest does not let go."""
    fails: str
    """The same when settings cannot be changed."""


class Device(NamedTuple):
    """A device that is wanted, or was, and whether the domain has it."""

    key: str
    title: str
    removing: bool
    has: bool


def is_free(domain: DomainView) -> bool:
    """Return whether the devices of a guest may be changed now."""
    return domain.executing and not domain.transfer


def may_come(s: Snapshot, key: str) -> bool:
    """Return whether a device may still be plugged in by a request of which the hypervisor's answer was lost.

    A hypervisor that hung carries out what it was asked before as soon as it goes on, also for a client that is gone.
    """
    tried = s.memory.tries.get(key)
    return tried is not None and tried.unsure and s.now < tried.last + s.limits.unplug_s


def pause(s: Snapshot, key: str, what: str) -> float:
    """Return the seconds until something is done to a device that was tried before, 0: it is due."""
    tried = s.memory.tries.get(key)
    if tried is None or tried.what != what:
        return 0.0
    first = ASK_AGAIN_S if what == "unplug" else s.limits.backoff_s
    return left(tried.last + backoff(tried.count, first, s.limits.backoff_max_s), s.now)


def to_release(s: Snapshot, removed: Iterable[str], has: Mapping[str, object]) -> str | None:
    """Return a device that the guest has let go of for good, and that is due to be taken from the VM."""
    return next(
        (key for key in removed if key not in has and not may_come(s, key) and not pause(s, key, "release")), None
    )


def still_tried(vm: VmSpec, tries: Mapping[str, DeviceTry]) -> dict[str, DeviceTry]:
    """Return what was tried and is still wanted: a removal that was taken back, and is asked for again, begins anew."""
    removed = {*removed_disks(vm), *removed_nics(vm)}
    kept = {*(disk.path for disk in kept_disks(vm)), *(nic.mac for nic in kept_nics(vm))}
    return {
        key: tried
        for key, tried in tries.items()
        if tried.unsure or key in (removed if tried.what in ("unplug", "release") else kept)
    }


def again_in(s: Snapshot, vm: VmSpec) -> float | None:
    """Return in how many seconds the next of what is pending is due, None when nothing is."""
    keys = (*(disk.path for disk in vm.disks), *(nic.mac for nic in vm.nics))
    tries = {key: s.memory.tries[key] for key in keys if key in s.memory.tries}
    pauses = [pause(s, key, tried.what) for key, tried in tries.items()]
    unsure = [left(tried.last + s.limits.unplug_s, s.now) for tried in tries.values() if tried.unsure]
    return least(*(seconds for seconds in (*pauses, *unsure) if seconds))


def device_conditions(
    s: Snapshot, kind: Kind, devices: Iterable[Device], conditions: tuple[Condition, ...]
) -> tuple[Condition, ...]:
    """Return the conditions with that on what is pending about devices of a kind; without it when nothing is."""
    problems = [found for device in devices if (found := _problem(s, kind, device))]
    if not problems:
        return without_condition(conditions, kind.condition)
    reason = next((reason for reason, _ in problems if reason != UNPLUGGING), UNPLUGGING)
    message = "; ".join(message for _, message in problems)
    return with_condition(conditions, Condition(type=kind.condition, ok=False, reason=reason, message=message))


def _problem(s: Snapshot, kind: Kind, device: Device) -> tuple[str, str] | None:
    """Return reason and message about what was tried on a device and has not come of it."""
    tried, title = s.memory.tries.get(device.key), device.title
    if tried is None:
        return None
    if device.removing:
        return _not_gone(s, kind, device, tried)
    if not device.has and tried.what == "plug":
        return "PlugFailed", f"{title} cannot be plugged in: {tried.error}"
    if device.has and tried.what == "adjust":
        return kind.fails, f"the {kind.settings} of {title} cannot be changed: {tried.error}"
    return None


def _not_gone(s: Snapshot, kind: Kind, device: Device, tried: DeviceTry) -> tuple[str, str] | None:
    title = device.title
    if not device.has:
        if may_come(s, device.key):
            return UNPLUGGING, f"{title} may be plugged in yet: {tried.error}"
        if tried.what == "release":
            return "ReleaseFailed", f"the guest has let go of {title}, and its {kind.backend} does not: {tried.error}"
        return None
    if tried.what != "unplug":
        return None
    said = f" ({tried.error})" if tried.error else ""
    if s.now - tried.first < s.limits.unplug_s:
        return UNPLUGGING, f"the guest was asked to let go of {title}{said}"
    return kind.keeps, (
        f"the guest does not let go of {title}{said}: it is asked again; shut the VM down or restart it, or take "
        f"the removal back by adding the {kind.noun} again"
    )


def in_other_order(wanted: Iterable[str], has: Iterable[str]) -> bool:
    """Return whether the devices that are wanted are in another order than those that the guest has."""
    has = list(has)
    kept = [key for key in wanted if key in has]
    return kept != [key for key in has if key in kept]


def adjusting(s: Snapshot, status: VmStatus, key: str, *, same: bool, action: Action) -> Action | None:
    """Return what is to be done now about a device's settings.

    ``same``: they are on record as they are wanted; ``action`` changes them.  That a change is begun is said before: a daemon
    that dies over it may have made it, and what is wanted by then may be what is on record.
    """
    if key in status.unsettled:
        return None if pause(s, key, "adjust") else action
    return None if same else SetStatus(status=replace(status, unsettled=(*status.unsettled, key)))


def settled(status: VmStatus, keys: Collection[str]) -> tuple[str, ...]:
    """Return the devices whose settings are not known, but for these."""
    return tuple(key for key in status.unsettled if key not in keys)


def after_release(
    vm: VmSpec, new: VmSpec, status: VmStatus, kind: Kind, gone: Collection[str], **known: object
) -> tuple[VmSpec, VmStatus]:
    """Return the next generation of a spec that devices were taken from, and its status; ``known``: of those that are left."""
    new = replace(new, generation=vm.generation + 1)
    conditions = without_condition(status.conditions, kind.condition)
    more: dict[str, object] = {"conditions": conditions, "unsettled": settled(status, gone), **known}
    # It is the node's own change: nothing waits for it, and it starts no guest that ended for good.
    for field in ("observed_generation", "halted"):
        if getattr(status, field) == vm.generation:
            more[field] = new.generation
    return new, replace(status, **more)
