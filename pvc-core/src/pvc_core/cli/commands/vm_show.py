"""`pvc vm list`, `info`, `dump`."""

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE, VM
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet, to_yaml, written
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.sheets import conditions
from pvc_core.model.disk import NO_LIMITS, DiskLimits
from pvc_core.model.vm import NO_NIC_LIMITS, NicLimits, VmState
from pvc_core.ops.vm_views import VmInfo, VmList, VmQuery, VmView, vm_dump, vm_info, vm_list


def _where(vm: VmView) -> str:
    """Say where a VM is: the node it runs on, and the one it goes to or belongs to when that is another."""
    here = vm.running_on or ""
    if vm.running_on and vm.node and vm.running_on != vm.node:
        return f"{here} -> {vm.node}"
    return here or vm.node or ""


_COLUMNS = (
    Column("Name", lambda vm: words.name(vm.name)),
    Column("State", lambda vm: words.state("deleting" if vm.deleting else vm.state)),
    Column("Node", _where),
    Column("Home", lambda vm: vm.home or ""),
    Column("vCPUs", lambda vm: str(vm.vcpus), right=True),
    Column("Memory", lambda vm: words.mib(vm.memory_mib), right=True),
    Column("Networks", lambda vm: words.words(vm.networks, most=3), extra=True),
    Column("Tags", lambda vm: words.words(vm.tags, most=3), extra=True),
)
_STATES = [*(state.value for state in VmState), "unknown"]
_REASON = Column("Reason", lambda vm: Cell(vm.reason, "warn"), long=True)


@click.command("list")
@click.argument("name", default="")
@click.option("-t", "--node", type=NODE, default="", help="Only those placed or running on this node.")
@click.option("-s", "--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("-g", "--tag", default="", help="Only those with this tag.")
@click.option("-n", "--negate", is_flag=True, help="List those to which the conditions do not apply.")
@format_option
@pass_session
def list_(session: Session, name: str, node: str, state: str | None, tag: str, negate: bool) -> None:
    """List the VMs.

    NAME is a regular expression found anywhere in a name: `^web` finds those that begin with web.
    """
    request = VmList(name=name, node=node, state=state or "", tag=tag, negate=negate)
    vms = vm_list(session.client.ops, request)
    columns = [column for column in _COLUMNS if column.title != "Home" or any(vm.home for vm in vms)]
    if any(vm.reason for vm in vms):
        columns.append(_REASON)
    session.out.listing(vms, columns, empty="no VMs" + (" match" if request != VmList() else ""))


@click.command("info")
@click.argument("vm", type=VM)
@format_option
@pass_session
def info(session: Session, vm: str) -> None:
    """Show one VM in detail: what is wanted of it, what it does, what it uses."""
    found = vm_info(session.client.ops, VmQuery(vm=vm))
    session.out.record(found, _sheet(found))


def _sheet(found: VmInfo) -> Sheet:
    vm, spec, status = found.view, found.spec, found.status
    lines: list[Line | Block] = [
        Line("Name", words.name(vm.name)),
        Line("ID", words.faint(vm.id)),
        *([Line("Description", vm.description)] if vm.description else []),
        Line("State", words.state("deleting" if vm.deleting else vm.state)),
        *([Line("Reason", Cell(vm.reason, "warn"))] if vm.reason else []),
        Line("Wanted", vm.power + ("" if vm.settled else " (not seen by its node yet)")),
        Line("Node", _where(vm)),
        *([Line("Home", vm.home)] if vm.home else []),
        Line("Memory", words.mib(vm.memory_mib)),
        Line("vCPUs", str(vm.vcpus)),
        Line("Machine", f"{spec.machine}, {spec.firmware}, {_accelerator(found)}"),
        Line("Autostart", words.yes_no(vm.autostart)),
        Line("Restart", spec.restart),
        Line("Priority", str(spec.priority)),
        Line("Migration", f"{spec.migration}, at most {spec.max_downtime_ms} ms down"),
        *([Line("Selector", spec.selector)] if spec.selector else []),
        *([Line("Node limit", words.words(spec.node_limit))] if spec.node_limit else []),
        *([Line("Tags", words.words(t.name + ("*" if t.protected else "") for t in spec.tags))] if spec.tags else []),
        *([Line("VNC", status.vnc)] if status and status.vnc else []),
    ]
    if found.usage:
        used = found.usage
        lines += [
            Line("CPU", f"{used.cpu_percent:.0f} %"),
            Line("Memory used", words.mib(used.memory_used_mib)),
            Line(
                "Disk I/O",
                f"{words.size(used.disk_read_bytes) or 0} read, {words.size(used.disk_write_bytes) or 0} written",
            ),
            Line("Network I/O", f"{words.size(used.net_rx_bytes) or 0} in, {words.size(used.net_tx_bytes) or 0} out"),
        ]
    if found.last_migration:
        lines.append(Line("Last move", _last_move(found)))
    lines += [
        Block(
            "Disks",
            tuple(disk_columns(found)),
            spec.disks,
        ),
        Block("NICs", tuple(nic_columns(found)), spec.nics),
        conditions(found.conditions),
    ]
    return lines


def disk_columns(found: VmInfo) -> list[Column]:
    """Return the columns of a table of a VM's disks; those on limits and removal where there is something to say."""
    columns = [
        Column("Volume", lambda disk: disk.path),
        Column("Bus", lambda disk: disk.bus),
        Column("Cache", lambda disk: disk.cache),
        Column("Mode", lambda disk: "read-only" if disk.read_only else "read-write"),
    ]
    if any(disk.limits != NO_LIMITS for disk in found.spec.disks):
        columns.append(Column("Limits", lambda disk: _limits(disk.limits)))
    if any(disk.removing for disk in found.spec.disks):
        columns.append(Column("State", lambda disk: Cell("being removed", "warn") if disk.removing else ""))
    return columns


def nic_columns(found: VmInfo) -> list[Column]:
    """Return the columns of a table of a VM's NICs; some only where there is something to say."""
    nics = found.spec.nics
    columns = [
        Column("Network", lambda nic: nic.network),
        Column("MAC", lambda nic: nic.mac),
        Column("Model", lambda nic: nic.model),
        Column("Link", lambda nic: "up" if nic.link_up else Cell("down", "warn")),
    ]
    if any(nic.queues > 1 for nic in nics):
        columns.append(Column("Queues", lambda nic: str(nic.queues), right=True))
    if any(nic.addresses for nic in nics):
        columns.append(Column("Addresses", lambda nic: words.words(nic.addresses)))
    if any(nic.limits != NO_NIC_LIMITS for nic in nics):
        columns.append(Column("Limits", lambda nic: _nic_limits(nic.limits)))
    if any(nic.removing for nic in nics):
        columns.append(Column("State", lambda nic: Cell("being removed", "warn") if nic.removing else ""))
    return columns


def _nic_limits(limits: NicLimits) -> str:
    set_ = {name: rate for name in limits.__struct_fields__ if (rate := getattr(limits, name))}
    return words.words(
        f"{name.replace('_', ' ')} {words.size(rate * 1024)}{'' if name.endswith('burst') else '/s'}"
        for name, rate in set_.items()
    )


def _limits(limits: DiskLimits) -> str:
    set_ = {name: rate for name in limits.__struct_fields__ if (rate := getattr(limits, name))}
    return words.words(
        f"{name.replace('_', ' ')} {words.size(rate) + '/s' if 'bandwidth' in name else f'{rate}/s'}"
        for name, rate in set_.items()
    )


def _accelerator(found: VmInfo) -> str:
    if found.status and found.status.accelerator:
        return found.status.accelerator
    return found.spec.accelerator


def _last_move(found: VmInfo) -> Cell:
    move = found.last_migration
    assert move is not None
    text = f"{move.source} -> {move.target}, {move.method}"
    if move.ok:
        down = "" if move.downtime_ms is None else f", {move.downtime_ms} ms down"
        return Cell(f"{text}, {move.duration_s:.1f} s{down}, {words.when(move.finished)}")
    return Cell(f"{text}, failed: {move.message}, {words.when(move.finished)}", "bad")


@click.command("dump")
@click.argument("vm", type=VM)
@format_option
@pass_session
def dump(session: Session, vm: str) -> None:
    """Print the definition of a VM, as `pvc vm define` takes it: YAML, or JSON with --format json."""
    definition = vm_dump(session.client.ops, VmQuery(vm=vm))
    if session.out.format == "json":
        session.out.data(definition)
    else:
        session.out.text(to_yaml(written(definition)).rstrip("\n"))
