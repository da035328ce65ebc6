"""Parameters of a fence device, as far as they can be judged without its agent.

A secret is never a parameter itself: ``NAME_file`` names a file on the coordinators, and the agent gets its
content as ``NAME``.  Parameters that would run programs, write files or change what the agent's answers mean
cannot be given at all.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import FenceDevice
from pvc_core.plugin import Secret
from pvc_core.plugin.config import sensitive

_AGENT: Final = re.compile(r"fence_[a-z0-9_]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ONE_WORD: Final = frozenset({"ip", "ipaddr", "username", "login"})
"""Agents put these unquoted into command lines."""
_OUTLET: Final = frozenset({"plug", "port"})

_OURS: Final = "the driver sets it itself"
_NOTHING: Final = "the agent would do nothing else"
_LOUD: Final = "it would write secrets to a log"
_RUNS: Final = "it names a program or options of one, which would run as root"
_REFUSED: Final = {
    "action": _OURS,
    "option": _OURS,
    "method": _OURS,
    "delay": "the cluster's timing says when a node is fenced",
    "help": _NOTHING,
    "version": _NOTHING,
    "quiet": "it would hide the agent's errors",
    "verbose": _LOUD,
    "verbose_level": _LOUD,
    "debug": _LOUD,
    "debug_file": _LOUD,
    "boto3_debug": _LOUD,
    "logfile": _LOUD,
    "exec": _RUNS,
    "openrc": _RUNS,
    "ssh_options": f"{_RUNS}; put options into ssh_config(5) on the coordinators",
    "plug_separator": "a device is one outlet",
    "missing_as_off": "a machine that the device does not find would be taken for dead",
    "network_fencing": "it cuts the network, not the power",
    "baremetalsolution": "the power would not be read, but guessed",
}
_PROGRAM: Final = re.compile(r".*_(script|path)")
_NOT_PROGRAMS: Final = frozenset({"api_path", "store_path"})


class Given(NamedTuple):
    """What a fence device was given, sorted."""

    plain: dict[str, str]
    """Parameters of the agent that are no secrets."""
    secrets: dict[str, Secret]
    """Parameters of the agent whose values are in files."""


def agent_name(parameters: Mapping[str, str]) -> str:
    """Return the agent that a device names; raises InvalidRequest."""
    agent = parameters.get("agent")
    if agent is None:
        raise InvalidRequest(
            "driver agent needs the parameter 'agent', the name of a fence agent, such as fence_redfish"
        )
    if not _AGENT.fullmatch(agent):
        raise InvalidRequest(f"agent {agent!r} is not the name of a fence agent, such as fence_redfish; give no path")
    return agent


def is_secret(name: str) -> bool:
    """Say whether a parameter holds a secret, by its name."""
    return sensitive(name)


def given(
    parameters: Mapping[str, str],
    *,
    secret: Callable[[str], bool] = is_secret,
    own: Callable[[str], bool] = lambda _: False,
) -> Given:
    """Sort a device's parameters; raises InvalidRequest for one that may not be given, or not so.

    ``own`` says which names that end with ``_file`` are the agent's own, and no references to secrets.
    """
    result = Given({}, {})
    for name, value in parameters.items():
        if name == "agent":
            continue
        reason = refusal(name)
        if reason:
            raise InvalidRequest(f"parameter {name!r} cannot be given: {reason}")
        if secret(name):
            raise InvalidRequest(
                f"parameter {name!r} is a secret: write it into a file on every coordinator (mode 0600) "
                f"and give {name}_file=/path/of/that/file"
            )
        _check_text(name, value)
        base = name.removesuffix("_file")
        if base != name and secret(base) and not own(name):
            if not value.startswith("/"):
                raise InvalidRequest(f"{name} {value!r} is not the absolute path of a file on the coordinators")
            result.secrets[base] = Secret(value)
        else:
            result.plain[name] = value
    return result


def refusal(name: str) -> str:
    """Return why a parameter may not be given to any agent; empty: it may."""
    name = _plain(name)
    if _PROGRAM.fullmatch(name) and name not in _NOT_PROGRAMS:
        return _RUNS
    return _REFUSED.get(name, "")


def has_control(value: str) -> bool:
    """Say whether a value would not be one line, as agents read them."""
    return bool(_CONTROL.search(value))


def validate_device(device: FenceDevice) -> None:
    """Check a device's parameters as far as that can be done anywhere; raises InvalidRequest."""
    agent_name(device.parameters)
    given(device.parameters)


def _check_text(name: str, value: str) -> None:
    if not value:
        raise InvalidRequest(f"parameter {name!r} is empty; leave it out")
    if has_control(value):
        raise InvalidRequest(f"parameter {name!r} has a line break or another control character")
    if name in _ONE_WORD and (value.startswith("-") or len(value.split()) != 1):
        raise InvalidRequest(f"{name} {value!r} is not one word")
    if name in _OUTLET and "," in value:
        # Agents that remember the first one, such as fence_apc_snmp 4.12, would switch and read only that.
        raise InvalidRequest(
            f"{name} {value!r} is more than one outlet: add a device for each of them, all to the same level (--level)"
        )


def _plain(name: str) -> str:
    """Return a name as one of its two spellings: agents take dashes for underscores."""
    return name.replace("-", "_")
