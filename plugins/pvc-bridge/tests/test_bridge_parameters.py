"""Parameters of networks, the manifest and the configuration section."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from pvc_bridge.config import BridgeConfig
from pvc_bridge.manifest import MANIFEST
from pvc_bridge.names import bridge_name, filter_name, inner_name, outer_name, tap_name, vlan_name
from pvc_bridge.parameters import BridgeNetwork, parsed, validate_network
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import ConfigError, decode


def _network(mtu=None, *, id="0d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01", name="lan", deleting=False, **parameters):
    return NetworkSpec(id=id, name=name, driver="bridge", mtu=mtu, parameters=parameters, deleting=deleting)


def _other(deleting=False, **parameters):
    return _network(id="1e0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a02", name="dmz", deleting=deleting, **parameters)


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({}, BridgeNetwork()),
        ({"device": ""}, BridgeNetwork(device="")),
        ({"device": "none"}, BridgeNetwork(device="")),
        ({"device": "eth1"}, BridgeNetwork(device="eth1")),
        ({"vlan": 1}, BridgeNetwork(vlan=1)),
        ({"device": "eth1", "vlan": 4094}, BridgeNetwork(device="eth1", vlan=4094)),
        ({"trunk": False, "vlan": 5}, BridgeNetwork(vlan=5)),
        ({"trunk": True}, BridgeNetwork(everything=True)),
        ({"trunk": 7}, BridgeNetwork(trunk=((7, 7),))),
        ({"trunk": "10-20"}, BridgeNetwork(trunk=((10, 20),))),
        ({"trunk": ["30", "10-20", "21", "15-16"]}, BridgeNetwork(trunk=((10, 21), (30, 30)))),
    ],
)
def test_parameters_say_what_frames_a_network_has(parameters, wanted):
    assert parsed(_network(**parameters)) == wanted


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"devise": "eth1"}, "did you mean 'device'"),
        ({"vlans": 5}, "did you mean 'vlan'"),
        ({"device": "a name that is too long"}, "not the name of a NIC"),
        ({"device": "eth/1"}, "not the name of a NIC"),
        ({"device": "eth1\n"}, "not the name of a NIC"),
        ({"device": "lo"}, "not the name of a NIC"),
        ({"device": 1}, "not the name of a NIC"),
        ({"device": ["eth1"]}, "not the name of a NIC"),
        ({"vlan": 0}, "not a number from 1 to 4094"),
        ({"vlan": 4095}, "not a number from 1 to 4094"),
        ({"vlan": True}, "not a number from 1 to 4094"),
        ({"vlan": "100"}, "not a number from 1 to 4094"),
        ({"vlan": 5, "trunk": True}, "exclude each other"),
        ({"vlan": 5, "trunk": ["6"]}, "exclude each other"),
        ({"device": "", "vlan": 5}, "without a device it has no vlan"),
        ({"device": "none", "trunk": True}, "without a device it has no trunk"),
        ({"trunk": []}, "empty list"),
        ({"trunk": "yes"}, "neither true nor a VLAN"),
        ({"trunk": ["0"]}, "neither true nor a VLAN"),
        ({"trunk": ["20-10"]}, "neither true nor a VLAN"),
        ({"trunk": ["10", "4095"]}, "neither true nor a VLAN"),
        ({"trunk": [True]}, "neither true nor a VLAN"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InvalidRequest, match="network lan") as caught:
        validate_network(_network(**parameters), [])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"vlan": 5}, {"vlan": 5}),
        ({"device": "eth1", "vlan": 5}, {"device": "eth1", "vlan": 5}),
        ({"device": "eth1"}, {"device": "eth1"}),
        ({"device": "eth1", "trunk": True}, {"device": "eth1"}),
    ],
)
def test_two_networks_cannot_have_the_same_frames(one, other):
    with pytest.raises(InvalidRequest, match=r"network lan: .* are network dmz's"):
        validate_network(_network(**one), [_other(**other)])
    with pytest.raises(InvalidRequest, match="being removed"):
        validate_network(_network(**one), [_other(deleting=True, **other)])
    # A network is no obstacle for itself, when it is changed.
    assert validate_network(_network(**one), [_network(**other)]) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"vlan": 5}, {"vlan": 6}),
        ({"vlan": 5}, {}),
        ({"device": "eth1", "vlan": 5}, {"device": "eth2", "vlan": 5}),
        ({"device": "eth1", "vlan": 5}, {"device": "eth1", "trunk": True}),
        ({"device": "eth1", "trunk": ["5", "6"]}, {"device": "eth1", "vlan": 5}),
        ({"device": "eth1", "trunk": ["5", "6"]}, {"device": "eth1", "trunk": ["5", "6"]}),
        ({"device": ""}, {"device": "none"}),
        ({"device": ""}, {}),
        ({}, {"unknown": 1}),
    ],
)
def test_networks_with_frames_of_their_own_are_side_by_side(one, other):
    assert validate_network(_network(**one), [_other(**other)]) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [({"vlan": 5}, {"device": "eth1", "vlan": 5}), ({"device": "eth1"}, {}), ({}, {})],
)
def test_networks_that_may_have_the_same_frames_on_some_node_are_warned_of(one, other):
    (warning,) = validate_network(_network(**one), [_other(**other)])
    assert "network dmz" in warning


@pytest.mark.parametrize("mtu", [575, 65536])
def test_an_impossible_mtu_is_refused(mtu):
    with pytest.raises(InvalidRequest, match="not from 576 to 65535"):
        validate_network(_network(mtu), [])


def test_a_good_network_passes():
    assert validate_network(_network(9000, device="eth1", vlan=7), []) == ()


def test_names_fit_the_kernel():
    network = "0d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
    assert bridge_name(network) == "pvcbr0d0f1c523a"
    assert tap_name("52:54:00:AB:cd:ef") == "pvc525400abcdef"
    names = [name(network) for name in (bridge_name, vlan_name, inner_name, outer_name)] + [filter_name("eth1")]
    assert len(set(names)) == 5
    assert {len(name) for name in names} == {15}


def test_the_manifest_and_the_entry_points_agree():
    (found,) = entry_points(group="pvc.plugin", name="bridge")
    assert found.load() is MANIFEST
    assert {point.name for point in entry_points(group="pvc.network") if point.dist.name == "pvc-bridge"} == {"bridge"}
    assert MANIFEST.network == ("bridge",)
    for target in (MANIFEST.config, *MANIFEST.validators.values()):
        module, _, name = target.partition(":")
        assert getattr(importlib.import_module(module), name)


def test_manifest_and_validator_import_no_netlink():
    code = (
        "import sys, pvc_bridge.manifest, pvc_bridge.parameters; "
        "print(*(m for m in sys.modules if m.startswith(('pvc_bridge.', 'pyroute2', 'pluggy'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert sorted(out.split()) == ["pvc_bridge.manifest", "pvc_bridge.parameters"]


def test_the_section_is_decoded_strictly():
    assert decode({"device": "eth1"}, BridgeConfig, "plugins.bridge").device == "eth1"
    with pytest.raises(ConfigError, match="vlan_mode"):
        decode({"vlan_mode": "sub"}, BridgeConfig, "plugins.bridge")
    with pytest.raises(ConfigError, match="devise"):
        decode({"devise": "eth1"}, BridgeConfig, "plugins.bridge")
