"""How long a node's VMs may be down: computed from what was configured and how its devices behave."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pvc_core.config.schema import Timing
from pvc_core.model.fence import Means
from pvc_core.testkit.simulator.power import Controller, Mode

TICK_S: Final = 2.0
"""The servers end sessions at their ticks."""
_CALL_S: Final = {
    Mode.OK: 2.5,
    Mode.SLOW: 21.0,
    Mode.STUCK: 26.0,
    Mode.UNREACHABLE: 5.4,
    Mode.GARBAGE: 2.5,
    Mode.DARK: 2.5,
}
"""Longest time of a call of a device in a mode."""
_CHECK_S: Final = 5.4
"""A device that is just being asked for its health keeps the fencer waiting at most so long."""
_BLOCK_S: Final = 2.0
_TAKE_OVER_S: Final = 3.0
"""Until another primary goes on."""
_START_S: Final = 5.0
"""From the proof until the guests execute elsewhere."""


class Prospects(NamedTuple):
    """What can be used against a node."""

    levels: Sequence[Sequence[Controller]]
    recovery: tuple[Means, ...]
    watchdog_down_s: float
    """As the node declared it; 0: it has none."""
    closable: bool
    """Storage can be closed to it."""


def down_s(p: Prospects, coordinators: Sequence[str], timing: Timing, *, disks: bool) -> float | None:
    """Return the longest time from a node's death until its VMs execute elsewhere; None: there may never be a proof.

    ``coordinators``: one of these has to fence it; ``disks``: the VM has some, all on storage that can be closed.
    """
    gone = timing.lease + TICK_S + _TAKE_OVER_S
    worst = 0.0
    for coordinator in coordinators:
        failed, done = _power_s(p.levels, coordinator) if "power" in p.recovery else (0.0, None)
        proofs = [] if done is None else [gone + timing.grace + done]
        if disks and p.closable and "storage" in p.recovery:
            proofs.append(gone + timing.grace + failed + _BLOCK_S)
        if p.watchdog_down_s and "watchdog" in p.recovery:
            # While some VMs are proven by closed storage and others not, it is looked at in intervals only.
            look = timing.publish if p.closable and not disks else 0.0
            proofs.append(gone + max(timing.grace, p.watchdog_down_s) + look)
        if not proofs:
            return None
        worst = max(worst, min(proofs))
    return worst + _START_S


def _power_s(levels: Sequence[Sequence[Controller]], coordinator: str) -> tuple[float, float | None]:
    """Return when the first level has ended one way or the other, and when one was read back as off (None: none will be).

    Both in seconds from the beginning of the search.
    """
    spent = 0.0
    ends: list[float] = []
    for devices in levels:
        spent += sum(_CALL_S[_mode(device)] + _CHECK_S for device in devices)
        if len(devices) > 1:
            spent += len(devices) * _CALL_S[Mode.OK]  # all are read once more
        ends.append(spent)
        if all(device.usable(coordinator) for device in devices):
            return ends[0], spent
    return (ends[0] if ends else 0.0), None


def _mode(controller: Controller) -> Mode:
    return controller.mode if controller.answers() else Mode.UNREACHABLE
