"""What is taken from a tunnel's list is put back by the real kernel's word."""

import logging

import pytest

from pvc_core.testkit.waiting import eventually
from pvc_netdev.links import EVERYBODY, Links
from pvc_netdev.namespace import entered
from pvc_vxlan.flooding import Flooding

pytestmark = pytest.mark.real

A, B, FOREIGN = "10.77.0.2", "10.77.0.3", "10.77.0.9"


@pytest.fixture
def lab(gateway_support):
    site = gateway_support.Site()
    node = gateway_support.Namespace(site, "node")
    with Links(node.name) as links:
        for number, alias in ((1, "pvc-vxlan:net:vxlan"), (2, "somebody's")):
            links.add_vxlan(f"vx{number}", number, local="10.77.0.1", port=4789 + number, mtu=1450)
            device = links.get(f"vx{number}")
            links.set(device, "up", ifalias=alias, state="up")
            for address in (A, B, FOREIGN):
                links.add_flood(device, address)
    with entered(node.name):
        flooding = Flooding(lambda: (A, B), logging.getLogger("pvc_vxlan"))
        flooding.start()
    yield node
    flooding.stop()
    site.close()


def floods_to(node, name: str) -> set[str]:
    with Links(node.name) as links:
        return {e.destination for e in links.forwarding(links.get(name)) if e.mac == EVERYBODY}


def take(node, name: str, address: str) -> None:
    """As zebra does when BGP names an end of tunnels no more."""
    node.run("bridge", "fdb", "del", EVERYBODY, "dev", name, "dst", address, "self")


def test_a_node_of_the_cluster_is_flooded_to_again_at_once(lab):
    for address in (A, B):
        take(lab, "vx1", address)
    eventually(lambda: floods_to(lab, "vx1") == {A, B, FOREIGN}, "both are back", within_s=5)


def test_what_is_not_of_the_cluster_or_not_ours_stays_away(lab):
    take(lab, "vx1", FOREIGN)
    take(lab, "vx2", A)
    # What is told later is heard later: by then it would be back.
    take(lab, "vx1", A)
    eventually(lambda: A in floods_to(lab, "vx1"), "the one of ours is back", within_s=5)
    assert floods_to(lab, "vx1") == {A, B}
    assert floods_to(lab, "vx2") == {B, FOREIGN}


def test_a_device_that_is_removed_is_let_go(lab):
    with Links(lab.name) as links:
        links.delete(links.get("vx1"))
        links.add_vxlan("vx1", 1, local="10.77.0.1", port=4790, mtu=1450)
        device = links.get("vx1")
        links.set(device, "up", ifalias="pvc-vxlan:net:vxlan", state="up")
        links.add_flood(device, A)
    take(lab, "vx1", A)
    eventually(lambda: floods_to(lab, "vx1") == {A}, "it still listens", within_s=5)
