"""`pvc node list`, `info`, `log`."""

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.sheets import conditions
from pvc_core.model.node import PluginStatus
from pvc_core.ops.node import NodeInfo, NodeList, NodeQuery, NodeRow, node_info, node_list


def _service(node: NodeRow) -> Cell:
    """Say in one word whether a node takes VMs, and if not why."""
    if node.maintenance:
        return words.state("maintenance")
    return words.state(node.scheduling) if node.alive else words.faint(node.scheduling)


def _role(node: NodeRow) -> Cell:
    return Cell("primary", "good") if node.primary else Cell(node.role)


def _memory(node: NodeRow) -> str:
    return f"{words.mib(node.allocated_mib) or '0'} / {words.mib(node.memory_mib)}" if node.memory_mib else ""


_COLUMNS = (
    Column("Name", lambda node: words.name(node.name)),
    Column("Role", _role),
    Column("Daemon", lambda node: words.state(node.daemon)),
    Column("Service", _service),
    Column("VMs", lambda node: str(node.vms), right=True),
    Column("vCPUs", lambda node: f"{node.allocated_vcpus} / {node.cpus}" if node.cpus else "", right=True, extra=True),
    Column("Load", lambda node: f"{node.load1:.2f}" if node.cpus else "", right=True, extra=True),
    Column("Memory", _memory, right=True),
    Column("Provisioned", lambda node: words.mib(node.provisioned_mib), right=True, extra=True),
)
_PROBLEMS = Column("Problems", lambda node: Cell(_problem(node), "bad"), long=True)


def _problem(node: NodeRow) -> str:
    """Return what is wrong with a node; nothing for one that takes no VMs because somebody wanted it so."""
    if node.fencing is not None:
        return f"{node.fencing}: {node.fencing_waits_for}" if node.fencing_waits_for else f"lost, {node.fencing}"
    return words.words(node.problems, most=1) or ("" if node.alive else node.reason)


@click.command("list")
@click.argument("name", default="")
@format_option
@pass_session
def list_(session: Session, name: str) -> None:
    """List the nodes.

    NAME is a regular expression found anywhere in a name.
    """
    nodes = node_list(session.client.ops, NodeList(name=name))
    columns = [*_COLUMNS, *([_PROBLEMS] if any(_problem(node) for node in nodes) else [])]
    session.out.listing(nodes, columns, empty="no nodes" + (" match" if name else ""))


@click.command("info")
@click.argument("node", type=NODE)
@format_option
@pass_session
def info(session: Session, node: str) -> None:
    """Show one node in detail: its state, its VMs, its plugins."""
    found = node_info(session.client.ops, NodeQuery(node=node))
    session.out.record(found, _sheet(found))


def _sheet(found: NodeInfo) -> Sheet:
    row, status = found.row, found.status
    lines: list[Line | Block] = [
        Line("Name", words.name(row.name)),
        Line("Role", _role(row)),
        Line("Daemon", words.state(row.daemon)),
        Line("Service", _service(row)),
        *([Line("Maintenance", words.maintenance(row.maintenance_until, on=True))] if row.maintenance else []),
        Line(
            "Takes VMs", Cell("yes", "good") if row.ready else Cell(f"no: {row.reason}" if row.reason else "no", "warn")
        ),
    ]
    if status:
        lines += [
            Line("Address", status.address),
            Line("Versions", words.words(filter(None, (f"pvc {status.version}", status.hypervisor, status.kernel)))),
            Line("Accelerators", words.words(status.accelerators)),
            Line("vCPUs", f"{row.allocated_vcpus} of VMs, {row.cpus} of the host"),
            Line("Load", f"{row.load1:.2f}"),
            Line(
                "Memory",
                f"{words.mib(row.memory_mib)} for VMs, {words.mib(status.memory.reserved_mib) or '0'} for the host",
            ),
            Line("Running VMs", words.mib(row.allocated_mib) or "0"),
            Line("Placed VMs", words.mib(row.provisioned_mib) or "0"),
            Line("Free now", words.mib(row.free_mib)),
            Line("Reported", words.when(status.published)),
        ]
    lines += [
        *([Line("Fencing", words.state(row.fencing))] if row.fencing is not None else []),
        *([Line("Waits for", Cell(row.fencing_waits_for, "bad"))] if row.fencing_waits_for else []),
        Line("Fence levels", _levels(found) or Cell("none", "faint")),
        Line("VMs here", words.words(found.vms)),
        *([Line("Placed, not running", words.words(found.placed))] if found.placed else []),
        *([Line("At home here, away", words.words(found.away))] if found.away else []),
        Block(
            "Plugins",
            (
                Column("Name", lambda plugin: words.name(plugin.name)),
                Column("State", lambda plugin: words.state(plugin.state)),
                Column("Version", lambda plugin: plugin.version),
                Column("Provides", lambda plugin: words.words(plugin.capabilities)),
                Column("Calls", lambda plugin: str(plugin.calls), right=True),
                Column("Failures", lambda plugin: str(plugin.failures), right=True),
                Column("Error", _plugin_error, long=True),
            ),
            status.plugins if status else (),
        ),
        conditions(found.conditions),
    ]
    return lines


def _levels(found: NodeInfo) -> str:
    """Return the drivers of the fence levels; those of one level with a plus."""
    return ", ".join(" + ".join(device.driver for device in level.devices) for level in found.spec.fence_levels)


def _plugin_error(plugin: PluginStatus) -> Cell:
    return Cell(f"{plugin.stage}: {plugin.error}" if plugin.stage and plugin.error else plugin.error, "bad")


@click.command("log")
@click.argument("node", type=NODE)
@pass_session
def log(session: Session, node: str) -> None:
    """Say how to read the log of a node's daemon.

    Logs stay in the journal of their node; they are not copied into the cluster's store.
    """
    found = node_info(session.client.ops, NodeQuery(node=node))
    address = found.status.address if found.status else node
    session.out.text(f"ssh {address} journalctl --unit pvcnoded --follow")
