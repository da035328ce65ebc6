"""`pvc vm start`, `shutdown`, `stop`, `restart`, `disable`, `remove`."""

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE, VM
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.ops.vm_power import VmDisable, VmStart, VmStop, vm_disable, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_snapshot_views import VmSnapshotList, vm_snapshot_list
from pvc_core.ops.vm_views import VmQuery, VmView, vm_info
from pvc_core.ops.wait import VmGoal, wait_vm


def finish(
    session: Session,
    vm: VmView,
    goal: VmGoal,
    *,
    wait: bool,
    timeout: float,
    asked: str,
    node: str | None = None,
) -> None:
    """Wait for a VM to reach a goal and say where it is; without ``wait`` say what was asked for.

    ``node`` is where a move shall bring it.
    """
    if not wait:
        session.out.done(f"VM {vm.name} {asked}", vm=vm)
        return
    with watching(session, f"VM {vm.name}", later=f"pvc vm info {vm.name}") as report:
        found = wait_vm(session.client.ops, vm.id, goal, node=node, timeout_s=timeout, report=report)
    now = found.view if found else vm
    session.out.done(f"VM {vm.name} is {_standing(now)}", vm=now)


def _standing(vm: VmView) -> str:
    return f"running on {vm.running_on}" if vm.running_on else vm.state


@click.command("start")
@click.argument("vm", type=VM)
@click.option("-t", "--node", type=NODE, help="Start it on this node.")
@wait_options()
@format_option
@pass_session
def start(session: Session, vm: str, node: str | None, wait: bool, timeout: float) -> None:
    """Start a VM.

    It starts on the node it is placed on, if that node can take it, or else on one that is chosen for it.
    """
    view = vm_start(session.client.ops, VmStart(vm=vm, node=node))
    where = f" on {view.node}" if view.node else ""
    finish(session, view, VmGoal.RUNNING, wait=wait, timeout=timeout, asked=f"will be started{where}")


@click.command("shutdown")
@click.argument("vm", type=VM)
@wait_options()
@format_option
@pass_session
def shutdown(session: Session, vm: str, wait: bool, timeout: float) -> None:
    """Ask a VM to shut down; cut its power when its time is over.

    The guest has the time that `shutdown_timeout_s` of its definition says, 180 s by default.
    """
    view = vm_shutdown(session.client.ops, VmQuery(vm=vm))
    finish(session, view, VmGoal.STOPPED, wait=wait, timeout=timeout, asked="will be shut down")


@click.command("stop")
@click.argument("vm", type=VM)
@yes_option
@wait_options()
@format_option
@pass_session
def stop(session: Session, vm: str, yes: bool, wait: bool, timeout: float) -> None:
    """Cut the power of a VM at once.

    What the guest has not written to its disks is lost.
    """
    ops = session.client.ops
    found = vm_info(ops, VmQuery(vm=vm)).view
    if found.running_on:
        session.confirm(f"Cut the power of VM {found.name}, which is {_standing(found)}?", yes=yes)
    finish(
        session, vm_stop(ops, VmStop(vm=found.id)), VmGoal.STOPPED, wait=wait, timeout=timeout, asked="will be stopped"
    )


@click.command("restart")
@click.argument("vm", type=VM)
@wait_options()
@format_option
@pass_session
def restart(session: Session, vm: str, wait: bool, timeout: float) -> None:
    """Shut a VM down and start it again.

    Changes of its definition that wait for a restart take effect.
    """
    view = vm_restart(session.client.ops, VmQuery(vm=vm))
    finish(session, view, VmGoal.RUNNING, wait=wait, timeout=timeout, asked="will be restarted")


@click.command("disable")
@click.argument("vm", type=VM)
@click.option("--force", is_flag=True, help="Also when it runs: its power is cut.")
@yes_option
@wait_options()
@format_option
@pass_session
def disable(session: Session, vm: str, force: bool, yes: bool, wait: bool, timeout: float) -> None:
    """Mark a VM as off on purpose.

    A disabled VM is not started by autostart, and does not count as unhealthy.
    """
    ops = session.client.ops
    found = vm_info(ops, VmQuery(vm=vm)).view
    if force and found.running_on:
        session.confirm(f"Cut the power of VM {found.name}, which is {_standing(found)}?", yes=yes)
    view = vm_disable(ops, VmDisable(vm=found.id, force=force))
    finish(session, view, VmGoal.STOPPED, wait=wait, timeout=timeout, asked="will be disabled")


@click.command("remove")
@click.argument("vm", type=VM)
@click.option("--volumes", is_flag=True, help="Remove its volumes too, with everything on them.")
@click.option("--force", is_flag=True, help="Also when it runs: its power is cut.")
@yes_option
@wait_options()
@format_option
@pass_session
def remove(session: Session, vm: str, volumes: bool, force: bool, yes: bool, wait: bool, timeout: float) -> None:
    """Remove a VM.

    Its volumes stay, unless --volumes is given. Its snapshots are forgotten; what they were made of stays on volumes that
    stay.
    """
    ops = session.client.ops
    found = vm_info(ops, VmQuery(vm=vm)).view
    running = f", which is {_standing(found)}" if found.running_on else ""
    if volumes and found.volumes:
        with_volumes = f" and its volumes {', '.join(found.volumes)} with everything on them"
    elif found.volumes:
        with_volumes = f" (its volumes {', '.join(found.volumes)} stay)"
    else:
        with_volumes = ""
    snapshots = vm_snapshot_list(ops, VmSnapshotList(vm=found.id))
    with_snapshots = f", and forget {words.count(len(snapshots), 'snapshot')} of it" if snapshots else ""
    session.confirm(f"Remove VM {found.name}{running}{with_volumes}{with_snapshots}?", yes=yes)
    removed = vm_remove(ops, VmRemove(vm=found.id, volumes=volumes, force=force))
    if wait and not removed.gone:
        with watching(session, f"VM {removed.name}", later="pvc vm list") as report:
            wait_vm(ops, removed.id, VmGoal.GONE, timeout_s=timeout, report=report)
    session.out.done(
        f"VM {removed.name} {'is removed' if wait or removed.gone else 'will be removed'}",
        id=removed.id,
        name=removed.name,
        volumes=list(removed.volumes),
        snapshots=list(removed.snapshots),
    )
