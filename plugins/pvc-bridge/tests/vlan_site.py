"""Two nodes and machines outside, joined by a switch that forwards all frames as they are; in network namespaces.

It needs a kernel with 802.1Q: it is used in a user-mode Linux (``test_bridge_vlans_uml.py``).
"""

import logging
import subprocess
import uuid
from collections.abc import Callable
from typing import TypeVar

from pvc_bridge.config import BridgeConfig
from pvc_bridge.driver import BridgeDriver
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import Context, NodeInfo, run
from pvc_core.testkit.waiting import eventually
from pvc_netdev import namespace
from pvc_netdev.links import Link, Links

NICS = ("eth1", "eth2")
T = TypeVar("T")


class Node:
    """A host of the cluster, with the NICs eth1 and eth2."""

    def __init__(self, site: "Site", name: str):
        self._site = site
        self.name = name
        self.namespace = f"{site.prefix}-{name}"
        namespace.create(self.namespace)
        with namespace.entered(self.namespace), Links() as links:
            links.set(links.get("lo"), "up", state="up")
        for nic in NICS:
            site.plug(self.namespace, nic)

    def driver(self, **config: object) -> BridgeDriver:
        """Return a new driver, as after a restart of the daemon."""
        context = Context(
            node=NodeInfo(name=self.name, role="hypervisor"),
            log=logging.getLogger("pvc_bridge"),
            run=run,
            wake=lambda *_: None,
        )
        return BridgeDriver(context, BridgeConfig(**config))

    def do(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Call something on this node."""
        with namespace.entered(self.namespace):
            return call(*args, **kwargs)

    def devices(self) -> dict[str, tuple[int, int, int, str]]:
        """Return what is there: name -> index, bridge, MTU, alias."""
        with Links(self.namespace) as links:
            return {link.name: (link.index, link.master, link.mtu, link.alias) for link in links.all()}

    def link(self, name: str) -> Link | None:
        with Links(self.namespace) as links:
            return links.get(name)

    def set(self, name: str, **attributes: object) -> None:
        with Links(self.namespace) as links:
            links.set(links.get(name), "test", **attributes)

    def guest(self, bridge: str, address: str) -> "Machine":
        """Start a guest with a NIC in a bridge."""
        machine = Machine(self._site, f"g{len(self._site.machines)}")
        tap = f"tap-{machine.short}"
        with Links(self.namespace) as links:
            links.add_veth(tap, "eth0", peer_namespace=machine.namespace)
            over = links.get(bridge)
            links.set(links.get(tap), "mtu", mtu=over.mtu, master=over.index, state="up")
        with Links(machine.namespace) as links:
            links.set(links.get("eth0"), "up", mtu=over.mtu, state="up")
            links.add_address(links.get("eth0"), f"{address}/24")
        return machine


class Machine:
    """A host that is none of the cluster, or a guest."""

    def __init__(self, site: "Site", name: str):
        self.short = name
        self.namespace = f"{site.prefix}-{name}"
        namespace.create(self.namespace)
        site.machines.append(self)

    def tagged(self, nic: str, vlan: int, address: str) -> None:
        """Give it an address in a VLAN, by the kernel's own means."""
        with Links(self.namespace) as links:
            under = links.get(nic)
            links.add_vlan(f"{nic}.{vlan}", under, vlan)
            links.set(links.get(f"{nic}.{vlan}"), "up", mtu=under.mtu, state="up")
            links.add_address(links.get(f"{nic}.{vlan}"), f"{address}/24")

    def pings(self, address: str, *, size: int = 56) -> bool:
        """Return whether an address answers one packet that may not be cut."""
        # With one question after the other, the failure of one before may not be remembered.
        self._run("ip", "neigh", "flush", "all")
        return self._run("ping", "-n", "-q", "-c1", "-W1", "-Mdo", f"-s{size}", address) == 0

    def reaches(self, address: str, **options: int) -> bool:
        """Wait until an address answers."""
        eventually(lambda: self.pings(address, **options), f"{self.short} reaches {address}", within_s=10)
        return True

    def is_kept_from(self, address: str) -> bool:
        """Ask twice; call it after something that the same packet would have passed was seen to work."""
        return self._run("ping", "-n", "-q", "-c2", "-i0.2", "-W0.3", address) == 1

    def _run(self, *argv: str) -> int:
        with namespace.entered(self.namespace):
            return subprocess.run(argv, check=False, capture_output=True).returncode


class Site:
    """Everything; ``close`` removes it."""

    def __init__(self):
        self.prefix = f"vl{uuid.uuid4().hex[:6]}"
        self.machines: list[Machine] = []
        self._switch = f"{self.prefix}-sw"
        self._count = 0
        namespace.create(self._switch)
        with Links(self._switch) as links:
            for nic in NICS:
                links.add_bridge(f"sw-{nic}")
                links.set(links.get(f"sw-{nic}"), "up", mtu=9000, state="up")
        self.nodes = [Node(self, "n1"), Node(self, "n2")]

    def plug(self, name: str, nic: str) -> None:
        """Give a machine a NIC, with its cable to that NIC's switch."""
        self._count += 1
        port = f"port{self._count}"
        with Links(self._switch) as links:
            links.add_veth(port, nic, peer_namespace=name)
            links.set(links.get(port), "up", mtu=9000, master=links.get(f"sw-{nic}").index, state="up")
        with Links(name) as links:
            links.set(links.get(nic), "up", state="up")

    def stranger(self, address: str, *, vlan: int = 0, nic: str = "eth1") -> Machine:
        """Start a machine outside, with an address in a VLAN of the switch of ``nic``, or without a tag."""
        machine = Machine(self, f"s{len(self.machines)}")
        self.plug(machine.namespace, nic)
        if vlan:
            machine.tagged(nic, vlan, address)
        else:
            with Links(machine.namespace) as links:
                links.add_address(links.get(nic), f"{address}/24")
        return machine

    def network(self, name: str = "lan", **parameters: object) -> NetworkSpec:
        mtu = parameters.pop("mtu", None)
        return NetworkSpec(id=str(uuid.uuid4()), name=name, driver="bridge", mtu=mtu, parameters=parameters)

    def everywhere(self, network: NetworkSpec, **config: object) -> str:
        """Make a network on both nodes, by new drivers; return its bridge."""
        return {node.do(node.driver(**config).network_ensure, network).device for node in self.nodes}.pop()

    def nowhere(self, network: NetworkSpec, **config: object) -> None:
        bare = NetworkSpec(id=network.id, name=network.id, driver="bridge", deleting=True)
        for node in self.nodes:
            assert node.do(node.driver(**config).network_remove, bare)

    def unplug_guests(self) -> None:
        """Stop all guests."""
        for node in self.nodes:
            with Links(node.namespace) as links:
                for link in links.all():
                    if link.name.startswith("tap-"):
                        links.delete(link)

    def close(self) -> None:
        for name in namespace.names(f"{self.prefix}-"):
            namespace.remove(name)
