"""``pvc sandbox``: imported only when it is called."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from pvc_core.model.errors import PvcError
from pvc_core.plugin.cli import Column, Output, format_option, pass_output
from pvc_sandbox import links
from pvc_sandbox import logs as log_files
from pvc_sandbox.control import ServiceState
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.layout import sandboxes
from pvc_sandbox.node_bmc import NodeBmc
from pvc_sandbox.sandbox import DEFAULT_NAME, Sandbox
from pvc_sandbox.status import NodeState


def _services(node: NodeState) -> str:
    return "; ".join(_service(service) for service in node.services)


def _service(service: ServiceState) -> str:
    state = "" if service.ready else " DOWN" if not service.pid else f" NOT READY ({service.said or 'starting'})"
    again = f", started {service.starts} times, last end: {service.last_exit}" if service.starts > 1 else ""
    return f"{service.name}{state}{again}"


def _link(node: NodeState) -> str:
    return f"{node.link} (cut: {', '.join(node.cut)})" if node.cut else node.link


_NODE_COLUMNS: Final = (
    Column("NODE", lambda node: node.name),
    Column("ROLE", lambda node: node.role),
    Column("ADDRESS", lambda node: node.address),
    Column("POWER", lambda node: node.power),
    Column("LINK", _link),
    Column("BMC", lambda node: node.bmc or "none"),
    Column("SERVICES", _services),
)

_BMC_COLUMNS: Final = (
    Column("NODE", lambda bmc: bmc.node),
    Column("ADDRESS", lambda bmc: f"{bmc.address}:{bmc.port}"),
    Column("USER", lambda bmc: bmc.user),
    Column("PASSWORD", lambda bmc: bmc.password_file),
    Column("BMC", lambda bmc: ", ".join(bmc.faults) or "works"),
)
_SLOWEST_S: Final = 600.0


def _complete_node(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        names = Sandbox(ctx.params.get("name") or DEFAULT_NAME).nodes()
    except PvcError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


_name_option = click.option(
    "--name", envvar="PVC_SANDBOX", default=DEFAULT_NAME, show_default=True, help="Which sandbox; also in $PVC_SANDBOX."
)
_node_argument = click.argument("node", shell_complete=_complete_node)


@click.group()
def sandbox() -> None:
    """Make and break a whole cluster on this machine: every node is a set of namespaces with real daemons."""


@sandbox.command()
@_name_option
@click.option(
    "--nodes", type=click.IntRange(1, 99), help="How many nodes [3]; more than there are: hypervisors are added."
)
@click.option("--memory", type=click.IntRange(512), metavar="MIB", help="What each node believes it has [2048].")
@click.option(
    "--accelerator",
    type=click.Choice(["tcg", "kvm", "auto"]),
    help="How guests run [tcg: emulation, works everywhere].",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Directory of its files, when it is made [/var/lib/pvc-sandbox/{DEFAULT_NAME}].",
)
@click.option(
    "--bmc/--no-bmc", default=None, help="Give every node a BMC, through which a lost node is fenced [--bmc]."
)
@click.option(
    "--watchdog/--no-watchdog", default=None, help="Give every node a watchdog, which its daemon feeds [--no-watchdog]."
)
@click.option(
    "--storage",
    type=click.Choice(["dir", "ceph"]),
    help="ceph: a real Ceph in the nodes, when the sandbox is made; dir: only a shared directory [dir].",
)
@click.option(
    "--network",
    type=click.Choice(["bridge", "vxlan"]),
    help="vxlan: managed networks too, with FRR in the nodes and a BGP router outside, when the sandbox is made; "
    "bridge: only bridges [bridge].",
)
@pass_output
def up(
    out: Output,
    name: str,
    nodes: int | None,
    memory: int | None,
    accelerator: str | None,
    state: Path | None,
    bmc: bool | None,
    watchdog: bool | None,
    storage: str | None,
    network: str | None,
) -> None:
    """Make the cluster, or what is missing of it; may be repeated, also after it was killed."""
    made = Sandbox(name, state)
    made.up(
        nodes,
        report=out.note,
        memory_mib=memory,
        accelerator=accelerator,
        bmc=bmc,
        watchdog=watchdog,
        storage=storage,
        network=network,
    )
    config = str(made.client_config)
    out.done(f"sandbox {name!r} is up; to use it: export PVC_CONFIG={config}", name=name, config=config)


@sandbox.command()
@_name_option
@pass_output
def down(out: Output, name: str) -> None:
    """Remove the sandbox: nodes, guests, disks, networks."""
    Sandbox(name).down(report=out.note)
    out.done(f"nothing is left of sandbox {name!r}", name=name)


@sandbox.command(name="list")
@format_option
@pass_output
def list_(out: Output) -> None:
    """List the sandboxes of this machine."""
    columns = (
        Column("NAME", lambda layout: layout.name),
        Column("NETWORK", lambda layout: layout.cluster_network),
        Column("DIRECTORY", lambda layout: layout.state),
    )
    out.listing(sandboxes(), columns, empty="no sandbox; make one: pvc sandbox up")


@sandbox.command()
@_name_option
@format_option
@pass_output
def status(out: Output, name: str) -> None:
    """Show the nodes' power, cables and daemons; what the cluster thinks of them says `pvc node list`."""
    state = Sandbox(name).status()
    if out.format == "table":
        outside = f", router in {state.upstream_network} {state.router}" if state.router else ""
        out.note(
            f"{state.name}: cluster {state.cluster_network}, guests {state.guest_network}{outside}, {state.state_directory}"
        )
        out.listing(state.nodes, _NODE_COLUMNS, empty="no nodes")
    else:
        out.data(state)


@sandbox.command(context_settings={"ignore_unknown_options": True})
@_name_option
@_node_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(name: str, node: str, command: tuple[str, ...]) -> None:
    """Open a shell on NODE, or run COMMAND there."""
    argv = Sandbox(name).shell_command(node, command)
    os.execvp(argv[0], argv)  # noqa: S606 - a shell on purpose, in place of this process


def _acts(name: str, help_: str, act: Callable[[Sandbox, str], None], said: str) -> None:
    @sandbox.command(name=name, help=help_)
    @_name_option
    @_node_argument
    @pass_output
    def command(out: Output, name: str, node: str) -> None:
        act(Sandbox(name), node)
        out.done(f"{node}: {said}", node=node)


@sandbox.command()
@_name_option
@_node_argument
@click.option("--bmc", is_flag=True, help="That of its BMC too, as when a power strip fails.")
@pass_output
def power_cut(out: Output, name: str, node: str, bmc: bool) -> None:
    """Cut NODE's power: guests and daemons end at once, its disks stay."""
    Sandbox(name).power_cut(node, bmc=bmc)
    out.done(f"{node}: power is off", node=node)


@sandbox.command()
@_name_option
@_node_argument
@click.option("--management", is_flag=True, help="That to the BMCs too.")
@click.option(
    "--only", type=click.Choice([*links.NAMES]), multiple=True, help="That to this network alone; repeatable."
)
@pass_output
def cut_link(out: Output, name: str, node: str, management: bool, only: tuple[str, ...]) -> None:
    """Pull NODE's network cables: it lives on, unreachable, but can still reach the BMCs."""
    if management and only:
        raise click.UsageError("--management goes with all cables, --only names single ones")
    Sandbox(name).cut_link(node, management=management, only=[links.NAMES[network] for network in only])
    out.done(f"{node}: cables are pulled", node=node)


_acts("power-on", "Switch NODE on.", Sandbox.power_on, "power is on")
_acts("heal-link", "Put NODE's network cables back.", Sandbox.heal_link, "cables are back")
_acts("freeze", "Make NODE hang: connections stay open, nothing answers.", Sandbox.freeze, "hangs")
_acts("thaw", "Let a frozen NODE go on.", Sandbox.thaw, "goes on")


_FAULTS: Final[dict[str, Callable[[NodeBmc], None]]] = {
    "dead": NodeBmc.dead,
    "hang": NodeBmc.hang,
    "stuck": NodeBmc.stuck,
    "none": NodeBmc.mend,
}


class _Fault(click.ParamType[Callable[[NodeBmc], None]]):
    """A word for what a BMC is to suffer from; its value brings that about."""

    name = "fault"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Callable[[NodeBmc], None]:
        """Return what brings the fault about."""
        word, _, seconds = str(value).partition("=")
        if word in _FAULTS and not seconds:
            return _FAULTS[word]
        if word == "slow" and 0 < (delay_s := _number(seconds)) <= _SLOWEST_S:
            return functools.partial(NodeBmc.slow, seconds=delay_s)
        return self.fail(f"{value!r} is none of {', '.join(_FAULTS)}, slow=SECONDS (up to {_SLOWEST_S:g})", param, ctx)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@sandbox.command()
@_name_option
@_node_argument
@click.option(
    "--fault",
    type=_Fault(),
    metavar="FAULT",
    help="dead: nothing is at its address; hang: it does not answer; stuck: it says yes and does nothing; "
    "slow=SECONDS: it says yes and does it later; none: it is mended.",
)
@click.option("--password-wrong", is_flag=True, help="Give it another password than the one the cluster knows.")
@format_option
@pass_output
def bmc(out: Output, name: str, node: str, fault: Callable[[NodeBmc], None] | None, password_wrong: bool) -> None:
    """Show NODE's BMC, or break it; faults add up until `--fault none`."""
    found = Sandbox(name).bmc(node)
    if fault is not None:
        fault(found)
    if password_wrong:
        found.change_password()
    state = found.state()
    if out.format == "table":
        out.listing([state], _BMC_COLUMNS, empty="no BMC")
    else:
        out.data(state)


@sandbox.command()
@_name_option
@_node_argument
@click.argument("what", default="pvcnoded")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="How many of the last lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@pass_output
def logs(out: Output, name: str, node: str, what: str, lines: int, follow: bool) -> None:
    """Print the end of a log of NODE: pvcnoded (default), zookeeper, frr, ceph-osd@0, libvirtd, init, console/<VM id>."""
    files = Sandbox(name).logs(node)
    if what not in files:
        raise SandboxError(f"{node} has no log {what!r}; it has: {', '.join(files)}")
    for text in log_files.tail(files[what], lines, follow=follow):
        out.text(text)
