"""`pvc config check`, `sample`, `show`."""

from typing import Any

import click

from pvc_core.cli.options import format_option
from pvc_core.cli.output import plain
from pvc_core.cli.session import Session, pass_session
from pvc_core.config import environment
from pvc_core.config.load import load_client_config, load_node_config
from pvc_core.config.sample import SAMPLE
from pvc_core.config.source import read
from pvc_core.plugin.config import sensitive
from pvc_core.plugin.errors import ConfigError


def _is_node_file(path: str) -> bool:
    value = read(path).value
    return isinstance(value, dict) and "node" in value


@click.command("check")
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@format_option
@pass_session
def check(session: Session, file: str | None) -> None:
    """Check a configuration file without starting anything: its own keys, and the sections of its plugins.

    FILE is a node's pvcnoded.yml or a client's pvc.yml; left out: the one that pvc would use.
    """
    path = file or environment.client_file(session.config)
    if not _is_node_file(path):
        config = load_client_config(path)
        session.out.done(f"{path} is valid: a client of cluster {config.cluster.name}", path=path)
        return
    from pvc_core.runtime.check import check_config

    problems = check_config(path)
    if problems:
        raise ConfigError("\n".join(problems))
    node = load_node_config(path)
    plugins = ", ".join(node.plugins) or "none"
    session.out.done(
        f"{path} is valid: node {node.node.name} of cluster {node.cluster.name}, plugins: {plugins}", path=path
    )


@click.command("sample")
@pass_session
def sample(session: Session) -> None:
    """Print a commented sample of a node's configuration."""
    session.out.text(SAMPLE.rstrip("\n"))


@click.command("show")
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@format_option
@pass_session
def show(session: Session, file: str | None) -> None:
    """Print the configuration in effect, defaults included, as YAML (or JSON with --format json)."""
    path = file or environment.client_file(session.config)
    config = load_node_config(path) if _is_node_file(path) else load_client_config(path)
    values = _redacted(plain(config))
    if session.out.format == "table":
        session.out.format = "yaml"
    session.out.data(values)


def _redacted(value: Any) -> Any:
    """Return values without those that may be secrets: plugins' sections are shown as they are written."""
    if isinstance(value, dict):
        return {
            key: "(hidden)" if sensitive(key) and item and not isinstance(item, dict) else _redacted(item)
            for key, item in value.items()
        }
    return [_redacted(item) for item in value] if isinstance(value, list) else value
