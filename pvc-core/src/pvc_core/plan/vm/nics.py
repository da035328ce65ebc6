"""The NICs of a running guest: plugged in, taken away, limited, their links cut, while it runs.

Invariants, on which the drivers of networks and whoever wants to remove a network rely:

* A MAC address, and the hold on a network, belong to the VM for as long as a domain of it may have a NIC with them.
* What a NIC needs on a node (``nic_attach``) is there for as long as the domain there may have it.

They hold because of the rules that ``disks`` states for disks, with the NIC's MAC address in place of the volume: it is in the
status before it is plugged in; one that is to be taken away stays in the spec, marked, until the domain itself has it no
more; nothing of that is done in a live migration.

What a guest has is read from its domain, in which each NIC carries its MAC address as its alias.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.vm import Nic, VmSpec, VmStatus, kept_nics, removed_nics
from pvc_core.plan.vm.action import Action, AdjustNic, PlugNic, ReleaseNics, SetStatus, UnplugNic
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
from pvc_core.plan.vm.view import DomainView, Snapshot

NICS: Final = Kind(
    condition="Nics",
    noun="NIC",
    backend="network",
    settings="settings",
    keeps="GuestKeepsNic",
    fails="ChangeFailed",
)

_LIVE: Final = ("addresses", "limits", "link_up")
"""Settings that change while a NIC is plugged in."""
_FIXED: Final = ("network", "model", "queues", "parameters")


def plugging_nics(s: Snapshot, vm: VmSpec, domain: DomainView) -> Action | None:
    """Return what is to be done now about the NICs of the guest that runs here, None when there is nothing."""
    status = s.status
    if status is None or status.guest_nics is None or not is_free(domain):
        return None
    released = to_release(s, removed_nics(vm), dict.fromkeys(domain.nics))
    if released is not None:
        return ReleaseNics(macs=(released,))
    for nic in kept_nics(vm):
        action = _adjust(s, status, nic) if nic.mac in domain.nics else _plug(s, status, nic)
        if action is not None:
            return action
    going = (nic for nic in vm.nics if nic.removing and nic.mac in domain.nics)
    return next((UnplugNic(nic=nic) for nic in going if not pause(s, nic.mac, "unplug")), None)


def nic_conditions(
    s: Snapshot, vm: VmSpec, domain: DomainView, conditions: tuple[Condition, ...]
) -> tuple[Condition, ...]:
    """Return the conditions with that on what is pending about the NICs; without it when nothing is."""
    devices = [Device(nic.mac, nic.title, nic.removing, nic.mac in domain.nics) for nic in vm.nics]
    return device_conditions(s, NICS, devices, conditions)


def nics_behind(s: Snapshot, vm: VmSpec, domain: DomainView) -> tuple[str, ...]:
    """Return what the guest takes over of its NICs only when it is started again."""
    status = s.status
    if status is None or status.guest_nics is None:
        return tuple(f"{nic.title} is taken away when it stops" for nic in vm.nics if nic.removing)
    return behind_nics(vm, {nic.mac: nic for nic in status.guest_nics if nic.mac in domain.nics})


def behind_nics(vm: VmSpec, has: Mapping[str, Nic]) -> tuple[str, ...]:
    """Return what a guest takes over only when it is started again: of its NICs, as sentences.

    ``has``: its NICs as they were given to it, in order, by MAC address.
    """
    said: list[str] = []
    for nic in kept_nics(vm):
        given = has.get(nic.mac)
        other = [field for field in _FIXED if given is not None and getattr(given, field) != getattr(nic, field)]
        if other:
            said.append(f"{nic.title} has other settings: {', '.join(other)}")
    if in_other_order((nic.mac for nic in kept_nics(vm)), has):
        said.append("its NICs are in another order")
    return tuple(said)


def recorded_nic(status: VmStatus, nic: Nic) -> VmStatus:
    """Return the status of a guest that may have this NIC from now on, or has it with these settings."""
    known = status.guest_nics or ()
    if any(old.mac == nic.mac for old in known):
        known = tuple(nic if old.mac == nic.mac else old for old in known)
    else:
        known = (*known, nic)
    return replace(status, guest_nics=known, unsettled=settled(status, (nic.mac,)))


def released_nics(vm: VmSpec, status: VmStatus | None, macs: tuple[str, ...]) -> tuple[VmSpec, VmStatus | None]:
    """Return spec and status of a VM that some NICs were taken from; none of its guests has them any more."""
    new = replace(vm, nics=tuple(nic for nic in vm.nics if nic.mac not in macs))
    if status is None:
        return replace(new, generation=vm.generation + 1), None
    known = status.guest_nics
    left = known and tuple(nic for nic in known if nic.mac not in macs)
    return after_release(vm, new, status, NICS, macs, guest_nics=left)


def _adjust(s: Snapshot, status: VmStatus, nic: Nic) -> Action | None:
    given = next((old for old in status.guest_nics or () if old.mac == nic.mac), None)
    if given is None:
        return None
    wanted = replace(given, **{field: getattr(nic, field) for field in _LIVE})
    return adjusting(s, status, nic.mac, same=wanted == given, action=AdjustNic(nic=wanted))


def _plug(s: Snapshot, status: VmStatus, nic: Nic) -> Action | None:
    if pause(s, nic.mac, "plug"):
        return None
    known = recorded_nic(status, nic)
    return SetStatus(status=known) if known != status else PlugNic(nic=nic)
