"""A sandbox as it is: power, cables, BMCs and daemons of its nodes."""

import msgspec

from pvc_sandbox import links
from pvc_sandbox.cluster import ClusterPlan
from pvc_sandbox.control import NoAnswer, ServiceState
from pvc_sandbox.host import Host
from pvc_sandbox.layout import Layout
from pvc_sandbox.node_bmc import NodeBmc


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated node as its "hardware" is; what its cluster thinks of it, the cluster says."""

    name: str
    role: str
    address: str
    power: str
    """on, off or frozen."""
    link: str
    """up or down; down too while the power is off."""
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
        nodes=tuple(
            _node(layout, plan, number, carrier=carriers.get(layout.node_name(number), False))
            for number in plan.node_numbers()
        ),
    )


def _node(layout: Layout, plan: ClusterPlan, number: int, *, carrier: bool) -> NodeState:
    host = Host(layout, number)
    services: tuple[ServiceState, ...] = ()
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
        link="up" if carrier else "down",
        bmc=(", ".join(NodeBmc(layout, number).faults()) or "works") if plan.bmc else "",
        uri=host.uri,
        services=services,
    )
