"""``pvc config check``: everything that can be known to be wrong without starting anything."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pvc_core.config.load import node_problems
from pvc_core.config.source import Source, read
from pvc_core.plugin.config import InvalidSection, Secret
from pvc_core.plugin.errors import ConfigError
from pvc_core.runtime.discover import Index, PluginFailure, discover
from pvc_core.runtime.load import decode_section, gate


def check_config(path: str, environment: Mapping[str, str] = os.environ, index: Index | None = None) -> list[str]:
    """Return every problem of a node's configuration file, one line each with file, line and key; none: it is good.

    Manifests and schemas of the enabled plugins are imported, their drivers are not.  Files with secrets
    are read, so it is to be run on the node, by the user that the daemon runs as.
    """
    try:
        source = read(path)
    except ConfigError as error:
        return [str(error)]
    problems, _ = node_problems(source, environment)
    sections = source.value.get("plugins") if isinstance(source.value, dict) else None
    if isinstance(sections, dict):
        index = index or discover()
        for name, section in sections.items():
            if isinstance(name, str) and (section is None or isinstance(section, dict)):
                problems += _section_problems(source, index, name, section)
    return problems


def _section_problems(source: Source, index: Index, name: str, section: dict[str, Any] | None) -> list[str]:
    at = ("plugins", name)
    try:
        _, manifest = gate(index, name)
        decoded = decode_section(manifest, section)
    except InvalidSection as error:
        return source.problems(error, at)
    except PluginFailure as error:
        return [source.problem(at, f"{error.stage}: {error}")]
    problems = []
    for keys, secret in _secrets(decoded):
        try:
            secret.read()
        except ConfigError as error:
            problems.append(source.problem((*at, *keys), str(error)))
    return problems


def _secrets(value: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Secret]]:
    if isinstance(value, Secret):
        yield keys, value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _secrets(getattr(value, field), (*keys, field))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, (*keys, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _secrets(item, (*keys, index))
