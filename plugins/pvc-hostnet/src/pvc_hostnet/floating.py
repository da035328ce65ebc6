"""The role service of the primary: the floating addresses."""

from typing import Final

from pvc_core.plugin import DriverError, RoleService
from pvc_hostnet.upkeep import Upkeep

_CARRIED: Final = frozenset({"NoCarrier", "WrongMtu", "GatewayMissing", "DuplicateAddress"})
"""What is wrong with a network, and does not keep its addresses from being there."""


class FloatingAddresses(RoleService):
    """The floating addresses of all networks, on the primary only."""

    name = "floating-addresses"
    order = 0

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep: Final = upkeep

    def acquire(self, term: int) -> None:
        """Take the addresses and announce them; returns when the first announcement is out.

        Raises DriverError when one cannot be had; the others are there all the same.
        """
        del term  # an address carries no token: before another node has them, this one relinquishes them or is fenced
        floating = {network.name for network in self._upkeep.layout.own if network.floating}
        found = [f for f in self._upkeep.acquire() if f.network in floating and f.reason not in _CARRIED]
        if found:
            raise DriverError("; ".join(f"network {fault.network}: {fault.message}" for fault in found))

    def relinquish(self) -> None:
        """Remove the addresses from this node, those that an earlier daemon left too."""
        self._upkeep.relinquish()
