"""The drivers of a node as the rest of core sees them: nobody outside this package knows pluggy."""

from typing import Any, Protocol

from pvc_core.model.node import PluginStatus
from pvc_core.plugin.specs.fencing import FenceDriver
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.plugin.specs.scheduling import SelectorDriver
from pvc_core.plugin.specs.storage import StorageDriver


class Drivers(Protocol):
    """The loaded plugins.  A returned driver is a binding: same methods, plus deadline, breaker, counters."""

    def storage(self, driver: str) -> StorageDriver:
        """Return the storage driver of this name; raises NotReady saying why it is not there."""

    def network(self, driver: str) -> NetworkDriver:
        """Return the network driver of this name; raises NotReady."""

    def fencing(self, driver: str) -> FenceDriver:
        """Return the fence driver of this name; raises NotReady."""

    def selector(self, driver: str) -> SelectorDriver:
        """Return the selector of this name; raises NotReady."""

    def storage_drivers(self) -> list[str]:
        """Return the names of the storage drivers that work here now."""

    def network_drivers(self) -> list[str]:
        """Return the names of the network drivers that work here now."""

    def notify(self, event: str, **arguments: Any) -> None:
        """Tell all plugins of an event; returns at once, never raises."""

    def collect(self, hook: str, **arguments: Any) -> list[Any]:
        """Ask all plugins; return the answers of those that gave one, in call order.

        Raises DriverError for ``resource_reconcile`` only, when a plugin failed: a missing answer would
        look as if the resource were another's.
        """

    def status(self) -> tuple[PluginStatus, ...]:
        """Return the state of every enabled plugin, broken ones included."""

    def close(self) -> None:
        """Close all drivers, each in its boundary; never waits for a stuck one."""
