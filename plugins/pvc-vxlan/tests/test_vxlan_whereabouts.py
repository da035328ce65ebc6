"""Entries that send to the wrong node are taken out of the real kernel, and right ones stay."""

import logging

import pytest

from pvc_core.model.vm import Nic
from pvc_core.plugin import Context, NetworkNic, NodeInfo, run
from pvc_netdev.links import Links
from pvc_netdev.namespace import entered
from pvc_vxlan import names, whereabouts
from pvc_vxlan.whereabouts import Whereabouts

pytestmark = pytest.mark.real

NETWORK = "0a1b2c3d-0000-4000-8000-000000000001"
MAC = "52:54:00:00:00:01"
ADDRESSES = {"hv1": "10.77.0.1", "hv2": "10.77.0.2", "hv3": "10.77.0.3"}


class Lab:
    def __init__(self, support, monkeypatch):
        self.site = support.Site()
        self.namespace = support.Namespace(self.site, "node")
        self.records = support.FakeRecords()
        self.now = 100.0
        self.named = {names.tunnel(NETWORK): {ADDRESSES["hv2"], ADDRESSES["hv3"]}}
        """What EVPN names."""
        self.where = {MAC: "hv2"}
        """MAC address -> node, as the claims say."""
        monkeypatch.setattr(whereabouts.time, "monotonic", lambda: self.now)
        context = Context(
            node=NodeInfo(name="hv1", role="coordinator"),
            log=logging.getLogger("pvc_vxlan"),
            run=run,
            wake=lambda *_: None,
            records=self.records,
            nodes=lambda: list(ADDRESSES),
            network_nics=lambda _: self.nics(),
        )
        for node, address in ADDRESSES.items():
            self.records.put(f"node/{node}", address)
        self.tables = Whereabouts(context)
        with Links(self.namespace.name) as links:
            links.add_bridge("br")
            links.add_vxlan(names.tunnel(NETWORK), 7, local=ADDRESSES["hv1"], port=4789, mtu=1450)
            tunnel = links.get(names.tunnel(NETWORK))
            links.set(tunnel, "up", master=links.get("br").index, state="up")
            self.tunnels = {tunnel.index: tunnel.name}
            for node in ("hv2", "hv3"):
                links.add_flood(tunnel, ADDRESSES[node])
        self.tables.note(NETWORK, self.nics())

    def nics(self):
        nic = {mac: Nic(network="lan", mac=mac) for mac in self.where}
        return [NetworkNic(vm=mac, vm_name="web", nic=nic[mac], node=node) for mac, node in self.where.items()]

    def learn(self, mac, node):
        """Have zebra have said where a MAC address is."""
        self.namespace.run(
            "bridge",
            "fdb",
            "replace",
            mac,
            "dev",
            names.tunnel(NETWORK),
            "dst",
            ADDRESSES[node],
            "self",
            "extern_learn",
        )

    def entries(self):
        with Links(self.namespace.name) as links:
            found = links.forwarding(links.get(names.tunnel(NETWORK)))
        return {entry.mac: entry.destination for entry in found if entry.own and entry.mac != "00:00:00:00:00:00"}

    def mend(self, after_s=3.0):
        self.now += after_s
        with entered(self.namespace.name):
            return [stale.mac for stale in self.tables.mend(ADDRESSES["hv1"], self.tunnels, self.named)]


@pytest.fixture
def lab(gateway_support, monkeypatch):
    made = Lab(gateway_support, monkeypatch)
    yield made
    made.site.close()


def test_an_entry_to_another_node_than_the_one_with_the_nic_goes_when_it_stays_wrong(lab):
    lab.learn(MAC, "hv3")
    assert lab.mend() == []
    assert lab.entries() == {MAC: ADDRESSES["hv3"]}
    assert lab.mend() == []
    assert lab.mend() == [MAC]
    assert lab.entries() == {}


def test_a_right_entry_stays_also_after_a_move_that_nobody_told_of(lab):
    lab.learn(MAC, "hv2")
    assert [lab.mend() for _ in range(4)] == [[]] * 4
    lab.where[MAC] = "hv3"
    lab.learn(MAC, "hv3")
    assert [lab.mend() for _ in range(4)] == [[]] * 4
    assert lab.entries() == {MAC: ADDRESSES["hv3"]}


def test_an_entry_to_the_end_of_a_tunnel_that_is_gone_goes(lab):
    unknown = "52:54:00:00:00:77"
    lab.learn(unknown, "hv3")
    assert [lab.mend() for _ in range(4)] == [[]] * 4
    lab.named = {}
    assert [lab.mend() for _ in range(4)] == [[]] * 4
    lab.named = {names.tunnel(NETWORK): {ADDRESSES["hv2"]}}
    assert [lab.mend() for _ in range(3)] == [[], [], [unknown]]
    assert lab.entries() == {}


def test_the_gateway_is_where_the_primary_says(lab):
    mac = names.gateway_mac(NETWORK)
    lab.records.put("gateway", "hv3")
    lab.learn(mac, "hv2")
    assert [lab.mend() for _ in range(3)] == [[], [], [mac]]
    lab.learn(mac, "hv3")
    assert [lab.mend() for _ in range(3)] == [[]] * 3


def test_a_node_that_left_the_cluster_is_nobodys_place(lab):
    assert lab.tables.nodes() == ADDRESSES
    del lab.records.all["node/hv2"]
    lab.records.put("node/old", "10.77.0.9")
    lab.now += 10
    assert lab.tables.nodes() == {node: ADDRESSES[node] for node in ("hv1", "hv3")}
    lab.learn(MAC, "hv3")
    assert [lab.mend() for _ in range(4)] == [[]] * 4


def test_a_node_writes_its_address_once(lab):
    writes = lab.records.writes
    lab.tables.announce("10.77.0.1")
    lab.tables.announce("10.77.0.1")
    assert lab.records.writes == writes + 1
    lab.tables.announce("10.77.0.11")
    assert lab.records.get("node/hv1") == "10.77.0.11"
