"""Parameters of a device, the manifest and the configuration section."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import FenceDevice
from pvc_core.plugin import ConfigError, decode
from pvc_fence_ipmi.config import FenceIpmiConfig
from pvc_fence_ipmi.manifest import MANIFEST
from pvc_fence_ipmi.parameters import Device, device, validate_device

GOOD = {"address": "10.0.9.1", "user": "pvc", "password_file": "/etc/pvc/secrets/bmc"}


def test_what_is_left_out_has_a_default():
    assert device(GOOD) == Device(
        address="10.0.9.1",
        user="pvc",
        password_file="/etc/pvc/secrets/bmc",
        port=623,
        cipher_suite=17,
        privilege="operator",
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"address": "bmc-hv1.mgmt.example.org"},
        {"address": "hv1"},
        {"address": "2001:db8::1"},
        {"address": "fe80::1%eth1"},
        {"port": "6230", "cipher_suite": "3", "privilege": "administrator"},
        {"user": "a name of 16 let"},
    ],
)
def test_good_parameters_pass(parameters):
    validate_device(FenceDevice(driver="ipmi", parameters=GOOD | parameters))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"adress": "10.0.9.1"}, "did you mean 'address'"),
        ({"password": "secret"}, "did you mean 'password_file'"),
        ({"address": ""}, "needs the parameter 'address'"),
        ({"user": ""}, "needs the parameter 'user'"),
        ({"password_file": ""}, "needs the parameter 'password_file'"),
        ({"address": "10.0.9.300"}, "neither an IP address nor a host name"),
        ({"address": "-H"}, "neither an IP address nor a host name"),
        ({"address": "10.0.9.1\n"}, "neither an IP address nor a host name"),
        ({"address": "two words"}, "neither an IP address nor a host name"),
        ({"address": "a" * 64}, "neither an IP address nor a host name"),
        ({"address": "fe80::1%a b"}, "neither an IP address nor a host name"),
        ({"address": "fe80::1%"}, "neither an IP address nor a host name"),
        ({"address": "a..b"}, "neither an IP address nor a host name"),
        ({"port": "0"}, "UDP port from 1 to 65535"),
        ({"port": "65536"}, "UDP port from 1 to 65535"),
        ({"port": "623 "}, "UDP port from 1 to 65535"),
        ({"port": "6" * 5000}, "UDP port from 1 to 65535"),
        ({"port": "²"}, "UDP port from 1 to 65535"),
        ({"port": 623}, "is not text"),
        ({"user": "a" * 17}, "1 to 16 printable"),
        ({"user": "Jürgen"}, "1 to 16 printable"),
        ({"user": "a\tb"}, "1 to 16 printable"),
        ({"password_file": "secrets/bmc"}, "not an absolute path"),
        ({"password_file": "/etc/pvc/../bmc"}, "as '/etc/bmc'"),
        ({"password_file": "/etc/pvc/bmc\n"}, "not an absolute path"),
        ({"cipher_suite": "0"}, "2, 3, 7, 8, 16, 17"),
        ({"cipher_suite": "1"}, "2, 3, 7, 8, 16, 17"),
        ({"cipher_suite": "12"}, "2, 3, 7, 8, 16, 17"),
        ({"cipher_suite": "three"}, "2, 3, 7, 8, 16, 17"),
        ({"privilege": "user"}, "may look, but not switch"),
        ({"privilege": "callback"}, "may look, but not switch"),
        ({"privilege": "admin"}, "is not one of operator, administrator"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(InvalidRequest) as caught:
        validate_device(FenceDevice(driver="ipmi", parameters=GOOD | parameters))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["address", "user", "password_file"])
def test_what_is_needed_is_said(name):
    with pytest.raises(InvalidRequest, match=f"needs the parameter '{name}'"):
        device({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({}, "10.0.9.1"),
        ({"port": "6230"}, "10.0.9.1:6230"),
        ({"address": "2001:db8::1"}, "2001:db8::1"),
        ({"address": "2001:db8::1", "port": "6230"}, "[2001:db8::1]:6230"),
    ],
)
def test_messages_say_which_bmc(parameters, place):
    assert device(GOOD | parameters).place == place


def test_the_manifest_and_the_entry_points_agree():
    (found,) = entry_points(group="pvc.plugin", name="fence-ipmi")
    assert found.load() is MANIFEST
    assert {point.name for point in entry_points(group="pvc.fencing") if point.dist.name == "pvc-fence-ipmi"} == {
        "ipmi"
    }
    assert MANIFEST.fencing == ("ipmi",)
    for target in (MANIFEST.config, *MANIFEST.validators.values()):
        module, _, name = target.partition(":")
        assert getattr(importlib.import_module(module), name)


def test_manifest_and_validator_import_nothing_of_the_driver():
    code = (
        "import sys, pvc_fence_ipmi.manifest, pvc_fence_ipmi.parameters; "
        "print(*(m for m in sys.modules if m.startswith(('pvc_fence_ipmi.', 'pluggy', 'socket', 'subprocess'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert sorted(out.split()) == ["pvc_fence_ipmi.manifest", "pvc_fence_ipmi.parameters"]


def test_the_section_is_decoded_strictly():
    assert decode({"answer_timeout": 2}, FenceIpmiConfig, "plugins.fence-ipmi").answer_timeout == 2
    for wrong in ({"answer_timeout": 0}, {"answer_timeout": 1.5}, {"power_timeout": 60}, {"ipmitol": "ipmitool"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            decode(wrong, FenceIpmiConfig, "plugins.fence-ipmi")
