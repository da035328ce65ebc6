"""`pvc network ...`."""

from typing import Any

import click
from msgspec import UNSET

from pvc_core.cli import words
from pvc_core.cli.complete import NETWORK
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.parameters import Value, all_as_text, parameter_option
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.network import NetworkStatus
from pvc_core.ops.network import (
    NetworkAdd,
    NetworkInfo,
    NetworkList,
    NetworkModify,
    NetworkQuery,
    NetworkView,
    network_add,
    network_info,
    network_list,
    network_modify,
    network_remove,
)
from pvc_core.ops.wait import ObjectGoal, wait_network


def _state(network: NetworkView) -> Cell:
    if network.deleting:
        return words.state("deleting")
    if network.problems:
        return Cell("degraded", "bad")
    if not network.nodes or network.nodes_ready < network.nodes:
        return Cell("pending", "busy")
    return Cell("ready", "good")


_COLUMNS = (
    Column("Name", lambda network: words.name(network.name)),
    Column("State", _state),
    Column("Driver", lambda network: network.driver),
    Column("MTU", lambda network: str(network.mtu or "auto"), right=True, extra=True),
    Column("Nodes", lambda network: f"{network.nodes_ready}/{network.nodes}", right=True),
    Column("VMs", lambda network: str(network.vms), right=True),
    Column("Parameters", lambda network: all_as_text(network.parameters), long=True),
    Column("Description", lambda network: network.description, extra=True),
)
_PROBLEMS = Column("Problems", lambda network: Cell(words.words(network.problems, most=1), "bad"), long=True)


@click.command("list")
@click.argument("name", default="")
@format_option
@pass_session
def list_(session: Session, name: str) -> None:
    """List the networks.

    NAME is a regular expression found anywhere in a name.
    """
    networks = network_list(session.client.ops, NetworkList(name=name))
    columns = [*_COLUMNS, *([_PROBLEMS] if any(network.problems for network in networks) else [])]
    session.out.listing(networks, columns, empty="no networks" + (" match" if name else ""))


@click.command("info")
@click.argument("network", type=NETWORK)
@format_option
@pass_session
def info(session: Session, network: str) -> None:
    """Show one network in detail, node by node."""
    found = network_info(session.client.ops, NetworkQuery(network=network))
    session.out.record(found, _sheet(found))


def _sheet(found: NetworkInfo) -> Sheet:
    view = found.view
    return [
        Line("Name", words.name(view.name)),
        Line("ID", words.faint(view.id)),
        *([Line("Description", view.description)] if view.description else []),
        Line("State", _state(view)),
        Line("Driver", view.driver),
        Line("Parameters", all_as_text(view.parameters)),
        Line("MTU", str(view.mtu or "auto")),
        Line("VMs", words.words(found.vms)),
        Block(
            "Nodes",
            (
                Column("Node", lambda status: words.name(status.node)),
                Column("State", _on_node),
                Column("Device", lambda status: status.device),
                Column("MTU", lambda status: str(status.mtu or ""), right=True),
                Column("Problem", lambda status: Cell(_problem(status), "bad"), long=True),
            ),
            found.nodes,
        ),
    ]


def _on_node(status: NetworkStatus) -> Cell:
    return Cell("not ready", "bad") if _problem(status) else Cell("ready", "good")


def _problem(status: NetworkStatus) -> str:
    return "; ".join(c.message or c.reason for c in status.conditions if not c.ok)


def _finish(session: Session, view: NetworkView, done: str, *, wait: bool, timeout: float) -> None:
    for warning in view.warnings:
        session.out.warn(f"network {view.name}: {warning}")
    if wait:
        with watching(session, f"network {view.name}", later=f"pvc network info {view.name}") as report:
            found = wait_network(session.client.ops, view.id, ObjectGoal.READY, timeout_s=timeout, report=report)
        view = found.view if found else view
        for problem in view.problems:
            session.out.warn(problem)
    session.out.done(f"network {view.name} {'is' if wait else 'will be'} {done}", network=view)


@click.command("add")
@click.argument("name")
@click.option("-d", "--driver", required=True, help="Network driver, such as bridge or vxlan.")
@click.option("--description", default="", help="A few words for people.")
@click.option(
    "--mtu", type=click.IntRange(576, 65535), help="Largest packet; left out: what the driver finds possible."
)
@parameter_option
@wait_options(30)
@format_option
@pass_session
def add(
    session: Session,
    name: str,
    driver: str,
    description: str,
    mtu: int | None,
    parameters: tuple[tuple[str, Value | None], ...],
    wait: bool,
    timeout: float,
) -> None:
    """Add a network.

    What parameters there are is the driver's business: see `pvc plugin show`.
    """
    given = {key: value for key, value in parameters if value is not None}
    request = NetworkAdd(name=name, driver=driver, description=description, mtu=mtu, parameters=given)
    _finish(session, network_add(session.client.ops, request), "added", wait=wait, timeout=timeout)


@click.command("modify")
@click.argument("network", type=NETWORK)
@click.option("--description", help="A few words for people.")
@click.option("--mtu", metavar="MTU|auto", help="Largest packet; auto: what the driver finds possible.")
@parameter_option
@wait_options(30)
@format_option
@pass_session
def modify(
    session: Session,
    network: str,
    description: str | None,
    mtu: str | None,
    parameters: tuple[tuple[str, Value | None], ...],
    wait: bool,
    timeout: float,
) -> None:
    """Change a network; what is not given stays.  `-p key=` removes a parameter."""
    given: dict[str, Any] = {}
    if mtu is not None:
        given["mtu"] = None if mtu == "auto" else _mtu(mtu)
    if not (given or parameters or description is not None):
        raise click.UsageError("nothing to change: give --description, --mtu or --parameter")
    request = NetworkModify(
        network=network,
        description=UNSET if description is None else description,
        parameters=dict(parameters),
        **given,
    )
    _finish(session, network_modify(session.client.ops, request), "changed", wait=wait, timeout=timeout)


def _mtu(text: str) -> int:
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number nor 'auto'", param_hint="--mtu")
    return int(text)


@click.command("remove")
@click.argument("network", type=NETWORK)
@yes_option
@wait_options(30)
@format_option
@pass_session
def remove(session: Session, network: str, yes: bool, wait: bool, timeout: float) -> None:
    """Remove a network that no VM uses."""
    ops = session.client.ops
    found = network_info(ops, NetworkQuery(network=network)).view
    session.confirm(f"Remove network {found.name}?", yes=yes)
    view = network_remove(ops, NetworkQuery(network=found.id))
    if wait:
        with watching(session, f"network {view.name}", later="pvc network list") as report:
            wait_network(ops, view.id, ObjectGoal.GONE, timeout_s=timeout, report=report)
    session.out.done(f"network {view.name} {'is removed' if wait else 'will be removed'}", network=view)
