"""MAC addresses that this node sends to another node than the one that has them, and how that ends.

zebra ignores an announcement of a MAC address with a lower mobility sequence than it has (FRRouting issue 10468, in 8.4
and later). When a MAC address had moved and its node then dies, the next owner may announce it with a lower one before
every other node has forgotten the dead node's; such a node keeps sending to the dead one for ever, while BGP shows the
right route.

Without the kernel's entry, frames to the MAC address are copied to all nodes of the network, as those to an unknown one
are: that reaches the owner at once. The entry comes back, right, with the next announcement that zebra accepts;
zebra 8.4 does not put back the wrong one by itself.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from pvc_netdev.links import EVERYBODY, ForwardingEntry, Links

APART_S: Final = 5.0
"""Longer than BGP needs to tell all of a guest that moved, its hold time of 3 s included."""


class Stale(Struct, frozen=True, kw_only=True):
    """An entry that sends frames to the wrong node."""

    mac: str
    device: str
    """The VXLAN device."""
    sent_to: str
    """End of the tunnel that its frames go to."""
    owner: str
    """End of the tunnel that they should go to."""
    here: bool
    """The owner is this node."""


Suspects = Mapping[Stale, float]
"""What was found wrong, and since when, by the monotonic clock."""


def suspects(
    device: str, entries: Iterable[ForwardingEntry], owners: Mapping[str, str], *, local: str
) -> frozenset[Stale]:
    """Return the entries of a VXLAN device (its name) that contradict the cluster's record of who has which MAC address.

    ``entries`` are ``Links.forwarding`` of it; ``owners`` is MAC address -> VTEP of the node that has its guest (or
    gateway) according to the cluster; MAC addresses that are not in it, such as those behind a guest, are nobody's
    business here. ``local`` is this node's VTEP.
    """
    known = {mac.lower(): vtep for mac, vtep in owners.items()}
    return frozenset(
        Stale(mac=mac, device=device, sent_to=entry.destination, owner=owner, here=owner == local)
        for entry in entries
        if entry.own and entry.destination and (mac := entry.mac.lower()) != EVERYBODY
        and (owner := known.get(mac)) and owner != entry.destination
    )  # fmt: skip


def judge(
    before: Suspects, found: Iterable[Stale], *, now: float, apart_s: float = APART_S
) -> tuple[list[Stale], dict[Stale, float]]:
    """Return what is stale for certain, and the suspects to hand in the next time.

    A guest that moves is in the record before or after BGP has told of it, so only what was seen the same ``apart_s``
    seconds ago, and at every look since, counts.
    """
    since = {stale: before.get(stale, now) for stale in found}
    certain = [stale for stale, first in since.items() if now - first >= apart_s]
    return sorted(certain, key=lambda stale: (stale.device, stale.mac)), since


def repair(links: Links, stale: Stale) -> None:
    """Take the wrong entry out of the kernel; a device that is gone, or an entry, is success."""
    device = links.get(stale.device)
    if device is None:
        return
    links.remove_forwarding(device, stale.mac, own=True)
    if stale.here:
        # The bridge sends frames for the guest here into the tunnel too.
        links.remove_forwarding(device, stale.mac, own=False)
