"""The drivers of a node without plugins being loaded: given objects, called directly."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pvc_core.model.node import PluginStatus
from pvc_core.plugin.errors import NotReady
from pvc_core.plugin.specs.fencing import FenceDriver
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.plugin.specs.scheduling import SelectorDriver
from pvc_core.plugin.specs.storage import StorageDriver

Collector = Callable[..., Any]
D = TypeVar("D")


class DirectDrivers:
    """``runtime.api.Drivers`` over given drivers: no threads, no deadlines, no isolation.

    For unit tests and the simulator.  ``events`` holds what ``notify`` was told, in order;
    ``collectors`` maps a collect hook's name to functions that answer it.
    """

    def __init__(
        self,
        *,
        storage: Mapping[str, StorageDriver] | None = None,
        network: Mapping[str, NetworkDriver] | None = None,
        fencing: Mapping[str, FenceDriver] | None = None,
        selectors: Mapping[str, SelectorDriver] | None = None,
        collectors: Mapping[str, list[Collector]] | None = None,
    ) -> None:
        self._storage: Final = dict(storage or {})
        # Asked once, as of a plugin that was loaded.
        self._snapshots: Final = {n for n, driver in self._storage.items() if driver.storage_capabilities().snapshots}
        self._network: Final = dict(network or {})
        self._fencing: Final = dict(fencing or {})
        self._selectors: Final = dict(selectors or {})
        self._collectors: Final = dict(collectors or {})
        self._broken: Final[dict[str, str]] = {}
        self.events: Final[list[tuple[str, dict[str, Any]]]] = []

    def break_driver(self, driver: str, reason: str) -> None:
        """Let a driver be unavailable, as after a failed preflight, until ``mend_driver``."""
        self._broken[driver] = reason

    def mend_driver(self, driver: str) -> None:
        """Let a driver be available again."""
        self._broken.pop(driver, None)

    def storage(self, driver: str) -> StorageDriver:
        """Return the storage driver of this name; raises NotReady."""
        return self._get(self._storage, "storage", driver)

    def network(self, driver: str) -> NetworkDriver:
        """Return the network driver of this name; raises NotReady."""
        return self._get(self._network, "network", driver)

    def fencing(self, driver: str) -> FenceDriver:
        """Return the fence driver of this name; raises NotReady."""
        return self._get(self._fencing, "fencing", driver)

    def selector(self, driver: str) -> SelectorDriver:
        """Return the selector of this name; raises NotReady."""
        return self._get(self._selectors, "scheduling", driver)

    def storage_drivers(self) -> list[str]:
        """Return the names of the storage drivers that work."""
        return [name for name in self._storage if name not in self._broken]

    def network_drivers(self) -> list[str]:
        """Return the names of the network drivers that work."""
        return [name for name in self._network if name not in self._broken]

    def notify(self, event: str, **arguments: Any) -> None:
        """Note the event in ``events``."""
        self.events.append((event, arguments))

    def collect(self, hook: str, **arguments: Any) -> list[Any]:
        """Return the collectors' answers that are not None."""
        answers = [collector(**arguments) for collector in self._collectors.get(hook, ())]
        return [answer for answer in answers if answer is not None]

    def status(self) -> tuple[PluginStatus, ...]:
        """Return one plugin per driver."""
        kinds: dict[str, list[str]] = {
            "storage": list(self._storage),
            "network": list(self._network),
            "fencing": list(self._fencing),
        }
        return tuple(
            PluginStatus(
                name=driver,
                state="failed" if driver in self._broken else "healthy",
                error=self._broken.get(driver, ""),
                capabilities=(
                    f"{kind}:{driver}",
                    *((f"snapshots:{driver}",) if kind == "storage" and driver in self._snapshots else ()),
                ),
            )
            for kind, drivers in kinds.items()
            for driver in drivers
        )

    def close(self) -> None:
        """Close all drivers."""
        for storage in self._storage.values():
            storage.storage_close()
        for network in self._network.values():
            network.network_close()
        for fencing in self._fencing.values():
            fencing.fence_close()

    def _get(self, drivers: Mapping[str, D], kind: str, name: str) -> D:
        if name in self._broken:
            raise NotReady(f"{kind} driver {name!r} does not work here: {self._broken[name]}")
        if name not in drivers:
            raise NotReady(f"there is no {kind} driver {name!r} here")
        return drivers[name]
