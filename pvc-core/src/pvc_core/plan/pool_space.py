"""Whether a pool has room for another volume, or for a larger one.

Volumes are thin: one of 100 GiB takes nothing until its guest writes.  So two questions are asked of each addition:

1. Is what it needs free now?  Nobody may have it otherwise: a pool that is full fails the writes of all its guests.
2. Once all volumes are full (each takes its whole size), is the pool still below the limit?  More may be promised, but
   only by somebody who says so (force), because from then on the pool has to be watched.

A pool's usage is a figure of up to a minute ago; volumes that were filled since (a full copy, an import) are not in it.
So the figure is split, when it is taken, into what the volumes took and the rest (snapshots, overhead, other files);
the rest is kept, and the volumes are counted anew as they are now.  What is written between the two readings counts
twice until the next figure, never not at all.
"""

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from pvc_core.model.storage import PoolStatus, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.units import format_bytes


class Wanted(NamedTuple):
    """What an addition asks of its pool, in bytes."""

    what: str
    """For people: ``volume ssd/web1 of 20 GiB``."""
    need_bytes: int
    """Must be free now."""
    promise_bytes: int
    """What it takes once the volume is full, beyond what it was promised before."""


class PoolSpace(NamedTuple):
    """A pool's bytes, as guests can use them."""

    total_bytes: int
    used_bytes: int
    """Taken now, with what volumes that are being filled are about to take."""
    promised_bytes: int
    """Taken once all volumes are full."""

    @property
    def free_bytes(self) -> int:
        """What can be written yet."""
        return max(self.total_bytes - self.used_bytes, 0)

    def percent(self, more_bytes: int = 0) -> float:
        """Return how full the pool is once all volumes are, and ``more_bytes`` are promised too."""
        return 100 * (self.promised_bytes + more_bytes) / self.total_bytes


def pool_space(status: PoolStatus, volumes: Iterable[tuple[VolumeSpec, VolumeStatus | None]]) -> PoolSpace | None:
    """Return the space of a pool from its status and its volumes; None while no figures of it are known."""
    total = status.usage.total_bytes
    if total <= 0:
        return None
    # Negative where volumes report more than they take (compression, whole objects that are written in part).
    rest = total - status.usage.free_bytes - status.volumes_bytes
    takes = promised = 0
    for spec, volume in volumes:
        now, full = _volume(spec, volume or VolumeStatus(id=spec.id))
        takes += now
        promised += full
    used = max(rest + takes, 0)
    return PoolSpace(total_bytes=total, used_bytes=used, promised_bytes=max(rest + promised, used))


def made_bytes(statuses: Iterable[VolumeStatus]) -> int:
    """Return what the volumes that were made take: the part of a pool's usage that is theirs."""
    return sum(status.used_bytes for status in statuses if status.size_bytes > 0)


def refusal(pool: str, space: PoolSpace, wanted: Wanted, limit_percent: int, *, force: bool) -> str:
    """Return why an addition is refused, one sentence with its numbers; empty when it is not.

    ``force`` allows promising more than ``limit_percent`` of the pool, not needing what is not free.
    """
    if wanted.need_bytes > space.free_bytes:
        total, free = format_bytes(space.total_bytes), format_bytes(space.free_bytes)
        found = f"{free} of its {total} are" if space.free_bytes else f"nothing of its {total} is"
        needed = f"{format_bytes(wanted.need_bytes)} are needed and " if space.free_bytes else ""
        return (
            f"{wanted.what} does not fit into pool {pool}: {needed}{found} free; remove volumes or snapshots, or enlarge "
            "the pool"
        )
    if force or space.percent(wanted.promise_bytes) <= limit_percent:
        return ""
    return (
        f"{wanted.what} would let pool {pool} become {_percent(space.percent(wanted.promise_bytes))} full, more than "
        f"{limit_percent} %: {_figures(space)}{_left(space, wanted)}; remove volumes or snapshots, enlarge the pool, or "
        "use --force and watch it"
    )


def over_limit(pool: str, space: PoolSpace, limit_percent: int) -> str:
    """Return a warning that a pool is promised beyond its limit, one sentence; empty when it is not."""
    if space.percent() <= limit_percent:
        return ""
    return (
        f"pool {pool} becomes {_percent(space.percent())} full once its volumes are, more than {limit_percent} %: "
        f"{_figures(space)}; watch it: when it is full the writes of all its guests fail"
    )


def _volume(spec: VolumeSpec, status: VolumeStatus) -> tuple[int, int]:
    """Return what a volume takes now, and once it is full."""
    if status.size_bytes > 0:
        full = status.used_bytes if spec.deleting else max(spec.size_bytes, status.size_bytes, status.used_bytes)
        return status.used_bytes, full
    if spec.deleting or status.state is VolumeState.FAILED:
        return 0, 0
    full = max(spec.size_bytes, status.expected_bytes)
    return (full if spec.full_copy or spec.task else 0), full


def _figures(space: PoolSpace) -> str:
    unused = space.promised_bytes - space.used_bytes
    return (
        f"of its {format_bytes(space.total_bytes)}, {format_bytes(space.used_bytes)} are used and "
        f"{format_bytes(space.free_bytes)} free, {format_bytes(unused)} more are promised to its volumes"
    )


def _left(space: PoolSpace, wanted: Wanted) -> str:
    left = space.total_bytes - space.promised_bytes - wanted.promise_bytes
    return f", {format_bytes(left)} would be left" if left >= 0 else f", {format_bytes(-left)} would be lacking"


def _percent(percent: float) -> str:
    # Upwards: 80.2 is more than 80.
    return f"{ceil(percent)} %"
