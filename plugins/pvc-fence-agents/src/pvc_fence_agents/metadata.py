"""What a fence agent says about itself: the XML that it prints for the action ``metadata``.

The format is that of ClusterLabs' FenceAgentAPI.  Agents list a parameter under its old and its new name:
the new one ``obsoletes`` the old, and they count as one here.
"""

import re
from typing import Final
from xml.etree import ElementTree as ET

import msgspec

from pvc_core.plugin import DriverError
from pvc_fence_agents.parameters import is_secret

TRUE: Final = frozenset({"1", "yes", "on", "true"})
FALSE: Final = frozenset({"0", "no", "off", "false"})
_SAYS_SECRET: Final = re.compile(r"\b(password|passphrase|secret)\b", re.IGNORECASE)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an agent."""

    name: str
    current: str
    """Its newest name: its own, unless it is an old one."""
    type: str
    """``boolean``, ``integer``, ``second``, ``string`` or ``select``; others are taken for ``string``."""
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A fence agent."""

    name: str
    parameters: dict[str, Parameter]
    actions: frozenset[str]

    def is_secret(self, name: str) -> bool:
        """Say whether a parameter holds a secret, by its name or by what the agent says of it."""
        known = self.parameters.get(name)
        return known.secret if known is not None else is_secret(name)


def parse(name: str, text: str) -> Agent:
    """Return what an agent's metadata say; raises DriverError."""
    try:
        # From a program that is about to be run as root; expat bounds what entities can grow to.
        root = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise _unreadable(name, str(error)) from None
    if root.tag != "resource-agent":
        raise _unreadable(name, f"the document is a {root.tag!r}")
    listed = [element for element in root.iterfind("parameters/parameter") if element.get("name")]
    newer = {element.get("obsoletes", ""): element.get("name", "") for element in listed}
    parameters = [_parameter(element, newer) for element in listed]
    actions = frozenset(element.get("name", "") for element in root.iterfind("actions/action"))
    return Agent(name=name, parameters={each.name: each for each in parameters}, actions=actions)


def _parameter(element: ET.Element, newer: dict[str, str]) -> Parameter:
    name = element.get("name", "")
    content = element.find("content")
    if content is None:
        content = ET.Element("content")
    described = element.findtext("shortdesc") or ""
    type_ = content.get("type", "string")
    return Parameter(
        name=name,
        current=newer.get(name, name),
        type=type_,
        required=element.get("required") == "1",
        default=content.get("default", ""),
        choices=tuple(option.get("value", "") for option in content.iterfind("option")),
        # "Use sudo (without password)" is said of a boolean.
        secret=is_secret(name) or (type_ == "string" and bool(_SAYS_SECRET.search(described))),
    )


def _unreadable(name: str, why: str) -> DriverError:
    return DriverError(f"{name} prints no metadata that can be read ({why}), so it cannot be used", retryable=False)
