"""pvc-bridge keeps the network contract on the real kernel, in a namespace of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pvc_bridge.driver import BridgeDriver
from pvc_bridge.names import bridge_name
from pvc_core.model.network import NetworkSpec
from pvc_core.testkit.contracts.network import NetworkContract


class BridgeBackend:
    secrets = ()

    def __init__(self, node, device: str):
        self._node = node
        self._device = device

    def driver(self) -> BridgeDriver:
        return self._node.driver()

    def network(self, name: str) -> NetworkSpec:
        # A NIC can be in one bridge only, so the contract's second network and on have none.
        device, self._device = self._device, ""
        return self._node.network(name, device=device)

    def put_in_the_way(self, network: NetworkSpec) -> Callable[[], bool]:
        name = bridge_name(network.id)
        self._node.add(name, "bridge")
        index = self._node.link(name)["index"]
        return lambda: self._node.link(name)["index"] == index and not self._node.link(name)["flags"] & 1

    def close(self) -> None:
        self._node.close()


@pytest.mark.real
class TestBridgesOfOneNode(NetworkContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _maker(self, make_node) -> None:
        self._make_node = make_node

    def make_backend(self, tmp_path: Path) -> BridgeBackend:
        return BridgeBackend(self._make_node(), "")


@pytest.mark.real
class TestBridgesWithAnUplink(TestBridgesOfOneNode):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> BridgeBackend:
        return BridgeBackend(self._make_node(), "eth1")
