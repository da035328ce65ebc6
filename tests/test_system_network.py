"""Networks on the nodes of a real cluster."""

import json
import uuid

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def links(cluster, node):
    found = cluster.sandbox.exec(node, ["ip", "-j", "-d", "link"]).check().stdout
    return {link["ifname"]: link for link in json.loads(found)}


def bridges(cluster, id_):
    """Return the nodes that have a network's bridge."""
    nodes = cluster.sandbox.nodes()
    return [
        n
        for n in nodes
        if any(link.get("ifalias", "").startswith(f"pvc-bridge:{id_}:") for link in links(cluster, n).values())
    ]


@pytest.fixture
def network(cluster):
    """A network without uplink."""
    name = f"net-{uuid.uuid4().hex[:6]}"
    cluster.pvc("network", "add", name, "-d", "bridge", "-p", "device=", "--mtu", "1400")
    yield name
    if name in {row["name"] for row in cluster.pvc.json("network", "list")}:
        cluster.pvc("network", "remove", name, "--yes")


def id_of(cluster, name):
    return next(row["id"] for row in cluster.pvc.json("network", "list") if row["name"] == name)


def test_every_node_has_a_bridge_for_every_network(cluster, network):
    id_ = id_of(cluster, network)
    assert bridges(cluster, id_) == cluster.sandbox.nodes()
    for node in cluster.sandbox.nodes():
        (bridge,) = [link for link in links(cluster, node).values() if id_ in link.get("ifalias", "")]
        assert (bridge["mtu"], bridge["linkinfo"]["info_data"]["stp_state"]) == (1400, 0)
    cluster.pvc("network", "modify", network, "--mtu", "1300")
    mtus = [
        link["mtu"]
        for node in cluster.sandbox.nodes()
        for link in links(cluster, node).values()
        if id_ in link.get("ifalias", "")
    ]
    assert mtus == [1300] * len(cluster.sandbox.nodes())


def test_a_removed_network_is_gone_from_every_node(cluster, network):
    id_ = id_of(cluster, network)
    cluster.pvc("network", "remove", network, "--yes")
    cluster.eventually("all bridges are gone", lambda: bridges(cluster, id_) == [])


def test_a_network_of_a_guest_is_not_removed(cluster, network, guests):
    name = guests.boot_sector(node="hv1", nics=[{"network": network}])
    status, said = cluster.refused("network", "remove", network, "--yes")
    assert (status, name in said) == (1, True)
    cluster.pvc("vm", "remove", name, "--force", "--volumes", "--yes")
    cluster.pvc("network", "remove", network, "--yes")


def test_a_node_that_was_away_removes_what_nobody_wants_any_more(cluster, network):
    id_ = id_of(cluster, network)
    cluster.sandbox.host("hv3").stop_service("pvcnoded")
    cluster.eventually("hv3 is away", lambda: not cluster.node("hv3")["alive"])
    cluster.pvc("network", "remove", network, "--yes")
    assert bridges(cluster, id_) == ["hv3"]
    cluster.sandbox.power_on("hv3")
    cluster.eventually("its bridge is gone", lambda: bridges(cluster, id_) == [], within_s=90)
    cluster.eventually("hv3 is in service", lambda: cluster.node("hv3")["alive"])


def test_what_is_in_the_way_is_told_and_left_alone(cluster):
    name = f"net-{uuid.uuid4().hex[:6]}"
    cluster.sandbox.exec("hv2", ["ip", "link", "add", "br-other", "type", "bridge"]).check()
    cluster.sandbox.exec("hv2", ["ip", "link", "add", "nic9", "type", "veth", "peer", "name", "far9"]).check()
    cluster.sandbox.exec("hv2", ["ip", "link", "set", "nic9", "master", "br-other"]).check()
    cluster.pvc("network", "add", name, "-d", "bridge", "-p", "device=nic9", "--no-wait")

    def problems():
        return "\n".join(next(row for row in cluster.pvc.json("network", "list") if row["name"] == name)["problems"])

    cluster.eventually("both problems are told", lambda: "br-other" in problems() and "no device nic9" in problems())
    assert links(cluster, "hv2")["nic9"]["master"] == "br-other"
    cluster.pvc("network", "remove", name, "--yes")
    for link in ("nic9", "br-other"):
        cluster.sandbox.exec("hv2", ["ip", "link", "del", link]).check()
