"""``pvc network acl``: the rules of a managed network's firewall."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec
from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest, NotFound, PvcError
from pvc_core.plugin.cli import Client, Column, Output, format_option, pass_client, pass_output, wait_options
from pvc_vxlan.cli import managed
from pvc_vxlan.firewall.validate import check_rules
from pvc_vxlan.network import DEFAULT_ORDER, Direction, Rule, by_order

_COUNTERS: Final = "vxlan.counters"
_CHECK: Final = "vxlan.check-rules"
_WHAT: Final = "a firewall"
_WAIT_S: Final = 30.0
_ALPHABET: Final = "23456789abcdefghjkmnpqrstvwxyz"
"""Of ids: nothing that is read as something else."""
_LENGTH: Final = 4

C = TypeVar("C", bound=Callable[..., Any])
Counters = dict[str, tuple[int, int]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A rule in a listing."""

    rule: Rule
    packets: int | None = None
    """None: not known now."""
    bytes: int | None = None


def _ends(prefixes: Sequence[str], ports: Sequence[str]) -> str:
    return " ".join([",".join(prefixes) or "any", *([f"port {','.join(ports)}"] if ports else [])])


def _count(value: int | None) -> str:
    return "unknown" if value is None else str(value)


_COLUMNS: Final = (
    Column("ID", lambda row: row.rule.id),
    Column("DIRECTION", lambda row: row.rule.direction),
    Column("ORDER", lambda row: str(row.rule.order), right=True),
    Column("ACTION", lambda row: "raw" if row.rule.raw else row.rule.action),
    Column("PROTOCOL", lambda row: "" if row.rule.raw else row.rule.protocol),
    Column("SOURCE", lambda row: row.rule.raw or _ends(row.rule.source, row.rule.source_ports)),
    Column("DESTINATION", lambda row: "" if row.rule.raw else ",".join(row.rule.destination) or "any"),
    Column("PORTS", lambda row: ",".join(row.rule.ports)),
    Column("PACKETS", lambda row: _count(row.packets), right=True),
    Column("BYTES", lambda row: _count(row.bytes), right=True),
    Column("COMMENT", lambda row: row.rule.comment),
)


@click.group("acl")
def acl() -> None:
    """Look at and change the rules of a network's firewall.

    Of one direction, the first rule that matches decides.  What no rule matches is dropped when it comes in, and passes when it
    goes out.  Answers of connections that were accepted always pass.
    """


@acl.command("list")
@click.argument("network")
@format_option
@pass_output
@pass_client
def list_(client: Client, out: Output, /, network: str) -> None:
    """List the rules of NETWORK in the order in which they are tried, with what they decided about."""
    found = managed.read(client, network, _WHAT)
    counters: Counters = {}
    if found.parameters.rules:
        counters = _counters(client, out, found)
    directions: tuple[Direction, ...] = ("in", "out")
    rows = [
        Row(rule=rule, packets=count[0] if count else None, bytes=count[1] if count else None)
        for direction in directions
        for rule in by_order(found.parameters.rules, direction)
        for count in (counters.get(rule.id),)
    ]
    out.listing(
        rows,
        _COLUMNS,
        empty=f"network {found.name} has no rules: nobody outside reaches its guests, and they reach everybody",
    )


def _match_options(command: C) -> C:
    """Add what a rule matches and does, all None or empty when not given."""
    for option in reversed(
        (
            click.option("--action", type=click.Choice(["accept", "drop", "reject"]), help="What is done [accept]."),
            click.option(
                "--protocol",
                type=click.Choice(["any", "tcp", "udp", "sctp", "icmp", "icmpv6", "esp", "gre"]),
                help="What is matched [any].",
            ),
            click.option(
                "--source", multiple=True, metavar="PREFIX", help="Where it comes from; several: any of them."
            ),
            click.option("--destination", multiple=True, metavar="PREFIX", help="Where it goes to."),
            click.option("--source-port", multiple=True, metavar="PORT[-PORT]", help="From which ports."),
            click.option("--port", multiple=True, metavar="PORT[-PORT]", help="To which ports."),
            click.option("--order", type=click.IntRange(1, 9999), help=f"Lower ones come first [{DEFAULT_ORDER}]."),
            click.option("--comment", help="A few words for people."),
            click.option("--raw", metavar="RULE", help="A whole rule in the language of nft(8), instead."),
        )
    ):
        command = option(command)
    return command


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a rule that options set: those that were given."""
    names = {"source_port": "source_ports", "port": "ports"}
    return {names.get(name, name): value for name, value in options.items() if value not in (None, ())}


@acl.command()
@click.argument("network")
@click.option("--in", "direction", flag_value="in", help="To the network's guests from outside it.")
@click.option("--out", "direction", flag_value="out", help="From the network's guests to outside it.")
@_match_options
@wait_options(_WAIT_S)
@format_option
@pass_output
@pass_client
def add(
    client: Client,
    out: Output,
    /,
    network: str,
    direction: Direction | None,
    wait: bool,
    timeout: float,
    **options: Any,
) -> None:
    """Add a rule to NETWORK."""
    if direction is None:
        raise click.UsageError("say which way: --in or --out")
    # Once: a retry shall not be another rule.
    made: list[Rule] = []

    def added(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        made[:] = [Rule(id=_new_id(rules), direction=direction, **_fields(options))]
        return (*rules, *made)

    found = _change(client, out, network, added)
    managed.settle(client, out, found, wait=wait, timeout=timeout)
    out.done(f"rule {made[0].id} is added to network {found.name}", id=made[0].id, network=found.name)


@acl.command()
@click.argument("network")
@click.argument("rules", nargs=-1, required=True, metavar="ID...")
@wait_options(_WAIT_S)
@format_option
@pass_output
@pass_client
def remove(client: Client, out: Output, /, network: str, rules: tuple[str, ...], wait: bool, timeout: float) -> None:
    """Remove rules of NETWORK by their ids.

    Open connections that no other rule accepts end.
    """

    def removed(now: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for id_ in rules:
            _known(network, now, id_)
        return tuple(rule for rule in now if rule.id not in rules)

    found = _change(client, out, network, removed)
    managed.settle(client, out, found, wait=wait, timeout=timeout)
    several = f"rules {', '.join(rules)} are" if len(rules) > 1 else f"rule {rules[0]} is"
    out.done(f"{several} removed from network {found.name}", ids=list(rules), network=found.name)


@acl.command()
@click.argument("network")
@click.argument("rule", metavar="ID")
@_match_options
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(["source", "destination", "source-port", "port", "comment", "raw"]),
    help="Take this away from the rule.",
)
@wait_options(_WAIT_S)
@format_option
@pass_output
@pass_client
def modify(
    client: Client,
    out: Output,
    /,
    network: str,
    rule: str,
    clear: tuple[str, ...],
    wait: bool,
    timeout: float,
    **options: Any,
) -> None:
    """Change rule ID of NETWORK; what is not given stays."""
    fields = _fields(options)
    cleared = {"source-port": "source_ports", "port": "ports"}
    empty = {name: "" if name in ("comment", "raw") else () for name in (cleared.get(name, name) for name in clear)}
    both = sorted(empty.keys() & fields.keys())
    if both:
        raise click.UsageError(f"{', '.join(both)}: either changed or cleared")
    if not fields and not empty:
        raise click.UsageError("nothing to change: give an option, see --help")

    def modified(now: tuple[Rule, ...]) -> tuple[Rule, ...]:
        _known(network, now, rule)
        return tuple(replace(one, **fields, **empty) if one.id == rule else one for one in now)

    found = _change(client, out, network, modified)
    managed.settle(client, out, found, wait=wait, timeout=timeout)
    out.done(f"rule {rule} of network {found.name} is changed", id=rule, network=found.name)


def _change(
    client: Client, out: Output, network: str, new: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]
) -> managed.Managed:
    return managed.change(client, network, _WHAT, "rules", new, check=lambda wanted: _check(client, out, wanted))


def _check(client: Client, out: Output, wanted: managed.Managed) -> None:
    """Have nft of the gateway's node look at the rules, where one is in its language; raises InvalidRequest."""
    raw = [rule for rule in wanted.parameters.rules if rule.raw]
    if not raw:
        return
    # First what can be told without it, with its better words.
    check_rules(wanted.name, wanted.parameters.rules)
    try:
        rules = msgspec.to_builtins(list(wanted.parameters.rules))
        problems = msgspec.convert(managed.ask_gateway(client, _CHECK, wanted, rules=rules), list[str])
    except (PvcError, msgspec.ValidationError) as error:
        out.note(
            f"raw rules were not looked at by nft: {error}; `pvc network info {wanted.name}` tells of refused ones"
        )
        return
    if problems:
        raise InvalidRequest(f"network {wanted.name}: {'; '.join(problems)}; nothing was changed")


def _new_id(rules: Sequence[Rule]) -> str:
    taken = {rule.id for rule in rules}
    while True:
        id_ = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        if id_ not in taken:
            return id_


def _known(network: str, rules: Sequence[Rule], id_: str) -> None:
    if all(rule.id != id_ for rule in rules):
        there = ", ".join(rule.id for rule in rules) or "none"
        raise NotFound(f"network {network} has no rule {id_}; it has: {there}")


def _counters(client: Client, out: Output, network: managed.Managed) -> Counters:
    """Ask the gateway, which counts; nothing, and a note, when it does not answer."""
    try:
        return msgspec.convert(managed.ask_gateway(client, _COUNTERS, network), Counters)
    except (PvcError, msgspec.ValidationError) as error:
        managed.note_unknown(out, "counters", error)
        return {}
