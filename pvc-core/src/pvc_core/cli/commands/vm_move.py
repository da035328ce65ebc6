"""`pvc vm move`, `migrate`, `unmigrate`."""

from typing import get_args

import click

from pvc_core.cli.commands.vm_power import finish
from pvc_core.cli.complete import NODE, VM
from pvc_core.cli.options import format_option, wait_options
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.vm import MigrationMethod
from pvc_core.ops.vm_move import VmMigrate, VmMove, VmMoved, VmUnmigrate, vm_migrate, vm_move, vm_unmigrate
from pvc_core.ops.wait import VmGoal

_target_option = click.option("-t", "--node", type=NODE, help="Where to; one is chosen when this is left out.")
_method_option = click.option(
    "-m", "--method", type=click.Choice(get_args(MigrationMethod)), help="For this move only, instead of the VM's own."
)


def _finish(session: Session, moved: VmMoved, *, wait: bool, timeout: float) -> None:
    vm = moved.vm
    if moved.source == moved.target:
        session.out.done(f"VM {vm.name} is on {moved.target} already", vm=vm)
        return
    chosen = f" (chosen by {moved.chosen_by})" if moved.chosen_by else ""
    if vm.power != "running":
        session.out.done(f"VM {vm.name} is placed on {moved.target}{chosen}", vm=vm)
        return
    session.out.note(f"VM {vm.name}: {moved.source or 'nowhere'} -> {moved.target}{chosen}")
    finish(
        session,
        vm,
        VmGoal.RUNNING,
        node=moved.target,
        wait=wait,
        timeout=timeout,
        asked=f"will be moved to {moved.target}",
    )


@click.command("move")
@click.argument("vm", type=VM)
@_target_option
@_method_option
@wait_options(900)
@format_option
@pass_session
def move(
    session: Session, vm: str, node: str | None, method: MigrationMethod | None, wait: bool, timeout: float
) -> None:
    """Move a VM to another node for good.

    A running guest is moved live when its method allows it.  A migrated VM makes its new place its home.
    """
    moved = vm_move(session.client.ops, VmMove(vm=vm, node=node, method=method))
    _finish(session, moved, wait=wait, timeout=timeout)


@click.command("migrate")
@click.argument("vm", type=VM)
@_target_option
@_method_option
@click.option("--force", is_flag=True, help="Also a VM that is away from home already; its home stays the same.")
@wait_options(900)
@format_option
@pass_session
def migrate(
    session: Session,
    vm: str,
    node: str | None,
    method: MigrationMethod | None,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Move a VM to another node for a while: it remembers its home.

    `pvc vm unmigrate` brings it back, and so does `pvc node ready` of its home.
    """
    moved = vm_migrate(session.client.ops, VmMigrate(vm=vm, node=node, method=method, force=force))
    _finish(session, moved, wait=wait, timeout=timeout)


@click.command("unmigrate")
@click.argument("vm", type=VM)
@_method_option
@wait_options(900)
@format_option
@pass_session
def unmigrate(session: Session, vm: str, method: MigrationMethod | None, wait: bool, timeout: float) -> None:
    """Bring a VM back to its home node."""
    moved = vm_unmigrate(session.client.ops, VmUnmigrate(vm=vm, method=method))
    _finish(session, moved, wait=wait, timeout=timeout)
