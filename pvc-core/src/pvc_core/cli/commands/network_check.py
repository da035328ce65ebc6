"""`pvc network check`: what every node finds wrong with a network."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import click
from msgspec import Struct

from pvc_core.cli import words
from pvc_core.cli.complete import NETWORK
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Cell, Column
from pvc_core.cli.session import Session, pass_session
from pvc_core.client.local import Client
from pvc_core.model.errors import PvcError
from pvc_core.ops.network import NetworkQuery, network_info
from pvc_core.ops.snapshot import read_nodes

_AT_ONCE: Final = 16
"""Nodes that are asked at the same time."""


class NodeFinding(Struct, frozen=True, kw_only=True):
    """One result of a check on one node."""

    node: str
    ok: bool
    check: str
    message: str


_COLUMNS: Final = (
    Column("Node", lambda found: words.name(found.node)),
    Column("Check", lambda found: found.check),
    Column("Result", lambda found: Cell("ok", "good") if found.ok else Cell("wrong", "bad")),
    Column("Found", lambda found: found.message, long=True),
)


@click.command("check")
@click.argument("network", type=NETWORK)
@click.option("--node", "nodes", multiple=True, help="Ask only this node; may be repeated.")
@click.option("--problems", is_flag=True, help="Show only what is wrong.")
@format_option
@pass_session
def check(session: Session, network: str, nodes: tuple[str, ...], problems: bool) -> None:
    """Have every node that has the network look for what is wrong with it.

    Exits with status 1 when something is.
    """
    found = network_info(session.client.ops, NetworkQuery(network=network))
    facts = read_nodes(session.client.store)
    wanted = nodes or tuple(sorted(name for name in facts if facts[name].offers(f"network:{found.view.driver}")))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = threads.map(lambda node: _ask(session.client, node, found.view.id), wanted)
    findings = [finding for answer in answers for finding in answer]
    bad = sum(not finding.ok for finding in findings)
    shown = [finding for finding in findings if not (problems and finding.ok)]
    session.out.listing(shown, _COLUMNS, empty=f"network {found.view.name}: nothing is wrong")
    if bad:
        raise click.exceptions.Exit(1)


def _ask(client: Client, node: str, network: str) -> list[NodeFinding]:
    try:
        said = client.ask("network.check", node=node, network=network)
    except PvcError as error:
        return [NodeFinding(node=node, ok=False, check="node", message=str(error))]
    return [NodeFinding(node=node, **finding) for finding in said]
