"""``pvc storage plan``: how much a Ceph cluster would hold, survive and take.  It needs no cluster."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from pvc_ceph.sizing_input import file_nodes, layout, node, parse_disks, read_file
from pvc_ceph.sizing_plan import SYSTEM_MEMORY_BYTES, Layout, Loss, NodePlan, Plan, PlannedNode, plan
from pvc_ceph.sizing_warnings import warnings
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import format_bytes
from pvc_core.plugin.cli import Column, Output, format_option, pass_output

_WIDTH: Final = 100
_LABEL: Final = 22


@click.command("plan")
@click.option("--nodes", type=click.IntRange(1, 1000), help="So many equal nodes, hv1, hv2, ...")
@click.option("--disks", metavar="NxSIZE,...", help="Data disks of each, such as 4x3.84T.")
@click.option(
    "--node",
    "single",
    multiple=True,
    metavar="NAME=NxSIZE,...",
    help="A node with other disks, such as hv4=2x7.68T; may be repeated.",
)
@click.option("--db-device", metavar="NxSIZE,...", help="Devices for the OSDs' metadata in each node, such as 1.6T.")
@click.option("--memory", metavar="SIZE", help="Memory of each node, such as 256G.")
@click.option("--cores", type=click.IntRange(1, 4096), help="Cores (hardware threads) of each node.")
@click.option("--file", "path", type=click.Path(path_type=Path), help="YAML or JSON file with the nodes, one by one.")
@click.option("--copies", type=int, help="Copies of each object, on different hosts [3].")
@click.option("--mincopies", type=int, help="Copies that must be there to read and write [half, rounded up].")
@click.option("--full-at", metavar="PERCENT", help="How full it shall become [80%].")
@click.option("--media", type=click.Choice(["hdd", "ssd", "nvme"]), help="Kind of the data disks [ssd].")
@click.option("--monitors", type=int, help="So many nodes, the first ones, run a monitor [3].")
@click.option("--osd-memory", metavar="SIZE", help="Memory that each OSD is to use (osd_memory_target) [4G].")
@format_option
@pass_output
def plan_command(
    out: Output,
    /,
    nodes: int | None,
    disks: str | None,
    single: tuple[str, ...],
    db_device: str | None,
    memory: str | None,
    cores: int | None,
    path: Path | None,
    **rules: Any,
) -> None:
    """Say how much a Ceph cluster would hold, what it would survive, and what it takes from its nodes.

    Nothing is asked of a cluster. Disks are written as their makers do: T is 10^12 bytes, TiB 2^40.

    \b
    pvc storage plan --nodes 3 --disks 4x3.84T --memory 256G --cores 32
    pvc storage plan --nodes 3 --disks 4x3.84T --node hv4=2x7.68T
    pvc storage plan --nodes 4 --disks 8x16T --media hdd --db-device 1.6T
    """
    given = {key: value for key, value in rules.items() if value is not None}
    if path is not None:
        if any(value is not None for value in (nodes, disks, db_device, memory, cores)) or single:
            raise InvalidRequest("the nodes are given twice: by --file and by options; leave one of them out")
        found = read_file(path)
        keys = ("copies", "mincopies", "full_at", "media", "monitors", "osd_memory")
        wanted = layout(file_nodes(found), **{key: getattr(found, key) for key in keys} | given)
    else:
        devices = [db_device] if db_device else []
        planned = _nodes(nodes, disks, single)
        made = [node(n, [d], db_devices=devices, memory=memory or 0, cores=cores or 0) for n, d in planned.items()]
        wanted = layout(made, **given)
    _print(out, wanted, plan(wanted))


def _nodes(nodes: int | None, disks: str | None, single: Sequence[str]) -> dict[str, str]:
    """Return name -> disks."""
    if nodes is None and not single:
        raise InvalidRequest("say which nodes: --nodes 3 --disks 4x3.84T, or --node NAME=4x3.84T, or --file")
    if (nodes is None) != (disks is None):
        raise InvalidRequest("--nodes and --disks belong together: --nodes 3 --disks 4x3.84T")
    if disks is not None:
        parse_disks(disks)
    found = {f"hv{number}": disks or "" for number in range(1, (nodes or 0) + 1)}
    named: set[str] = set()
    for text in single:
        name, equals, own = text.partition("=")
        if not (name and equals and own):
            raise InvalidRequest(f"{text!r} is not of the form NAME=NxSIZE; write it such as hv4=2x7.68T")
        if name in named:
            raise InvalidRequest(
                f"node {name} is given twice; write all its disks at once, such as {name}=2x7.68T,4x960G"
            )
        named.add(name)
        found[name] = own
    return found


def _print(out: Output, wanted: Layout, found: Plan) -> None:
    said = warnings(wanted, found)
    if out.format != "table":
        out.data({"plan": found, "warnings": said})
        return
    rows = [*_space(found), *_losses(found), *_resources(found)]
    out.text("\n".join(line for label, text in rows for line in _row(label, text)))
    out.text("")
    out.listing(found.nodes, _columns(wanted.nodes), empty="")
    if said:
        out.text("\nWarnings:")
        out.text("\n".join(textwrap.fill(text, _WIDTH, initial_indent="- ", subsequent_indent="  ") for text in said))


def _row(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH - _LABEL, break_on_hyphens=False)
    return [f"{label if index == 0 else '':<{_LABEL}}{line}" for index, line in enumerate(lines)]


def _space(found: Plan) -> list[tuple[str, str]]:
    sizes = format_bytes(found.smallest_osd_bytes)
    if found.largest_osd_bytes != found.smallest_osd_bytes:
        sizes += f" to {format_bytes(found.largest_osd_bytes)}"
    ideal = ""
    if found.ideal_bytes > found.usable_bytes:
        ideal = f"; up to {format_bytes(found.ideal_bytes)} with the balancer"
    percent = found.planned_percent
    copies = "1 copy" if found.copies == 1 else f"{found.copies} copies"
    return [
        ("Raw", f"{format_bytes(found.raw_bytes)} on {found.osds} OSDs of {sizes}"),
        ("Usable", f"{format_bytes(found.usable_bytes)} with {copies} on different hosts{ideal}"),
        (f"Usable, {percent} % full", format_bytes(found.planned_bytes)),
        (
            "Recommended",
            f"{format_bytes(found.recommended_bytes)}: no fuller than {percent} % after a loss that is healed",
        ),
    ]


def _losses(found: Plan) -> list[tuple[str, str]]:
    rows = [("A lost host", found.host_loss), ("A lost disk", found.disk_loss)]
    if found.db_loss is not None:
        rows.append(("A lost DB device", found.db_loss))
    return [(label, _loss(loss, found)) for label, loss in rows]


def _loss(loss: Loss, found: Plan) -> str:
    what = loss.what if loss.osds == 1 else f"{loss.what} with {loss.osds} OSDs"
    copies = format_bytes(loss.copied_bytes)
    match loss.outcome:
        case "heals":
            return f"{what}: heals, {copies} are copied, then {loss.full_percent:.0f} % full"
        case "too full":
            return (
                f"{what}: does not heal, {copies} would make {loss.full_percent:.0f} %; it does up to "
                f"{format_bytes(loss.heals_up_to_bytes)} of data"
            )
        case "degraded":
            return f"{what}: {copies} stay without one copy until it is back; guests go on"
        case "stops":
            return f"{what}: guests stop until it is back, {found.mincopies} copies must be there"
        case "lost":
            return f"{what}: {copies} of data are lost for good"


def _resources(found: Plan) -> list[tuple[str, str]]:
    rows = []
    if found.vm_memory_bytes is not None:
        rows.append(("Memory for VMs, n-1", f"{format_bytes(found.vm_memory_bytes)} without the largest node"))
    if found.vm_cores is not None:
        rows.append(("Cores for VMs, n-1", f"{found.vm_cores} without the largest node"))
    if rows:
        rows.append(("Kept for the system", f"{format_bytes(SYSTEM_MEMORY_BYTES)} and 1 core of each node"))
    return rows


def _columns(nodes: Sequence[PlannedNode]) -> list[Column]:
    columns = [
        Column("Node", lambda row: row.name),
        Column("OSDs", lambda row: str(row.osds), right=True),
        Column("Disks", lambda row: format_bytes(row.disk_bytes) if row.osds else "", right=True),
        Column("Full", lambda row: f"{row.full_percent:.0f}%" if row.osds else "", right=True),
        Column("Monitor", lambda row: "yes" if row.monitor else ""),
        Column("Ceph memory", lambda row: format_bytes(row.ceph_memory_bytes), right=True),
        Column("Ceph cores", lambda row: str(row.ceph_cores), right=True),
    ]
    if any(node.memory_bytes for node in nodes):
        columns.append(Column("VM memory", _vm_memory, right=True))
    if any(node.cores for node in nodes):
        columns.append(Column("VM cores", _vm_cores, right=True))
    if any(node.db_devices for node in nodes):
        columns.append(Column("DB per OSD", _db, right=True))
    return columns


def _vm_memory(row: NodePlan) -> str:
    return "" if row.vm_memory_bytes is None else format_bytes(row.vm_memory_bytes)


def _vm_cores(row: NodePlan) -> str:
    return "" if row.vm_cores is None else str(row.vm_cores)


def _db(row: NodePlan) -> str:
    return f"{format_bytes(row.db_bytes)} ({row.db_percent:.1f}%)" if row.osds_per_db else ""
