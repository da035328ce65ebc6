"""What the commands for disks and for NICs of VMs have in common: the end, which is the running guest's."""

import click
import msgspec

from pvc_core.cli import words
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session
from pvc_core.ops.vm_change import VmModified
from pvc_core.ops.wait import VmGoal, wait_vm

restart_option = click.option("-r", "--restart", is_flag=True, help="Restart the guest, if the change needs that.")


def follow(session: Session, done: VmModified, given: VmGoal, *, wait: bool, timeout: float) -> VmModified:
    """Wait until the running guest has the devices that are wanted, unless that takes a restart that is not made.

    ``given``: what to wait for, DISKS or NICS.
    """
    vm = done.vm
    goal = VmGoal.RUNNING if done.restarting else given
    if not (wait and vm.running_on) or done.restart_needed:
        return done
    with watching(session, f"VM {vm.name}", later=f"pvc vm info {vm.name}") as report:
        found = wait_vm(session.client.ops, vm.id, goal, timeout_s=timeout, report=report)
    return msgspec.structs.replace(done, vm=found.view) if found is not None else done


def finish(session: Session, done: VmModified, given: VmGoal, what: str, *, wait: bool, timeout: float) -> None:
    """Wait until the running guest has followed, and say so, or what it needs to follow."""
    done = follow(session, done, given, wait=wait, timeout=timeout)
    name = done.vm.name
    if done.restart_needed:
        why = f" ({words.words(done.reasons)})" if done.reasons else ""
        session.out.note(f"VM {name} runs with the old settings{why} until: pvc vm restart {name}")
    said = f"VM {name} {what}" if done.written else f"VM {name}: nothing to change"
    session.out.done(said, **msgspec.structs.asdict(done))
