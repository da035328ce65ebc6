"""What pvc-bridge does to a node's devices, and what it leaves alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from pvc_bridge import driver as driver_module
from pvc_bridge.config import BridgeConfig
from pvc_bridge.names import bridge_name
from pvc_core.model.vm import Nic
from pvc_core.plugin import DriverError, NotReady, ObjectBusy, Unsupported
from pvc_netdev.links import Links
from pvc_netdev.ownership import interim

pytestmark = pytest.mark.real

VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
NIC = Nic(network="lan", mac="52:54:00:12:34:56")


def test_a_bridge_forwards_at_once_and_keeps_the_host_out(node):
    network = node.network(device="eth1")
    name = node.driver().network_ensure(network).device
    assert name == bridge_name(network.id)
    assert len(name) == 15
    data = node.link(name).get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert data.get_attr("IFLA_BR_STP_STATE") == 0
    assert data.get_attr("IFLA_BR_FORWARD_DELAY") == 0
    assert data.get_attr("IFLA_BR_MCAST_SNOOPING") == 0
    assert node.sysctl(f"ipv6/conf/{name}/disable_ipv6") == "1"
    assert node.link(name)["flags"] & 1
    assert node.master_of("eth1") == name


def test_frames_of_guests_do_not_pass_the_hosts_firewall(node):
    before = node.sysctl("bridge/bridge-nf-call-iptables")
    node.driver(BridgeConfig(bridge_netfilter=True)).network_ensure(node.network())
    assert node.sysctl("bridge/bridge-nf-call-iptables") == before
    node.driver().network_ensure(node.network())
    for name in ("iptables", "ip6tables", "arptables"):
        assert node.sysctl(f"bridge/bridge-nf-call-{name}") == "0"


def test_the_nodes_own_nic_is_used_unless_the_network_names_one(node):
    driver = node.driver(BridgeConfig(device="eth2"))
    first, second, third = node.network(), node.network(device="eth1"), node.network(device="")
    assert node.master_of("eth2") == ""
    driver.network_ensure(first)
    driver.network_ensure(second)
    driver.network_ensure(third)
    assert node.master_of("eth2") == bridge_name(first.id)
    assert node.master_of("eth1") == bridge_name(second.id)


def test_another_uplink_replaces_the_one_before(node):
    driver, network = node.driver(), node.network(device="eth1")
    driver.network_ensure(network)
    driver.network_ensure(replace(network, parameters={"device": "eth2"}, generation=2))
    assert node.master_of("eth1") == ""
    assert node.master_of("eth2") == bridge_name(network.id)
    driver.network_ensure(replace(network, parameters={"device": ""}, generation=3))
    assert node.master_of("eth2") == ""


def test_a_removed_network_gives_its_uplink_back(node):
    driver, network = node.driver(), node.network(device="eth1")
    driver.network_ensure(network)
    driver.network_remove(network)
    assert node.link(bridge_name(network.id)) is None
    assert node.master_of("eth1") == ""
    assert node.link("eth1")["flags"] & 1


def test_a_missing_uplink_is_waited_for(node):
    driver, network = node.driver(), node.network(device="eth9")
    with pytest.raises(NotReady, match="no device eth9"):
        driver.network_ensure(network)
    assert driver.network_list() == []
    node.add("eth9", "veth", peer={"ifname": "far-eth9"})
    assert driver.network_ensure(network).device
    assert node.master_of("eth9") == bridge_name(network.id)


def test_an_uplink_of_somebody_else_is_not_taken(node):
    node.add("br-docker", "bridge")
    node.set("eth1", master=node.link("br-docker")["index"])
    with pytest.raises(DriverError, match="belongs to br-docker") as caught:
        node.driver().network_ensure(node.network(device="eth1"))
    assert not caught.value.retryable
    assert node.master_of("eth1") == "br-docker"


def test_two_networks_cannot_have_one_uplink(node):
    driver = node.driver()
    first = node.network("lan", device="eth1")
    driver.network_ensure(first)
    with pytest.raises(DriverError, match=bridge_name(first.id)):
        driver.network_ensure(node.network("dmz", device="eth1"))
    assert driver.network_list() == [first.id]


def test_a_nic_with_addresses_is_not_taken(node):
    node.address("eth1", "192.0.2.10", 24)
    with pytest.raises(DriverError, match=r"eth1 of node node1 has addresses \(192\.0\.2\.10/24\)"):
        node.driver().network_ensure(node.network(device="eth1"))
    assert node.master_of("eth1") == ""


@pytest.mark.parametrize("device", ["br-other", "lo"])
def test_what_is_no_nic_is_not_taken(node, device):
    node.add("br-other", "bridge")
    spec = node.network()
    with pytest.raises(Exception, match=r"no NIC|not the name of a NIC"):
        node.driver().network_ensure(replace(spec, parameters={"device": device}))


def test_the_mtu_is_the_uplinks_unless_the_network_names_one(node):
    driver, network = node.driver(), node.network(device="eth1")
    node.set("eth1", mtu=9000)
    assert driver.network_ensure(network).mtu == 9000
    assert node.link(bridge_name(network.id)).get_attr("IFLA_MTU") == 9000
    assert "<mtu size='9000'/>" in driver.nic_attach(network, NIC, VM, incoming=False).inner_xml
    assert driver.network_ensure(replace(network, mtu=1400)).mtu == 1400
    with pytest.raises(DriverError, match="ip link set eth1 mtu 9500"):
        driver.network_ensure(replace(network, mtu=9500))


def test_a_changed_mtu_reaches_the_nics_of_running_guests(node):
    driver, network = node.driver(), node.network()
    name = driver.network_ensure(network).device
    node.tap("vnet0", name)
    driver.network_ensure(replace(network, mtu=9000))
    assert node.link("vnet0").get_attr("IFLA_MTU") == 9000


def test_a_bridge_with_guests_is_not_removed(node):
    driver, network = node.driver(), node.network(device="eth1")
    name = driver.network_ensure(network).device
    node.tap("vnet0", name)
    with pytest.raises(ObjectBusy, match="vnet0"):
        driver.network_remove(network)
    assert node.master_of("vnet0") == name
    assert driver.network_ensure(network).device == name


def test_guests_keep_their_connection_when_the_daemon_looks_again(node):
    network = node.network(device="eth1")
    name = node.driver().network_ensure(network).device
    index = node.link(name)["index"]
    node.tap("vnet0", name)
    node.driver().network_ensure(replace(network, name="renamed", generation=2))
    assert node.link(name)["index"] == index
    assert node.master_of("vnet0") == node.master_of("eth1") == name


def test_what_was_undone_by_hand_is_repaired(node):
    driver, network = node.driver(), node.network(device="eth1")
    name = driver.network_ensure(network).device
    node.set("eth1", master=0, state="down")
    node.set(name, state="down")
    assert [finding.ok for finding in driver.network_check(network)] == [False, False, True, True, True]
    driver.network_ensure(network)
    assert node.master_of("eth1") == name
    assert [finding.ok for finding in driver.network_check(network)] == [True, True, True, True, True]


def test_a_cable_that_is_out_is_found(node):
    driver, network = node.driver(), node.network(device="eth1")
    driver.network_ensure(network)
    node.set("far-eth1", state="down")
    assert [f.message for f in driver.network_check(network) if not f.ok] == ["eth1 has no carrier"]


def test_a_daemon_killed_at_any_step_is_finished_by_the_next(node, monkeypatch):
    """It dies before its n-th change of the kernel; n grows until it survives."""

    class Killed(BaseException):
        pass

    real = {name: getattr(Links, name) for name in ("add_bridge", "set", "delete")}
    left = 0

    def dying(name):
        def call(self, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real[name](self, *args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(Links, name, dying(name))
    for count in range(30):
        network = node.network(device="eth1")
        left, killed = count, False
        try:
            node.driver().network_ensure(network)
        except Killed:
            killed = True
        left = 1000
        state = node.driver().network_ensure(network)
        assert state.device == bridge_name(network.id)
        assert node.master_of("eth1") == state.device
        left = count
        try:
            node.driver().network_remove(network)
        except Killed:
            killed = True
        left = 1000
        node.driver().network_remove(network)
        assert node.driver().network_list() == []
        with Links() as links:
            assert not [link.name for link in links.all() if link.name.startswith(("pvc", "pvn"))]
        if not killed:
            assert count > 5
            return
    pytest.fail("it never ends")


def test_an_unfinished_bridge_is_listed_so_that_it_is_removed(node):
    network = node.network()
    name = interim(bridge_name(network.id))
    node.add(name, "bridge")
    node.set(name, ifalias=f"pvc-bridge:{network.id}:")
    assert node.driver().network_list() == [network.id]
    node.driver().network_remove(replace(network, parameters={}))
    assert node.driver().network_list() == []


@pytest.mark.parametrize(
    ("config", "parameters", "message"),
    [
        (BridgeConfig(), {"vlan": 100}, r"no 802\.1Q.*modprobe 8021q.*vlan_mode: filtering"),
        (BridgeConfig(vlan_mode="filtering"), {"vlan": 100}, "no bridges that filter VLANs.*vlan_mode: subinterface"),
        (BridgeConfig(vlan_mode="filtering"), {}, "no bridges that filter VLANs.*vlan_mode: subinterface"),
        (BridgeConfig(vlan_mode="filtering"), {"trunk": True}, "no bridges that filter VLANs"),
    ],
)
def test_a_kernel_without_vlans_says_so_and_nothing_half_made_is_left(node, config, parameters, message):
    driver, network = node.driver(config), node.network(device="eth1", **parameters)
    with Links() as links:
        before = links.all()
        with pytest.raises(Unsupported, match=message):
            driver.network_ensure(network)
        assert links.all() == before
    assert driver.network_list() == []


def test_an_untagged_network_goes_on_when_its_vlan_cannot_be_made(node):
    driver, network = node.driver(), node.network(device="eth1")
    name = driver.network_ensure(network).device
    with pytest.raises(Unsupported):
        driver.network_ensure(replace(network, parameters={"device": "eth1", "vlan": 5}, generation=2))
    assert node.master_of("eth1") == name


@pytest.mark.parametrize("parameters", [{"vlan": 100}, {"trunk": True}])
def test_a_vlan_needs_a_device(node, parameters):
    with pytest.raises(DriverError, match="node node1 has none for such networks") as caught:
        node.driver().network_ensure(node.network(**parameters))
    assert not caught.value.retryable


def test_a_trunk_of_some_vlans_needs_filtering(node):
    with pytest.raises(DriverError, match="needs vlan_mode: filtering"):
        node.driver().network_ensure(node.network(device="eth1", trunk=["10", "20"]))


def test_the_number_of_frames_without_a_tag_is_no_vlan(node):
    driver = node.driver(BridgeConfig(vlan_mode="filtering", untagged_vlan=7))
    for parameters in ({"vlan": 7}, {"trunk": ["1-10"]}):
        with pytest.raises(DriverError, match="VLAN 7 is the number of frames without a tag"):
            driver.network_ensure(node.network(device="eth1", **parameters))


def test_a_link_local_address_does_not_keep_a_nic(node):
    node.address("eth1", "fe80::1234", 64)
    assert node.driver().network_ensure(node.network(device="eth1")).device


def test_a_guests_nic_has_a_name_of_its_own(node):
    driver, network = node.driver(), node.network()
    driver.network_ensure(network)
    source = driver.nic_attach(network, replace(NIC, mac="52:54:00:AB:34:56"), VM, incoming=False)
    assert "<target dev='pvc525400ab3456'/>" in source.inner_xml


def test_nic_parameters_are_refused(node):
    driver, network = node.driver(), node.network()
    driver.network_ensure(network)
    with pytest.raises(DriverError, match="no NIC parameter 'queues'"):
        driver.nic_attach(network, replace(NIC, parameters={"queues": "4"}), VM, incoming=False)


def test_without_the_right_the_driver_is_not_ready(node, monkeypatch):
    monkeypatch.setattr(driver_module, "_CAP_NET_ADMIN", 1 << 63)
    with pytest.raises(NotReady, match="CAP_NET_ADMIN"):
        node.driver().network_preflight()


def test_one_network_made_by_many_threads_at_once_is_made_once(node):
    """Core never does that; a kernel that says "exists" must still not end in two bridges."""
    network = node.network()

    def ensure(_: int) -> bool:
        try:
            return bool(node.driver().network_ensure(network).device)
        except DriverError:
            return False

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ensure, range(8)))
    node.driver().network_ensure(network)
    with Links() as links:
        assert [link.name for link in links.all() if link.name.startswith(("pvc", "pvn"))] == [bridge_name(network.id)]
