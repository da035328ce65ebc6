"""`pvc fence level list`, `add`, `remove`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option, yes_option
from pvc_core.cli.output import Column
from pvc_core.cli.parameters import all_as_text
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.errors import NotFound
from pvc_core.model.fence import FenceDevice
from pvc_core.ops.fence_level import (
    FenceLevelAdd,
    FenceLevelList,
    FenceLevelRemove,
    NodeLevels,
    fence_level_add,
    fence_level_list,
    fence_level_remove,
)


class _Text(click.ParamType[tuple[str, str]]):
    """``key=value``, where the value is text whatever it looks like."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the key and its value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


class _Row(NamedTuple):
    node: str
    number: int
    device_number: int
    device: FenceDevice | None

    def level(self) -> str:
        """Return its level, with the number of the device where the level has several."""
        return f"{self.number}.{self.device_number}" if self.device_number else str(self.number or "none")


_COLUMNS = (
    Column("Node", lambda row: words.name(row.node)),
    Column("Level", lambda row: row.level()),
    Column("Driver", lambda row: row.device.driver if row.device else ""),
    Column("Parameters", lambda row: all_as_text(row.device.parameters) if row.device else "", long=True),
)


@click.command("list")
@click.argument("node", type=NODE, default="")
@format_option
@pass_session
def list_(session: Session, node: str) -> None:
    """List the fence levels of NODE, or of all nodes.

    Levels are tried in their order.  A level with several devices (2.1, 2.2) has cut the power when all of them say so.
    """
    found = fence_level_list(session.client.ops, FenceLevelList(node=node))
    if session.out.format == "table":
        session.out.listing(_rows(found), _COLUMNS, empty="no nodes")
    else:
        session.out.data(found)


def _rows(found: Sequence[NodeLevels]) -> list[_Row]:
    rows: list[_Row] = []
    for item in found:
        if not item.levels:
            rows.append(_Row(item.node, 0, 0, None))
        for number, level in enumerate(item.levels, 1):
            several = len(level.devices) > 1
            rows += [_Row(item.node, number, index * several, device) for index, device in enumerate(level.devices, 1)]
    return rows


@click.command("add")
@click.argument("node", type=NODE)
@click.argument("driver")
@click.argument("parameters", type=_Text(), nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--level", type=click.IntRange(1), help="Add the device to this level: all devices of a level must confirm."
)
@click.option("--force", is_flag=True, help="Also when no coordinator has the driver yet, or another node the device.")
@format_option
@pass_session
def add(
    session: Session,
    node: str,
    driver: str,
    parameters: tuple[tuple[str, str], ...],
    level: int | None,
    force: bool,
) -> None:
    """Add a fence device to NODE, as a new level that is tried after all others.

    What parameters there are is the driver's business: see `pvc plugin show`.  Secrets are named by files that every
    coordinator has.

    \b
    pvc fence level add hv1 ipmi address=10.0.9.1 user=pvc password_file=/etc/pvc/bmc
    """
    for index, (key, _) in enumerate(parameters):
        if key in dict(parameters[:index]):
            raise click.UsageError(f"parameter {key} is given twice")
    request = FenceLevelAdd(node=node, driver=driver, parameters=dict(parameters), level=level, force=force)
    added = fence_level_add(session.client.ops, request)
    if added.without_driver:
        session.out.warn(
            f"no working fence driver {driver} on {words.words(added.without_driver)}: "
            f"while one of them is primary, node {node} cannot be fenced by it"
        )
    text = f"node {node}: {driver} is level {added.level}"
    devices = len(added.levels[added.level - 1].devices)
    if devices > 1:
        text = f"node {node}: {driver} is in level {added.level}, with {words.count(devices - 1, 'other')}"
    session.out.done(text if added.changed else f"{text} already", fence=added)


@click.command("remove")
@click.argument("node", type=NODE)
@click.argument("level", type=click.IntRange(1))
@click.option("--device", type=click.IntRange(1), help="Only this device of the level.")
@yes_option
@format_option
@pass_session
def remove(session: Session, node: str, level: int, device: int | None, yes: bool) -> None:
    """Remove fence level LEVEL of NODE, or one of its devices; the levels behind it move up."""
    ops = session.client.ops
    levels = fence_level_list(ops, FenceLevelList(node=node))[0].levels
    if level > len(levels):
        raise NotFound(f"node {node} has no fence level {level}: it has {len(levels) or 'none'}")
    devices = levels[level - 1].devices
    what = f"device {device} of fence level {level}" if device else f"fence level {level}"
    drivers = words.words(item.driver for item in (devices[device - 1 : device] if device else devices))
    whole = device is None or len(devices) == 1
    then = "" if whole else "; then the others alone are taken for the whole power"
    last = "; it would have no fence level left" if whole and len(levels) == 1 else then
    session.confirm(f"Remove {what} ({drivers}) of node {node}{last}?", yes=yes)
    found = fence_level_remove(ops, FenceLevelRemove(node=node, level=level, device=device))
    left = words.count(len(found.levels), "level") if found.levels else "no level"
    session.out.done(f"node {node}: {what} is removed; {left} left", fence=found)
