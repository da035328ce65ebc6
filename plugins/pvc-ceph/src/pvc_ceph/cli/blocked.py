"""`pvc storage blocked`, `pvc storage unblock`."""

import click
import msgspec

from pvc_ceph.blocked import UNBLOCK, Blocked
from pvc_core.model.task import Task
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

_COLUMNS = (
    Column("ADDRESS", lambda row: row.address),
    Column("NODE", lambda row: row.node or "-"),
    Column("WHAT", lambda row: "the node" if row.address.endswith(":0/0") else "one client"),
    Column("CLOSED", lambda row: f"since it lost lease {row.lease}" if row.lease else "-"),
    Column("UNTIL", lambda row: row.until.partition(".")[0]),
)


@click.command()
@format_option
@pass_output
@pass_client
def blocked(client: Client, out: Output) -> None:
    """List the clients that Ceph refuses: those of lost nodes, and such as held a volume that was taken over."""
    rows = msgspec.convert(client.ask("ceph.blocked"), list[Blocked])
    out.listing(rows, _COLUMNS, empty="Ceph refuses no client")


@click.command()
@click.argument("node")
@click.option("--force", is_flag=True, help="Also while PVC keeps the node from writing: its VMs may run elsewhere.")
@yes_option
@wait_options(60)
@format_option
def unblock(node: str, force: bool, yes: bool, wait: bool, timeout: float) -> None:
    """Let the clients of NODE write again.

    PVC does that by itself when a lost node is back and has ended what it ran.  This is for a node that is refused though it is
    in service.
    """
    call = session()
    if force:
        call.confirm(f"Let node {node} write, whatever still runs there?", yes=yes)
    rows = msgspec.convert(call.client.ask("ceph.blocked"), list[Blocked])
    worker = next(row.name for row in call.client.call("node.list") if row.alive and row.name != node)
    task = call.client.call(
        "task.create",
        kind=UNBLOCK,
        node=worker,
        arguments={"node": node, "force": force},
        subject=f"node {node} ({sum(row.node == node for row in rows)} blocked)",
    )

    def done(ended: Task) -> str:
        opened = ended.result.get("opened")
        return f"Ceph lets node {node} in again: {opened}" if opened else f"Ceph does not refuse node {node}"

    call.follow(task, done, wait=wait, timeout=timeout)
