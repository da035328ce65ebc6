"""``pvc storage osd``: the group, and what only looks."""

from typing import Final

import click

from pvc_ceph.cli.osd_add import add, create_db_vg
from pvc_ceph.cli.osd_ask import devices_of, listing
from pvc_ceph.cli.osd_change import in_, out, refresh
from pvc_ceph.cli.osd_flag import flag
from pvc_ceph.cli.osd_retire import remove, replace
from pvc_ceph.osd.values import DeviceRow, OsdRow
from pvc_core.model.units import format_bytes
from pvc_core.plugin.cli import Client, Column, Output, format_option, pass_client, pass_output


@click.group("osd")
def osd() -> None:
    """Add, remove and look after the OSDs of a Ceph cluster: the daemons that keep data on disks."""


def _state(row: OsdRow) -> str:
    words = [row.state] if row.state else ["up" if row.up else "down", "in" if row.inside else "out"]
    return ",".join([*words, *row.flags])


_OSDS: Final = (
    Column("OSD", lambda row: str(row.id), right=True),
    Column("NODE", lambda row: row.node),
    Column("DEVICE", lambda row: row.device),
    Column("DB", lambda row: row.db),
    Column("CLASS", lambda row: row.device_class),
    Column("SIZE", lambda row: format_bytes(row.size_bytes or row.disk_bytes), right=True),
    Column("USED", lambda row: f"{row.used_percent:.1f} %", right=True),
    Column("WEIGHT", lambda row: f"{row.weight:.5f}", right=True),
    Column("REWEIGHT", lambda row: f"{row.reweight:.2f}", right=True),
    Column("PGS", lambda row: str(row.pgs), right=True),
    Column("STATE", _state),
)

_DEVICES: Final = (
    Column("DEVICE", lambda row: row.device),
    Column("SIZE", lambda row: format_bytes(row.size_bytes), right=True),
    Column("CLASS", lambda row: row.device_class),
    Column("MODEL", lambda row: row.model),
    Column("SERIAL", lambda row: row.serial),
    Column("FREE", lambda row: "yes" if row.free else "no"),
    Column("FOUND", lambda row: "; ".join(row.found)),
)


@osd.command("list")
@click.option("-n", "--node", help="Only those of this node.")
@format_option
@pass_output
@pass_client
def list_(client: Client, output: Output, /, node: str | None) -> None:
    """List all OSDs, with how full they are."""
    rows = [row for row in listing(client).osds if node in (None, row.node)]
    output.listing(rows, _OSDS, empty="no OSDs" if node is None else f"node {node} has no OSDs")


@osd.command()
@click.argument("node")
@format_option
@pass_output
@pass_client
def devices(client: Client, output: Output, /, node: str) -> None:
    """List the disks of NODE: which are free for an OSD, and what is on the others."""
    rows: list[DeviceRow] = devices_of(client, node)
    output.listing(rows, _DEVICES, empty=f"node {node} has no disks")


for _command in (add, remove, replace, refresh, in_, out, flag, create_db_vg):
    osd.add_command(_command)
