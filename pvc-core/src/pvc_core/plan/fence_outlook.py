"""Which proofs of a node's death could be had if it died now, and how long its VMs would be down.

A forecast for people, made while there is time to repair what it finds; nothing is decided by it.  It assumes that
fence devices answer as they did when they were last asked, which a controller that loses power with its node does not.
"""

from typing import Final, Literal, NamedTuple

from pvc_core.model.base import Value
from pvc_core.model.fence import DeviceHealth, FenceLevel, Means

Expected = Literal["yes", "no", "unknown"]

SWITCH_S: Final = 3.0
"""Assumed time to switch a device off and to read that back, beyond the time of reading its state."""
BLOCK_S: Final = 5.0
"""Assumed time to close storage to a node."""


class Fencer(NamedTuple):
    """A coordinator, as somebody who may have to fence the node."""

    name: str
    devices: tuple[DeviceHealth, ...] = ()
    """What it found when it last asked the node's fence devices."""
    drivers: frozenset[str] = frozenset()
    """Fence drivers that work there."""
    storage: frozenset[str] = frozenset()
    """Storage drivers that work there."""

    def health(self, level: int, device: int, driver: str) -> DeviceHealth | None:
        """Return what it found at a device; None: it has not asked since the device was set up."""
        if driver not in self.drivers:
            error = f"coordinator {self.name} has no working fence driver {driver}"
            return DeviceHealth(level=level, device=device, driver=driver, power="unknown", error=error)
        found = (h for h in self.devices if (h.level, h.device, h.driver) == (level, device, driver))
        return next(found, None)


class Guest(NamedTuple):
    """A VM that should run, and is on the node."""

    name: str
    drivers: frozenset[str]
    """Storage drivers of all that it can write to; empty: it has no disks, or may write to more than those of its spec."""


class Subject(NamedTuple):
    """A node, and all that a forecast for it rests on."""

    node: str
    recovery: tuple[Means, ...] = ()
    """What the cluster allows."""
    levels: tuple[FenceLevel, ...] = ()
    watchdog_down_s: float = 0.0
    identities: frozenset[str] = frozenset()
    """Storage drivers that know by what to keep it from writing."""
    guests: tuple[Guest, ...] = ()
    fencers: tuple[Fencer, ...] = ()
    """The coordinators of whom one would have to fence it: the primary, or for the primary itself all others alive."""
    others: tuple[Fencer, ...] = ()
    """Further coordinators that are alive."""
    lease_s: float = 10.0
    grace_s: float = 5.0


class Prospect(Value, frozen=True, kw_only=True):
    """A means, and whether it would give a proof now."""

    means: Means
    expected: Expected
    seconds: float | None = None
    """From the node's death until its VMs may be started elsewhere; None: it is not expected to come to that."""
    reason: str
    """By what, or why not."""
    uncovered: tuple[str, ...] = ()
    """Names of VMs that the proof would not cover."""


class Outlook(Value, frozen=True, kw_only=True):
    """What would happen if the node died now."""

    prospects: tuple[Prospect, ...] = ()
    """In the order of the cluster's policy; means that it does not allow are left out."""
    expected: Expected
    """Whether there would be a proof, at least for some of its VMs."""
    seconds: float | None = None
    """Of the quickest means that is expected to succeed."""
    uncovered: tuple[str, ...] = ()
    """Names of VMs that no proof to be expected would cover."""
    verdict: str
    """One sentence."""


def outlook(subject: Subject) -> Outlook:
    """Return the forecast for a node."""
    prospects = tuple(_PROSPECTS[means](subject) for means in subject.recovery)
    good = [p for p in prospects if p.expected == "yes"]
    whole = [p for p in good if not p.uncovered]
    best = min(whole or good, key=lambda p: p.seconds or 0.0, default=None)
    if best is not None:
        part = f", which does not cover {_named(best.uncovered)}" if best.uncovered else ""
        about = f"proof of its death after about {best.seconds:.0f} s, by {best.means}{part}"
        return Outlook(
            prospects=prospects, expected="yes", seconds=best.seconds, uncovered=best.uncovered, verdict=about
        )
    everybody = tuple(guest.name for guest in subject.guests)
    for prospect in prospects:
        if prospect.expected == "unknown":
            verdict = f"not certain: {prospect.means}: {prospect.reason}"
            return Outlook(prospects=prospects, expected="unknown", uncovered=everybody, verdict=verdict)
    return Outlook(
        prospects=prospects,
        expected="no",
        uncovered=everybody,
        verdict="none: its VMs would not be started elsewhere until somebody confirms its death",
    )


def _power(subject: Subject) -> Prospect:
    if not subject.levels:
        return Prospect(means="power", expected="no", reason="it has no fence level")
    if not subject.fencers:
        return _nobody("power")
    each = {fencer.name: _power_by(subject, fencer) for fencer in subject.fencers}
    found = {p.expected for p in each.values()}
    if len(found) == 1:
        slowest = max(each.values(), key=lambda p: p.seconds or 0.0)
        able = [other.name for other in subject.others if _power_by(subject, other).expected == "yes"]
        if slowest.expected == "no" and able:
            hint = f"; {able[0]} could use them: pvc node primary {able[0]}"
            return Prospect(means="power", expected="no", reason=slowest.reason + hint)
        return slowest
    weak = "; ".join(f"{name}: {p.reason}" for name, p in each.items() if p.expected != "yes")
    return Prospect(means="power", expected="unknown", reason=f"it depends on who takes over as primary; {weak}")


def _power_by(subject: Subject, fencer: Fencer) -> Prospect:
    spent = 0.0
    unknown = False
    reasons: list[str] = []
    for number, level in enumerate(subject.levels, 1):
        found = [fencer.health(number, index, device.driver) for index, device in enumerate(level.devices, 1)]
        known = [health for health in found if health is not None]
        broken = [health for health in known if health.error]
        spent += sum(health.took_s for health in known)
        if broken:
            reasons += [f"level {number}: {health.driver}: {health.error}" for health in broken]
        elif len(known) < len(found):
            unknown = True
            reasons.append(f"level {number}: not checked yet by {fencer.name}")
        else:
            drivers = ", ".join(health.driver for health in known)
            needed = sum(health.took_s + SWITCH_S for health in known)
            return Prospect(
                means="power",
                expected="yes",
                seconds=subject.lease_s + subject.grace_s + spent + needed,
                reason=f"level {number} ({drivers}) by {fencer.name}",
            )
    return Prospect(means="power", expected="unknown" if unknown else "no", reason="; ".join(reasons))


def _storage(subject: Subject) -> Prospect:
    if not subject.identities:
        return Prospect(means="storage", expected="no", reason="no storage driver can keep it from writing")
    if not subject.fencers:
        return _nobody("storage")
    usable = subject.identities.intersection(*(fencer.storage for fencer in subject.fencers))
    if not usable:
        lacking = ", ".join(sorted(subject.identities))
        names = ", ".join(fencer.name for fencer in subject.fencers)
        return Prospect(means="storage", expected="no", reason=f"no working storage driver {lacking} on {names}")
    uncovered = tuple(guest.name for guest in subject.guests if not guest.drivers or not guest.drivers <= usable)
    if subject.guests and len(uncovered) == len(subject.guests):
        reason = f"each of its VMs can write to more than {', '.join(sorted(usable))}, or has no disk"
        return Prospect(means="storage", expected="no", reason=reason, uncovered=uncovered)
    return Prospect(
        means="storage",
        expected="yes",
        seconds=subject.lease_s + subject.grace_s + _first_level(subject) + BLOCK_S,
        reason=", ".join(sorted(usable)),
        uncovered=uncovered,
    )


def _first_level(subject: Subject) -> float:
    """Return the time that the first fence level takes to fail: only then storage is closed."""
    if "power" not in subject.recovery or not subject.levels:
        return 0.0
    found = [health.took_s for fencer in subject.fencers for health in fencer.devices if health.level == 1]
    return SWITCH_S + max(found, default=0.0)


def _watchdog(subject: Subject) -> Prospect:
    if not subject.watchdog_down_s:
        return Prospect(means="watchdog", expected="no", reason="it has armed none")
    if not subject.fencers:
        return _nobody("watchdog")
    return Prospect(
        means="watchdog",
        expected="yes",
        seconds=subject.lease_s + max(subject.grace_s, subject.watchdog_down_s),
        reason=f"it resets the node at most {subject.watchdog_down_s:.0f} s after the end of its lease",
    )


def _nobody(means: Means) -> Prospect:
    return Prospect(means=means, expected="no", reason="no other coordinator is alive that could take over")


def _named(vms: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(vms) - most} more" if len(vms) > most else ""
    return f"VM{'' if len(vms) == 1 else 's'} {', '.join(vms[:most])}{more}"


_PROSPECTS: Final = {"power": _power, "storage": _storage, "watchdog": _watchdog}
