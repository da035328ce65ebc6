"""Parameters of networks, the manifest and the configuration section."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from pvc_bridge.config import BridgeConfig
from pvc_bridge.driver import bridge_name
from pvc_bridge.manifest import MANIFEST
from pvc_bridge.parameters import uplink_of, validate_network
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.network import NetworkSpec
from pvc_core.plugin import ConfigError, decode


def _network(mtu=None, **parameters):
    return NetworkSpec(
        id="0d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01", name="lan", driver="bridge", mtu=mtu, parameters=parameters
    )


@pytest.mark.parametrize(("parameters", "uplink"), [({}, None), ({"device": ""}, ""), ({"device": "eth1"}, "eth1")])
def test_a_network_names_a_nic_or_none_or_leaves_it_to_the_node(parameters, uplink):
    assert uplink_of(_network(**parameters)) == uplink


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"devise": "eth1"}, "did you mean 'device'"),
        ({"vlan": 5}, "no parameter 'vlan'"),
        ({"device": "a name that is too long"}, "not the name of a NIC"),
        ({"device": "eth/1"}, "not the name of a NIC"),
        ({"device": "eth1\n"}, "not the name of a NIC"),
        ({"device": "lo"}, "not the name of a NIC"),
        ({"device": 1}, "not the name of a NIC"),
        ({"device": ["eth1"]}, "not the name of a NIC"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InvalidRequest, match="network lan") as caught:
        validate_network(_network(**parameters))
    assert message in str(caught.value)


@pytest.mark.parametrize("mtu", [575, 65536])
def test_an_impossible_mtu_is_refused(mtu):
    with pytest.raises(InvalidRequest, match="not from 576 to 65535"):
        validate_network(_network(mtu))


def test_a_good_network_passes():
    validate_network(_network(9000, device="eth1"))


def test_the_name_of_a_bridge_fits_the_kernel():
    assert bridge_name("0d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01") == "pvcbr0d0f1c523a"


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
    with pytest.raises(ConfigError, match="devise"):
        decode({"devise": "eth1"}, BridgeConfig, "plugins.bridge")
