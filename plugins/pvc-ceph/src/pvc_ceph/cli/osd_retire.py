"""``pvc storage osd remove`` and ``replace``."""

from typing import Any, Final

import click

from pvc_ceph.cli.osd_ask import give, is_alive, known, listing, number, preview
from pvc_ceph.cli.osd_options import db_arguments, db_options
from pvc_ceph.osd.risks import without
from pvc_ceph.osd.values import OsdList, OsdRow
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.cli import Client, format_option, session, wait_options, yes_option

_FORCE: Final = "At once: without waiting until its data is elsewhere, and without asking Ceph. What has no other copy is lost for good."


@click.command()
@click.argument("osd", type=int)
@click.option("--force", is_flag=True, help=_FORCE)
@yes_option
@wait_options(None)
@format_option
def remove(osd: int, force: bool, yes: bool, wait: bool, timeout: float) -> None:
    """Remove an OSD: move its data to others, wait until Ceph says that it may be destroyed, wipe its disk.

    It can be cancelled until its data has moved (`pvc task cancel`). With --force also that of a node that is gone for
    good: then only the cluster forgets it.
    """
    call = session()
    osds = listing(call.client)
    row = known(osds, osd)
    node, absent = _node(call.client, osds, row, force=force)
    for text in without(osds, [osd]):
        call.out.warn(text)
    loss = _loss(osds, row) if force else ""
    call.confirm(f"remove OSD {osd} ({row.device or 'no disk'}) of node {row.node or 'unknown'}{loss}?", yes=yes)
    arguments = {"osd": osd, "force": force, "absent": absent}
    give("remove", node, f"OSD {osd}", arguments, _removed, wait=wait, timeout=timeout)


@click.command()
@click.argument("osd", type=int)
@click.argument("device")
@click.option("--weight", type=click.FloatRange(0.0, 1000.0), help="Its part of the data [the new disk's size in TiB].")
@db_options
@click.option("--no-db", is_flag=True, help="Its metadata goes with its data, wherever it was before.")
@click.option("--force", is_flag=True, help=_FORCE)
@yes_option
@wait_options(None)
@format_option
def replace(
    osd: int,
    device: str,
    weight: float | None,
    db: str | None,
    db_size: str | None,
    db_ratio: str | None,
    no_db: bool,
    force: bool,
    yes: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Give an OSD the disk DEVICE of its node, and keep its id; the disk may be the one it has.

    Its class stays; its metadata goes where the options say, as with `add`. It waits as `remove` does.
    """
    call = session()
    osds = listing(call.client)
    row = known(osds, osd)
    where = db_arguments(db, db_size, db_ratio)
    if where and no_db:
        raise InvalidRequest("--no-db and the other options for its metadata exclude each other")
    if row.db and not where and not no_db:
        raise InvalidRequest(
            f"OSD {osd} has its metadata on {row.db}; say where that of the new one goes: --db-ratio, --db-size or --db; or, "
            "to have it with the data, --no-db"
        )
    arguments: dict[str, Any] = {"device": device, **where}
    if weight is not None:
        arguments["weight"] = number(weight)
    plan = preview(call.client, row.node, {**arguments, "device_class": row.device_class, "replaces": osd})
    for text in (*without(osds, [osd]), *filter(None, [plan.warning])):
        call.out.warn(text)
    loss = _loss(osds, row) if force else ""
    call.confirm(f"destroy OSD {osd} ({row.device or 'no disk'}) and make it anew on {plan.device}{loss}?", yes=yes)
    give(
        "replace",
        row.node,
        f"OSD {osd}",
        {"osd": osd, "force": force, **arguments},
        lambda result: f"OSD {osd} on {result['device']} of node {row.node} is up and in",
        wait=wait,
        timeout=timeout,
    )


def _loss(osds: OsdList, row: OsdRow) -> str:
    if row.up and osds.measured:
        return f" at once; {row.pgs} placement groups may lose data"
    return " at once; what has no other copy is lost, and how much that is is not known"


def _node(client: Client, osds: OsdList, row: OsdRow, *, force: bool) -> tuple[str, bool]:
    """Return the node that removes an OSD, and whether that is not its own."""
    if row.node and is_alive(client, row.node):
        return row.node, False
    if not force:
        raise InvalidRequest(
            f"node {row.node or '(unknown)'}, which has OSD {row.id}, is not alive; once it is gone for good, --force lets the "
            "cluster forget the OSD"
        )
    return osds.answered_by, True


def _removed(result: dict[str, Any]) -> str:
    wiped = f"; {result['wiped']} is wiped" if result["wiped"] else "; no disk of it was found, so none is wiped"
    return f"OSD {result['osd']} is removed{wiped}"
