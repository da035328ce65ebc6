"""`pvc storage status`, `pvc storage util`."""

import click
import msgspec

from pvc_ceph.report import Daemon, HostUse, PoolUse, Severity, Status, Use
from pvc_core.model.units import format_bytes
from pvc_core.plugin.cli import Client, Column, Output, format_option, pass_client, pass_output

_WORDS = {Severity.OK: "healthy", Severity.WARN: "warning", Severity.ERROR: "ERROR"}

_DAEMONS = (
    Column("DAEMON", lambda row: f"{row[0]} {row[1].name}"),
    Column("NODE", lambda row: row[1].host or "?"),
    Column("STATE", lambda row: row[1].state if row[1].works else row[1].state.upper()),
    Column("ADDRESS", lambda row: row[1].address),
    Column("VERSION", lambda row: row[1].version),
)
_CHECKS = (
    Column("PROBLEM", lambda check: check.code),
    Column("SEVERITY", lambda check: "muted" if check.muted else _WORDS[check.severity]),
    Column("WHAT", lambda check: check.message),
)
_POOLS = (
    Column("POOL", lambda pool: pool.name),
    Column("COPIES", lambda pool: f"{pool.copies}/{pool.mincopies}", right=True),
    Column("PGS", lambda pool: str(pool.groups), right=True),
    Column("STORED", lambda pool: format_bytes(pool.stored_bytes), right=True),
    Column("RAW", lambda pool: format_bytes(pool.raw_bytes), right=True),
    Column("FREE", lambda pool: format_bytes(pool.free_bytes), right=True),
    Column("USED", lambda pool: _part(pool.stored_bytes, pool.stored_bytes + pool.free_bytes), right=True),
    Column("PVC", lambda pool: "yes" if pool.pvc else "-"),
)
_SPACE = (
    Column("SIZE", lambda row: format_bytes(row.total_bytes), right=True),
    Column("USED", lambda row: format_bytes(row.used_bytes), right=True),
    Column("PART", lambda row: _part(row.used_bytes, row.total_bytes), right=True),
)
_HOSTS = (
    Column("HOST", lambda host: host.name),
    Column("OSDS", lambda host: f"{host.up}/{host.osds} up", right=True),
    *_SPACE,
)
_CLASSES = (
    Column("TIER", lambda tier: tier.name),
    *_SPACE,
)

_node_option = click.option("--node", default="", help="Ask through this node [any one].")


@click.command()
@_node_option
@format_option
@pass_output
@pass_client
def status(client: Client, out: Output, node: str) -> None:
    """Show how Ceph is: its health, its daemons, what it does now."""
    found = msgspec.convert(client.ask("ceph.status", node), Status)
    if out.format != "table":
        out.data(found)
        return
    out.text(_summary(found))
    if found.checks:
        out.text("")
        out.listing(found.checks, _CHECKS, empty="")
    out.text("")
    rows: list[tuple[str, Daemon]] = [("monitor", each) for each in found.monitors]
    out.listing([*rows, *(("manager", each) for each in found.managers)], _DAEMONS, empty="no daemon is known")


@click.command()
@_node_option
@format_option
@pass_output
@pass_client
def util(client: Client, out: Output, node: str) -> None:
    """Show where Ceph's space is: by pool, by tier, by host."""
    found = msgspec.convert(client.ask("ceph.util", node), Use)
    if out.format != "table":
        out.data(found)
        return
    part = _part(found.used_bytes, found.total_bytes)
    out.text(f"Used {format_bytes(found.used_bytes)} of {format_bytes(found.total_bytes)} raw ({part})\n")
    pools: list[PoolUse] = sorted(found.pools, key=lambda pool: pool.name)
    out.listing(pools, _POOLS, empty="no pools")
    out.text("")
    out.listing(found.classes, _CLASSES, empty="no OSDs")
    out.text("")
    hosts: list[HostUse] = list(found.hosts)
    out.listing(hosts, _HOSTS, empty="no hosts")


def _summary(found: Status) -> str:
    traffic = found.traffic
    lines = {
        "Cluster": found.fsid,
        "Health": _WORDS[found.severity],
        "OSDs": f"{found.osds.total}, of which {found.osds.up} up and {found.osds.in_} in"
        + (f"; flags: {', '.join(found.flags)}" if found.flags else ""),
        "Groups": ", ".join(f"{count} {state}" for state, count in sorted(found.groups.items())) or "none",
        "Space": f"{format_bytes(found.used_bytes)} of {format_bytes(found.total_bytes)} raw "
        f"({_part(found.used_bytes, found.total_bytes)})",
        "Clients": f"{format_bytes(traffic.read_bytes)}/s read ({traffic.reads}/s), "
        f"{format_bytes(traffic.write_bytes)}/s written ({traffic.writes}/s)",
        **({"Recovery": f"{format_bytes(traffic.recovered_bytes)}/s"} if traffic.recovered_bytes else {}),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _part(used: int, total: int) -> str:
    return f"{used / total:.0%}" if total else "-"
