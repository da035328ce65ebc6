"""A sandbox as it is: power, cables, BMCs and daemons of its nodes."""

from collections.abc import Mapping

import msgspec

from pvc_sandbox import links
from pvc_sandbox.cluster import ClusterPlan
from pvc_sandbox.control import NoAnswer, ServiceState
from pvc_sandbox.host import Host
from pvc_sandbox.layout import Layout
from pvc_sandbox.node_bmc import NodeBmc
from pvc_sandbox.router import Router


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated node as its "hardware" is; what its cluster thinks of it, the cluster says."""

    name: str
    role: str
    address: str
    power: str
    """on, off or frozen."""
    link: str
    """up or down: its cable to the cluster network; down too while the power is off."""
    cut: tuple[str, ...] = ()
    """Networks whose cables are pulled, while the power is on."""
    bmc: str = ""
    """works, or what is wrong with it; empty: it has none."""
    uri: str
    services: tuple[ServiceState, ...] = ()


class SandboxState(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox as it is now."""

    name: str
    state_directory: str
    client_config: str
    switch: str
    """Network namespace of the switch: ``ip netns exec`` it to reach nodes and guests."""
    cluster_network: str
    guest_network: str
    management_network: str = ""
    upstream_network: str = ""
    router: str = ""
    """The router outside: works or off; empty: there is none."""
    nodes: tuple[NodeState, ...] = ()


def status(layout: Layout, plan: ClusterPlan) -> SandboxState:
    """Return what there is."""
    carriers = links.carriers(layout)
    return SandboxState(
        name=layout.name,
        state_directory=layout.state,
        client_config=str(layout.client_config),
        switch=layout.switch,
        cluster_network=layout.cluster_network,
        guest_network=layout.guest_network,
        management_network=layout.management_network,
        upstream_network=layout.upstream_network,
        router=("works" if Router(layout).running else "off") if plan.frr else "",
        nodes=tuple(_node(layout, plan, number, carriers) for number in plan.node_numbers()),
    )


def _node(layout: Layout, plan: ClusterPlan, number: int, carriers: Mapping[str, bool]) -> NodeState:
    host = Host(layout, number)
    services: tuple[ServiceState, ...] = ()
    up = {name: carriers.get(links.port(layout, number, network), False) for name, network in links.NAMES.items()}
    power = "frozen" if host.frozen else "on" if host.running else "off"
    if power == "on":
        try:
            services = tuple(host.services().values())
        except NoAnswer:
            power = "frozen"
    return NodeState(
        name=host.name,
        role="coordinator" if number in plan.coordinator_numbers() else "hypervisor",
        address=host.address,
        power=power,
        link="up" if carriers.get(links.port(layout, number, links.CLUSTER)) else "down",
        cut=() if power == "off" else tuple(name for name, is_up in up.items() if not is_up),
        bmc=(", ".join(NodeBmc(layout, number).faults()) or "works") if plan.bmc else "",
        uri=host.uri,
        services=services,
    )
