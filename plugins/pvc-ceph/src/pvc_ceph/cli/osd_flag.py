"""``pvc storage osd flag``."""

from typing import Any, Final

import click

from pvc_ceph.cli.osd_ask import give, known, listing
from pvc_ceph.osd.flags import CLUSTER_FLAGS, OSD_FLAGS
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.cli import (
    Client,
    Column,
    Output,
    format_option,
    pass_client,
    pass_output,
    session,
    wait_options,
    yes_option,
)

_COSTS: Final = {
    "pause": "every read and write of every guest on Ceph stops until it is unset",
    "noup": "no OSD comes up again while it is set: each restart loses one",
    "nodown": "an OSD that is dead is waited for: its guests' reads and writes hang while it is set",
}
"""What a flag does to guests, for those that need a second thought."""


@click.group()
def flag() -> None:
    """Flags that keep Ceph from doing something by itself, of the whole cluster or of single OSDs."""


@flag.command("set")
@click.argument("name", type=click.Choice(CLUSTER_FLAGS), metavar="FLAG")
@click.argument("osds", type=int, nargs=-1)
@yes_option
@wait_options()
@format_option
def set_(name: str, osds: tuple[int, ...], yes: bool, wait: bool, timeout: float) -> None:
    """Set a flag of the whole cluster, or of OSDS alone: noout, noin, nodown, noup.

    \b
    noout              an OSD that is down stays in: its data is not copied elsewhere
    noin               new OSDs, and those that were put out by Ceph, stay out
    nodown, noup       Ceph does not take OSDs for down, or for up
    norebalance, nobackfill, norecover   data does not move
    noscrub, nodeep-scrub                data is not checked
    pause              nothing is read or written
    """
    if name in _COSTS:
        call = session()
        call.out.warn(f"{name}: {_COSTS[name]}")
        call.confirm(f"set {name}?", yes=yes)
    _change(name, osds, wanted=True, wait=wait, timeout=timeout)


@flag.command()
@click.argument("name", type=click.Choice(CLUSTER_FLAGS), metavar="FLAG")
@click.argument("osds", type=int, nargs=-1)
@wait_options()
@format_option
def unset(name: str, osds: tuple[int, ...], wait: bool, timeout: float) -> None:
    """Unset a flag of the whole cluster, or of OSDS alone."""
    _change(name, osds, wanted=False, wait=wait, timeout=timeout)


@flag.command("list")
@format_option
@pass_output
@pass_client
def list_(client: Client, output: Output, /) -> None:
    """List the flags that are set."""
    osds = listing(client)
    rows: list[dict[str, Any]] = [{"flag": name, "osd": None} for name in osds.flags]
    rows += [{"flag": name, "osd": osd.id} for osd in osds.osds for name in osd.flags]
    columns = (
        Column("FLAG", lambda row: row["flag"]),
        Column("OF", lambda row: "cluster" if row["osd"] is None else f"OSD {row['osd']}"),
    )
    output.listing(rows, columns, empty="no flag is set")


def _change(name: str, ids: tuple[int, ...], *, wanted: bool, wait: bool, timeout: float) -> None:
    if ids and name not in OSD_FLAGS:
        raise InvalidRequest(f"{name} is a flag of the whole cluster; single OSDs have {', '.join(OSD_FLAGS)}")
    found = listing(session().client)
    for id_ in ids:
        known(found, id_)
    of = f"OSD {', '.join(map(str, ids))}" if ids else "the cluster"
    arguments = {"flag": name, "wanted": wanted, "osds": [str(id_) for id_ in ids]}
    said = f"{name} is {'set' if wanted else 'unset'} for {of}"
    give("flag", found.answered_by, f"flag {name}", arguments, lambda _: said, wait=wait, timeout=timeout)
