"""`pvc vm nic add`, `remove`, `modify`, `list`."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar, get_args

import click
from msgspec import UNSET

from pvc_core.cli.commands.vm_show import nic_columns
from pvc_core.cli.complete import NETWORK, VM
from pvc_core.cli.options import format_option, wait_options
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.vm_devices import finish, restart_option
from pvc_core.model.vm import NicModel
from pvc_core.ops.vm_change import VmModified
from pvc_core.ops.vm_nic_definition import LIMITS, NicDefinition, NicLimitsDefinition, check_limit_names
from pvc_core.ops.vm_nics import (
    VmNicAdd,
    VmNicModify,
    VmNicRemove,
    vm_nic_add,
    vm_nic_modify,
    vm_nic_remove,
)
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.ops.wait import VmGoal

Command = TypeVar("Command", bound=Callable[..., Any])
Pair = tuple[str, str]

_DASHED_MAC: Final = re.compile("[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}")


class KeyValue(click.ParamType[Pair]):
    """``key=value``."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Pair:
        """Return both, as text."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


def _settings(*, new: bool) -> Callable[[Command], Command]:
    """Return the options that say what a NIC is to be like."""
    options = (
        click.option(
            "--mac",
            default=None,
            metavar="MAC",
            help="Its MAC address [chosen]." if new else "Another MAC address: it becomes another NIC.",
        ),
        click.option(
            "--model", type=click.Choice(get_args(NicModel)), help=_with("What the guest sees", "virtio", new)
        ),
        click.option(
            "--queues",
            type=click.IntRange(1, 256),
            help=_with("Pairs of queues, for as many vCPUs at the same time; model virtio", "1", new),
        ),
        click.option(
            "-a",
            "--address",
            "addresses",
            multiple=True,
            metavar="IP",
            help="An IP address that is its own; may be repeated."
            + ("" if new else "  Those that are not named are taken from it; an empty one takes all."),
        ),
        click.option(
            "-l",
            "--limit",
            "limits",
            multiple=True,
            type=KeyValue(),
            metavar="NAME=RATE",
            help=f"Most that it carries, in KiB/s or as 10M: {', '.join(LIMITS)}; in is to the guest, a burst is an "
            "amount; 0: no limit; may be repeated.",
        ),
        click.option("--link", type=click.Choice(["up", "down"]), help=_with("Whether its cable is in", "up", new)),
        click.option(
            "-p",
            "--parameter",
            "parameters",
            multiple=True,
            type=KeyValue(),
            metavar="KEY=VALUE",
            help="A parameter of the network's driver; may be repeated." + ("" if new else "  KEY= removes one."),
        ),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _with(text: str, default: str, new: bool) -> str:
    return f"{text} [{default}]." if new else f"{text}."


@click.command("add")
@click.argument("vm", type=VM)
@click.argument("network", type=NETWORK)
@_settings(new=True)
@restart_option
@wait_options()
@format_option
@pass_session
def add(
    session: Session,
    vm: str,
    network: str,
    mac: str | None,
    model: NicModel | None,
    queues: int | None,
    addresses: tuple[str, ...],
    limits: tuple[Pair, ...],
    link: str | None,
    parameters: tuple[Pair, ...],
    restart: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Give a VM another NIC, in this network.

    A running guest gets it at once.  With --mac alone a NIC that is being removed, and that the guest has not let go of, is kept
    as it is.
    """
    rates = _limits(limits)
    check_limit_names(rates)
    nic = NicDefinition(
        network=network,
        mac=mac or "",
        model=model or "virtio",
        queues=queues or 1,
        link_up=link != "down",
        limits=NicLimitsDefinition(**rates),
        addresses=addresses,
        parameters=dict(parameters),
    )
    done = vm_nic_add(session.client.ops, VmNicAdd(vm=vm, nic=nic, restart=restart))
    finish(
        session, done, VmGoal.NICS, f"has NIC {_added(done) or mac} in network {network}", wait=wait, timeout=timeout
    )


@click.command("remove")
@click.argument("vm", type=VM)
@click.argument("nic", type=NETWORK, metavar="MAC|NETWORK")
@restart_option
@wait_options()
@format_option
@pass_session
def remove(session: Session, vm: str, nic: str, restart: bool, wait: bool, timeout: float) -> None:
    """Take a NIC from a VM, named by its MAC address, or by its network when it is the only one there.

    A running guest is asked to let go of it, and MAC address, IP addresses and network belong to the VM until it has, or has ended.
    """
    done = vm_nic_remove(session.client.ops, VmNicRemove(vm=vm, restart=restart, **_named(nic)))
    finish(session, done, VmGoal.NICS, f"has no NIC {nic} any more", wait=wait, timeout=timeout)


@click.command("modify")
@click.argument("vm", type=VM)
@click.argument("nic", type=NETWORK, metavar="MAC|NETWORK")
@_settings(new=False)
@restart_option
@wait_options()
@format_option
@pass_session
def modify(
    session: Session,
    vm: str,
    nic: str,
    mac: str | None,
    model: NicModel | None,
    queues: int | None,
    addresses: tuple[str, ...],
    limits: tuple[Pair, ...],
    link: str | None,
    parameters: tuple[Pair, ...],
    restart: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Change a NIC of a VM, named by its MAC address, or by its network when it is the only one there.

    A running guest has new limits, addresses and --link at once; --model, --queues and parameters take effect when it is started
    again.  With --mac it is another NIC: a running guest gets that one, and is asked to let go of the old one.
    """
    request = VmNicModify(
        vm=vm,
        new_mac=UNSET if mac is None else mac,
        model=UNSET if model is None else model,
        queues=UNSET if queues is None else queues,
        link_up=UNSET if link is None else link == "up",
        addresses=tuple(address for address in addresses if address) if addresses else UNSET,
        limits=_limits(limits),
        parameters=dict(parameters),
        restart=restart,
        **_named(nic),
    )
    done = vm_nic_modify(session.client.ops, request)
    finish(session, done, VmGoal.NICS, f"has the NIC {nic} with these settings", wait=wait, timeout=timeout)


@click.command("list")
@click.argument("vm", type=VM)
@format_option
@pass_session
def list_(session: Session, vm: str) -> None:
    """List the NICs of a VM, in the order in which its guest sees them when it starts."""
    found = vm_info(session.client.ops, VmQuery(vm=vm))
    session.out.listing(found.spec.nics, nic_columns(found), empty=f"VM {found.view.name} has no NICs")


def _limits(given: tuple[Pair, ...]) -> dict[str, int | str]:
    return {name.replace("-", "_"): rate for name, rate in given}


def _added(done: VmModified) -> str:
    """Return the MAC address of the NIC that was added, which may have been chosen just then."""
    change = next((change for change in done.changes if change.field == "nics"), None)
    if change is None:
        return ""
    before, after = ([nic["mac"] for nic in nics if not nic.get("removing")] for nics in (change.old, change.new))
    return next((mac for mac in after if mac not in before), "")


def _named(nic: str) -> dict[str, str]:
    """Return what a word says of a NIC: a network's name has no colon, and looks like no MAC address with dashes."""
    return {"mac": nic} if ":" in nic or _DASHED_MAC.fullmatch(nic) else {"network": nic}
