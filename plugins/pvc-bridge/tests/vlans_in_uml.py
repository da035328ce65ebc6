"""VLANs with real frames.  Not collected here: ``test_bridge_vlans_uml.py`` runs it in a kernel that has 802.1Q."""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from vlan_site import Site

from pvc_bridge.driver import BridgeDriver
from pvc_bridge.names import bridge_name, filter_name, outer_name, vlan_name
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import DriverError
from pvc_core.testkit.contracts.network import NetworkContract
from pvc_netdev.links import Links

MODES = ("subinterface", "filtering")
IN_BOTH_MODES = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


@IN_BOTH_MODES
def test_guests_of_one_vlan_reach_each_other_and_no_others(site, mode):
    first, second = (site.network(f"lan{vlan}", device="eth1", vlan=vlan) for vlan in (100, 200))
    for network in (first, second):
        site.everywhere(network, vlan_mode=mode)
    one, two = site.nodes
    a = one.guest(bridge_name(first.id), "10.0.0.1")
    two.guest(bridge_name(first.id), "10.0.0.2")
    two.guest(bridge_name(second.id), "10.0.0.3")
    b = one.guest(bridge_name(second.id), "10.0.0.4")
    site.stranger("10.0.0.5", vlan=100)
    site.stranger("10.0.0.6")
    assert a.reaches("10.0.0.2")
    assert a.reaches("10.0.0.5")
    assert b.reaches("10.0.0.3")
    for address in ("10.0.0.3", "10.0.0.4", "10.0.0.6"):
        assert a.is_kept_from(address)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.5"):
        assert b.is_kept_from(address)


@IN_BOTH_MODES
def test_untagged_network_and_vlans_share_a_device(site, mode):
    untagged, vlan = site.network("plain", device="eth1"), site.network("lan", device="eth1", vlan=100)
    for network in (untagged, vlan):
        site.everywhere(network, vlan_mode=mode)
    one, two = site.nodes
    plain = one.guest(bridge_name(untagged.id), "10.0.0.1")
    two.guest(bridge_name(untagged.id), "10.0.0.2")
    tagged = one.guest(bridge_name(vlan.id), "10.0.0.3")
    two.guest(bridge_name(vlan.id), "10.0.0.4")
    site.stranger("10.0.0.5")
    assert plain.reaches("10.0.0.2")
    assert plain.reaches("10.0.0.5")
    assert tagged.reaches("10.0.0.4")
    for address in ("10.0.0.3", "10.0.0.4"):
        assert plain.is_kept_from(address)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.5"):
        assert tagged.is_kept_from(address)
    # Nor by a tag of its own.
    plain.tagged("eth0", 100, "10.1.0.1")
    plain.tagged("eth0", 300, "10.3.0.1")
    site.stranger("10.1.0.2", vlan=100)
    site.stranger("10.3.0.2", vlan=300)
    for address in ("10.1.0.2", "10.3.0.2"):
        assert plain.is_kept_from(address)
    # In whatever order they come and go.
    site.unplug_guests()
    site.nowhere(untagged, vlan_mode=mode)
    again = one.guest(bridge_name(vlan.id), "10.0.0.6")
    two.guest(bridge_name(vlan.id), "10.0.0.7")
    assert again.reaches("10.0.0.7")


@IN_BOTH_MODES
def test_trunk_of_everything_brings_all_frames_as_they_are(site, mode):
    network = site.network("trunk", device="eth1", trunk=True)
    site.everywhere(network, vlan_mode=mode)
    guest = site.nodes[0].guest(bridge_name(network.id), "10.0.0.1")
    guest.tagged("eth0", 300, "10.3.0.1")
    guest.tagged("eth0", 4000, "10.4.0.1")
    site.stranger("10.0.0.2")
    site.stranger("10.3.0.2", vlan=300)
    site.stranger("10.4.0.2", vlan=4000)
    for address in ("10.0.0.2", "10.3.0.2", "10.4.0.2"):
        assert guest.reaches(address)
    site.unplug_guests()
    site.nowhere(network, vlan_mode=mode)


def test_trunk_of_some_vlans_brings_these_with_their_tags_alone(site):
    trunk = site.network("trunk", device="eth1", trunk=["100", "300-302"])
    vlan = site.network("lan", device="eth1", vlan=100)
    untagged = site.network("plain", device="eth1")
    for network in (trunk, vlan, untagged):
        site.everywhere(network, vlan_mode="filtering")
    guest = site.nodes[0].guest(bridge_name(trunk.id), "10.0.0.1")
    plain = site.nodes[0].guest(bridge_name(untagged.id), "10.0.0.3")
    for number in (100, 301, 303):
        guest.tagged("eth0", number, f"10.{number - 99}.0.1")
        site.stranger(f"10.{number - 99}.0.2", vlan=number)
    site.stranger("10.0.0.2")
    # As on a switch: the access port of a VLAN that the trunk has too.
    site.nodes[0].guest(bridge_name(vlan.id), "10.1.0.3")
    assert plain.reaches("10.0.0.2")
    for address in ("10.1.0.2", "10.1.0.3", "10.202.0.2"):
        assert guest.reaches(address)
    for address in ("10.204.0.2", "10.0.0.2", "10.0.0.3"):
        assert guest.is_kept_from(address)


@IN_BOTH_MODES
def test_guest_of_a_vlan_cannot_send_into_another_by_a_tag_of_its_own(site, mode):
    names = [
        site.everywhere(site.network(f"lan{vlan}", device="eth1", vlan=vlan), vlan_mode=mode) for vlan in (100, 200)
    ]
    guest = site.nodes[0].guest(names[0], "10.0.0.1")
    site.stranger("10.0.0.2", vlan=100)
    assert guest.reaches("10.0.0.2")
    for vlan in (100, 200):
        guest.tagged("eth0", vlan, f"10.{vlan}.0.1")
        site.stranger(f"10.{vlan}.0.2", vlan=vlan)
        assert guest.is_kept_from(f"10.{vlan}.0.2")


@IN_BOTH_MODES
def test_vlan_of_a_live_network_is_changed_under_its_guests(site, mode):
    network = site.network(device="eth1", vlan=100)
    name = site.everywhere(network, vlan_mode=mode)
    index = site.nodes[0].link(name).index
    guest = site.nodes[0].guest(name, "10.0.0.1")
    site.nodes[1].guest(name, "10.0.0.2")
    site.stranger("10.0.0.3", vlan=100)
    site.stranger("10.0.0.4", vlan=200)
    assert guest.reaches("10.0.0.2")
    assert guest.reaches("10.0.0.3")
    assert guest.is_kept_from("10.0.0.4")
    site.everywhere(replace(network, parameters={"device": "eth1", "vlan": 200}, generation=2), vlan_mode=mode)
    assert guest.reaches("10.0.0.2")
    assert guest.reaches("10.0.0.4")
    assert guest.is_kept_from("10.0.0.3")
    assert site.nodes[0].link(name).index == index


@IN_BOTH_MODES
def test_every_kind_of_network_becomes_every_other_under_its_guests(site, mode):
    kinds = [{"vlan": 100}, {}, {"trunk": True}]
    if mode == "filtering":
        kinds.append({"trunk": ["100", "200"]})
    before = site.nodes[0].devices()
    network = site.network(device="eth1")
    name = site.everywhere(network, vlan_mode=mode)
    guest = site.nodes[0].guest(name, "10.0.0.1")
    guest.tagged("eth0", 100, "10.1.0.1")
    site.stranger("10.0.0.2")
    site.stranger("10.1.0.2", vlan=100)
    site.stranger("10.0.0.3", vlan=100, nic="eth2")
    for generation, (one, other) in enumerate(itertools.permutations(kinds, 2)):
        for kind in (one, other):
            parameters = {"device": "eth1", **kind}
            site.everywhere(replace(network, parameters=parameters, generation=generation), vlan_mode=mode)
        if other in ({}, {"trunk": True}):
            assert guest.reaches("10.0.0.2")
        if "trunk" in other:
            assert guest.reaches("10.1.0.2")
        if other == {}:
            assert guest.is_kept_from("10.1.0.2")
    site.everywhere(replace(network, parameters={"device": "eth2", "vlan": 100}), vlan_mode=mode)
    assert guest.reaches("10.0.0.3")
    assert site.nodes[0].link("eth1").master == 0
    site.everywhere(replace(network, parameters={"device": "none"}), vlan_mode=mode)
    site.unplug_guests()
    assert site.nodes[0].devices().keys() - before.keys() == {name}
    site.nowhere(network, vlan_mode=mode)
    assert site.nodes[0].devices() == before


@IN_BOTH_MODES
def test_large_frames_pass_with_their_tag_up_to_the_networks_mtu(site, mode):
    network = site.network(device="eth1", vlan=100)
    for node in site.nodes:
        with pytest.raises(DriverError, match="ip link set eth1 mtu 9000"):
            node.do(node.driver(vlan_mode=mode).network_ensure, replace(network, mtu=9000))
        node.set("eth1", mtu=9000)
    name = site.everywhere(replace(network, mtu=8000), vlan_mode=mode)
    guest = site.nodes[0].guest(name, "10.0.0.1")
    site.nodes[1].guest(name, "10.0.0.2")
    assert guest.reaches("10.0.0.2", size=8000 - 28)
    assert not guest.pings("10.0.0.2", size=8000 - 27)
    # Smaller, larger, and the uplink's own, with the guests plugged in.
    for mtu, found in ((1400, 1400), (8500, 8500), (None, 9000)):
        site.everywhere(replace(network, mtu=mtu), vlan_mode=mode)
        devices = site.nodes[0].devices()
        ours = [device for device in devices if device.startswith("pvc") and device != filter_name("eth1")]
        assert {devices[device][2] for device in [*ours, f"tap-{guest.short}"]} == {found}
    assert site.nodes[0].link("eth1").mtu == 9000
    # An uplink whose frames end at 1500 carries frames of 1500 with a tag on top.
    for node in site.nodes:
        node.set("eth1", mtu=1500)
    site.everywhere(replace(network, mtu=None), vlan_mode=mode)
    for machine in site.machines:
        if machine.short.startswith("g"):
            with Links(machine.namespace) as links:
                links.set(links.get("eth0"), "mtu", mtu=1500)
    assert guest.reaches("10.0.0.2", size=1500 - 28)


@IN_BOTH_MODES
def test_restarted_daemon_adopts_everything(site, mode):
    networks = [
        site.network("lan", device="eth1", vlan=100),
        site.network("plain", device="eth1"),
        site.network("default", vlan=300),
    ]
    config = {"vlan_mode": mode, "device": "eth2"}
    for network in networks:
        site.everywhere(network, **config)
    guest = site.nodes[0].guest(bridge_name(networks[0].id), "10.0.0.1")
    site.nodes[1].guest(bridge_name(networks[0].id), "10.0.0.2")
    assert guest.reaches("10.0.0.2")
    before = site.nodes[0].devices()
    node = site.nodes[0]
    assert node.do(node.driver(**config).network_list) == sorted(network.id for network in networks)
    for network in networks:
        node.do(node.driver(**config).network_ensure, network)
    assert node.devices() == before
    assert guest.reaches("10.0.0.2")


@IN_BOTH_MODES
def test_removed_networks_leave_nothing(site, mode):
    networks = [site.network(f"lan{vlan}", device="eth1", vlan=vlan) for vlan in (100, 200)]
    networks.append(site.network("plain", device="eth1"))
    before = [node.devices() for node in site.nodes]
    for network in networks:
        site.everywhere(network, vlan_mode=mode)
    for network in networks:
        site.nowhere(network, vlan_mode=mode)
        # The others go on, and only the removed one's parts are gone.
        assert not [device for device in site.nodes[0].devices() if network.id.replace("-", "")[:10] in device]
    assert [node.devices() for node in site.nodes] == before
    for node in site.nodes:
        assert node.do(node.driver(vlan_mode=mode).network_list) == []
        assert node.link("eth1").up


def test_uplink_passes_exactly_the_vlans_of_the_networks_here(site):
    node = site.nodes[0]
    networks = {
        100: site.network("lan", device="eth1", vlan=100),
        4094: site.network("plain", device="eth1"),
        7: site.network("trunk", device="eth1", trunk=["7", "8"]),
    }

    def passed():
        with Links(node.namespace) as links:
            return links.port_vlan_tags(links.get("eth1"))

    for network in networks.values():
        node.do(node.driver(vlan_mode="filtering").network_ensure, network)
    assert passed() == {100: True, 4094: False, 7: True, 8: True}
    node.do(node.driver(vlan_mode="filtering").network_remove, networks[7])
    assert passed() == {100: True, 4094: False}
    node.do(node.driver(vlan_mode="filtering").network_remove, networks[4094])
    assert passed() == {100: True}
    node.do(
        node.driver(vlan_mode="filtering").network_ensure,
        replace(networks[100], parameters={"device": "eth1", "trunk": True}),
    )
    assert len(passed()) == 4094
    assert not passed()[4094]
    node.do(node.driver(vlan_mode="filtering").network_remove, networks[100])
    assert passed() == {}
    assert node.link(filter_name("eth1")) is None


def test_vlan_device_of_somebody_else_is_left_alone(site):
    node, network = site.nodes[0], site.network(device="eth1", vlan=100)
    with Links(node.namespace) as links:
        links.add_vlan("eth1.100", links.get("eth1"), 100)
    before = node.devices()
    with pytest.raises(DriverError, match=r"VLAN 100 of eth1 is device eth1\.100 already; it is not ours") as caught:
        node.do(node.driver().network_ensure, network)
    assert not caught.value.retryable
    node.do(node.driver().network_remove, network)
    assert node.devices() == before


@IN_BOTH_MODES
def test_devices_in_the_way_are_left_alone(site, mode):
    node, network = site.nodes[0], site.network(device="eth1", vlan=100)
    name = filter_name("eth1") if mode == "filtering" else vlan_name(network.id)
    for taken in (name, bridge_name(network.id)):
        with Links(node.namespace) as links:
            links.add_bridge(taken)
        before = node.devices()
        with pytest.raises(DriverError, match=f"{taken}, a bridge, that is not ours"):
            node.do(node.driver(vlan_mode=mode).network_ensure, network)
        node.do(node.driver(vlan_mode=mode).network_remove, network)
        assert node.devices() == before
        with Links(node.namespace) as links:
            links.delete(links.get(taken))


def test_host_keeps_its_own_use_of_a_device_whose_vlans_are_the_guests(site):
    network = site.network(device="eth1", vlan=100)
    for number, node in enumerate(site.nodes, 1):
        with Links(node.namespace) as links:
            links.add_address(links.get("eth1"), f"10.0.0.{number}/24")
        with pytest.raises(DriverError, match="in vlan_mode subinterface its VLANs can be used nevertheless"):
            node.do(node.driver(vlan_mode="filtering").network_ensure, network)
    name = site.everywhere(network)
    guest = site.nodes[0].guest(name, "10.1.0.1")
    site.nodes[1].guest(name, "10.1.0.2")
    assert guest.reaches("10.1.0.2")
    ping = ["ping", "-q", "-c1", "-W2", "10.0.0.2"]
    assert site.nodes[0].do(subprocess.run, ping, check=False, capture_output=True).returncode == 0


@IN_BOTH_MODES
def test_vlan_of_one_network_is_not_given_to_another(site, mode):
    node = site.nodes[0]
    first = site.network("lan", device="eth1", vlan=100)
    node.do(node.driver(vlan_mode=mode).network_ensure, first)
    before = node.devices()
    config = {"vlan_mode": mode, "device": "eth1"}
    with pytest.raises(DriverError, match=f"VLAN 100 of eth1 is .*{first.id}"):
        node.do(node.driver(**config).network_ensure, site.network("dmz", vlan=100))
    assert node.devices() == before
    node.do(node.driver(**config).network_ensure, site.network("plain", device="eth1"))
    with pytest.raises(DriverError, match="eth1"):
        node.do(node.driver(**config).network_ensure, site.network("plain2"))


def test_nodes_change_from_one_mode_to_the_other(site):
    networks = [site.network("lan", device="eth1", vlan=100), site.network("plain", device="eth1")]
    guests = []
    for network in networks:
        name = site.everywhere(network)
        guests.append(site.nodes[0].guest(name, "10.0.0.1"))
        site.nodes[1].guest(name, "10.0.0.2")
    for order, mode in ((1, "filtering"), (1, "subinterface"), (-1, "filtering"), (-1, "subinterface")):
        for network in networks[::order]:
            site.everywhere(network, vlan_mode=mode)
        for guest in guests:
            assert guest.reaches("10.0.0.2")
        left = [name for name in site.nodes[0].devices() if name.startswith(("pvcvl", "pvcco", "pvcci", "pvcfb"))]
        assert len(left) == (1 if mode == "subinterface" else 5)
        node = site.nodes[0]
        for network in networks:
            assert all(found.ok for found in node.do(node.driver(vlan_mode=mode).network_check, network))


def test_filtering_bridge_that_a_dead_daemon_left_goes_with_the_next(site):
    node, network = site.nodes[0], site.network(device="eth1", vlan=100)
    before = node.devices()
    for mode in MODES:
        node.do(node.driver(vlan_mode="filtering").network_ensure, network)
        with Links(node.namespace) as links:
            links.delete(links.get(outer_name(network.id)))
        node.do(node.driver(vlan_mode=mode).network_ensure, replace(network, parameters={"device": "none"}))
        assert node.link(filter_name("eth1")) is None
        assert node.link("eth1").master == 0
        node.do(node.driver(vlan_mode=mode).network_remove, network)
        assert node.devices() == before


def findings(node, mode, network):
    found = node.do(node.driver(vlan_mode=mode).network_check, network)
    return {finding.check: finding.message for finding in found if not finding.ok}


def test_findings_name_what_is_wrong_with_a_vlan_device(site):
    node, network = site.nodes[0], site.network(device="eth1", vlan=100)
    name, device = bridge_name(network.id), vlan_name(network.id)
    assert "does not exist" in findings(node, "subinterface", network)["bridge"]

    def repaired():
        node.do(node.driver().network_ensure, network)
        return findings(node, "subinterface", network) == {}

    assert repaired()
    node.set(device, master=0)
    assert findings(node, "subinterface", network) == {"vlan": f"{device} is not in {name}"}
    assert repaired()
    node.set(device, state="down")
    assert findings(node, "subinterface", network)["vlan"] == f"{device} is down"
    assert repaired()
    node.set(device, mtu=1300)
    assert findings(node, "subinterface", network) == {"mtu": f"1500 is wanted, but {name} has 1300, {device} has 1300"}
    assert repaired()
    changed = replace(network, parameters={"device": "eth1", "vlan": 101})
    assert "not VLAN 101 of eth1" in findings(node, "subinterface", changed)["vlan"]
    with Links(node.namespace) as links:
        links.delete(links.get(device))
    assert findings(node, "subinterface", network) == {"vlan": f"{device} does not exist"}
    assert repaired()


def test_findings_tell_whether_tags_are_kept_out(site):
    node, network = site.nodes[0], site.network(device="eth1")
    name = node.do(node.driver().network_ensure, network).device
    assert findings(node, "subinterface", network) == {}
    node.set(name, kind="bridge", br_vlan_filtering=0)
    assert findings(node, "subinterface", network) == {"vlan": f"all frames pass {name}, which is not wanted"}
    trunk = replace(network, parameters={"device": "eth1", "trunk": True})
    assert findings(node, "subinterface", trunk) == {}
    node.do(node.driver().network_ensure, network)
    assert findings(node, "subinterface", network) == {}
    said = f"frames without a tag alone pass {name}, which is not wanted"
    assert findings(node, "subinterface", trunk) == {"vlan": said}


def test_findings_name_what_is_wrong_with_a_filtering_bridge(site):
    node, network = site.nodes[0], site.network(device="eth1", vlan=100)
    outer, filtering = outer_name(network.id), filter_name("eth1")

    def repaired():
        node.do(node.driver(vlan_mode="filtering").network_ensure, network)
        return findings(node, "filtering", network) == {}

    assert repaired()
    node.set("eth1", master=0)
    assert findings(node, "filtering", network)["uplink"] == f"eth1 is not in {filtering}"
    assert repaired()
    with Links(node.namespace) as links:
        links.remove_port_vlan(links.get("eth1"), 100)
    assert findings(node, "filtering", network) == {"vlan": "eth1 does not pass VLANs 100"}
    assert repaired()
    with Links(node.namespace) as links:
        links.add_port_vlan(links.get(outer), 200)
    assert findings(node, "filtering", network) == {
        "vlan": f"{outer} passes VLANs 200, 100 without tags, not 100 without tags"
    }
    assert repaired()
    with Links(node.namespace) as links:
        links.delete(links.get(outer))
    assert "does not exist" in findings(node, "filtering", network)["vlan"]
    assert repaired()
    with Links(node.namespace) as links:
        links.delete(links.get(filtering))
    assert f"{filtering} does not exist" in findings(node, "filtering", network)["vlan"]
    assert repaired()


class Killed(BaseException):
    """A daemon that is gone."""


@IN_BOTH_MODES
def test_daemon_killed_at_any_step_is_finished_by_the_next(site, mode, monkeypatch):
    """It dies before its n-th change of the kernel; n grows until it survives."""
    left = 1 << 30
    real = {
        name: getattr(Links, name)
        for name in (
            "add_bridge",
            "add_vlan",
            "add_veth",
            "set",
            "delete",
            "add_port_vlan",
            "add_port_vlans",
            "remove_port_vlans",
        )
    }

    def dying(name):
        def call(self, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real[name](self, *args, **kwargs)

        return call

    def survived(count, call, network):
        nonlocal left
        left = count
        try:
            node.do(call, network)
        except Killed:
            return False
        finally:
            left = 1 << 30
        return True

    node = site.nodes[0]
    before = node.devices()
    for name in real:
        monkeypatch.setattr(Links, name, dying(name))
    for count in range(60):
        network = site.network(device="eth1", vlan=100)
        driver = node.driver(vlan_mode=mode)
        alive = survived(count, driver.network_ensure, network)
        node.do(driver.network_ensure, network)
        assert findings(node, mode, network) == {}
        changed = replace(network, parameters={"device": "eth2", "vlan": 7})
        alive &= survived(count, driver.network_ensure, changed)
        node.do(driver.network_ensure, changed)
        assert findings(node, mode, changed) == {}
        assert node.link("eth1").master == 0
        alive &= survived(count, driver.network_remove, network)
        if node.do(driver.network_list):
            node.do(driver.network_remove, network)
        assert node.devices() == before
        if alive:
            assert count > 8
            return
    pytest.fail("it never ends")


# --- the contract ------------------------------------------------------------------------------------


class VlanBackend:
    secrets = ()

    def __init__(self, mode: str):
        self._site = Site()
        self._mode = mode
        self._vlans = itertools.count(100)

    def driver(self) -> BridgeDriver:
        return InNode(self._site.nodes[0], self._site.nodes[0].driver(vlan_mode=self._mode))

    def network(self, name: str) -> NetworkSpec:
        return self._site.network(name, device="eth1", vlan=next(self._vlans))

    def put_in_the_way(self, network: NetworkSpec) -> Callable[[], bool]:
        node, name = self._site.nodes[0], bridge_name(network.id)
        with Links(node.namespace) as links:
            links.add_bridge(name)
        before = node.link(name)
        return lambda: node.link(name) == before

    def close(self) -> None:
        self._site.close()


class InNode:
    """A driver whose calls are made on a node, by whatever thread."""

    def __init__(self, node, driver):
        self._node = node
        self._driver = driver

    def __getattr__(self, name):
        method = getattr(self._driver, name)
        return lambda *args, **kwargs: self._node.do(method, *args, **kwargs)


class TestVlanDevices(NetworkContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> VlanBackend:
        return VlanBackend("subinterface")


class TestFilteringBridges(NetworkContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> VlanBackend:
        return VlanBackend("filtering")
