"""`pvc fence list`, `info`."""

from collections.abc import Sequence

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.units import format_duration
from pvc_core.ops.fence_record import FenceInfo, FenceList, FenceQuery, FenceRow, fence_info, fence_list, wait_fence

_FOLLOW_S = 366 * 86400.0


def _vms(row: FenceRow) -> str:
    return f"{row.recovered}" + (f" + {row.stopped} stopped" if row.stopped else "") if row.proofs else ""


_ROWS = (
    Column("Node", lambda row: words.name(row.node)),
    Column("Stage", lambda row: words.state(row.stage)),
    Column("Lost", lambda row: words.when(row.opened)),
    Column("Proof", lambda row: words.words(row.proofs)),
    Column("VMs freed", _vms, right=True),
    Column("Rounds", lambda row: str(row.round or ""), right=True, extra=True),
    Column("Waits for", lambda row: Cell(row.waits_for, "bad"), long=True),
)


@click.command("list")
@click.option("-a", "--active", is_flag=True, help="Only those of nodes that are not back.")
@format_option
@pass_session
def list_(session: Session, active: bool) -> None:
    """List the last loss of each node, and how far its fencing is."""
    found = fence_list(session.client.ops, FenceList(active=active))
    columns = [column for column in _ROWS if column.title != "Waits for" or any(row.waits_for for row in found)]
    session.out.listing(found, columns, empty="no node is lost" if active else "no node was ever lost")


@click.command("info")
@click.argument("node", type=NODE)
@click.option("--follow", is_flag=True, help="Wait until the fencing is over, and show what happens meanwhile.")
@format_option
@pass_session
def info(session: Session, node: str, follow: bool) -> None:
    """Show the course of a node's last loss: stages, tries, proofs, and what became of its VMs."""
    ops = session.client.ops
    if follow:
        with watching(session, f"node {node}", later=f"pvc fence info {node}") as report:
            found = wait_fence(ops, node, timeout_s=_FOLLOW_S, report=report)
    else:
        found = fence_info(ops, FenceQuery(node=node))
    session.out.record(found, _info_sheet(found))


def _info_sheet(found: FenceInfo) -> Sheet:
    row, record = found.row, found.record
    debts = [
        *(["put back into service by an operator"] if record.drained and not row.active else []),
        *(["its clean-up"] if record.dirty and not row.active else []),
        *(["opening of its storage"] if record.blocked else []),
    ]
    return [
        Line("Node", words.name(row.node)),
        Line("Stage", words.state(row.stage)),
        Line("Lost", words.when(row.opened)),
        Line("Since", words.when(row.changed)),
        Line("Lease", str(row.lease)),
        *([Line("Rounds", str(row.round))] if row.round else []),
        *([Line("Waits for", Cell(row.waits_for, "bad"))] if row.waits_for else []),
        *([Line("VMs left", Cell(words.words(found.left), "bad"))] if found.left else []),
        *([Line("Switched on", record.powered_on)] if record.powered_on else []),
        *([Line("Still to do", Cell(words.words(debts), "warn"))] if debts else []),
        Block(
            "Proofs",
            (
                Column("Proof", lambda proof: proof.kind),
                Column("At", lambda proof: words.when(proof.at)),
                Column("By", lambda proof: proof.by),
                Column("Evidence", lambda proof: proof.evidence, long=True),
            ),
            record.proofs,
        ),
        Block("VMs", _VMS, record.vms),
        Block(
            "Tries",
            (
                Column("At", lambda attempt: words.when(attempt.at)),
                Column("By", lambda attempt: f"level {attempt.level}" if attempt.level else attempt.means),
                Column("Took", lambda attempt: format_duration(attempt.took_s), right=True),
                Column("Result", lambda attempt: Cell(attempt.message, "" if attempt.ok else "bad"), long=True),
            ),
            record.attempts,
        ),
        Block("Events", _events(record.opened), record.events),
        Block(
            "Earlier losses",
            (
                Column("Lost", lambda loss: words.when(loss.opened)),
                Column("Lease", lambda loss: str(loss.lease), right=True),
                Column("Last stage", lambda loss: words.state(loss.stage)),
                Column("Since", lambda loss: words.when(loss.changed)),
                Column("Proof", lambda loss: words.words(loss.proofs)),
                Column("VMs", lambda loss: str(loss.vms), right=True),
            ),
            record.earlier,
        ),
    ]


_VMS = (
    Column("VM", lambda vm: words.name(vm.name or vm.vm)),
    Column("Outcome", lambda vm: vm.outcome + (f" to {vm.target}" if vm.target else "")),
    Column("Proof", lambda vm: vm.proof),
    Column("At", lambda vm: words.when(vm.at)),
)


def _events(opened: float) -> Sequence[Column]:
    return (
        Column("At", lambda event: words.when(event.at)),
        Column("After", lambda event: format_duration(max(event.at - opened, 0.0)), right=True),
        Column("Stage", lambda event: words.state(event.stage)),
        Column("By", lambda event: event.by),
        Column("What", lambda event: event.message, long=True),
    )
