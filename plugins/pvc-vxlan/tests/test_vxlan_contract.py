"""pvc-vxlan keeps the network contract on the real kernel: without FRR, which a network by itself does not need."""

import contextlib
import itertools
import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import Context, NodeInfo, run
from pvc_core.testkit.contracts.network import NetworkContract
from pvc_netdev.links import Links
from pvc_netdev.namespace import entered
from pvc_vxlan import names
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.driver import VxlanDriver

pytestmark = pytest.mark.real


class VxlanBackend:
    secrets = ()

    def __init__(self, support, address: str, directory: Path):
        self._site = support.Site()
        self._records = support.FakeRecords()
        self._numbers = itertools.count(1001)
        self._address, self._directory = address, directory
        node = support.Namespace(self._site, "node")
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._site.close)
        self._stack.enter_context(entered(node.name))
        with Links() as links:
            links.add_veth("eth0", "far0")
            for name in ("eth0", "far0"):
                links.set(links.get(name), "switching on", state="up", mtu=1600)
            links.add_address(links.get("eth0"), f"{address}/{64 if ':' in address else 24}")

    def driver(self) -> VxlanDriver:
        directories = {"state_directory": str(self._directory / "state"), "run_directory": str(self._directory / "run")}
        info = NodeInfo(name="node1", role="hypervisor", address=self._address, **directories)
        context = Context(
            node=info,
            log=logging.getLogger("pvc_vxlan"),
            run=run,
            wake=lambda *_: None,
            records=self._records,
            nodes=lambda: ["node1"],
            network_nics=lambda _: [],
        )
        return VxlanDriver(context, VxlanConfig(control="flood"))

    def network(self, name: str) -> NetworkSpec:
        parameters = {"vni": next(self._numbers), "ipv4": "10.1.0.0/24"}
        return NetworkSpec(id=str(uuid.uuid4()), name=name, driver="vxlan", parameters=parameters)

    def put_in_the_way(self, network: NetworkSpec) -> Callable[[], bool]:
        name = names.bridge(network.id)
        with Links() as links:
            links.add_bridge(name)
            before = links.get(name)

        def is_as_it_was() -> bool:
            with Links() as links:
                return links.get(name) == before

        return is_as_it_was

    def close(self) -> None:
        self._stack.close()


class TestOverIPv4(NetworkContract):
    __test__ = True
    address = "10.77.0.1"

    @pytest.fixture(autouse=True)
    def _support(self, gateway_support) -> None:
        self._gateway_support = gateway_support

    def make_backend(self, tmp_path: Path) -> VxlanBackend:
        return VxlanBackend(self._gateway_support, self.address, tmp_path)


class TestOverIPv6(TestOverIPv4):
    __test__ = True
    address = "fd77::1"
