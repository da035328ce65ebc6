"""Fence drivers: cut a node's power and prove it.

Kind: driver hooks; each level of a node's fence configuration names its driver.  Thread: the plugin's
own pool of daemon threads; calls for one node never run at the same time.  ``unknown`` is never
success: a driver that cannot read a state back raises or returns ``UNKNOWN``, and core does not
recover anything on that ground.  An exception means "not confirmed".
"""

import abc
import enum

import msgspec

from pvc_core.plugin.markers import hookspec


class PowerState(enum.StrEnum):
    """A node's power as its controller reports it."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class FenceTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A node to fence, and how its controller is reached."""

    node: str
    parameters: dict[str, str] = {}
    """As configured: address, user, ... ; secrets only as file names (``password_file``)."""


class FenceDriver(abc.ABC):
    """A way to control a node's power.  Constructed as ``Driver(context, config)``; no I/O there."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def fence_preflight(self) -> bool:
        """Check without side effects that this driver can work here (its tools exist).  Deadline 10 s."""

    @hookspec(firstresult=True)
    def fence_close(self) -> bool:
        """Release handles; may be called twice.  Deadline 10 s."""
        return True

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def power_status(self, target: FenceTarget) -> PowerState:
        """Read the node's power.  Deadline 20 s.

        Raises AuthFailed, NotReady (controller unreachable), InvalidRequest (parameters that cannot be right) or
        DriverError (nonsense answered).
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def power_off(self, target: FenceTarget) -> PowerState:
        """Cut the power at once and read back until it is off.  Deadline 60 s.

        Returns OFF only when that was read back.  An already dark node is OFF.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def power_on(self, target: FenceTarget) -> PowerState:
        """Switch the power on and read back.  Deadline 60 s."""
