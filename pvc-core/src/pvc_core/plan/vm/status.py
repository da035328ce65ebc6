"""Saying in the VM's status what is the case, and what follows from an unwanted end."""

import msgspec

from pvc_core.model.vm import VmSpec, VmState, VmStatus
from pvc_core.plan.backoff import backoff
from pvc_core.plan.vm.action import SetStatus
from pvc_core.plan.vm.view import Limits, Snapshot


def left(until: float | None, now: float) -> float:
    return max(0.0, until - now) if until is not None else 0.0


def backoff_left(s: Snapshot) -> float:
    return left(s.memory.backoff_until, s.now)


def new_status(s: Snapshot, vm: VmSpec, state: VmState, reason: str, **changes: object) -> VmStatus:
    old = s.status or VmStatus(id=vm.id)
    return msgspec.structs.replace(
        old, state=state, reason=reason, node=s.me, observed_generation=vm.generation, **changes
    )


def say(s: Snapshot, vm: VmSpec, state: VmState, reason: str, **changes: object) -> SetStatus | None:
    """Return the action that makes the status say this, or None when it does already."""
    new = new_status(s, vm, state, reason, **changes)
    return None if new == s.status else SetStatus(status=new)


def restart_pause(crashes: int, limits: Limits) -> float:
    """Return the pause in seconds before the next try, after so many crashes or failed moves in a row."""
    return backoff(crashes, limits.backoff_s, limits.backoff_max_s)


def crashed(s: Snapshot, vm: VmSpec, status: VmStatus, what: str) -> SetStatus:
    """Return the status after one more unwanted end (or failed start), and how long to wait."""
    crashes = status.crashes + 1
    if crashes >= s.limits.give_up:
        new = new_status(
            s,
            vm,
            VmState.FAILED,
            f"{what}; gave up after {crashes} times in a row: correct the cause, then start it",
            crashes=crashes,
            halted=vm.generation,
        )
        return SetStatus(status=new)
    pause = restart_pause(crashes, s.limits)
    reason = f"{what}; starting it again in {pause:g} s (attempt {crashes + 1} of {s.limits.give_up})"
    return SetStatus(status=new_status(s, vm, VmState.BACKOFF, reason, crashes=crashes), backoff_s=pause)
