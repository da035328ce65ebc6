"""A YAML file as plain values, with the line of every key.

YAML 1.2's scalars only: ``no``, ``on``, 12:30 and 2024-01-01 are text, not a boolean, a number in base
60 and a date.  Duplicate keys are refused: PyYAML would keep the last one silently.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from pvc_core.plugin.config import InvalidSection, Problem, dotted
from pvc_core.plugin.errors import ConfigError

_Base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SIZE_MAX: Final = 1024 * 1024


class _Loader(_Base):  # type: ignore[misc]  # chosen at run time
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


class Source:
    """A configuration file that was read."""

    def __init__(self, path: str, root: yaml.Node | None) -> None:
        self.path: Final = path
        self._root = root
        self.value: Final = _construct(path, root)

    def line(self, keys: tuple[str | int, ...], *, at_key: bool = False) -> int:
        """Return the line of the value at ``keys`` (or of its key), of the nearest one around it if there is none."""
        node, line = self._root, 1 if self._root is None else self._root.start_mark.line + 1
        for depth, key in enumerate(keys):
            if isinstance(node, yaml.MappingNode):
                for key_node, value_node in node.value:
                    if key_node.value == str(key):
                        last = depth == len(keys) - 1
                        line = (
                            key_node if (at_key and last) or _nested(value_node) else value_node
                        ).start_mark.line + 1
                        node = value_node
                        break
                else:
                    return line
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                return line
        return line

    def explain(self, error: InvalidSection, prefix: tuple[str | int, ...] = ()) -> str:
        """Return a wrong section's problems, one per line, each with file, line and key."""
        return "\n".join(self.problems(error, prefix))

    def problems(self, error: InvalidSection, prefix: tuple[str | int, ...] = ()) -> list[str]:
        """Return the problems of a section that stands at ``prefix`` in this file, by line."""
        found = [(self.line((*prefix, *p.keys), at_key=p.at_key), self._text(p, error.path)) for p in error.problems]
        return [f"{self.path}:{line}: {text}" for line, text in sorted(found, key=lambda item: item[0])]

    def problem(self, keys: tuple[str | int, ...], message: str) -> str:
        """Return one problem with file, line and key."""
        return f"{self.path}:{self.line(keys)}: {dotted(keys)}: {message}"

    @staticmethod
    def _text(problem: Problem, path: str) -> str:
        return f"{dotted(problem.keys, path)}: {problem.message}"


def _nested(node: yaml.Node) -> bool:
    """Block mappings and lists begin on the line after their key; people look for the key."""
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def read(path: str) -> Source:
    """Read a YAML file; raise ConfigError when it cannot be read or is not YAML."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_SIZE_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    if len(data) > _SIZE_MAX:
        raise ConfigError(f"{path} is larger than {_SIZE_MAX} bytes: that is no configuration")
    return parse(data, path)


def parse(data: bytes | str, path: str) -> Source:
    """Return YAML text as a Source; ``path`` is what errors call it."""
    return Source(path, _nodes(data, path, lambda loader: [loader.get_single_node()])[0])


def parse_all(data: bytes | str, path: str) -> list[Source]:
    """Return each document of YAML text that may hold several, without the empty ones."""

    def compose(loader: Any) -> list[yaml.Node]:
        nodes = []
        while loader.check_node():
            nodes.append(loader.get_node())
        return nodes

    sources = [Source(path, node) for node in _nodes(data, path, compose)]
    return [source for source in sources if source.value is not None]


def _nodes(data: bytes | str, path: str, compose: Callable[[Any], list[Any]]) -> list[Any]:
    try:
        loader = _Loader(data)
        try:
            return compose(loader)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}{line}: this is not valid YAML: {said}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {' '.join(str(error).split())}") from None


def _construct(path: str, node: yaml.Node | None) -> Any:
    if node is None:
        return None
    return _Constructor(path).value(node)


class _Constructor:
    """Plain values of a node tree.  Anchored nodes are made once, so nested aliases cannot blow up."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._made: dict[int, Any] = {}
        self._within: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        if id(node) in self._made:
            return self._made[id(node)]
        if id(node) in self._within:
            raise self._error(node, "an alias to the mapping or list that it stands in")
        self._within.add(id(node))
        made = self._new(node)
        self._within.discard(id(node))
        self._made[id(node)] = made
        return made

    def _new(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        made = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a mapping or list as key: write a word")
            key = self._scalar(key_node)
            if key == "<<":
                raise self._error(key_node, "a merge key (<<): write the keys out")
            if key in lines:
                raise self._error(key_node, f"the key {key!r} a second time (first in line {lines[key]}): remove one")
            lines[key] = key_node.start_mark.line + 1
            made[key] = self.value(value_node)
        return made

    def _scalar(self, node: yaml.Node) -> Any:
        text = node.value
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0)
            case "float":
                return float(text)
            case tag:
                raise self._error(node, f"the tag {tag!r}: plain values only")

    def _error(self, node: yaml.Node, found: str) -> ConfigError:
        return ConfigError(f"{self._path}:{node.start_mark.line + 1}: found {found}")
