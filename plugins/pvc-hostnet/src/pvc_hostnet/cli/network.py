"""`pvc node network`."""

from typing import NamedTuple

import click
import msgspec

from pvc_core.model.errors import PvcError
from pvc_core.plugin.cli import Client, Column, Output, format_option, pass_client, pass_output
from pvc_hostnet.report import NetworkStatus, Status


class _Row(NamedTuple):
    node: str
    network: NetworkStatus


_COLUMNS = (
    Column("NODE", lambda row: row.node),
    Column("NETWORK", lambda row: row.network.name),
    Column("DEVICE", lambda row: _device(row.network)),
    Column("MTU", lambda row: str(row.network.mtu or "-"), right=True),
    Column("CARRIER", lambda row: "yes" if row.network.carrier else "NO"),
    Column("ADDRESSES", lambda row: _addresses(row.network)),
    Column("FLOATING", lambda row: _floating(row.network)),
    Column("PROBLEMS", lambda row: "; ".join(row.network.problems) or "-"),
)


@click.command()
@click.argument("node", required=False)
@format_option
@pass_output
@pass_client
def network(client: Client, out: Output, node: str | None) -> None:
    """Show the own networks of a node, or of all nodes that are there: devices, addresses, and who has floating ones."""
    found = [_ask(client, node)] if node else _ask_all(client, out)
    if out.format != "table":
        out.data(found)
        return
    rows = [_Row(status.node, network) for status in found for network in status.networks]
    out.listing(rows, _COLUMNS, empty="no networks are given in the section hostnet of pvcnoded.yml")


def _ask(client: Client, node: str) -> Status:
    return msgspec.convert(client.ask("hostnet.status", node), Status)


def _ask_all(client: Client, out: Output) -> list[Status]:
    found = []
    for row in client.call("node.list"):
        if not row.alive:
            out.warn(f"node {row.name} is not alive: left out")
            continue
        try:
            found.append(_ask(client, row.name))
        except PvcError as error:
            out.warn(f"node {row.name}: {error}")
    return found


def _device(network: NetworkStatus) -> str:
    if network.same_as:
        return f"{network.device} (as {network.same_as})"
    return network.device


def _addresses(network: NetworkStatus) -> str:
    return ", ".join(one.address if one.present else f"{one.address} (MISSING)" for one in network.addresses) or "-"


def _floating(network: NetworkStatus) -> str:
    return ", ".join(f"{one.address} (held)" if one.held else one.address for one in network.floating) or "-"
