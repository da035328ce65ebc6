"""A node's network namespace, for tests on the real kernel."""

import ctypes
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pvc_bridge.config import BridgeConfig
from pvc_bridge.driver import BridgeDriver
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import Context, NodeInfo, run

_CLONE_NEWNET = 0x40000000


class Namespace:
    """This thread, and those it starts, in a network namespace of their own; ``close`` brings it back."""

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._do("unshare", self._libc.unshare(_CLONE_NEWNET))
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")

    def close(self) -> None:
        if self._home >= 0:
            self._do("setns", self._libc.setns(self._home, _CLONE_NEWNET))
            os.close(self._home)
            self._home = -1

    def _do(self, what: str, result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class Node:
    """A node with the NICs eth1 and eth2, each a cable whose other end is plugged in (``far-eth1``)."""

    def __init__(self):
        self._namespace = Namespace()
        for name in ("eth1", "eth2"):
            with IPRoute() as ip:
                ip.link("add", ifname=name, kind="veth", peer={"ifname": f"far-{name}"})
                for end in (name, f"far-{name}"):
                    ip.link("set", index=ip.link_lookup(ifname=end)[0], state="up")

    def driver(self, config: BridgeConfig | None = None) -> BridgeDriver:
        info = NodeInfo(name="node1", role="hypervisor")
        context = Context(node=info, log=logging.getLogger("pvc_bridge"), run=run, wake=lambda *_: None)
        return BridgeDriver(context, config or BridgeConfig())

    def network(self, name: str = "lan", **parameters: object) -> NetworkSpec:
        return NetworkSpec(id=str(uuid.uuid4()), name=name, driver="bridge", parameters=parameters)

    def link(self, name: str):
        with IPRoute() as ip:
            found = ip.link_lookup(ifname=name)
            return ip.link("get", index=found[0])[0] if found else None

    def master_of(self, name: str) -> str:
        """Return the bridge that a device is a port of."""
        index = self.link(name).get_attr("IFLA_MASTER")
        with IPRoute() as ip:
            return ip.link("get", index=index)[0].get_attr("IFLA_IFNAME") if index else ""

    def set(self, name: str, **attributes: object) -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=name)[0], **attributes)

    def add(self, name: str, kind: str, **attributes: object) -> None:
        with IPRoute() as ip:
            ip.link("add", ifname=name, kind=kind, **attributes)

    def address(self, name: str, address: str, prefixlen: int) -> None:
        with IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname=name)[0], address=address, prefixlen=prefixlen)

    def tap(self, name: str, bridge: str) -> None:
        """Do as libvirt does for a guest's NIC."""
        self.add(name, "tuntap", mode="tap")
        self.set(name, master=self.link(bridge)["index"], state="up")

    def sysctl(self, name: str) -> str:
        return Path("/proc/sys/net", name).read_text().strip()

    def close(self) -> None:
        self._namespace.close()


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


@pytest.fixture
def make_node() -> type[Node]:
    """Return the maker of nodes, for the contract suite."""
    return Node
