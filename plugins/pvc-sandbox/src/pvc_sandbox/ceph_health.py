"""Whether Ceph works, from what its monitors and its manager say; pure.

A manager that has just begun shows the states of placement groups that it finds written down, so those of before a power
cut.  What a group reported after its OSDs were there again is true.
"""

from collections.abc import Collection

import msgspec


class HealthCheck(msgspec.Struct, frozen=True):
    """One thing that Ceph complains of."""

    severity: str


class Health(msgspec.Struct, frozen=True):
    """What Ceph thinks of itself."""

    status: str
    checks: dict[str, HealthCheck] = {}


class Managers(msgspec.Struct, frozen=True):
    """Which manager works."""

    available: bool = False


class Status(msgspec.Struct, frozen=True):
    """Answer of ``ceph status``, as far as it matters here."""

    health: Health
    mgrmap: Managers = Managers()


class Osd(msgspec.Struct, frozen=True):
    """One entry of ``ceph osd dump``."""

    osd: int
    up: int
    in_: int = msgspec.field(name="in")
    up_from: int
    """Epoch of the map in which it last came up."""


class OsdMap(msgspec.Struct, frozen=True):
    """Answer of ``ceph osd dump``."""

    osds: tuple[Osd, ...] = ()


class Group(msgspec.Struct, frozen=True):
    """One entry of ``ceph pg dump pgs``."""

    pgid: str
    state: str
    """Words joined by +."""
    reported_epoch: int
    acting: tuple[int, ...] = ()


class Groups(msgspec.Struct, frozen=True):
    """Answer of ``ceph pg dump pgs``."""

    pg_stats: tuple[Group, ...] = ()


def silent_osds(known: OsdMap, wanted: Collection[int]) -> list[int]:
    """Return those of the wanted OSDs that are not up."""
    return sorted(set(wanted) - {osd.osd for osd in known.osds if osd.up})


def unsettled_groups(known: OsdMap, groups: Groups) -> list[str]:
    """Return the placement groups that do not serve, each with its state.

    A group must be clean while all OSDs are up and in; while somebody has taken one away, it must be active.
    """
    wanted = {"active", "clean"} if all(osd.up and osd.in_ for osd in known.osds) else {"active"}
    up_from = {osd.osd: osd.up_from for osd in known.osds if osd.up}
    found = []
    for group in groups.pg_stats:
        if not wanted <= {*group.state.split("+")}:
            found.append(f"{group.pgid} {group.state}")
        elif any(osd not in up_from or group.reported_epoch < up_from[osd] for osd in group.acting):
            found.append(f"{group.pgid} was {group.state}")
    return found


def complaint(status: Status, known: OsdMap, wanted: Collection[int]) -> str:
    """Return why Ceph does not work yet, whatever its placement groups do; empty: no reason."""
    if silent := silent_osds(known, wanted):
        return f"not up: {', '.join(f'osd.{osd}' for osd in silent)}"
    if not status.mgrmap.available:
        return "no manager works"
    if status.health.status == "HEALTH_ERR":
        return described(status.health)
    return ""


def described(health: Health) -> str:
    """Return the health with the names of what it complains of."""
    return f"{health.status} ({', '.join(sorted(health.checks))})" if health.checks else health.status
