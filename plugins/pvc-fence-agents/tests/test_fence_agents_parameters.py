"""Parameters of devices: what is checked anywhere, what with an agent's metadata, the manifest and the section."""

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import FenceDevice
from pvc_core.plugin import ConfigError, decode
from pvc_fence_agents.config import FenceAgentsConfig
from pvc_fence_agents.manifest import MANIFEST
from pvc_fence_agents.metadata import parse
from pvc_fence_agents.parameters import given, is_secret, validate_device
from pvc_fence_agents.request import checked, request


def _validate(**parameters):
    validate_device(FenceDevice(driver="agent", parameters=parameters))


@pytest.fixture
def fake(agent_xml):
    return parse("fence_fake", agent_xml("fence_fake"))


def _lines(agent, **parameters):
    return request(agent, {"agent": agent.name, **parameters}).stdin("off").decode().splitlines()


# --- anywhere ---------------------------------------------------------------------------------------


def test_a_device_is_checked_where_no_agent_is_installed():
    _validate(agent="fence_apc_snmp", ip="10.0.0.1", plug="7", community_file="/etc/pvc/pdu1.community")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the parameter 'agent'"),
        ({"agent": "apc"}, "not the name of a fence agent"),
        ({"agent": "/usr/sbin/fence_apc"}, "give no path"),
        ({"agent": "fence_../../bin/sh"}, "not the name of a fence agent"),
        ({"agent": "fence_apc\n"}, "not the name of a fence agent"),
        ({"agent": "fence_APC"}, "not the name of a fence agent"),
        ({"password": "hush"}, "give password_file=/path/of/that/file"),
        ({"passwd": "hush"}, "'passwd' is a secret"),
        ({"snmp_priv_passwd": "hush"}, "'snmp_priv_passwd' is a secret"),
        ({"snmp-priv-passwd": "hush"}, "'snmp-priv-passwd' is a secret"),
        ({"community": "private"}, "'community' is a secret"),
        ({"apikey": "x"}, "'apikey' is a secret"),
        ({"secret_key": "x"}, "'secret_key' is a secret"),
        ({"token": "x"}, "'token' is a secret"),
        ({"hexadecimal_kg": "00"}, "'hexadecimal_kg' is a secret"),
        ({"password_file": "pw"}, "not the absolute path"),
        ({"password_file": ""}, "is empty"),
        ({"password_script": "/bin/pw"}, "run as root"),
        ({"snmp-priv-passwd-script": "/bin/pw"}, "run as root"),
        ({"ssh_path": "/tmp/ssh"}, "run as root"),
        ({"openstack-path": "/tmp/x"}, "run as root"),
        ({"ssh_options": "-o ProxyCommand=x"}, "ssh_config"),
        ({"openrc": "/tmp/x"}, "run as root"),
        ({"exec": "/tmp/x"}, "run as root"),
        ({"action": "off"}, "the driver sets it itself"),
        ({"method": "cycle"}, "the driver sets it itself"),
        ({"verbose": "1"}, "write secrets to a log"),
        ({"verbose-level": "3"}, "write secrets to a log"),
        ({"debug_file": "/tmp/x"}, "write secrets to a log"),
        ({"missing_as_off": "1"}, "taken for dead"),
        ({"missing-as-off": "1"}, "taken for dead"),
        ({"network-fencing": "1"}, "cuts the network, not the power"),
        ({"delay": "5"}, "timing"),
        ({"plug": "1\naction=reboot"}, "line break"),
        ({"plug": "1\raction=reboot"}, "line break"),
        ({"plug": "\udc80"}, "control character"),
        ({"plug": "7,8"}, "add a device for each of them"),
        ({"port": "7,8"}, "add a device for each of them"),
        ({"plug-separator": ";"}, "one outlet"),
        ({"ip": "10.0.0.1 -x"}, "not one word"),
        ({"username": "-oProxyCommand=x"}, "not one word"),
        ({"ip": ""}, "is empty"),
    ],
)
def test_what_may_not_be_given_is_refused(parameters, message):
    whole = parameters if not parameters or "agent" in parameters else {"agent": "fence_apc", **parameters}
    with pytest.raises(InvalidRequest) as caught:
        _validate(**whole)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["username", "identity_file", "tlskey", "snmp_auth_prot", "plug", "auth", "api_path"])
def test_other_parameters_are_no_secrets(name):
    assert not is_secret(name)
    _validate(agent="fence_x", **{name: "/x"})


# --- with metadata ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the parameter 'ip'"),
        ({"ip": "a"}, "needs the parameter 'plug'"),
        ({"ip": "a", "plgu": "1"}, "no parameter 'plgu'; did you mean 'plug'"),
        ({"ip": "a", "colour": "1"}, "it has ip, ipaddr, plug, password_file"),
        ({"ip": "a", "comunity_file": "/x"}, "no parameter 'comunity_file'; did you mean 'community_file'"),
        ({"ip": "a", "passwd_file": "/x"}, "no parameter 'passwd_file'; did you mean 'password_file'"),
        ({"ip": "a", "pin": "4711"}, "'pin' is a secret"),
        ({"ip": "a", "ipaddr": "b"}, "'ip' and 'ipaddr' are the same parameter"),
        ({"ip": "a", "plug": "1", "ssl": "maybe"}, "ssl 'maybe' is neither true nor false"),
        ({"ip": "a", "plug": "1", "ipport": "http"}, "ipport 'http' is not a whole number"),
        ({"ip": "a", "plug": "1", "ipport": "1_000"}, "not a whole number"),
        ({"ip": "a", "plug": "1", "ipport": "٣"}, "not a whole number"),
        ({"ip": "a", "plug": "1", "power_wait": "-1"}, "power_wait '-1' is not a number of seconds"),
        ({"ip": "a", "plug": "1", "version_used": "2"}, "version_used '2' is not one of 1, 2c, V3; did you mean '2c'"),
    ],
)
def test_what_the_agent_would_not_take_is_refused(fake, parameters, message):
    with pytest.raises(InvalidRequest) as caught:
        request(fake, {"agent": "fence_fake", **parameters})
    assert message in str(caught.value)


def test_old_names_of_parameters_are_good(fake):
    assert _lines(fake, ipaddr="192.0.2.1", plug="1") == ["action=off", "ipaddr=192.0.2.1", "plug=1"]


def test_a_file_that_is_the_agents_own_parameter_is_passed_as_it_is(fake):
    assert "key_file=/etc/x.key" in _lines(fake, ip="a", plug="1", key_file="/etc/x.key")


def test_what_an_agent_calls_secret_is_secret(fake, tmp_path):
    (tmp_path / "pin").write_text("4711")
    (tmp_path / "pin").chmod(0o600)
    made = request(fake, {"agent": "fence_fake", "ip": "a", "plug": "1", "pin_file": str(tmp_path / "pin")})
    assert b"pin=4711\n" in made.stdin("status")
    assert made.secrets == ("4711",)
    assert "4711" not in repr(made)


@pytest.mark.parametrize(("value", "line"), [("true", "1"), ("YES", "1"), ("off", None), ("0", None)])
def test_an_option_that_is_false_is_left_out(fake, value, line):
    lines = checked(fake, given({"ip": "a", "plug": "1", "insecure": value}))
    assert lines.get("insecure") == line


def test_metadata_without_details_are_taken(fake):
    xml = (
        '<resource-agent name="x"><parameters><parameter name="plug"/><parameter/></parameters>'
        '<actions><action name="on"/></actions></resource-agent>'
    )
    agent = parse("fence_x", xml)
    assert list(agent.parameters) == ["plug"]
    assert _lines(agent, plug=" ") == ["action=off", 'plug=" "']
    assert agent.actions == {"on"}


# --- the plugin -------------------------------------------------------------------------------------


def test_the_manifest_and_the_entry_points_agree():
    (found,) = entry_points(group="pvc.plugin", name="fence-agents")
    assert found.load() is MANIFEST
    points = {point.name for point in entry_points(group="pvc.fencing") if point.dist.name == "pvc-fence-agents"}
    assert points == set(MANIFEST.fencing) == {"agent"}
    for target in (MANIFEST.config, *MANIFEST.validators.values()):
        module, _, name = target.partition(":")
        assert getattr(importlib.import_module(module), name)


def test_the_manifest_imports_neither_driver_nor_libraries():
    code = (
        "import sys, pvc_fence_agents.manifest; "
        "print(*(m for m in sys.modules if m.startswith(('pvc_fence_agents.', 'pluggy', 'xml'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["pvc_fence_agents.manifest"]


def test_the_section_is_decoded_strictly():
    config = decode({"directory": "/opt/agents", "believed": ["fence_scsi"]}, FenceAgentsConfig, "plugins.fence-agents")
    assert config.believed == ("fence_scsi",)
    for wrong in (
        {"directry": "/x"},
        {"directory": "x"},
        {"status_timeout": 16},
        {"power_timeout": 51},
        {"power_timeout": 0},
        {"believed": ["/bin/sh"]},
    ):
        with pytest.raises(ConfigError, match=r"plugins\.fence-agents"):
            decode(wrong, FenceAgentsConfig, "plugins.fence-agents")
