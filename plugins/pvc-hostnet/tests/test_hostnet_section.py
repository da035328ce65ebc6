"""What the section may say, and which addresses it gives."""

import subprocess
import sys

import pytest

from pvc_core.plugin import ConfigError, decode
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.layout import contradiction, layout
from pvc_hostnet.rules import number_in, own_address


def section(**networks):
    return decode(networks, HostnetConfig, "plugins.hostnet")


def network(**given):
    return {"device": "eth0", "addresses": ["10.0.0.0/24", "fd00:1::/64"], **given}


@pytest.mark.parametrize(
    ("text", "number", "address"),
    [
        ("10.0.0.0/24", 1, "10.0.0.1/24"),
        ("10.0.0.0/24", 254, "10.0.0.254/24"),
        ("10.0.0.0/8", 300, "10.0.1.44/8"),
        ("10.0.0.8/29", 6, "10.0.0.14/29"),
        ("fd00:1::/64", 12, "fd00:1::c/64"),
        ("fd00:1::/126", 3, "fd00:1::3/126"),
        ("10.0.0.9/24", 1, "10.0.0.9/24"),
        ("10.0.0.9/24", None, "10.0.0.9/24"),
        ("fd00:1::9/64", None, "fd00:1::9/64"),
        ("10.0.0.0/31", 5, "10.0.0.0/31"),
        ("10.0.0.1/32", 5, "10.0.0.1/32"),
        ("fd00::/127", None, "fd00::/127"),
    ],
)
def test_an_address_is_by_number_when_its_host_bits_are_zero(text, number, address):
    assert str(own_address(text, number)) == address


@pytest.mark.parametrize(
    ("text", "number"),
    [("10.0.0.0/24", 255), ("10.0.0.0/24", 0), ("10.0.0.0/30", 3), ("fd00::/126", 4), ("10.0.0.8/29", 7)],
)
def test_a_number_must_fit(text, number):
    with pytest.raises(ValueError, match=f"{text} has no address for node number {number}"):
        own_address(text, number)


def test_an_address_by_number_needs_one():
    assert own_address("10.0.0.0/24", None) is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("hv1", 1),
        ("hv-012", 12),
        ("rack2-node14.example.com", 14),
        ("7", 7),
        ("hv", None),
        ("hv1a", None),
        ("a.b3", None),
    ],
)
def test_a_nodes_number_is_at_the_end_of_its_name(name, number):
    assert number_in(name) == number


def test_the_layouts():
    both = layout(section(cluster=network(floating=["10.0.0.254/24"]), storage={"same_as": "cluster"}), "hv3")
    assert [(n.name, n.same_as, n.device, n.addresses, n.floating) for n in both.networks] == [
        ("cluster", "", "eth0", ("10.0.0.3/24", "fd00:1::3/64"), ("10.0.0.254",)),
        ("storage", "cluster", "eth0", ("10.0.0.3/24", "fd00:1::3/64"), ("10.0.0.254",)),
    ]
    assert [n.name for n in both.own] == ["cluster"]
    assert both.floating == ("10.0.0.254",)
    one = layout(section(storage={"same_as": "cluster"}, cluster={"same_as": "upstream"}, upstream=network()), "hv3")
    assert [(n.name, n.same_as) for n in one.networks] == [
        ("upstream", ""),
        ("cluster", "upstream"),
        ("storage", "upstream"),
    ]
    assert layout(section(), "hv3").networks == ()


def test_fixed_addresses_need_no_number():
    found = layout(section(cluster=network(addresses=["10.0.0.9/24"])), "coordinator")
    assert found.networks[0].addresses == ("10.0.0.9/24",)


def test_addresses_are_written_as_the_kernel_writes_them():
    given = network(addresses=["fd00:0001:0:0::0009/64"], floating=["FD00:1::00FE/64"], gateways=["fe80:0::1"])
    found = layout(section(cluster=given), "hv1").networks[0]
    assert (found.addresses, found.floating, found.gateways) == (("fd00:1::9/64",), ("fd00:1::fe",), ("fe80::1",))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device": ""}, "cluster.device: expected the name of a device such as eth0, found ''"),
        ({"device": "eth 0"}, "found 'eth 0'"),
        ({"device": "lo"}, "found 'lo'"),
        ({"mtu": 575}, "expected a whole number from 576 to 65535"),
        ({"mtu": 1279}, "cluster.mtu: IPv6 needs 1280 bytes or more, found 1279"),
        ({"addresses": ["10.0.0.1"]}, "10.0.0.1 needs the length of its prefix, such as 10.0.0.1/24"),
        ({"addresses": ["fd00::1"]}, "fd00::1 needs the length of its prefix, such as fd00::1/64"),
        ({"addresses": ["10.0.0/24"]}, "'10.0.0/24' is no address with a prefix length"),
        ({"addresses": ["10.0.0.255/24"]}, "10.0.0.255/24 is the broadcast address of its prefix"),
        ({"addresses": ["ff02::1/64"]}, "ff02::1/64 cannot be given to a node"),
        ({"addresses": ["127.0.0.1/8"]}, "cannot be given to a node"),
        ({"addresses": ["fe80::1/64"]}, "cannot be given to a node"),
        ({"addresses": ["10.0.0.1/24", "10.0.0.1/24"]}, "is the address 10.0.0.1/24 once more"),
        ({"addresses": ["10.0.0.1/24", "10.0.0.2/16"]}, "addresses[1]: 10.0.0.2/16 overlaps 10.0.0.1/24"),
        ({"floating": ["10.0.1.1/24"]}, "floating[0]: 10.0.1.1 is in none of the prefixes"),
        ({"floating": ["10.0.0.254/25"]}, "10.0.0.254/25 has another prefix length than 10.0.0.0/24"),
        ({"floating": ["10.0.0.0/24"]}, "10.0.0.0 is no address of a host in 10.0.0.0/24"),
        ({"floating": ["10.0.0.255"]}, "10.0.0.255 is no address of a host"),
        ({"floating": ["x"]}, "floating[0]: 'x' is no address"),
        ({"floating": ["10.0.0.9", "10.0.0.9/24"]}, "floating[1]: 10.0.0.9 a second time"),
        ({"addresses": [], "floating": ["10.0.0.9"]}, "10.0.0.9 is in none of the prefixes"),
        ({"addresses": ["10.0.0.9/24"], "floating": ["10.0.0.9/24"]}, "10.0.0.9 is this node's own address"),
        ({"gateways": ["fe80::1%eth0"]}, "gateways[0]: 'fe80::1%eth0' is no address"),
        ({"addresses": ["fd00::1%eth0/64"]}, "'fd00::1%eth0/64' is no address"),
        ({"gateways": ["10.9.9.9"]}, "gateways[0]: 10.9.9.9 is in none of the prefixes"),
        ({"gateways": ["10.0.0.1/24"]}, "gateways[0]: '10.0.0.1/24' is no address"),
        ({"gateways": ["10.0.0.1", "10.0.0.2"]}, "there is one for IPv4 already, 10.0.0.1"),
        ({"floating": ["10.0.0.9"], "gateways": ["10.0.0.9"]}, "10.0.0.9 is a floating address"),
        ({"addresses": ["10.0.0.9/24"], "gateways": ["10.0.0.9"]}, "10.0.0.9 is this node itself"),
        ({"same_as": "upstream"}, "same_as: there is no network upstream"),
        ({"same_as": "cluster"}, "same_as: cluster is the same as cluster: give one of them a device"),
        ({"same_as": "vpn"}, "expected one of cluster, storage, upstream"),
        ({"vlan": 10}, "plugins.hostnet.cluster.vlan: unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(given, said):
    with pytest.raises(ConfigError) as raised:
        layout(section(cluster=network(**given)), "hv1")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"same_as": "cluster", "mtu": 9000},
            "storage.same_as: storage has the device and the addresses of cluster: give nothing else here",
        ),
        ({"device": "eth0", "addresses": ["10.0.0.77/16"]}, "overlaps 10.0.0.0/24 of cluster"),
        ({"device": "eth1", "addresses": ["10.0.0.0/24"]}, "is storage the same as cluster? Say same_as: cluster"),
        ({"device": "eth0", "mtu": 9000}, "storage.mtu: 9000, but cluster has the same device eth0 with 1500"),
    ],
)
def test_networks_do_not_contradict_each_other(other, said):
    with pytest.raises(ConfigError) as raised:
        section(cluster=network(mtu=1500), storage=other)
    assert said in str(raised.value)


def test_networks_in_a_ring_are_refused():
    with pytest.raises(ConfigError, match="cluster is the same as storage is the same as cluster"):
        section(cluster={"same_as": "storage"}, storage={"same_as": "cluster"})


def test_a_floating_address_must_not_be_the_one_that_the_number_gives():
    with pytest.raises(ConfigError, match=r"floating\[0\]: 10.0.0.9 is this node's own address"):
        section(number=9, cluster=network(floating=["10.0.0.9"]))
    fits_until_the_name_is_known = section(cluster=network(floating=["10.0.0.9"]))
    with pytest.raises(
        ConfigError, match=r"plugins.hostnet.cluster.floating\[0\]: 10.0.0.9 is this node's own address"
    ):
        layout(fits_until_the_name_is_known, "hv9")
    assert layout(fits_until_the_name_is_known, "hv8").networks[0].addresses[0] == "10.0.0.8/24"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.3", ""),
        ("fd00:1::3", ""),
        ("192.0.2.3", ""),
        ("hv3.example.com", ""),
        ("", ""),
        ("10.0.0.4", "node.address is 10.0.0.4, but this node is 10.0.0.3 in network cluster"),
        ("10.0.0.254", "node.address 10.0.0.254 is a floating address of network cluster"),
    ],
)
def test_the_address_that_the_node_tells_the_cluster_must_be_its_own(address, said):
    found = contradiction(layout(section(cluster=network(floating=["10.0.0.254"])), "hv3"), address)
    assert found.startswith(said)
    assert bool(found) is bool(said)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as raised:
        section(cluster=network(device="", gateways=["x"]), storage=network(mtu=600))
    said = str(raised.value)
    assert all(part in said for part in ("cluster.device", "cluster.gateways[0]", "storage.mtu"))


def test_the_manifest_and_the_section_load_nothing_of_the_kernel():
    program = "import sys, pvc_hostnet.manifest, pvc_hostnet.config, pvc_hostnet.cli.network; print('pyroute2' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
