"""A network driver in memory."""

import threading
from collections.abc import Iterable
from typing import Final

from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_core.plugin.errors import DriverError, ObjectMissing
from pvc_core.plugin.specs.network import Finding, NetworkCapabilities, NetworkDriver, NetworkState, NicSource
from pvc_core.testkit.faults import Faults, faulty


class FakeNetwork(NetworkDriver):
    """The driver of one node.  It is also that node's kernel: what it holds survives a restarted daemon.

    ``foreign`` names devices that are not ours: a network whose device would be one of them is refused.
    ``power_cut`` forgets everything, as a kernel does.
    """

    def __init__(
        self,
        node: str,
        *,
        faults: Faults | None = None,
        capabilities: NetworkCapabilities | None = None,
        foreign: Iterable[str] = (),
    ) -> None:
        self.node: Final = node
        self.faults: Final = faults or Faults()
        self.foreign: Final = set(foreign)
        self._capabilities: Final = capabilities or NetworkCapabilities(max_mtu=9000, parameters=("device",))
        self._lock: Final = threading.Lock()
        self.networks: Final[dict[str, NetworkState]] = {}
        self.nics: Final[set[tuple[str, str, str]]] = set()
        """``(network, vm, mac)`` of each NIC attached here."""
        self.arrived: Final[list[str]] = []
        """MAC addresses of the NICs announced after a live migration, in order."""

    def power_cut(self) -> None:
        """Forget all networks and NICs."""
        with self._lock:
            self.networks.clear()
            self.nics.clear()

    @faulty
    def network_capabilities(self) -> NetworkCapabilities:
        return self._capabilities

    @faulty
    def network_preflight(self) -> bool:
        return True

    @faulty
    def network_close(self) -> bool:
        return True

    @faulty
    def network_ensure(self, network: NetworkSpec) -> NetworkState:
        device = f"fake{network.id[:8]}"
        if device in self.foreign:
            raise DriverError(f"device {device} exists and is not ours; rename or remove it", retryable=False)
        if network.mtu and self._capabilities.max_mtu and network.mtu > self._capabilities.max_mtu:
            raise DriverError(
                f"MTU {network.mtu} is above {self._capabilities.max_mtu}, the most this node can carry",
                retryable=False,
            )
        state = NetworkState(device=device, mtu=network.mtu or 1500)
        with self._lock:
            self.networks[network.id] = state
        return state

    @faulty
    def network_remove(self, network: NetworkSpec) -> bool:
        with self._lock:
            self.networks.pop(network.id, None)
        return True

    @faulty
    def network_list(self) -> list[str]:
        with self._lock:
            return sorted(self.networks)

    @faulty
    def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
        del incoming
        with self._lock:
            state = self.networks.get(network.id)
            if state is None:
                raise ObjectMissing(f"network {network.name!r} does not exist on node {self.node}")
            self.nics.add((network.id, vm, nic.mac))
        return NicSource(type="bridge", inner_xml=f"<source bridge='{state.device}'/>")

    @faulty
    def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        with self._lock:
            self.nics.discard((network.id, vm, nic.mac))
        return True

    @faulty
    def nic_arrived(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        del network, vm
        self.arrived.append(nic.mac)
        return True

    @faulty
    def network_check(self, network: NetworkSpec) -> list[Finding]:
        with self._lock:
            there = network.id in self.networks
        return [Finding(ok=there, check="device", message="exists" if there else "does not exist on this node")]
