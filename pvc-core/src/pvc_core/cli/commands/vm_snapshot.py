"""`pvc vm snapshot ...`: snapshots of whole VMs."""

from typing import Final

import click

from pvc_core.cli import words
from pvc_core.cli.complete import VM
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import finish_task
from pvc_core.model.task import Task
from pvc_core.ops.vm_snapshot import (
    VmSnapshotCreate,
    VmSnapshotQuery,
    VmSnapshotRename,
    vm_snapshot_create,
    vm_snapshot_delete,
    vm_snapshot_rename,
)
from pvc_core.ops.vm_snapshot_rollback import VmSnapshotRollback, vm_snapshot_abandon, vm_snapshot_rollback
from pvc_core.ops.vm_snapshot_views import (
    VmSnapshotInfo,
    VmSnapshotList,
    VmSnapshotView,
    vm_snapshot_info,
    vm_snapshot_list,
)
from pvc_core.ops.vm_views import VmQuery

_WAYS: Final = {
    "filesystem": "its file systems were frozen",
    "crash": "all disks are of one instant, as after a power cut",
    "offline": "the VM is off",
}


def _state(snapshot: VmSnapshotView) -> Cell:
    return words.state(snapshot.state)


_COLUMNS = (
    Column("VM", lambda snapshot: words.name(snapshot.vm)),
    Column("Snapshot", lambda snapshot: words.name(snapshot.name)),
    Column("State", _state),
    Column("Consistency", lambda snapshot: snapshot.consistency),
    Column("Created", lambda snapshot: words.when(snapshot.created)),
    Column("Disks", lambda snapshot: str(len(snapshot.disks)), right=True),
    Column("Size", lambda snapshot: words.size(snapshot.size_bytes), right=True),
    Column("Description", lambda snapshot: snapshot.description, long=True, extra=True),
)
_REASON = Column("Reason", lambda snapshot: Cell(snapshot.reason, "warn"), long=True)


@click.command("list")
@click.argument("vm", type=VM, default="")
@format_option
@pass_session
def list_(session: Session, vm: str) -> None:
    """List the snapshots of a VM, or of all VMs, the oldest first."""
    found = vm_snapshot_list(session.client.ops, VmSnapshotList(vm=vm))
    columns = [*_COLUMNS, *([_REASON] if any(snapshot.reason for snapshot in found) else [])]
    session.out.listing(found, columns, empty=f"VM {vm} has no snapshots" if vm else "no VM has snapshots")


@click.command("info")
@click.argument("vm", type=VM)
@click.argument("snapshot")
@format_option
@pass_session
def info(session: Session, vm: str, snapshot: str) -> None:
    """Show one snapshot of a VM in detail: its disks, and what is there of them now."""
    found = vm_snapshot_info(session.client.ops, VmSnapshotQuery(vm=vm, snapshot=snapshot))
    session.out.record(found, _sheet(found))


def _sheet(found: VmSnapshotInfo) -> Sheet:
    view, then = found.view, found.definition
    return [
        Line("Snapshot", words.name(view.name)),
        Line("ID", words.faint(view.id)),
        Line("VM", view.vm),
        *([Line("Description", view.description)] if view.description else []),
        Line("State", _state(view)),
        *([Line("Reason", Cell(view.reason, "warn"))] if view.reason else []),
        Line("Consistency", f"{view.consistency}: {_WAYS[view.consistency]}" if view.consistency else ""),
        Line("Created", words.when(view.created)),
        Line("Defined then", f"{words.mib(int(then.memory))}, {words.count(then.vcpus, 'vCPU')}"),
        Block(
            "Disks",
            (
                Column("Volume", lambda disk: words.name(disk.volume)),
                Column("Then", lambda disk: disk.then if disk.then != disk.volume else ""),
                Column("Size", lambda disk: words.size(disk.size_bytes), right=True),
                Column("State", lambda disk: Cell(disk.state, "" if disk.state == "present" else "bad")),
                Column("Protected", lambda disk: words.yes_no(disk.protected)),
                Column("Attached", lambda disk: words.yes_no(disk.attached)),
            ),
            found.disks,
        ),
    ]


@click.command("create")
@click.argument("vm", type=VM)
@click.argument("snapshot", default="")
@click.option(
    "--freeze/--no-freeze",
    default=None,
    help="Have the guest agent freeze the file systems, or fail; or do not. Without either: if an agent answers.",
)
@click.option("-d", "--description", default="", help="For people.")
@wait_options(300)
@format_option
@pass_session
def create(
    session: Session, vm: str, snapshot: str, freeze: bool | None, description: str, wait: bool, timeout: float
) -> None:
    """Keep the contents of all disks of a VM, of one instant, with its definition.

    A running guest stands still for that moment. Without SNAPSHOT the name is the time now.
    """
    request = VmSnapshotCreate(vm=vm, snapshot=snapshot, freeze=freeze, description=description)
    task = vm_snapshot_create(session.client.ops, request)
    finish_task(session, task, lambda done: _made(done, vm), wait=wait, timeout=timeout)


def _made(done: Task, vm: str) -> str:
    consistency = str(done.result.get("consistency", ""))
    why = f": {done.result['not_frozen']}" if done.result.get("not_frozen") else ""
    return f"snapshot {done.result.get('snapshot', '')} of VM {vm} is made ({_WAYS.get(consistency, consistency)}{why})"


@click.command("rollback")
@click.argument("vm", type=VM)
@click.argument("snapshot")
@click.option("--definition", is_flag=True, help="Give the VM the hardware that it had then, too.")
@yes_option
@wait_options(None)
@format_option
@pass_session
def rollback(session: Session, vm: str, snapshot: str, definition: bool, yes: bool, wait: bool, timeout: float) -> None:
    """Give all disks of a VM that is off the contents of a snapshot; what was written since is lost.

    The VM is not started before that is done.
    """
    session.confirm(f"Throw away all changes of the disks of VM {vm} since snapshot {snapshot}?", yes=yes)
    request = VmSnapshotRollback(vm=vm, snapshot=snapshot, definition=definition)
    task = vm_snapshot_rollback(session.client.ops, request)
    finish_task(session, task, lambda _done: f"VM {vm} is rolled back to {snapshot}", wait=wait, timeout=timeout)


@click.command("rename")
@click.argument("vm", type=VM)
@click.argument("snapshot")
@click.argument("name")
@wait_options(300)
@format_option
@pass_session
def rename(session: Session, vm: str, snapshot: str, name: str, wait: bool, timeout: float) -> None:
    """Rename a snapshot of a VM."""
    task = vm_snapshot_rename(session.client.ops, VmSnapshotRename(vm=vm, snapshot=snapshot, name=name))
    finish_task(
        session, task, lambda _done: f"snapshot {snapshot} of VM {vm} is now {name}", wait=wait, timeout=timeout
    )


@click.command("delete")
@click.argument("vm", type=VM)
@click.argument("snapshot")
@yes_option
@wait_options(600)
@format_option
@pass_session
def delete(session: Session, vm: str, snapshot: str, yes: bool, wait: bool, timeout: float) -> None:
    """Delete a snapshot of a VM; its disks stay as they are."""
    session.confirm(f"Delete snapshot {snapshot} of VM {vm}?", yes=yes)
    task = vm_snapshot_delete(session.client.ops, VmSnapshotQuery(vm=vm, snapshot=snapshot))
    finish_task(session, task, lambda done: _deleted(done, vm, snapshot), wait=wait, timeout=timeout)


def _deleted(done: Task, vm: str, snapshot: str) -> str:
    missing = int(done.result.get("missing") or 0)
    hint = f" ({words.count(missing, 'disk')} had none any more)" if missing else ""
    return f"snapshot {snapshot} of VM {vm} is deleted{hint}"


@click.command("abandon")
@click.argument("vm", type=VM)
@yes_option
@format_option
@pass_session
def abandon(session: Session, vm: str, yes: bool) -> None:
    """Let a VM be started though a roll-back was not finished: its disks are of two times."""
    session.confirm(f"Let VM {vm} be started with disks of two times?", yes=yes)
    view = vm_snapshot_abandon(session.client.ops, VmQuery(vm=vm))
    session.out.done(f"VM {view.name} can be started; those of its disks that were rolled back stay so", vm=view)
