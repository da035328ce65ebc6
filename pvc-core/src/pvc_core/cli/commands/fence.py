"""`pvc fence status`."""

import time
from typing import NamedTuple

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.parameters import all_as_text
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.units import format_duration
from pvc_core.ops.fence_status import DeviceCheck, DeviceView, FenceStatus, NodeFencing, fence_status


def _state(node: NodeFencing) -> Cell:
    if node.stage is not None:
        return words.state(node.stage)
    if node.left_alone:
        return Cell("left alone", "warn")
    return Cell("alive", "good") if node.lease == "held" else Cell("lost", "bad")


def _devices(node: NodeFencing) -> Cell:
    """Say of each device what the first coordinator found, in the order in which they are tried."""
    bad = any(_found(device).weight == "bad" for device in node.devices)
    return Cell("; ".join(f"{device.driver}: {_found(device).text}" for device in node.devices), "bad" if bad else "")


def _found(device: DeviceView) -> Cell:
    if not device.checks:
        return Cell("not checked yet", "warn")
    check = device.checks[0]
    return Cell(check.error, "bad") if check.error else _power(check)


def _power(check: DeviceCheck) -> Cell:
    return Cell("cannot be used", "bad") if check.error else words.state(check.power)


def _recovery(node: NodeFencing) -> Cell:
    """Say by what its death is proven, or would be."""
    if node.proofs:
        return Cell(words.words(node.proofs), "good")
    outlook = node.outlook
    if outlook.expected != "yes":
        return Cell("NONE", "bad") if outlook.expected == "no" else Cell("unknown", "warn")
    means = ", ".join(p.means for p in outlook.prospects if p.expected == "yes")
    return Cell(f"in {outlook.seconds:.0f} s: {means}", "warn" if outlook.uncovered else "good")


_STATUS = (
    Column("Node", lambda node: words.name(node.node)),
    Column("State", _state),
    Column("Proof", _recovery),
    Column("Watchdog", lambda node: format_duration(node.watchdog_down_s) if node.watchdog_down_s else "", right=True),
    Column("Storage", lambda node: words.words(node.storage), extra=True),
    Column("Devices", _devices, long=True),
)


@click.command("status")
@click.argument("node", type=NODE, default="")
@format_option
@pass_session
def status(session: Session, node: str) -> None:
    """Show how NODE, or each node, would be fenced, and what would become of its VMs if it were lost now.

    Nothing is asked: the coordinators check all fence devices from time to time.  To have them asked now: `pvc fence
    test`.
    """
    found = fence_status(session.client.ops, FenceStatus(node=node))
    if node:
        session.out.record(found[0], _status_sheet(found[0]))
        return
    session.out.listing(found, _STATUS, empty="no nodes")
    hopeless = [item for item in found if item.outlook.expected == "no" and not item.left_alone and not item.proofs]
    if session.out.format == "table" and hopeless and len(found) > 1:
        names = words.words(item.node for item in hopeless)
        session.out.warn(
            f"no proof of its death could be had of {names}: VMs there would not be started elsewhere until somebody "
            f"confirms it; see: pvc fence status {hopeless[0].node}"
        )


class _CheckRow(NamedTuple):
    device: DeviceView
    check: DeviceCheck | None


def _status_sheet(node: NodeFencing) -> Sheet:
    outlook = node.outlook
    weight = {"yes": "warn" if outlook.uncovered else "good", "no": "bad", "unknown": "warn"}[outlook.expected]
    checks = [_CheckRow(device, check) for device in node.devices for check in device.checks or (None,)]
    return [
        Line("Node", words.name(node.node)),
        Line("State", _state(node)),
        Line("Lease", node.lease),
        *([Line("Left alone", Cell(node.left_alone, "warn"))] if node.left_alone else []),
        *([Line("Waits for", Cell(node.waits_for, "bad"))] if node.waits_for else []),
        *([Line("Proven by", Cell(words.words(node.proofs), "good"))] if node.proofs else []),
        Line("If it is lost" if node.lease == "held" else "To be expected", Cell(outlook.verdict, weight)),
        *([Line("Not covered", Cell(words.words(outlook.uncovered), "bad"))] if outlook.uncovered else []),
        Line("VMs here", words.words(node.vms)),
        Line("Watchdog", _watchdog(node)),
        Line("Storage drivers", words.words(node.storage)),
        Block(
            "Ways to a proof",
            (
                Column("By", lambda p: p.means),
                Column("Expected", lambda p: Cell(p.expected, {"yes": "good", "no": "bad"}.get(p.expected, "warn"))),
                Column("After", lambda p: f"{p.seconds:.0f} s" if p.seconds is not None else "", right=True),
                Column("Why", lambda p: p.reason, long=True),
            ),
            outlook.prospects,
        ),
        Block(
            "Fence devices",
            (
                Column("Level", lambda row: _number(node, row.device)),
                Column("Driver", lambda row: row.device.driver),
                Column("From", lambda row: row.check.coordinator if row.check else ""),
                Column("Power", lambda row: _power(row.check) if row.check else Cell("not checked yet", "warn")),
                Column("Took", lambda row: format_duration(row.check.took_s) if row.check else "", right=True),
                Column("Checked", lambda row: _ago(row.check.checked) if row.check else "", right=True),
                Column("Error", lambda row: Cell(row.check.error if row.check else "", "bad"), long=True),
            ),
            checks,
        ),
        Block(
            "Parameters",
            (
                Column("Level", lambda device: _number(node, device)),
                Column("Driver", lambda device: device.driver),
                Column("Parameters", lambda device: all_as_text(device.parameters), long=True),
            ),
            node.devices,
        ),
    ]


def _number(node: NodeFencing, device: DeviceView) -> str:
    several = sum(other.level == device.level for other in node.devices) > 1
    return f"{device.level}.{device.device}" if several else str(device.level)


def _watchdog(node: NodeFencing) -> str:
    if not node.watchdog_down_s:
        return "none armed"
    return f"resets it at the latest {format_duration(node.watchdog_down_s)} after the end of its lease"


def _ago(seconds: float) -> str:
    return f"{words.ago(seconds, time.time())} ago" if seconds else ""
