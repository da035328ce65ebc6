"""The fake network driver keeps the contract."""

import uuid
from collections.abc import Callable
from pathlib import Path

from pvc_core.model.network import NetworkSpec
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.testkit.contracts.network import NetworkContract
from pvc_core.testkit.fakes import FakeNetwork


class Backend:
    secrets = ()

    def __init__(self):
        self.kernel = FakeNetwork("node1")
        self.foreign: frozenset[str] = frozenset()

    def driver(self) -> NetworkDriver:
        # A restarted daemon finds the same kernel.
        return self.kernel

    def network(self, name: str) -> NetworkSpec:
        return NetworkSpec(id=str(uuid.uuid4()), name=name, driver="fake", parameters={"device": "eth1"})

    def put_in_the_way(self, network: NetworkSpec) -> Callable[[], bool]:
        device = f"fake{network.id[:8]}"
        self.kernel.foreign.add(device)
        return lambda: device in self.kernel.foreign

    def close(self) -> None:
        pass


class TestFakeNetwork(NetworkContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> Backend:
        return Backend()
