"""The role service of the primary: the floating addresses."""

from typing import Final

from pvc_core.plugin import DriverError, RoleService
from pvc_hostnet.upkeep import Upkeep


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
        if lacking := self._upkeep.acquire():
            raise DriverError("; ".join(lacking))

    def relinquish(self) -> None:
        """Remove the addresses from this node, those that an earlier daemon left too."""
        self._upkeep.relinquish()
