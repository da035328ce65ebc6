"""Ending a guest, and letting go of it."""

from typing import Final

from pvc_core.model.vm import VmSpec, VmState, removed_disks, removed_nics
from pvc_core.plan.vm.action import (
    Action,
    DestroyDomain,
    Detach,
    Idle,
    ReleaseClaim,
    ReleaseDisks,
    ReleaseNics,
    ShutdownDomain,
)
from pvc_core.plan.vm.status import say
from pvc_core.plan.vm.view import Snapshot

ACPI_REPEAT_S: Final = 10.0
"""A guest is asked again to shut down this often: one that was still booting ignores the first request."""
_LEAST_S: Final = 0.02
"""Least wait: the sum of two times may round to just before the moment that is waited for."""


def let_go(s: Snapshot) -> Action:
    """Give up what is held for a guest that is confirmed gone: first its devices, then the claim."""
    if s.memory.attached:
        return Detach()
    return (releasing(s.vm) if s.vm is not None else None) or ReleaseClaim()


def releasing(vm: VmSpec) -> Action | None:
    """Return how what is to be taken from a VM that has no guest becomes free, None when nothing is."""
    disks, nics = removed_disks(vm), removed_nics(vm)
    if disks:
        return ReleaseDisks(volumes=disks)
    return ReleaseNics(macs=nics) if nics else None


def stopping(s: Snapshot, vm: VmSpec) -> Action:
    """End the guest: by force when asked for, else by ACPI within the VM's time limit."""
    if vm.power == "disabled" or (vm.power == "stopped" and vm.stop_forced):
        return DestroyDomain(why="forced stop")
    said = say(s, vm, VmState.STOPPING, "")
    if said is not None:
        return said
    since, asked = s.memory.shutdown_since, s.memory.shutdown_asked
    if since is None or asked is None:
        return ShutdownDomain()
    if s.now - since >= vm.shutdown_timeout_s:
        return DestroyDomain(why=f"it did not shut down within {vm.shutdown_timeout_s} s")
    if s.now - asked >= ACPI_REPEAT_S:
        return ShutdownDomain()
    return Idle(again_s=max(_LEAST_S, min(asked + ACPI_REPEAT_S, since + vm.shutdown_timeout_s) - s.now))
