"""What pvc-hostnet makes true on a node, and what it leaves alone."""

from pathlib import Path

import pytest

from pvc_core.plugin import ConfigError
from pvc_hostnet import upkeep

pytestmark = pytest.mark.real

CLUSTER = {"device": "eth0", "addresses": ["10.0.0.0/24", "fd00:1::/64"]}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(upkeep, "EVERY_S", 0.1)
    monkeypatch.setattr(upkeep, "_SOON_S", 0.05)


def health(node, hooks):
    with node.inside():
        return {condition.type: condition for condition in hooks.health_checks()}


def status(node, hooks):
    with node.inside():
        return {network["name"]: network for network in hooks.queries()["hostnet.status"]({})["networks"]}


def test_a_node_gets_its_addresses_by_number_and_fixed_ones_on_a_device_that_was_off(node):
    hooks = node.start(cluster=CLUSTER, upstream={"device": "eth1", "addresses": ["203.0.113.5/24", "2001:db8::5/64"]})
    assert node.addresses("eth0") == ["10.0.0.7/24", "fd00:1::7/64"]
    assert node.addresses("eth1") == ["2001:db8::5/64", "203.0.113.5/24"]
    found = health(node, hooks)
    assert list(found) == ["Network/upstream", "Network/cluster"]
    assert all(condition.ok for condition in found.values())


def test_the_number_of_the_section_goes_before_that_of_the_name(node):
    node.start(number=200, cluster=CLUSTER)
    assert node.addresses() == ["10.0.0.200/24", "fd00:1::c8/64"]


def test_a_name_without_number_is_refused(segment):
    with pytest.raises(ConfigError, match=r"the name storage-a ends with no number: give plugins.hostnet.number"):
        segment.host("storage-a", "eth0").hooks(cluster=CLUSTER)


def test_a_number_that_does_not_fit_is_refused(segment):
    with pytest.raises(ConfigError, match=r"cluster.addresses\[0\]: 10.0.0.0/24 has no address for node number 300"):
        segment.host("node300", "eth0").hooks(cluster=CLUSTER)


def test_addresses_of_the_host_are_adopted_and_never_removed(node):
    node.set("eth0", state="up")
    node.give("10.0.0.7/24")
    node.give("192.0.2.1/24")
    hooks = node.start(cluster=CLUSTER)
    assert node.addresses() == ["10.0.0.7/24", "192.0.2.1/24", "fd00:1::7/64"]
    assert [a["adopted"] for a in status(node, hooks)["cluster"]["addresses"]] == [True, False]
    node.start()  # the section is empty now
    assert node.addresses() == ["10.0.0.7/24", "192.0.2.1/24"]


def test_what_an_older_section_gave_is_removed_and_the_rest_stays(node):
    node.set("eth0", state="up")
    node.start(cluster=CLUSTER | {"gateways": ["10.0.0.1"]})
    node.give("10.0.0.99/24")  # a second address of the same prefix: the kernel removes it with the first, unless told
    assert node.gateways() == ["10.0.0.1"]
    node.start(number=8, cluster={"device": "eth1", "addresses": ["10.0.0.0/24"]})
    assert node.addresses("eth0") == ["10.0.0.99/24"]
    assert node.addresses("eth1") == ["10.0.0.8/24"]
    assert node.gateways() == []


def test_an_address_moves_with_its_network_to_another_device(node):
    node.start(cluster=CLUSTER)
    node.start(cluster=CLUSTER | {"device": "eth1"})
    assert (node.addresses("eth0"), node.addresses("eth1")) == ([], ["10.0.0.7/24", "fd00:1::7/64"])


def test_another_prefix_length_of_the_section_replaces_ours_and_not_the_hosts(node):
    node.start(cluster={"device": "eth0", "addresses": ["10.0.0.7/24"]})
    node.start(cluster={"device": "eth0", "addresses": ["10.0.0.7/16"]})
    assert node.addresses() == ["10.0.0.7/16"]
    node.start()
    node.give("10.0.0.7/16")
    hooks = node.start(cluster={"device": "eth0", "addresses": ["10.0.0.7/24"]})
    assert node.addresses() == ["10.0.0.7/16"]
    found = health(node, hooks)["Network/cluster"]
    assert (found.reason, "eth0 has 10.0.0.7/16, not 10.0.0.7/24" in found.message) == ("AddressMissing", True)


def test_an_address_that_the_host_has_elsewhere_is_not_given_twice(node):
    node.give("10.0.0.7/24", "eth1")
    hooks = node.start(cluster={"device": "eth0", "addresses": ["10.0.0.0/24"]})
    assert (node.addresses("eth0"), node.addresses("eth1")) == ([], ["10.0.0.7/24"])
    found = health(node, hooks)["Network/cluster"]
    assert (found.reason, found.message) == ("AddressElsewhere", "network cluster: 10.0.0.7 is on eth1, not on eth0")


def test_collapsed_storage_has_what_the_cluster_has(node):
    hooks = node.start(cluster=CLUSTER, storage={"same_as": "cluster"})
    assert node.addresses() == ["10.0.0.7/24", "fd00:1::7/64"]
    assert node.addresses("eth1") == []
    found = status(node, hooks)
    assert (found["storage"]["same_as"], found["storage"]["device"]) == ("cluster", "eth0")
    assert found["storage"]["addresses"] == found["cluster"]["addresses"]
    node.take("10.0.0.7/24")
    node.give("10.0.0.7/24", "eth1")
    conditions = health(node, hooks)
    assert [conditions[f"Network/{name}"].ok for name in ("cluster", "storage")] == [False, False]


def test_all_three_networks_on_one_device(node):
    hooks = node.start(
        upstream={"device": "eth0", "addresses": ["203.0.113.5/24"], "gateways": ["203.0.113.1"]},
        cluster={"same_as": "upstream"},
        storage={"same_as": "cluster"},
    )
    assert node.addresses() == ["203.0.113.5/24"]
    assert {name: network["same_as"] for name, network in status(node, hooks).items()} == {
        "upstream": "",
        "cluster": "upstream",
        "storage": "upstream",
    }
    assert all(condition.ok for condition in health(node, hooks).values())


def test_two_networks_with_prefixes_of_their_own_on_one_device(node):
    node.start(cluster=CLUSTER, upstream={"device": "eth0", "addresses": ["203.0.113.5/24"]})
    assert node.addresses() == ["10.0.0.7/24", "203.0.113.5/24", "fd00:1::7/64"]


def test_an_mtu_is_made_true_and_a_device_without_one_is_left(node):
    hooks = node.start(cluster=CLUSTER | {"mtu": 9000}, upstream={"device": "eth1"})
    assert [node.link(d).get_attr("IFLA_MTU") for d in ("eth0", "eth1")] == [9000, 1500]
    node.set("eth0", mtu=1400)
    assert health(node, hooks)["Network/cluster"].ok
    assert node.link("eth0").get_attr("IFLA_MTU") == 9000


def test_an_mtu_that_the_device_below_does_not_carry_is_told_and_all_else_is_done(node):
    node.set("eth0", state="up")
    node.add("stacked0", "macvlan", link="eth0", macvlan_mode="bridge")
    hooks = node.start(cluster=CLUSTER | {"device": "stacked0", "mtu": 9000})
    assert node.addresses("stacked0") == ["10.0.0.7/24", "fd00:1::7/64"]
    found = health(node, hooks)["Network/cluster"]
    assert found.reason == "WrongMtu"
    assert "stacked0 has MTU 1500, not 9000: it stands on eth0, whose MTU is 1500: raise that first" in found.message
    node.set("eth0", mtu=9000)
    assert health(node, hooks)["Network/cluster"].ok


def test_an_mtu_that_the_kernel_refuses_is_told(node):
    node.add("tap0", "tuntap", mode="tap")
    hooks = node.start(cluster={"device": "tap0", "mtu": 65535})
    found = health(node, hooks)["Network/cluster"]
    assert not found.ok
    assert "tap0 has MTU 1500, not 65535" in found.message or "NoCarrier" in found.reason
    assert "setting MTU 65535 of tap0: the kernel refused it" in found.message


def test_a_device_that_appears_later_gets_everything_without_being_asked(node, wait_for):
    hooks = node.start(cluster=CLUSTER | {"device": "late0", "mtu": 1400})
    found = health(node, hooks)["Network/cluster"]
    assert (found.ok, found.reason) == (False, "DeviceMissing")
    node.plug("late0")
    wait_for(lambda: node.addresses("late0"), ["10.0.0.7/24", "fd00:1::7/64"])
    assert node.link("late0").get_attr("IFLA_MTU") == 1400
    assert health(node, hooks)["Network/cluster"].ok


def test_what_somebody_removes_comes_back_without_being_asked(node, wait_for):
    hooks = node.start(cluster=CLUSTER | {"gateways": ["10.0.0.1", "fd00:1::1"]})
    assert node.gateways() == ["10.0.0.1", "fd00:1::1"]
    node.set("eth0", state="down")  # takes routes and IPv6 addresses along
    wait_for(node.gateways, ["10.0.0.1", "fd00:1::1"])
    assert node.addresses() == ["10.0.0.7/24", "fd00:1::7/64"]
    node.take("10.0.0.7/24")
    wait_for(node.addresses, ["10.0.0.7/24", "fd00:1::7/64"])
    with node.inside():
        hooks.node_stopping("node7")
    node.take("10.0.0.7/24")
    assert node.addresses() == ["fd00:1::7/64"]


def test_health_makes_true_again_also_when_nothing_else_runs(node):
    hooks = node.start(cluster=CLUSTER)
    hooks.node_stopping("node7")
    node.take("10.0.0.7/24")
    assert health(node, hooks)["Network/cluster"].ok
    assert node.addresses() == ["10.0.0.7/24", "fd00:1::7/64"]


def test_a_default_route_of_the_host_is_kept(node):
    node.set("eth1", state="up")
    node.give("192.0.2.7/24", "eth1")
    node.route(dst="0.0.0.0/0", gateway="192.0.2.1", oif="eth1")
    section = {"cluster": CLUSTER | {"gateways": ["10.0.0.1", "fd00:1::1"]}}
    hooks = node.start(**section)
    assert node.gateways() == ["192.0.2.1", "fd00:1::1"]
    assert [g["used"] for g in status(node, hooks)["cluster"]["gateways"]] == [False, True]
    assert health(node, hooks)["Network/cluster"].ok
    node.start(cluster=CLUSTER | {"gateways": ["fd00:1::2"]})
    assert node.gateways() == ["192.0.2.1", "fd00:1::2"]


def test_a_cable_that_is_pulled_is_told(node, segment, wait_for):
    hooks = node.start(cluster=CLUSTER)
    segment.port(node, up=False)
    wait_for(lambda: health(node, hooks)["Network/cluster"].reason, "NoCarrier")
    segment.port(node, up=True)
    wait_for(lambda: health(node, hooks)["Network/cluster"].ok)


def test_a_device_without_ipv6_is_told(node):
    with node.inside(), Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").open("w") as file:
        file.write("1")
    found = health(node, node.start(cluster=CLUSTER))["Network/cluster"]
    assert node.addresses() == ["10.0.0.7/24"]
    assert found.reason == "AddressMissing"
    assert "net.ipv6.conf.eth0.disable_ipv6 is 1" in found.message


@pytest.mark.parametrize("address", ["10.0.0.7/24", "fd00:1::7/64"])
def test_an_address_that_another_machine_has_too_is_told_with_its_mac(node, segment, wait_for, address):
    other = segment.host("other", "eth0")
    other.set("eth0", state="up")
    other.give(address)
    hooks = node.start(cluster=CLUSTER)
    wait_for(lambda: health(node, hooks)["Network/cluster"].reason, "DuplicateAddress")
    found = health(node, hooks)["Network/cluster"]
    ip = address.partition("/")[0]
    assert f"{ip} is also the address of a machine with MAC address {other.mac()}" in found.message
    other.take(address)
    wait_for(lambda: health(node, hooks)["Network/cluster"].ok)


def test_two_devices_of_the_node_in_one_segment_are_no_duplicates(node):
    hooks = node.start(cluster=CLUSTER, storage={"device": "eth1", "addresses": ["10.1.0.0/24"]})
    assert [c.ok for c in health(node, hooks).values()] == [True, True]


def test_an_ipv6_address_whose_duplicate_the_kernel_found_is_told(node, segment, wait_for):
    other = segment.host("other", "eth0")
    other.set("eth0", state="up")
    other.give("fd00:1::7/64")
    node.set("eth0", state="up")
    node.give("fd00:1::7/64", flags=0)  # with duplicate address detection, as the host's own configuration would
    hooks = node.start(cluster=CLUSTER)
    wait_for(lambda: "the kernel does not use fd00:1::7" in health(node, hooks)["Network/cluster"].message)
