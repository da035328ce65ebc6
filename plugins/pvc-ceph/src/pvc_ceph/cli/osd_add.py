"""``pvc storage osd add`` and ``create-db-vg``."""

from typing import Any

import click

from pvc_ceph.cli.osd_ask import give, number, preview
from pvc_ceph.cli.osd_options import db_arguments, db_options
from pvc_ceph.osd.values import AddPreview
from pvc_core.model.units import format_bytes
from pvc_core.plugin.cli import format_option, session, wait_options, yes_option


@click.command()
@click.argument("node")
@click.argument("device")
@click.option("--count", type=click.IntRange(1, 16), default=1, show_default=True, help="So many OSDs on the device.")
@click.option("--weight", type=click.FloatRange(0.0, 1000.0), help="Its part of the data [its size in TiB].")
@click.option("--class", "device_class", default="", help="Tier, such as hdd, ssd, nvme [by the kind of disk].")
@db_options
@yes_option
@wait_options(None)
@format_option
def add(
    node: str,
    device: str,
    count: int,
    weight: float | None,
    device_class: str,
    db: str | None,
    db_size: str | None,
    db_ratio: str | None,
    yes: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Make an OSD on the empty disk DEVICE of NODE.

    A disk with anything on it is refused. What `pvc storage osd devices NODE` calls free can be used.
    """
    call = session()
    arguments: dict[str, Any] = {"device": device, "count": count, **db_arguments(db, db_size, db_ratio)}
    if weight is not None:
        arguments["weight"] = number(weight)
    if device_class:
        arguments["device_class"] = device_class
    plan = preview(call.client, node, arguments)
    if plan.warning:
        call.out.warn(plan.warning)
    call.confirm(f"make {_what(plan)} on {plan.device} of node {node}?", yes=yes)
    give(
        "add",
        node,
        f"{device} of node {node}",
        arguments,
        lambda result: f"OSD {result['osds']} on {result['device']} of node {node} is up and in",
        wait=wait,
        timeout=timeout,
    )


@click.command("create-db-vg")
@click.argument("node")
@click.argument("device")
@yes_option
@wait_options()
@format_option
def create_db_vg(node: str, device: str, yes: bool, wait: bool, timeout: float) -> None:
    """Make a volume group for the metadata of OSDs on the empty fast disk DEVICE of NODE."""
    session().confirm(f"make a volume group for metadata on {device} of node {node}?", yes=yes)
    give(
        "create-db-vg",
        node,
        f"{device} of node {node}",
        {"device": device},
        lambda result: f"volume group {result['group']} on {result['device']} of node {node} takes metadata",
        wait=wait,
        timeout=timeout,
    )


def _what(plan: AddPreview) -> str:
    several = "1 OSD" if plan.osds == 1 else f"{plan.osds} OSDs"
    db = ""
    if plan.db:
        size = f", {format_bytes(plan.db_bytes)}" if plan.db_bytes else ""
        db = f", metadata on {plan.db}{size}"
    return f"{several} of {format_bytes(plan.size_bytes)} (class {plan.device_class}{db})"
