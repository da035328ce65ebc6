"""What routers outside learn from the node that is the gateway, and what the node takes from them, with BIRD as such
a router.
"""

import pytest
from pyroute2 import IPRoute

from pvc_core.testkit.waiting import eventually
from pvc_netdev.links import Links
from pvc_netdev.namespace import entered
from pvc_vxlan.evpn.render import Router
from pvc_vxlan.evpn.watch import UPSTREAM
from pvc_vxlan.routes import METRIC, PROTOCOL

pytestmark = pytest.mark.real


@pytest.fixture
def gateway(evpn_make):
    """A node that has the gateways' cable ``up0``."""
    node = evpn_make(1).nodes[0]
    with Links(node.namespace) as links:
        links.add_veth("up0", "up1")
        for name in ("up0", "up1"):
            links.set(links.get(name), "up", state="up")
        links.add_address(links.get("up0"), "169.254.0.1/30")
    return node


def route(node, destination: str, metric: int = METRIC) -> None:
    """As the gateway does for its network: through its namespace; with another metric as somebody else would."""
    with Links(node.namespace) as links:
        via = "fe80::2" if ":" in destination else "169.254.0.2"
        links.set_route(destination, links.get("up0"), via=via, protocol=PROTOCOL, metric=metric)


def default_routes(node) -> list[tuple[int, int]]:
    """Return protocol and metric of the default routes in the node's kernel."""
    with entered(node.namespace), IPRoute() as ip:
        found = ip.get_default_routes(family=2)
        return [(r["proto"], r.get_attr("RTA_PRIORITY") or 0) for r in found]


def test_a_router_outside_learns_exactly_the_clients_networks_of_the_gateways_node(gateway, evpn_bird):
    node = gateway
    bird = evpn_bird(node.site, node.vtep, "fd77::1", password="secret")
    upstream = (
        Router(address=bird.address, asn=65100, password="secret"),
        Router(address=bird.address6, asn=65100, password="secret"),
    )
    fabric = node.fabric(upstream=upstream)
    node.frr.apply(fabric)
    assert not node.frr.apply(fabric)
    for destination in ("10.1.0.0/24", "2001:db8:1::/64"):
        route(node, destination)
    for destination in ("172.16.0.0/24", "2001:db8:2::/64"):
        route(node, destination, metric=7249)
    expected = {"10.1.0.0/24": node.vtep, "2001:db8:1::/64": "fd77::1"}
    eventually(lambda: bird.routes() == expected, "BIRD has the two networks by this node", within_s=20)
    assert node.condition(node.watch.tend(fabric), UPSTREAM).ok
    # A gateway that comes here later: FRR is told nothing.
    route(node, "10.2.0.0/24")
    eventually(lambda: "10.2.0.0/24" in bird.routes(), "BIRD learns the third")
    assert not node.frr.apply(fabric)
    with Links(node.namespace) as links:
        links.remove_route("10.1.0.0/24", protocol=PROTOCOL)
    eventually(lambda: "10.1.0.0/24" not in bird.routes(), "BIRD forgets the first")
    assert set(bird.routes()) == {"10.2.0.0/24", "2001:db8:1::/64"}


def test_only_a_default_route_is_taken_and_the_kernels_own_is_preferred(gateway, evpn_bird):
    node = gateway
    bird = evpn_bird(node.site, node.vtep)
    fabric = node.fabric(upstream=(Router(address=bird.address, asn=65100),))
    node.frr.apply(fabric)
    bgp = 186
    eventually(
        lambda: [proto for proto, _ in default_routes(node)] == [bgp], "the default route is from BGP", within_s=20
    )
    with entered(node.namespace), IPRoute() as ip:
        assert not [r for r in ip.get_routes(family=2, proto=bgp) if r["dst_len"]]
        # As systemd-networkd and DHCP clients make them: with a higher metric than zebra's.
        ip.route(
            "add", dst="0.0.0.0/0", gateway="169.254.0.2", oif=ip.link_lookup(ifname="up0")[0], priority=1024, proto=16
        )
    eventually(lambda: default_routes(node) == [(16, 1024)], "the node's own default route is the only one")


def test_a_session_outside_that_is_down_is_told(gateway):
    fabric = gateway.fabric(upstream=(Router(address="10.77.0.254", asn=65100),))
    gateway.frr.apply(fabric)
    condition = gateway.condition(gateway.watch.tend(fabric), UPSTREAM)
    assert (condition.ok, condition.reason) == (False, "SessionDown")
    assert condition.message == "no BGP session with 10.77.0.254 outside"
