"""`pvc vm flush-locks`."""

import click

from pvc_core.cli import words
from pvc_core.cli.complete import VM
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import finish_task
from pvc_core.model.task import Task
from pvc_core.ops.vm_locks import vm_flush_locks
from pvc_core.ops.vm_views import VmQuery, vm_info


@click.command("flush-locks")
@click.argument("vm", type=VM)
@yes_option
@wait_options(60)
@format_option
@pass_session
def flush_locks(session: Session, vm: str, yes: bool, wait: bool, timeout: float) -> None:
    """Break what still holds the disks of a VM that runs nowhere.

    Locks of nodes and programs that died are broken by themselves when the VM is started.  This is for those that are not, such
    as of a program outside PVC that has a disk open: it will not be able to write any more.
    """
    ops = session.client.ops
    found = vm_info(ops, VmQuery(vm=vm)).view
    session.confirm(f"Break all locks on the disks of VM {found.name}?", yes=yes)
    task = vm_flush_locks(ops, VmQuery(vm=found.id))

    def done(ended: Task) -> str:
        count = int(ended.result.get("broken") or 0)
        what = f": {ended.result.get('what')}" if count else ""
        return f"VM {found.name}: {words.count(count, 'lock')} broken{what}"

    finish_task(session, task, done, wait=wait, timeout=timeout)
