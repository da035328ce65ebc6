"""Every agent that Debian has: its metadata are understood, and the least that it needs is accepted."""

import re
from pathlib import Path

import pytest

from pvc_core.plugin import DriverError, run
from pvc_fence_agents.agents import no_proof
from pvc_fence_agents.metadata import Agent, parse
from pvc_fence_agents.parameters import given, refusal
from pvc_fence_agents.request import checked

pytestmark = pytest.mark.real

NO_STATUS = ["fence_heuristics_ping", "fence_kdump", "fence_ovh", "fence_rcd_serial"]
NO_PROOF = {
    "fence_amt": "sleeps",
    "fence_cisco_ucs": "missing",
    "fence_brocade": "the node runs on",
    "fence_cisco_mds": "the node runs on",
    "fence_compute": "the node runs on",
    "fence_crosslink": "does not answer a ping",
    "fence_dummy": "writes a file",
    "fence_evacuate": "OpenStack",
    "fence_ifmib": "the node runs on",
    "fence_ilo3_ssh": "half",
    "fence_ilo4_ssh": "half",
    "fence_ilo5_ssh": "half",
    "fence_ilo_mp": "half",
    "fence_ilo_ssh": "half",
    "fence_mpath": "the node runs on",
    "fence_rhevm": "does not tell",
    "fence_sanbox2": "the node runs on",
    "fence_sbd": "its own request",
    "fence_scsi": "the node runs on",
    "fence_virsh": "does not understand",
    "fence_zvmip": "does not find",
}
_PRIVATE = re.compile(r"password|passphrase|secret|\bkey\b|token|community|credential", re.IGNORECASE)
_EXAMPLE = {"boolean": "true", "integer": "1", "second": "1"}


@pytest.fixture(scope="module")
def installed() -> dict[str, Agent]:
    """Return all agents but fence_ack_manual, which is a question to a person and prints no metadata."""
    names = sorted(path.name for path in Path("/usr/sbin").glob("fence_*"))
    names.remove("fence_ack_manual")
    return {name: parse(name, run([f"/usr/sbin/{name}", "-o", "metadata"], deadline_s=20).stdout) for name in names}


def test_all_metadata_are_understood(installed):
    assert len(installed) > 80
    types = {known.type for agent in installed.values() for known in agent.parameters.values()}
    assert types == {"boolean", "integer", "second", "string", "select"}


def test_an_agent_without_metadata_is_named():
    with pytest.raises(DriverError, match="fence_ack_manual prints no metadata"):
        parse("fence_ack_manual", run(["/usr/sbin/fence_ack_manual", "-o", "metadata"], deadline_s=5).stdout)


def test_agents_that_cannot_be_used_are_known(installed):
    assert [name for name, agent in installed.items() if "status" not in agent.actions] == NO_STATUS
    usable = {name: agent for name, agent in installed.items() if name not in NO_STATUS}
    assert all({"on", "off", "status"} <= agent.actions for agent in usable.values())
    refused = {name: reason for name, agent in usable.items() if (reason := no_proof(agent))}
    assert sorted(refused) == sorted(NO_PROOF)
    assert [name for name, part in NO_PROOF.items() if part not in refused[name]] == []


def test_the_least_that_an_agent_needs_is_accepted(installed):
    for agent in installed.values():
        least = {}
        for known in agent.parameters.values():
            if known.required and known.name == known.current and known.name != "action":
                least[f"{known.name}_file" if known.secret else known.name] = _example(known)
        checked(agent, given(least, secret=agent.is_secret))


def test_every_parameter_that_may_be_given_is_accepted(installed):
    for agent in installed.values():
        whole = {}
        for known in agent.parameters.values():
            if known.name == known.current and not refusal(known.name):
                whole[f"{known.name}_file" if known.secret else known.name] = _example(known)
        lines = checked(agent, given(whole, secret=agent.is_secret, own=agent.parameters.__contains__))
        assert "password" not in lines


def test_no_secret_is_overlooked(installed):
    """What sounds private and is neither a secret to us nor refused is one of these, which are none."""
    found = {
        known.name
        for agent in installed.values()
        for known in agent.parameters.values()
        if _PRIVATE.search(known.name) and not known.secret and not refusal(known.name)
    }
    assert found == {"tlskey", "key_value", "token_file"} & found
    assert {"password", "passwd", "snmp_priv_passwd", "community", "token", "apikey", "access_key", "secret_key"} <= {
        known.name for agent in installed.values() for known in agent.parameters.values() if known.secret
    }


def _example(known) -> str:
    if known.secret or known.name.endswith("_file"):
        return "/nowhere"
    return known.choices[0] if known.choices else _EXAMPLE.get(known.type, "x")
