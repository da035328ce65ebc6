"""What each NIC on this node may send: with its own MAC address, and with IP addresses that are its own.

A NIC with addresses of its own (of its VM, or reserved for it) has those, and what it has a lease of: so one that gets an address of
its own while its guest runs is heard until it takes it over.  Another one gets its address by DHCP or makes it for itself; it may
have any in the network's prefixes but those that belong to somebody.  So may every NIC in an IPv6 prefix in which guests make
addresses for themselves.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pvc_core.model.vm import Nic
from pvc_core.plugin import NetworkNic
from pvc_netdev.spoofing import GuardedNic, guard, guarded, unguard
from pvc_vxlan.network import VxlanNetwork

_SEEN_S: Final = 5.0
"""For so long what nft listed is taken for true: networks are ensured all at once."""


def device_of(mac: str) -> str:
    """Return the name of a NIC's device on its node: 15 characters, the same wherever its VM runs."""
    return f"pvc{mac.replace(':', '').lower()}"


def wants_guard(network: VxlanNetwork, nic: Nic) -> bool:
    """Return whether a NIC is to be kept from sending under others' addresses: the NIC's own word counts first."""
    return nic.parameters.get("spoof_check", "true" if network.spoof_check else "false") == "true"


Leased = Callable[[], Mapping[str, set[str]]]
"""Returns the addresses that NICs of the network have by leases, by MAC address; raises PvcError without the store."""


def guard_of(network: VxlanNetwork, nic: Nic, nics: Iterable[NetworkNic], leased: Leased = dict) -> GuardedNic:
    """Return what a NIC may send, given all NICs of its network."""
    own = set(nic.addresses)
    taken = {address for other in nics if other.nic.mac != nic.mac for address in other.nic.addresses}
    for reservation in network.reservations:
        addresses = {address for address in (reservation.address, reservation.address6) if address}
        if reservation.mac == nic.mac:
            own |= addresses
        else:
            taken |= addresses
    taken |= {str(face.ip) for face in (network.interface4, network.interface6) if face is not None}
    allowed = {address for address in own if ":" not in address or not network.makes_addresses}
    if allowed:
        allowed |= {address for address in leased().get(nic.mac, ()) if address not in taken}
    return GuardedNic(
        device=device_of(nic.mac),
        mac=nic.mac,
        addresses=tuple(sorted(allowed)),
        prefixes=tuple(prefix for prefix in (network.ipv4, network.ipv6) if prefix),
        denied=tuple(sorted(taken - own)),
    )


class Guards:
    """The guards of this node's NICs; what is there is read from the kernel.  May be used from any thread."""

    def __init__(self, node: str = "") -> None:
        self._node: Final = node
        self._last: Final[dict[str, GuardedNic]] = {}
        """Device -> what its guard was made of by this daemon."""
        self._seen: tuple[float, frozenset[str]] | None = None
        """What was guarded when, until this daemon changes it."""
        self._lock: Final = threading.Lock()

    def attach(self, network: VxlanNetwork, nic: Nic, nics: Sequence[NetworkNic], leased: Leased = dict) -> None:
        """Guard a NIC before its guest has it, or let it be unguarded as it is wanted."""
        if wants_guard(network, nic):
            self._put([guard_of(network, nic, nics, leased)])
        else:
            self.detach(nic)

    def detach(self, nic: Nic) -> None:
        """Take a NIC's guard away; absent is success."""
        self._last.pop(device_of(nic.mac), None)
        unguard(device_of(nic.mac))
        self._seen = None

    def ensure(self, network: VxlanNetwork, nics: Sequence[NetworkNic], leased: Leased = dict) -> None:
        """Bring the guards of a network's NICs here to what is wanted now; NICs of other nodes have none here."""
        if not nics:
            return
        here = self._guarded()
        # Not only those that are guarded: somebody may have removed the table.
        mine = [
            each.nic
            for each in nics
            if (device := device_of(each.nic.mac)) in here
            or device in self._last
            or (each.node and each.node == self._node)
        ]
        for nic in mine:
            if not wants_guard(network, nic):
                self.detach(nic)
        once = functools.cache(leased)
        wanted = [guard_of(network, nic, nics, once) for nic in mine if wants_guard(network, nic)]
        self._put([each for each in wanted if each.device not in here or self._last.get(each.device) != each])

    def _guarded(self) -> frozenset[str]:
        with self._lock:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] > _SEEN_S:
                self._seen = now, frozenset(guarded())
            return self._seen[1]

    def _put(self, wanted: Sequence[GuardedNic]) -> None:
        if not wanted:
            return
        guard(wanted)
        self._seen = None
        self._last.update({each.device: each for each in wanted})
