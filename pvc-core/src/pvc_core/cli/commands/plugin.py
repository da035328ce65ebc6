"""`pvc plugin list`, `show`, `doctor`."""

from typing import Literal

import click
import msgspec

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Block, Cell, Column, Line
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.table import CORE
from pvc_core.model.errors import NotFound, PvcError
from pvc_core.model.names import did_you_mean
from pvc_core.model.node import PluginStatus
from pvc_core.plugin.manifest import CommandSpec, Manifest
from pvc_core.runtime.manifests import Installed, manifests


class PluginRow(msgspec.Struct, frozen=True, kw_only=True):
    """An installed plugin, as `pvc plugin list` has it."""

    name: str
    state: Literal["installed", "broken"]
    version: str
    distribution: str
    summary: str = ""
    api: str = ""
    """Version of the hook API it was written for."""
    provides: tuple[str, ...] = ()
    """Its drivers, as kind:name, and hooks."""
    commands: tuple[str, ...] = ()
    error: str = ""


class PluginOnNode(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as a node reports it."""

    node: str
    plugin: PluginStatus


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a plugin's section in ``pvcnoded.yml``."""

    key: str
    expected: str
    default: str
    description: str


class PluginDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin, as `pvc plugin show` has it."""

    plugin: PluginRow
    commands: tuple[CommandSpec, ...] = ()
    settings: tuple[SettingRow, ...] = ()


def _row(installed: Installed) -> PluginRow:
    distribution, _, version = installed.distribution.partition(" ")
    manifest = installed.manifest
    if manifest is None:
        return PluginRow(
            name=installed.name, state="broken", version=version, distribution=distribution, error=installed.error
        )
    return PluginRow(
        name=installed.name,
        state="installed",
        version=version,
        distribution=distribution,
        summary=manifest.summary,
        api=".".join(map(str, manifest.api)),
        provides=_provides(manifest),
        commands=tuple(_called(spec) for spec in manifest.commands),
    )


def _provides(manifest: Manifest) -> tuple[str, ...]:
    kinds = ("storage", "network", "fencing", "scheduling", "hooks")
    return tuple(f"{kind}:{name}" for kind in kinds for name in getattr(manifest, kind))


def _called(spec: CommandSpec) -> str:
    """Return a command as it is typed."""
    return " ".join(filter(None, ("pvc", spec.extends, spec.name)))


def _state(row: PluginRow) -> Cell:
    return Cell(row.state, "good" if row.state == "installed" else "bad")


_COLUMNS = (
    Column("Name", lambda row: words.name(row.name)),
    Column("State", _state),
    Column("Version", lambda row: row.version),
    Column("Hook API", lambda row: row.api, extra=True),
    Column("Provides", lambda row: words.words((*row.provides, *row.commands))),
    Column("Summary", lambda row: Cell(row.error, "bad") if row.error else row.summary, long=True),
)
_NODE_COLUMNS = (
    Column("Node", lambda row: words.name(row.node)),
    Column("Plugin", lambda row: row.plugin.name),
    Column("State", lambda row: words.state(row.plugin.state)),
    Column("Version", lambda row: row.plugin.version),
    Column("Provides", lambda row: words.words(row.plugin.capabilities)),
    Column("Calls", lambda row: str(row.plugin.calls), right=True),
    Column("Failures", lambda row: str(row.plugin.failures), right=True),
    Column("Time-outs", lambda row: str(row.plugin.timeouts), right=True),
    Column("Error", lambda row: Cell(row.plugin.error, "bad"), long=True),
)


@click.command("list")
@click.option("-t", "--node", type=NODE, help="As this node reports them.")
@click.option("-a", "--all-nodes", is_flag=True, help="As all nodes report them.")
@format_option
@pass_session
def list_(session: Session, node: str | None, all_nodes: bool) -> None:
    """List the plugins that are installed here, or (with --node, --all-nodes) those that nodes have enabled."""
    if node or all_nodes:
        session.out.listing(_on_nodes(session, node), _NODE_COLUMNS, empty="no plugin is enabled")
    else:
        session.out.listing([_row(installed) for installed in manifests()], _COLUMNS, empty="no plugin is installed")


def _on_nodes(session: Session, only: str | None) -> list[PluginOnNode]:
    from pvc_core.ops.node import NodeList, NodeQuery, node_info, node_list

    ops = session.client.ops
    names = [only] if only else [row.name for row in node_list(ops, NodeList())]
    reports = [(name, node_info(ops, NodeQuery(node=name)).status) for name in names]
    return [PluginOnNode(node=name, plugin=plugin) for name, status in reports if status for plugin in status.plugins]


def _find(name: str) -> Installed:
    known = {installed.name: installed for installed in manifests()}
    if name not in known:
        hint = did_you_mean(name, known) or f"; installed: {', '.join(known) or 'none'}"
        raise NotFound(f"no plugin named {name!r} is installed{hint}")
    return known[name]


@click.command("show")
@click.argument("name")
@format_option
@pass_session
def show(session: Session, name: str) -> None:
    """Show one installed plugin: what it provides, its commands, the keys of its section in pvcnoded.yml."""
    from pvc_core.config.reference import settings
    from pvc_core.runtime.load import schema

    installed = _find(name)
    row = _row(installed)
    if installed.manifest is None:
        raise PvcError(f"plugin {name!r} cannot be used here: {row.error}; run: pvc plugin doctor {name}")
    section = schema(installed.manifest)
    keys = [SettingRow(**key._asdict()) for key in settings(section)] if section else []
    detail = PluginDetail(plugin=row, commands=installed.manifest.commands, settings=tuple(keys))
    session.out.record(
        detail,
        [
            Line("Name", words.name(row.name)),
            Line("Summary", row.summary),
            Line("Distribution", f"{row.distribution} {row.version}"),
            Line("Hook API", row.api),
            Line("Provides", words.words(row.provides)),
            Block(
                "Commands",
                (
                    Column("Command", _called),
                    Column("What it does", lambda spec: spec.help, long=True),
                ),
                detail.commands,
            ),
            Block(
                f"Settings (plugins: {row.name}: in pvcnoded.yml)",
                (
                    Column("Key", lambda key: key.key),
                    Column("Expected", lambda key: key.expected, long=True),
                    Column("Default", lambda key: key.default),
                    Column("Description", lambda key: key.description, long=True),
                ),
                detail.settings,
            ),
        ],
    )


@click.command("doctor")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@format_option
@pass_session
def doctor(session: Session, names: tuple[str, ...]) -> None:
    """Check installed plugins, all of them or those named, and say what is wrong; exit status 1 when something is.

    It imports their drivers, so run it where they are used: on a node.
    """
    from pvc_core.runtime.doctor import examine

    patients = [_find(name).name for name in names] if names else [installed.name for installed in manifests()]
    core = {entry.name for entry in CORE}
    found = {name: examine(name, core_commands=core) for name in patients}
    rows = [(name, finding) for name, findings in found.items() for finding in findings]
    errors = sum(finding.level == "error" for _, finding in rows)
    if session.out.format != "table":
        session.out.data(found)
    else:
        columns = (
            Column("Plugin", lambda row: words.name(row[0])),
            Column("Level", lambda row: Cell(row[1].level, "bad" if row[1].level == "error" else "warn")),
            Column("Rule", lambda row: row[1].rule),
            Column("Finding", lambda row: row[1].message, long=True),
        )
        session.out.listing(rows, columns, empty=f"nothing is wrong with {words.words(patients) or 'no plugins'}")
    if errors:
        sick = [name for name, findings in found.items() if any(finding.level == "error" for finding in findings)]
        raise PvcError(f"{words.count(errors, 'error')} in {', '.join(sick)}")
