"""`pvc vm define`."""

import click
import msgspec

from pvc_core.cli.commands.vm_power import finish
from pvc_core.cli.complete import NODE
from pvc_core.cli.documents import definitions, read_text
from pvc_core.cli.options import format_option, wait_options
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.errors import PvcError
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_views import VmView
from pvc_core.ops.wait import VmGoal


@click.command("define")
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False))
@click.option(
    "-t",
    "--node",
    type=NODE,
    help="Place it on this node; left out: what the file says, or one is chosen at its start.",
)
@click.option(
    "--priority", type=click.IntRange(-1000, 1000), help="Higher ones get a place first when room is short [0]."
)
@click.option("--start", is_flag=True, help="Start it at once.")
@wait_options()
@format_option
@pass_session
def define(
    session: Session, file: str, node: str | None, priority: int | None, start: bool, wait: bool, timeout: float
) -> None:
    """Define VMs from a FILE, or from standard input for -.

    The file holds one or more YAML documents, each like what `pvc vm dump` prints, or a libvirt XML domain.
    Only name and memory are needed:

    \b
        name: web1
        memory: 2G
        vcpus: 2
        disks: [{pool: ssd, volume: web1}]
        nics: [{network: lan}]
    """
    given = [
        msgspec.structs.replace(
            one,
            node=node or one.node,
            start=start or one.start,
            priority=one.priority if priority is None else priority,
        )
        for one in definitions(read_text(file), session.out.note)
    ]
    defined: list[tuple[VmView, bool]] = []
    for one in given:
        try:
            defined.append((vm_define(session.client.ops, one), one.start))
        except PvcError:
            if defined:
                session.out.warn(f"these were defined before the error: {', '.join(vm.name for vm, _ in defined)}")
            raise
    for vm, started in defined:
        if started:
            finish(session, vm, VmGoal.RUNNING, wait=wait, timeout=timeout, asked="is defined and will be started")
        else:
            session.out.done(f"VM {vm.name} is defined", vm=vm)
