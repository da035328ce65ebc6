"""NICs that come and go while real guests run: one that lets go of them, and one that does not."""

import contextlib
from xml.etree import ElementTree as ET

import pytest

from pvc_core.testkit.shaping import shaping

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

NETWORK = "systemtest"
HERE, PEER = 81, 82
"""Last numbers of the guests' addresses."""


@pytest.fixture(scope="module")
def shaped(cluster):
    """Have the nodes limit NICs as far as this kernel can."""
    with contextlib.ExitStack() as stack:
        for node in cluster.sandbox.nodes():
            stack.enter_context(shaping(cluster.sandbox.host(node).exec))
        yield


def interfaces(cluster, node, id_):
    """Return the interfaces of a VM's domain, by MAC address."""
    xml = ET.fromstring(cluster.sandbox.exec(node, ["virsh", "dumpxml", id_]).check().stdout)
    return {nic.find("mac").get("address"): nic for nic in xml.iterfind("devices/interface")}


def nics(cluster, vm):
    return cluster.pvc.json("vm", "nic", "list", vm)


def conditions(cluster, vm):
    return {condition["type"]: condition["reason"] for condition in cluster.info(vm)["conditions"]}


def test_a_nic_comes_is_limited_cut_moved_and_goes_while_linux_runs(cluster, guests, shaped):
    address, peer = (cluster.sandbox.layout.guest_address(octet) for octet in (HERE, PEER))
    name = guests.linux(node="hv1", migration="live")
    other = guests.linux(node="hv3", octet=PEER)
    id_, other_id = cluster.id(name), cluster.id(other)
    for each in (id_, other_id):
        cluster.eventually("Linux boots", lambda each=each: cluster.ticks(each), within_s=120)
    with cluster.shell("hv3", other_id) as type_:
        type_("(while true; do nc -l -p 5000 < /dev/zero; done) 2>/dev/null & echo SERVES-$((1 + 1))", "SERVES-2")

    added = cluster.pvc.json("vm", "nic", "add", name, NETWORK, "--address", address)
    assert not added["restart_needed"]
    (nic,) = nics(cluster, name)
    mac = nic["mac"]
    assert nic["addresses"] == [address]
    assert f"NIC {mac}" in added["message"]
    ping = f"ping -c 2 -W 5 {peer} > /dev/null; echo PING-$?"
    with cluster.shell("hv1", id_) as type_:
        type_("until [ -e /sys/class/net/eth0 ]; do sleep 1; done; cat /sys/class/net/eth0/address", mac)
        type_(f"ip addr add {address}/24 dev eth0 && ip link set eth0 up; echo UP-$?", "UP-0")
        type_(ping, "PING-0")
        # 2 MiB, which take ten seconds at the limit; the peer serves one after the other.
        now = "cut -d. -f1 /proc/uptime"
        fetch = (
            f"while :; do s=$({now}); n=$(nc {peer} 5000 | head -c 2097152 | wc -c); e=$({now}); "
            "[ $n = 2097152 ] && break; sleep 1; done; [ $((e - s)) -ge 7 ] && echo SLOW-$((1 + 1)) || echo FAST-$((1 + 1))"
        )
        type_(fetch, "FAST-2")
        cluster.pvc("vm", "nic", "modify", name, NETWORK, "--limit", "in-average=200")
        assert interfaces(cluster, "hv1", id_)[mac].find("bandwidth/inbound").get("average") == "200"
        type_(fetch, "SLOW-2")
        cluster.pvc("vm", "nic", "modify", name, mac, "--limit", "in_average=0")
        type_(fetch, "FAST-2")

        assert cluster.pvc.json("vm", "nic", "modify", name, NETWORK, "--link", "down")["restart_needed"] is False
        type_("echo CARRIER-$(cat /sys/class/net/eth0/carrier)", "CARRIER-0")
        type_(ping, "PING-1")
        cluster.pvc("vm", "nic", "modify", name, NETWORK, "--link", "up", "-l", "in_average=20000")
        type_(ping, "PING-0")

    cluster.pvc("vm", "move", name, "--node", "hv2")
    assert cluster.place(name) == ("running", "hv2")
    assert cluster.info(name)["last_migration"]["method"] == "live"
    assert conditions(cluster, name) == {}
    moved = interfaces(cluster, "hv2", id_)
    assert list(moved) == [mac]
    assert moved[mac].find("bandwidth/inbound").get("average") == "20000"
    with cluster.shell("hv2", id_) as type_:
        type_(ping, "PING-0")

    # What the guest takes over only when it is started again is said, and taken back.
    pending = cluster.pvc.json("vm", "nic", "modify", name, NETWORK, "--model", "e1000e")
    assert pending["reasons"] == [f"NIC {mac} in network {NETWORK} has other settings: model"]
    assert conditions(cluster, name) == {"Hardware": "RestartNeeded"}
    cluster.pvc("vm", "nic", "modify", name, NETWORK, "--model", "virtio")
    assert conditions(cluster, name) == {}

    cluster.pvc("vm", "nic", "remove", name, NETWORK)
    assert interfaces(cluster, "hv2", id_) == {}
    assert nics(cluster, name) == []
    with cluster.shell("hv2", id_) as type_:
        type_("echo GONE-$(ls /sys/class/net | grep -c eth0)", "GONE-0")
    # Address and MAC address are free, and the guest goes on.
    cluster.pvc("vm", "nic", "add", other, NETWORK, "--mac", mac, "--address", address)
    assert mac in interfaces(cluster, "hv3", other_id)
    assert cluster.console(id_).count("GUEST-UP") == 1


def test_conventional_nics_come_and_go_too(cluster, guests):
    name = guests.linux(node="hv1")
    id_ = cluster.id(name)
    cluster.eventually("Linux boots", lambda: cluster.ticks(id_), within_s=120)
    with cluster.shell("hv1", id_) as type_:
        count = "echo FOUND-$(cat /sys/bus/pci/devices/*/device | grep -c {})"
        for model, device in (("e1000", "0x100e"), ("rtl8139", "0x8139"), ("e1000e", "0x10d3")):
            cluster.pvc("vm", "nic", "add", name, NETWORK, "--model", model)
            type_(f"until cat /sys/bus/pci/devices/*/device | grep {device}; do sleep 1; done", device)
            type_(count.format(device), "FOUND-1")
            cluster.pvc("vm", "nic", "remove", name, NETWORK)
            type_(count.format(device), "FOUND-0")
    assert interfaces(cluster, "hv1", id_) == {}


def test_a_guest_that_does_not_let_go_keeps_its_nic(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    network = f"net-{name[-6:]}"
    cluster.pvc("network", "add", network, "-d", "bridge", "-p", "device=")
    try:
        cluster.eventually("it boots", lambda: "GUEST-UP" in cluster.console(id_))
        cluster.pvc("vm", "nic", "add", name, network)
        mac = nics(cluster, name)[0]["mac"]
        waited = cluster.pvc.run("vm", "nic", "remove", name, network)
        assert waited.returncode == 1
        assert f"the guest does not let go of NIC {mac} in network {network}" in waited.stderr.splitlines()[-1]
        assert conditions(cluster, name) == {"Nics": "GuestKeepsNic"}
        assert name in cluster.refused("network", "remove", network, "--yes")[1]
        # It is moved with the guest, and so is what is asked for.
        cluster.pvc("vm", "move", name, "--node", "hv2")
        cluster.eventually(
            "the new node asks, too", lambda: conditions(cluster, name).get("Nics") == "GuestKeepsNic", within_s=60
        )
        assert list(interfaces(cluster, "hv2", id_)) == [mac]
        # Taken back, nothing is left of it; asked for again, the guest's end is enough.
        cluster.pvc("vm", "nic", "add", name, network, "--mac", mac)
        assert conditions(cluster, name) == {}
        cluster.pvc("vm", "nic", "remove", name, mac, "--no-wait")
        cluster.pvc("vm", "restart", name)
        cluster.eventually("the NIC is gone", lambda: nics(cluster, name) == [])
        assert interfaces(cluster, "hv2", id_) == {}
    finally:
        cluster.eventually(
            "the network is free", lambda: not cluster.pvc.run("network", "remove", network, "--yes").returncode
        )
