"""`pvc storage snapshot ...`: a volume is written `pool/volume`."""

import click

from pvc_core.cli.commands.volume import SNAPSHOT_COLUMNS
from pvc_core.cli.complete import VOLUME
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import finish_task
from pvc_core.model.task import Task
from pvc_core.ops.volume_snapshot import (
    SnapshotCreate,
    SnapshotList,
    SnapshotProtect,
    SnapshotQuery,
    SnapshotRename,
    snapshot_create,
    snapshot_delete,
    snapshot_list,
    snapshot_protect,
    snapshot_rename,
    snapshot_rollback,
)


@click.command("list")
@click.argument("volume", type=VOLUME)
@format_option
@pass_session
def list_(session: Session, volume: str) -> None:
    """List the snapshots of a volume, the oldest first."""
    snapshots = snapshot_list(session.client.ops, SnapshotList(volume=volume))
    session.out.listing(snapshots, SNAPSHOT_COLUMNS, empty=f"volume {volume} has no snapshots")


@click.command("create")
@click.argument("volume", type=VOLUME)
@click.argument("snapshot", default="")
@wait_options(120)
@format_option
@pass_session
def create(session: Session, volume: str, snapshot: str, wait: bool, timeout: float) -> None:
    """Keep the contents of a volume under a name; without SNAPSHOT the name is the time now."""
    task = snapshot_create(session.client.ops, SnapshotCreate(volume=volume, snapshot=snapshot))
    finish_task(
        session, task, lambda done: f"snapshot {_name(done, volume, snapshot)} is made", wait=wait, timeout=timeout
    )


def _name(task: Task, volume: str, snapshot: str) -> str:
    return f"{volume}@{snapshot or task.arguments.get('snapshot', '')}"


@click.command("rollback")
@click.argument("volume", type=VOLUME)
@click.argument("snapshot")
@yes_option
@wait_options(None)
@format_option
@pass_session
def rollback(session: Session, volume: str, snapshot: str, yes: bool, wait: bool, timeout: float) -> None:
    """Give a volume the contents of a snapshot; what was written since is lost."""
    session.confirm(f"Throw away all changes of volume {volume} since snapshot {snapshot}?", yes=yes)
    task = snapshot_rollback(session.client.ops, SnapshotQuery(volume=volume, snapshot=snapshot))
    finish_task(
        session, task, lambda _task: f"volume {volume} is rolled back to {snapshot}", wait=wait, timeout=timeout
    )


@click.command("rename")
@click.argument("volume", type=VOLUME)
@click.argument("snapshot")
@click.argument("name")
@wait_options(120)
@format_option
@pass_session
def rename(session: Session, volume: str, snapshot: str, name: str, wait: bool, timeout: float) -> None:
    """Rename a snapshot."""
    task = snapshot_rename(session.client.ops, SnapshotRename(volume=volume, snapshot=snapshot, name=name))
    finish_task(
        session, task, lambda _task: f"snapshot {volume}@{snapshot} is now {volume}@{name}", wait=wait, timeout=timeout
    )


@click.command("protect")
@click.argument("volume", type=VOLUME)
@click.argument("snapshot")
@click.option("--off", is_flag=True, help="Allow removing it again.")
@wait_options(120)
@format_option
@pass_session
def protect(session: Session, volume: str, snapshot: str, off: bool, wait: bool, timeout: float) -> None:
    """Forbid removing a snapshot, or allow it again with --off."""
    task = snapshot_protect(session.client.ops, SnapshotProtect(volume=volume, snapshot=snapshot, protected=not off))
    finish_task(
        session,
        task,
        lambda _task: f"snapshot {volume}@{snapshot} is {'no longer ' if off else ''}protected",
        wait=wait,
        timeout=timeout,
    )


@click.command("remove")
@click.argument("volume", type=VOLUME)
@click.argument("snapshot")
@yes_option
@wait_options(600)
@format_option
@pass_session
def remove(session: Session, volume: str, snapshot: str, yes: bool, wait: bool, timeout: float) -> None:
    """Remove a snapshot; the volume stays as it is."""
    session.confirm(f"Remove snapshot {volume}@{snapshot}?", yes=yes)
    task = snapshot_delete(session.client.ops, SnapshotQuery(volume=volume, snapshot=snapshot))
    finish_task(session, task, lambda _task: f"snapshot {volume}@{snapshot} is removed", wait=wait, timeout=timeout)
