"""`pvc vm modify`, `rename`, `autostart`, `tag`."""

import sys
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from pvc_core.cli.commands.vm_power import finish
from pvc_core.cli.complete import NETWORK, VM, VOLUME
from pvc_core.cli.diff import show_diff
from pvc_core.cli.documents import Text, definition, read_text
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.output import to_yaml, written
from pvc_core.cli.patch import Edits, patch_of
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.vm_devices import follow
from pvc_core.model.errors import InvalidRequest, PvcError
from pvc_core.ops.vm_change import VmModified
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_modify import (
    VmAutostart,
    VmModify,
    VmRename,
    VmTags,
    vm_autostart,
    vm_modify,
    vm_rename,
    vm_tags,
)
from pvc_core.ops.vm_nic_definition import NicDefinition
from pvc_core.ops.vm_views import VmInfo, VmQuery, vm_dump, vm_info
from pvc_core.ops.wait import VmGoal


@click.command("modify")
@click.argument("vm", type=VM)
@click.argument("file", type=click.Path(allow_dash=True, dir_okay=False), required=False)
@click.option("-e", "--edit", is_flag=True, help="Edit the definition in $EDITOR.")
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a field, such as memory=4G; may be repeated.",
)
@click.option("--priority", type=click.IntRange(-1000, 1000), help="Higher ones get a place first when room is short.")
@click.option(
    "--add-disk",
    "add_disks",
    multiple=True,
    type=VOLUME,
    metavar="POOL/VOLUME",
    help="Attach a volume; `,bus=scsi` and the like may follow.",
)
@click.option(
    "--remove-disk",
    "remove_disks",
    multiple=True,
    type=VOLUME,
    metavar="POOL/VOLUME",
    help="Detach a volume; the volume stays.",
)
@click.option(
    "--add-nic",
    "add_nics",
    multiple=True,
    type=NETWORK,
    metavar="NETWORK",
    help="Add a NIC; `,mac=...` and the like may follow.",
)
@click.option("--remove-nic", "remove_nics", multiple=True, type=NETWORK, metavar="NETWORK|MAC", help="Remove a NIC.")
@click.option(
    "-r/-R",
    "--restart/--no-restart",
    default=None,
    help="Restart the guest if a change needs it, or not; else you are asked.",
)
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@yes_option
@wait_options()
@format_option
@pass_session
def modify(
    session: Session,
    vm: str,
    file: str | None,
    edit: bool,
    priority: int | None,
    restart: bool | None,
    dry_run: bool,
    yes: bool,
    wait: bool,
    timeout: float,
    **given: tuple[str, ...],
) -> None:
    """Change the definition of a VM: by options, by a whole definition in FILE (- is standard input), or in an editor.

    The difference is shown.  Changes that a running guest can only take when it starts again wait for that.
    """
    edits = Edits(**given)
    if priority is not None:
        edits = edits._replace(settings=(*edits.settings, f"priority={priority}"))
    if sum((file is not None, edit, bool(edits))) != 1:
        raise click.UsageError("say what to change: by FILE, by --edit, or by --set, --add-disk and the like")
    ops = session.client.ops
    found = vm_info(ops, VmQuery(vm=vm))
    if edit:
        request = _edited(session, found)
    elif file is not None:
        request = _by_definition(found, definition(read_text(file), session.out.note))
    else:
        current = vm_dump(ops, VmQuery(vm=found.view.id))
        request = _request(found, patch=patch_of(current, edits))
    plan = vm_modify(ops, msgspec.structs.replace(request, dry_run=True))
    if not plan.changes:
        session.out.done(f"VM {plan.vm.name}: nothing to change", **msgspec.structs.asdict(plan))
        return
    if session.out.format == "table" and not session.out.quiet:
        show_diff(plan.changes, coloured=session.out.coloured(sys.stderr))
    if dry_run:
        session.out.done(f"VM {plan.vm.name}: nothing was changed (dry run)", **msgspec.structs.asdict(plan))
        return
    if edit and not yes:
        click.confirm("Apply these changes?", abort=True, err=True)
    if plan.restart_needed and restart is None and session.interactive and not yes:
        restart = click.confirm(f"VM {plan.vm.name} takes them when it starts again. Restart it now?", err=True)
    done = vm_modify(ops, msgspec.structs.replace(_as_shown(request, plan), restart=bool(restart)))
    if done.restart_needed and not done.restarting:
        session.out.note(f"VM {done.vm.name} runs with the old definition until: pvc vm restart {done.vm.name}")
    if done.restarting:
        finish(session, done.vm, VmGoal.RUNNING, wait=wait, timeout=timeout, asked="is changed and will be restarted")
    else:
        for field, goal in (("disks", VmGoal.DISKS), ("nics", VmGoal.NICS)):
            if any(change.field == field for change in done.changes):
                done = follow(session, done, goal, wait=wait, timeout=timeout)
        session.out.done(f"VM {done.vm.name} is changed", **msgspec.structs.asdict(done))


def _as_shown(request: VmModify, plan: VmModified) -> VmModify:
    """Return the request with the MAC addresses that the difference showed: chosen again they would be others."""
    chosen = next((change.new for change in plan.changes if change.field == "nics"), None)
    if chosen is None:
        return request
    kept = [nic for nic in chosen if not nic.get("removing")]
    nics = msgspec.convert(kept, tuple[NicDefinition, ...])
    if request.definition is not None:
        return msgspec.structs.replace(request, definition=msgspec.structs.replace(request.definition, nics=nics))
    assert request.patch is not None
    return msgspec.structs.replace(request, patch=msgspec.structs.replace(request.patch, nics=nics))


def _request(found: VmInfo, **what: Any) -> VmModify:
    return VmModify(vm=found.view.id, generation=found.spec.generation, **what)


def _by_definition(found: VmInfo, wanted: VmDefine) -> VmModify:
    """Return the request that makes a VM like a definition, which may leave the id out."""
    return _request(found, definition=msgspec.structs.replace(wanted, id=wanted.id or found.view.id))


def _edited(session: Session, found: VmInfo) -> VmModify:
    """Let the person edit the definition until it is accepted, or given up."""
    if not session.interactive:
        raise InvalidRequest("--edit needs a terminal; use --set or a FILE instead")
    ops = session.client.ops
    current = vm_dump(ops, VmQuery(vm=found.view.id))
    text = to_yaml(written(current))
    while True:
        edited = click.edit(text, extension=".yml")
        if edited is None:
            return _by_definition(found, current)
        try:
            request = _by_definition(found, definition(Text("your text", edited), session.out.note))
            vm_modify(ops, msgspec.structs.replace(request, dry_run=True))
        except PvcError as error:
            click.echo(f"pvc: {error}", err=True)
            click.confirm("Edit it again?", default=True, abort=True, err=True)
            text = edited
        else:
            return request


@click.command("rename")
@click.argument("vm", type=VM)
@click.argument("name")
@format_option
@pass_session
def rename(session: Session, vm: str, name: str) -> None:
    """Rename a VM, running or not; its volumes and what the guest calls itself stay as they are."""
    view = vm_rename(session.client.ops, VmRename(vm=vm, name=name))
    session.out.done(f"VM {vm} is now {view.name}", vm=view)


@click.command("autostart")
@click.argument("vm", type=VM)
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@format_option
@pass_session
def autostart(session: Session, vm: str, switch: str | None) -> None:
    """Start a VM whenever its node returns to service, or not; without on or off it is shown."""
    ops = session.client.ops
    if switch is None:
        view = vm_info(ops, VmQuery(vm=vm)).view
    else:
        view = vm_autostart(ops, VmAutostart(vm=vm, autostart=switch == "on"))
    session.out.done(f"autostart of VM {view.name} is {'on' if view.autostart else 'off'}", vm=view)


@click.command("tag")
@click.argument("vm", type=VM)
@click.option("-a", "--add", multiple=True, metavar="TAG", help="Add a tag; may be repeated.")
@click.option("-r", "--remove", multiple=True, metavar="TAG", help="Remove a tag; may be repeated.")
@click.option("--protected", is_flag=True, help="Protect those that are added from being removed by mistake.")
@click.option("--force", is_flag=True, help="Remove protected ones too.")
@format_option
@pass_session
def tag(session: Session, vm: str, add: Iterable[str], remove: Iterable[str], protected: bool, force: bool) -> None:
    """Show, add or remove tags of a VM: words to select VMs by."""
    ops = session.client.ops
    if add or remove:
        request = VmTags(vm=vm, add=tuple(add), remove=tuple(remove), protected=protected, force=force)
        view = vm_tags(ops, request)
    else:
        view = vm_info(ops, VmQuery(vm=vm)).view
    session.out.done(f"tags of VM {view.name}: {', '.join(view.tags) or 'none'}", name=view.name, tags=list(view.tags))
