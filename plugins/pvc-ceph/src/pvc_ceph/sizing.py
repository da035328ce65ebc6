"""How much data fits: replicated pools whose failure domain is the host.

Each object has ``copies`` copies on as many different hosts.  So raw space divided by copies is right for equal hosts
only: what a large host has beyond the others cannot be filled, because the other copies find no room.

Two figures:

* The most that any placement could keep (``ideal_bytes``): a host takes at most one copy of each object, so ``T`` bytes of
  data fit if and only if ``sum(min(size, T)) >= copies * T``.  The balancer (ceph-mgr, mode ``upmap``), which places
  single groups of objects elsewhere, comes nearer to it than CRUSH alone.
* What CRUSH's rule keeps by itself (``usable_bytes``), which is less for uneven hosts.  It draws the hosts of an object one
  after the other, each with a probability proportional to its weight (bucket type straw2; a host that was drawn already
  is drawn again), so small hosts get more than their part and are full first; then the pool is full.  Source: Ceph
  documentation, "CRUSH Maps", and the paper "CRUSH: Controlled, Scalable, Decentralized Placement of Replicated Data"
  (Weil et al., 2006).  Weights are taken to be the sizes, which is Ceph's default.

Within a host data spreads over its disks by their sizes.  Sizes are bytes; nothing here is about a running cluster.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from math import comb
from typing import Final

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import format_bytes

MOST_COPIES: Final = 10
"""``max_size`` of the replicated rules that Ceph made up to version 16; more are of no use."""
_MOST_STATES: Final = 200_000
_WASTED: Final = 0.9
"""Below this part of what even hosts would give, an addition is worth a warning."""


def usable_bytes(hosts: Mapping[str, int], copies: int) -> int:
    """Return how much data fits as CRUSH places it, in bytes; 0 with fewer hosts (that have disks) than copies.

    ``hosts``: name -> bytes of its disks.  Raises InvalidRequest for fewer than 1 or more than 10 copies, and for more
    different sizes of hosts than can be counted.
    """
    sizes = _sizes(hosts, copies)
    if len(sizes) < copies:
        return 0
    if len(set(sizes)) == 1:
        return sizes[0] * len(sizes) // copies
    if len(sizes) == copies:
        return min(sizes)
    return min(int(size / share) for size, share in _shares(Counter(sizes), copies).items())


def ideal_bytes(hosts: Mapping[str, int], copies: int) -> int:
    """Return the most data that any placement on different hosts could keep, in bytes; see ``usable_bytes``.

    The hosts that are larger than the answer hold a copy of everything; the others share the remaining copies.
    """
    sizes = sorted(_sizes(hosts, copies), reverse=True)
    if len(sizes) < copies:
        return 0
    rest = sum(sizes)
    for whole, size in enumerate(sizes[:copies]):
        fits = rest // (copies - whole)
        if size <= fits:
            return fits
        rest -= size
    return sizes[copies - 1]


def shares(hosts: Mapping[str, int], copies: int) -> dict[str, float]:
    """Return the part of all objects of which each host holds a copy, 0 to 1; all 1 with no more hosts than copies."""
    sizes = _sizes(hosts, copies)
    if len(sizes) <= copies:
        return {name: float(size > 0) for name, size in hosts.items()}
    found = _shares(Counter(sizes), copies)
    return {name: found.get(size, 0.0) for name, size in hosts.items()}


def uneven(before: Mapping[str, int], after: Mapping[str, int], copies: int) -> str:
    """Return a warning when an addition of disks gives much less room than its size, one sentence; empty: it does not.

    ``before`` and ``after``: host -> bytes of its disks.  Less is what even hosts would not lose: more than a tenth of the
    bytes added, divided by the copies.  Nothing is said of a removal, nor while there are fewer hosts than copies, because
    then no host is the larger one yet.
    """
    added = sum(after.values()) - sum(before.values())
    now = usable_bytes(after, copies)
    if added <= 0 or now == 0:
        return ""
    fair, gain = added // copies, now - usable_bytes(before, copies)
    if gain >= fair * _WASTED:
        return ""
    grown = sorted(name for name, size in after.items() if size > before.get(name, 0))
    others = [size for name, size in after.items() if name not in grown and size > 0]
    gives = f"only {format_bytes(gain)}" if gain > 0 else "nothing" if gain == 0 else f"{format_bytes(-gain)} less"
    span = f"{format_bytes(min(others))} to {format_bytes(max(others))}" if others else "no disks"
    if others and min(others) == max(others):
        span = format_bytes(others[0])
    return (
        f"the {format_bytes(added)} added to {', '.join(grown)} give {gives} of usable space instead of "
        f"{format_bytes(fair)}, because the other hosts have {span} and each of the {copies} copies is on another host: add "
        "disks to the others as well"
    )


def _sizes(hosts: Mapping[str, int], copies: int) -> list[int]:
    if not 1 <= copies <= MOST_COPIES:
        raise InvalidRequest(f"{copies} copies of each object cannot be had; take 1 to {MOST_COPIES}, 3 as a rule")
    return [size for size in hosts.values() if size > 0]


def _shares(counts: Counter[int], copies: int) -> dict[int, float]:
    """Return the probability that a host of each size is among ``copies`` that are drawn by size, without repetition.

    Exact but for rounding.  Hosts of one size are alike, so a state is the sizes drawn so far, sorted; its probability
    follows from those of the states one draw before.
    """
    sizes = sorted(counts)
    if comb(len(sizes) + copies - 1, copies - 1) > _MOST_STATES:
        raise InvalidRequest(
            f"{len(sizes)} different sizes of hosts and {copies} copies are too many to be counted; round the sizes"
        )
    total = sum(size * count for size, count in counts.items())
    drawn = dict.fromkeys(sizes, 0.0)
    states: dict[tuple[int, ...], float] = {(): 1.0}
    for draw in range(1, copies + 1):
        # Of each byte that is left, the chance to be drawn now; and the part of it that a size lost by earlier draws.
        chance, gone = 0.0, dict.fromkeys(sizes, 0.0)
        following: dict[tuple[int, ...], float] = defaultdict(float)
        for state, probability in states.items():
            each = probability / (total - sum(state))
            chance += each
            for size in state:
                gone[size] += each / counts[size]
            for size in sizes if draw < copies else ():
                left = counts[size] - state.count(size)
                if left:
                    following[tuple(sorted((*state, size)))] += each * size * left
        for size in sizes:
            drawn[size] += size * (chance - gone[size])
        states = following
    return {size: min(share, 1.0) for size, share in drawn.items()}
