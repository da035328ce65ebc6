"""Reading ``pvcnoded.yml`` and ``pvc.yml``.

The CLI reads its file at every call, so this imports PyYAML and msgspec only.  Every mistake in a file is
told, each with file, line, key, what was found and what is expected.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from pvc_core.config.environment import DIRECTORIES, client_file
from pvc_core.config.schema import ClientConfig, ClusterSection, NodeConfig, NodeSection
from pvc_core.config.source import Source, read
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_name
from pvc_core.plugin.config import InvalidSection, decode
from pvc_core.plugin.errors import ConfigError

if TYPE_CHECKING:
    from pvc_core.plugin.context import NodeInfo

T = TypeVar("T")

COORDINATORS: Final = (1, 3, 5)
_CLIENT_KEYS: Final = ("cluster", "service")
"""What a client needs of a node's file."""


def load_node_config(path: str, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """Read a node's configuration; ``node.name`` is filled in, directories are as the environment says.

    Sections of plugins are not looked into: each is decoded by its plugin's schema when that is loaded.
    Raises ConfigError with everything that is wrong, one line each.
    """
    source = read(path)
    problems, config = node_problems(source, environment)
    if config is None:
        raise ConfigError("\n".join(problems))
    return config


def load_client_config(path: str) -> ClientConfig:
    """Read how to reach a cluster: from a client's file, or from a node's, of which it takes what it needs.

    Raises ConfigError with everything that is wrong, one line each.
    """
    source = read(path)
    value = source.value
    if isinstance(value, dict) and "node" in value:
        value = {key: value[key] for key in _CLIENT_KEYS if key in value}
    problems, config = _decoded(source, value, ClientConfig)
    if config is not None:
        problems = _cluster_problems(source, config.cluster)
    if config is None or problems:
        raise ConfigError("\n".join(problems))
    return config


def load_client(option: str | None = None) -> ClientConfig:
    """Read the client's configuration from where ``--config``, the environment or the default says."""
    return load_client_config(client_file(option))


def explain(path: str) -> Callable[[InvalidSection], str]:
    """Return a function that says where in this file the problems of a section are; ``runtime`` needs one."""

    def say(error: InvalidSection) -> str:
        try:
            return read(path).explain(error, tuple(error.path.split(".", 1)))
        except ConfigError:  # it was changed meanwhile
            return str(error)

    return say


def node_problems(source: Source, environment: Mapping[str, str]) -> tuple[list[str], NodeConfig | None]:
    """Return what is wrong with a node's file, and the configuration when nothing is."""
    problems, config = _decoded(source, source.value, NodeConfig)
    if config is None:
        return problems, None
    name = config.node.name or os.uname().nodename.partition(".")[0]
    directories = {key: environment[variable] for variable, key in DIRECTORIES.items() if environment.get(variable)}
    node = msgspec.structs.replace(config.node, name=name, **directories)
    problems = [*_cluster_problems(source, config.cluster), *_node_problems(source, node, config.cluster)]
    problems += [
        source.problem(("plugins", plugin), "a plugin's name is one word of letters, digits and '-'")
        for plugin in config.plugins
        if not plugin.replace("-", "").isalnum()
    ]
    return problems, None if problems else msgspec.structs.replace(config, node=node)


def _decoded(source: Source, value: Any, schema: type[T]) -> tuple[list[str], T | None]:
    if value is None:
        return [f"{source.path}: the file is empty"], None
    try:
        return [], decode(value, schema)
    except InvalidSection as error:
        return source.problems(error), None


def _cluster_problems(source: Source, cluster: ClusterSection) -> list[str]:
    members = cluster.coordinators
    at = ("cluster", "coordinators")
    problems = _bad_name(source, ("cluster", "name"), cluster.name)
    if len(members) not in COORDINATORS:
        problems.append(
            source.problem(
                at,
                f"expected 1, 3 or 5 coordinators, found {len(members)}; an even number survives no more "
                "failures than one less, and more than 5 only slow each write down",
            )
        )
    for field in ("name", "address"):
        first: dict[str, int] = {}
        for index, member in enumerate(members):
            value = getattr(member, field)
            if value in first:
                problems.append(
                    source.problem((*at, index, field), f"coordinator {first[value] + 1} has the {field} {value!r} too")
                )
            first.setdefault(value, index)
    for index, member in enumerate(members):
        problems += _bad_name(source, (*at, index, "name"), member.name)
        if not member.address:
            problems.append(source.problem((*at, index, "address"), "expected an address, found nothing"))
    return problems


def _node_problems(source: Source, node: NodeSection, cluster: ClusterSection) -> list[str]:
    problems = _bad_name(source, ("node", "name"), node.name)
    for member in cluster.coordinators:
        if member.name == node.name and member.address != node.address:
            problems.append(
                source.problem(
                    ("node", "address"),
                    f"found {node.address!r}, but this node's entry in cluster.coordinators says {member.address!r}",
                )
            )
        if member.name != node.name and member.address == node.address:
            problems.append(
                source.problem(
                    ("node", "address"),
                    f"{node.address!r} is the address of coordinator {member.name!r}, and this node is {node.name!r}",
                )
            )
    return problems


def _bad_name(source: Source, keys: tuple[str | int, ...], name: str) -> list[str]:
    try:
        check_name(name, "the name")
    except InvalidRequest as error:
        return [source.problem(keys, str(error))]
    return []


def role(config: NodeConfig) -> str:
    """Return the node's role: ``coordinator`` when it is listed as one, else ``hypervisor``."""
    return "coordinator" if any(m.name == config.node.name for m in config.cluster.coordinators) else "hypervisor"


def node_info(config: NodeConfig) -> "NodeInfo":
    """Return what plugins are told about the node."""
    from pvc_core.plugin.context import NodeInfo

    return NodeInfo(
        name=config.node.name,
        role=role(config),
        address=config.node.address,
        coordinators=tuple(member.name for member in config.cluster.coordinators),
        coordinator_addresses={member.name: member.address for member in config.cluster.coordinators},
        state_directory=config.node.state_directory,
        run_directory=config.node.run_directory,
        hypervisor_uri=config.hypervisor.uri,
    )
