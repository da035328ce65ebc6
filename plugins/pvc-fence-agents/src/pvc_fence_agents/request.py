"""What an agent is told on its standard input: ``name=value`` lines, checked against its metadata."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.plugin import ConfigError
from pvc_fence_agents.metadata import FALSE, TRUE, Agent, Parameter
from pvc_fence_agents.parameters import Given, given, has_control, refusal

_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)


class Request:
    """The checked parameters of a device, with its secrets: made for one call and then thrown away."""

    __slots__ = ("_lines", "secrets")

    def __init__(self, lines: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self._lines: Final = {**lines, **secrets}
        self.secrets: Final = tuple(secrets.values())
        """Never to be shown."""

    def stdin(self, action: str) -> bytes:
        """Return what the agent reads for an action."""
        lines = [f"action={action}", *(f"{name}={_quoted(value)}" for name, value in self._lines.items())]
        return "".join(f"{line}\n" for line in lines).encode()


def request(agent: Agent, parameters: Mapping[str, str]) -> Request:
    """Return a device's parameters as its agent wants them; reads the files with secrets.

    Raises InvalidRequest for parameters that the agent does not take, ConfigError for a secret that cannot be read.
    """
    sorted_ = given(parameters, secret=agent.is_secret, own=lambda name: _is_own(agent, name))
    lines = checked(agent, sorted_)
    return Request(lines, {name: _read(name, sorted_) for name in sorted_.secrets})


def checked(agent: Agent, sorted_: Given) -> dict[str, str]:
    """Return the lines of all parameters but the secrets; raises InvalidRequest."""
    names = [*sorted_.plain, *sorted_.secrets]
    seen: dict[str, str] = {}
    for name in names:
        known = agent.parameters.get(name)
        if known is None:
            # The file's name is what was written for a secret.
            wrong = f"{name}_file" if name in sorted_.secrets else name
            usable = list(_usable(agent))
            hint = did_you_mean(wrong, usable) or f"; it has {', '.join(usable)}"
            raise InvalidRequest(f"{agent.name} has no parameter {wrong!r}{hint}")
        other = seen.setdefault(known.current, name)
        if other != name:
            raise InvalidRequest(f"{agent.name}: {other!r} and {name!r} are the same parameter; give one of them")
    for known in agent.parameters.values():
        needed = known.required and not known.default and known.name == known.current and known.name != "action"
        if needed and known.name not in seen:
            raise InvalidRequest(f"{agent.name} needs the parameter {_written(known)!r}")
    lines = {name: _value(agent.parameters[name], value) for name, value in sorted_.plain.items()}
    return {name: value for name, value in lines.items() if value is not None}


def _is_own(agent: Agent, name: str) -> bool:
    """Say whether a name that ends with _file is a parameter of the agent, and not the file of a secret one."""
    return name in agent.parameters and name.removesuffix("_file") not in agent.parameters


def _usable(agent: Agent) -> Iterator[str]:
    return (_written(known) for known in agent.parameters.values() if not refusal(known.name))


def _written(parameter: Parameter) -> str:
    return f"{parameter.name}_file" if parameter.secret else parameter.name


def _value(known: Parameter, value: str) -> str | None:
    """Return a value as the agent is given it; None: not at all."""
    if known.choices:
        word = next((choice for choice in known.choices if choice.lower() == value.lower()), None)
        if word is None:
            raise InvalidRequest(
                f"{known.name} {value!r} is not one of {', '.join(known.choices)}{did_you_mean(value, known.choices)}"
            )
        return word
    if known.type == "boolean":
        if value.lower() in TRUE:
            return "1"
        if value.lower() not in FALSE:
            raise InvalidRequest(f"{known.name} {value!r} is neither true nor false")
        # Most agents ask only whether an option is there: one that is there and false counts as true.
        return "0" if known.default.lower() in TRUE else None
    if known.type in ("integer", "second") and not _NUMBER.fullmatch(value):
        what = "a number of seconds" if known.type == "second" else "a whole number"
        raise InvalidRequest(f"{known.name} {value!r} is not {what}")
    return value


def _read(name: str, sorted_: Given) -> str:
    file = sorted_.secrets[name]
    value = file.read()
    if has_control(value):
        raise ConfigError(f"the secret in {file.path} has a line break or another control character")
    return value


def _quoted(value: str) -> str:
    # fencing.py takes blanks off both ends, and then one pair of quotes.
    bare = value == value.strip() and not (len(value) > 1 and value[0] == value[-1] == '"')
    return value if bare else f'"{value}"'
