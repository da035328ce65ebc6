"""`pvc cluster status`, `settings`, `maintenance`."""

from typing import Any

import click

from pvc_core.cli import words
from pvc_core.cli.options import for_option, format_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.cluster import Cluster
from pvc_core.model.fence import MEANS
from pvc_core.ops.cluster import (
    ClusterMaintenance,
    ClusterSettings,
    ClusterStatus,
    cluster_maintenance,
    cluster_settings,
    cluster_status,
)
from pvc_core.ops.message import decode_request
from pvc_core.ops.node_service import Nothing


@click.command("status")
@format_option
@pass_session
def status(session: Session) -> None:
    """Show the state of the cluster: health, nodes, VMs, memory."""
    found = cluster_status(session.client.ops, Nothing())
    session.out.record(found, _sheet(found))


def _sheet(found: ClusterStatus) -> Sheet:
    capacity = found.capacity
    health = {"healthy": "good", "maintenance": "warn"}.get(found.health, "bad")
    alive = Cell(
        f"{found.nodes_alive} of {found.nodes} alive, {found.nodes_ready} take VMs",
        "" if found.nodes_alive == found.nodes else "bad",
    )
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.vms_by_state.items()) if count)
    memory = (
        f"{words.mib(capacity.running_mib) or '0'} of VMs, {words.mib(capacity.alive_mib) or '0'} in all; "
        f"{words.mib(capacity.available_mib) or '0'} if {capacity.largest or 'the largest node'} is lost"
    )
    lines: list[Line | Block] = [
        Line("Cluster", words.name(found.name)),
        Line("Health", Cell(found.health, health)),
        *([Line("Maintenance", words.maintenance(found.maintenance_until, on=True))] if found.maintenance else []),
        *(Line("" if index else "Problems", Cell(text, "bad")) for index, text in enumerate(found.problems)),
        Line("Primary", _primary(found)),
        Line("Nodes", alive),
        Line("VMs", f"{found.vms}" + (f" ({states})" if states else "")),
        Line("Memory", Cell(memory, "bad" if capacity.degraded else "")),
        Line("Networks", str(found.networks)),
        Line("Pools", str(found.pools)),
        Line("Volumes", str(found.volumes)),
        Line("Tasks", f"{found.tasks} unfinished" if found.tasks else "none unfinished"),
        Block(
            "Conditions",
            (
                Column("Node", lambda pair: words.name(pair[0])),
                Column("About", lambda pair: pair[1].type),
                Column("Since", lambda pair: words.when(pair[1].since)),
                Column("Message", lambda pair: words.condition(pair[1]), long=True),
            ),
            [(node, condition) for node, all_ in sorted(found.conditions.items()) for condition in all_],
        ),
    ]
    return lines


def _primary(found: ClusterStatus) -> Cell:
    primary = found.primary
    if primary.node is None:
        return Cell("none", "bad")
    if primary.stage == "active" and not primary.wanted:
        return Cell(primary.node)
    return Cell(f"{primary.node} ({primary.stage}{f', {primary.wanted} is wanted' if primary.wanted else ''})", "busy")


class _MeansList(click.ParamType[tuple[str, ...]]):
    """Means of recovery with commas between them, or ``none``."""

    name = "means"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words."""
        if isinstance(value, tuple):
            return value
        means = () if value == "none" else tuple(part.strip() for part in str(value).split(","))
        for word in means:
            if word not in MEANS:
                self.fail(f"{word!r} is no means of recovery; there are {', '.join(MEANS)}, or none", param, ctx)
        return means


@click.command("settings")
@click.option("--name", help="Name of the cluster.")
@click.option(
    "--default-selector", help="How nodes are chosen for VMs that do not say: mem, memprov, vcpus, load, vms."
)
@click.option("--cpu-model", help="CPU model of VMs that name none.")
@click.option("--migrations-per-source", type=int, help="Live migrations away from one node at a time.")
@click.option("--migrations-per-target", type=int, help="Live migrations to one node at a time.")
@click.option(
    "--pool-full-percent",
    type=int,
    help="Fuller than this no storage pool may become by its volumes' whole sizes, unless forced.",
)
@click.option(
    "--recovery",
    type=_MeansList(),
    metavar="MEANS,...|none",
    help="Which proofs of a node's death suffice to start its VMs elsewhere: power, storage, watchdog.",
)
@click.option(
    "--power-on-after-fence/--no-power-on-after-fence",
    default=None,
    help="Switch a node on again after its VMs were taken from it.",
)
@click.option(
    "--return-after-fence/--no-return-after-fence",
    default=None,
    help="Put a node that was fenced back into service when it is back.",
)
@format_option
@pass_session
def settings(session: Session, **given: Any) -> None:
    """Show the settings that hold for the whole cluster; with options, change them."""
    changes = {key: value for key, value in given.items() if value is not None}
    found = cluster_settings(session.client.ops, decode_request(ClusterSettings, changes, "settings"))
    session.out.record(found, _settings_sheet(found))


def _settings_sheet(cluster: Cluster) -> Sheet:
    return [
        Line("Name", words.name(cluster.name)),
        Line("Default selector", cluster.default_selector),
        Line("CPU model", cluster.cpu_model or "the hypervisor's choice"),
        Line("Migrations per source", str(cluster.migrations_per_source)),
        Line("Migrations per target", str(cluster.migrations_per_target)),
        Line("Pools are full at", f"{cluster.pool_full_percent} %"),
        Line("Recovery after", words.words(cluster.recovery) or "an operator's word only"),
        Line("Power on after fence", words.yes_no(cluster.power_on_after_fence)),
        Line("Return after fence", words.yes_no(cluster.return_after_fence)),
        Line("Maintenance", words.maintenance(cluster.maintenance_until, on=cluster.maintenance)),
        Line("Schema", str(cluster.schema)),
    ]


@click.command("maintenance")
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@for_option
@format_option
@pass_session
def maintenance(session: Session, switch: str | None, for_s: float | None) -> None:
    """Show or switch maintenance mode of the cluster: while it is on nothing is fenced."""
    ops = session.client.ops
    if for_s is not None and switch != "on":
        raise click.UsageError("--for TIME belongs to on")
    if switch is None:
        now = cluster_settings(ops, ClusterSettings())
    else:
        now = cluster_maintenance(ops, ClusterMaintenance(maintenance=switch == "on", for_s=for_s))
    on, until = now.maintenance, now.maintenance_until
    session.out.done(
        f"maintenance of the cluster is {words.maintenance(until, on=on)}", maintenance=on, maintenance_until=until
    )
