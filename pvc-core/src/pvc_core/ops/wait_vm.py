"""Waiting for a VM."""

import enum
from collections.abc import Callable
from functools import partial

from pvc_core.model.base import Condition
from pvc_core.model.vm import MigrationResult, VmSpec, VmState
from pvc_core.ops.context import Ops
from pvc_core.ops.vm_views import UNKNOWN, VmInfo, read_info
from pvc_core.ops.waiting import Done, Progress, Report, WaitFailed, wait_until
from pvc_core.plan.vm import DISKS, NICS, UNPLUGGING, Kind
from pvc_core.store import keys
from pvc_core.store.documents import read

_BUSY = frozenset({VmState.STARTING, VmState.STOPPING, VmState.MIGRATING})
_ON = _BUSY | {VmState.RUNNING, VmState.BACKOFF}


class VmGoal(enum.StrEnum):
    """What to wait for."""

    RUNNING = "running"
    """It runs, on the node it is placed on, and restarts asked for are done."""
    STOPPED = "stopped"
    """It is off, and no node holds its claim."""
    SETTLED = "settled"
    """The responsible node has seen the last change, and does nothing more about it."""
    DISKS = "given its disks"
    """The running guest has the disks that are wanted, or does not run."""
    NICS = "given its NICs"
    """The same of its NICs."""
    GONE = "gone"


def wait_vm(
    ops: Ops,
    vm: str,
    goal: VmGoal,
    *,
    timeout_s: float,
    report: Report | None = None,
    node: str | None = None,
) -> VmInfo | None:
    """Wait for a VM (id); returns it, None when it is gone.

    ``node`` is where a move was to bring it (None: where it is placed when the wait begins): when the move
    there is given up, the wait fails, though the VM runs.  Raises WaitFailed, WaitTimeout.
    """
    spec_key = keys.vm_spec(vm)
    move = _Move(node)

    def look() -> Done[VmInfo | None] | Progress:
        entry = read(ops.store, spec_key)
        if entry is None:
            if goal is VmGoal.GONE:
                return Done(None)
            raise WaitFailed("the VM was removed meanwhile")
        info = read_info(ops, entry)
        move.check(info)
        if _LOOKS[goal](info):
            return Done(info)
        return Progress(_standing(info, goal))

    paths = [spec_key.path, keys.vm_status(vm).path, keys.claim(vm).path]
    return wait_until(ops, f"the VM is not {goal.value}", paths, look, timeout_s=timeout_s, report=report)


def _standing(info: VmInfo, goal: VmGoal) -> str:
    """Say how far it is."""
    view = info.view
    kind = {VmGoal.DISKS: DISKS, VmGoal.NICS: NICS}.get(goal)
    pending = _pending(info, kind) if kind is not None else None
    reason = pending.message if pending is not None else view.reason
    return f"{view.state}: {reason}" if reason else view.state


class _Move:
    """Notices that a move was given up: the VM is placed elsewhere, and a new failed migration is on record."""

    def __init__(self, target: str | None) -> None:
        self._target = target
        self._first = True
        self._known: MigrationResult | None = None

    def check(self, info: VmInfo) -> None:
        last = info.last_migration
        if self._first:
            self._first = False
            self._known = last if self._target is None or info.spec.node == self._target else None
            self._target = self._target or info.spec.node
        given_up = last is not None and not last.ok and last != self._known and last.target == self._target
        if given_up and last is not None and info.spec.node != self._target:
            raise WaitFailed(
                f"the move of VM {info.spec.name!r} to {self._target} was given up, it stays on {info.spec.node}: "
                f"{last.message or 'the migration failed'}"
            )


def _running(info: VmInfo) -> bool:
    spec, status, claim = info.spec, info.status, info.claim
    _not_deleting(spec)
    if spec.power != "running":
        raise WaitFailed(f"VM {spec.name!r} was told to stop meanwhile")
    if status is None:
        return False
    if status.halted == spec.generation:
        raise WaitFailed(f"VM {spec.name!r} {_how(status.state)}: {status.reason or 'it gives no reason'}")
    return (
        status.state is VmState.RUNNING
        and claim is not None
        and claim.migration is None
        and claim.node == spec.node == status.node
        and status.restart_done >= spec.restart_request
        and info.view.state == VmState.RUNNING
    )


def _stopped(info: VmInfo) -> bool:
    spec, status = info.spec, info.status
    _not_deleting(spec)
    if spec.power == "running":
        raise WaitFailed(f"VM {spec.name!r} was started meanwhile")
    if info.claim is not None:
        return False
    # A node that is not alive, or none, cannot report it; that nobody holds the claim is enough then.
    return status is None or status.state not in _ON or spec.node is None or info.view.state == UNKNOWN


def _settled(info: VmInfo) -> bool:
    _not_deleting(info.spec)
    return info.view.settled and (info.status is None or info.status.state not in _BUSY)


def _pending(info: VmInfo, kind: Kind) -> Condition | None:
    """Return what is not done yet about the devices of a running guest."""
    return next((condition for condition in info.conditions if condition.type == kind.condition), None)


def _given(info: VmInfo, kind: Kind) -> bool:
    if not _settled(info):
        return False
    pending = _pending(info, kind)
    if pending is not None and pending.reason != UNPLUGGING:
        raise WaitFailed(f"VM {info.spec.name!r}: {pending.message}")
    return pending is None or info.claim is None


def _never(info: VmInfo) -> bool:
    if not info.spec.deleting:
        raise WaitFailed(f"VM {info.spec.name!r} is not being removed")
    return False


def _not_deleting(spec: VmSpec) -> None:
    if spec.deleting:
        raise WaitFailed(f"VM {spec.name!r} is being removed")


def _how(state: VmState) -> str:
    return "failed" if state is VmState.FAILED else "does not run"


_LOOKS: dict[VmGoal, Callable[[VmInfo], bool]] = {
    VmGoal.RUNNING: _running,
    VmGoal.STOPPED: _stopped,
    VmGoal.SETTLED: _settled,
    VmGoal.DISKS: partial(_given, kind=DISKS),
    VmGoal.NICS: partial(_given, kind=NICS),
    VmGoal.GONE: _never,
}
