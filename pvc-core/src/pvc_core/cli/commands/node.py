"""`pvc node flush`, `ready`, `primary`, `secondary`, `maintenance`, `remove`."""

from collections.abc import Mapping

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import for_option, format_option, wait_options, yes_option
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.errors import PvcError
from pvc_core.ops.node import NodeQuery, node_info
from pvc_core.ops.node_service import (
    NodeFlush,
    NodeMaintenance,
    NodePrimary,
    node_flush,
    node_maintenance,
    node_primary,
    node_ready,
    node_remove,
    node_secondary,
)
from pvc_core.ops.wait import NodeGoal, wait_node


@click.command("flush")
@click.argument("node", type=NODE)
@click.option("--force", is_flag=True, help="Also when some VMs fit nowhere: these stay until there is room.")
@wait_options(None)
@format_option
@pass_session
def flush(session: Session, node: str, force: bool, wait: bool, timeout: float) -> None:
    """Move all VMs away from a node and keep it empty.

    The VMs remember their home: `pvc node ready` brings them back.
    """
    ops = session.client.ops
    planned = node_flush(ops, NodeFlush(node=node, force=force))
    if planned.moves:
        by_target: dict[str, int] = {}
        for target in planned.moves.values():
            by_target[target] = by_target.get(target, 0) + 1
        spread = ", ".join(f"{count} to {target}" for target, count in sorted(by_target.items()))
        session.out.note(f"node {node}: {words.count(len(planned.moves), 'VM')} to move: {spread}")
    for vm, reasons in planned.stuck.items():
        session.out.warn(f"VM {vm} fits nowhere and stays: {_reasons(reasons)}")
    if wait and not planned.stuck:
        with watching(session, f"node {node}", later=f"pvc node info {node}") as report:
            wait_node(ops, node, NodeGoal.DRAINED, timeout_s=timeout, report=report)
        session.out.done(f"node {node} is empty and takes no VMs", flush=planned)
    else:
        session.out.done(f"node {node} is being flushed", flush=planned)
    if planned.stuck:
        raise PvcError(
            f"node {node}: {words.count(len(planned.stuck), 'VM')} without a place: {words.words(planned.stuck, most=5)}"
        )


def _reasons(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items()))


@click.command("ready")
@click.argument("node", type=NODE)
@wait_options(None)
@format_option
@pass_session
def ready(session: Session, node: str, wait: bool, timeout: float) -> None:
    """Return a node to service and bring its VMs home."""
    ops = session.client.ops
    row = node_ready(ops, NodeQuery(node=node))
    if wait:
        with watching(session, f"node {node}", later=f"pvc node info {node}") as report:
            row = wait_node(ops, node, NodeGoal.READY, timeout_s=timeout, report=report).row
    session.out.done(f"node {node} {'is in service' if wait else 'returns to service'}", node=row)


@click.command("primary")
@click.argument("node", type=NODE)
@wait_options(120)
@format_option
@pass_session
def primary(session: Session, node: str, wait: bool, timeout: float) -> None:
    """Make a node the primary coordinator."""
    view = node_primary(session.client.ops, NodePrimary(node=node))
    if wait:
        _wait_for_role(session, node, NodeGoal.PRIMARY, timeout)
    session.out.done(f"node {node} {'is' if wait else 'will be'} primary", primary=view)


@click.command("secondary")
@click.argument("node", type=NODE)
@wait_options(120)
@format_option
@pass_session
def secondary(session: Session, node: str, wait: bool, timeout: float) -> None:
    """Make the primary coordinator give up its role; another one takes it."""
    view = node_secondary(session.client.ops, NodeQuery(node=node))
    if wait:
        _wait_for_role(session, node, NodeGoal.SECONDARY, timeout)
    session.out.done(f"node {node} {'is no longer' if wait else 'gives up being'} primary", primary=view)


def _wait_for_role(session: Session, node: str, goal: NodeGoal, timeout: float) -> None:
    with watching(session, f"node {node}", later="pvc node list") as report:
        wait_node(session.client.ops, node, goal, timeout_s=timeout, report=report)


@click.command("maintenance")
@click.argument("node", type=NODE)
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@for_option
@format_option
@pass_session
def maintenance(session: Session, node: str, switch: str | None, for_s: float | None) -> None:
    """Show or switch maintenance mode of a node: in maintenance no VM is placed on it, and it is not fenced."""
    ops = session.client.ops
    if for_s is not None and switch != "on":
        raise click.UsageError("--for TIME belongs to on")
    if switch is None:
        row = node_info(ops, NodeQuery(node=node)).row
    else:
        row = node_maintenance(ops, NodeMaintenance(node=node, maintenance=switch == "on", for_s=for_s))
    state = words.maintenance(row.maintenance_until, on=row.maintenance)
    session.out.done(f"maintenance of node {row.name} is {state}", node=row)


@click.command("remove")
@click.argument("node", type=NODE)
@yes_option
@format_option
@pass_session
def remove(session: Session, node: str, yes: bool) -> None:
    """Remove a node from the cluster.

    Its daemon must be stopped and no VM may be left on it.  A node that starts again adds itself again.
    """
    ops = session.client.ops
    found = node_info(ops, NodeQuery(node=node))
    session.confirm(f"Remove node {found.row.name} from the cluster?", yes=yes)
    removed = node_remove(ops, NodeQuery(node=node))
    if removed.displaced:
        session.out.note(f"these stopped VMs get a node when they are started: {words.words(removed.displaced)}")
    session.out.done(f"node {node} is removed", node=removed.node, displaced=list(removed.displaced))
