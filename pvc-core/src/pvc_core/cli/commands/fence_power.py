"""`pvc fence test`, `on`, `off`, `cycle`, `confirm`."""

import getpass
import socket
from typing import Literal

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.output import Cell, Column
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import ended_task, finish_task
from pvc_core.model.errors import InvalidRequest, PvcError
from pvc_core.model.task import Task
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm, not_dead
from pvc_core.ops.fence_power import FencePower, FenceTest, at_work, fence_power, fence_test
from pvc_core.ops.fence_status import FenceStatus, NodeFencing, fence_status

_from_option = click.option(
    "--from", "coordinator", type=NODE, default="", help="Coordinator that does it [the primary, or another one]."
)
_force_option = click.option("--force", is_flag=True, help="Also while the node is at work, or is being fenced.")


@click.command("test")
@click.argument("node", type=NODE)
@_from_option
@wait_options(120)
@format_option
@pass_session
def test(session: Session, node: str, coordinator: str, wait: bool, timeout: float) -> None:
    """Ask every fence device of NODE now; nothing is switched.

    Exit status 1 when no level could be used: a level works when all of its devices answer, and none of them says that
    the power of a node at work is off.
    """
    task = fence_test(session.client.ops, FenceTest(node=node, coordinator=coordinator))
    if not wait:
        finish_task(session, task, lambda _: "", wait=False, timeout=timeout)
        return
    task = ended_task(session, task, timeout=timeout)
    found = _answers(task, at_work=_look(session, node).lease == "held")
    usable = sorted({level for level, _, _, _ in found} - {level for level, _, _, ok in found if not ok})
    if session.out.format == "table":
        session.out.listing(found, _ANSWERS, empty=f"node {node} has no fence devices")
    else:
        session.out.data({"node": node, "from": task.node, "usable_levels": usable, "devices": task.result})
    if not usable:
        raise PvcError(f"node {node} could not be fenced by its devices now: no level works from {task.node}")


_Answer = tuple[int, str, str, bool]
"""Level, number of the device, what it said, whether it can be used."""

_ANSWERS = (
    Column("Level", lambda answer: answer[1]),
    Column("Answer", lambda answer: Cell(answer[2], "good" if answer[3] else "bad"), long=True),
)


def _answers(task: Task, *, at_work: bool) -> list[_Answer]:
    """Return the answers in a task's result: ``LEVEL.DEVICE`` -> ``DRIVER: on``, ``off``, or what is wrong."""
    found: list[_Answer] = []
    for number, text in sorted(task.result.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        said = str(text)
        power = said.partition(": ")[2]
        if power == "off" and at_work:
            said = f"{said}, but the node is at work: it is the device of another machine"
        found.append((int(number.partition(".")[0]), number, said, power == "on" or (power == "off" and not at_work)))
    return found


def _switch(
    session: Session,
    node: str,
    action: Literal["off", "on", "cycle"],
    coordinator: str,
    *,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    request = FencePower(node=node, action=action, force=force, coordinator=coordinator)
    task = fence_power(session.client.ops, request)

    def done(ended: Task) -> str:
        power = ended.result.get("power", "unknown")
        level = ended.result.get("level")
        by = f" by level {level}" if level else ""
        again = "off and on again" if action == "cycle" and power == "on" else str(power)
        return f"node {node} is {again}, confirmed{by} from {ended.node}"

    finish_task(session, task, done, wait=wait, timeout=timeout)


def _ask(session: Session, node: str, what: str, *, force: bool, yes: bool) -> None:
    """Ask before a node's power is cut, with what runs on it.  Raises InUse for one at work."""
    found = _look(session, node)
    if found.lease == "held" and not force:
        raise at_work(found.node)
    now = "which is at work" if found.lease == "held" else "which has no lease"
    vms = f", with VMs {words.words(found.vms, most=5)}" if found.vms else ""
    session.confirm(f"{what} node {found.node}, {now}{vms}?", yes=yes)


def _look(session: Session, node: str) -> NodeFencing:
    return fence_status(session.client.ops, FenceStatus(node=node))[0]


@click.command("on")
@click.argument("node", type=NODE)
@_force_option
@_from_option
@wait_options(300)
@format_option
@pass_session
def on(session: Session, node: str, force: bool, coordinator: str, wait: bool, timeout: float) -> None:
    """Switch NODE on by its fence devices, and read back that it is."""
    _switch(session, node, "on", coordinator, force=force, wait=wait, timeout=timeout)


@click.command("off")
@click.argument("node", type=NODE)
@_force_option
@yes_option
@_from_option
@wait_options(300)
@format_option
@pass_session
def off(session: Session, node: str, force: bool, yes: bool, coordinator: str, wait: bool, timeout: float) -> None:
    """Cut the power of NODE by its fence devices, level after level, and read back that it is off.

    Its VMs crash.  Refused while it is at work, unless with --force.
    """
    _ask(session, node, "Cut the power of", force=force, yes=yes)
    _switch(session, node, "off", coordinator, force=force, wait=wait, timeout=timeout)


@click.command("cycle")
@click.argument("node", type=NODE)
@_force_option
@yes_option
@_from_option
@wait_options(600)
@format_option
@pass_session
def cycle(session: Session, node: str, force: bool, yes: bool, coordinator: str, wait: bool, timeout: float) -> None:
    """Cut the power of NODE, read back that it is off, and switch it on again.

    Its VMs crash.  Refused while it is at work, unless with --force.
    """
    _ask(session, node, "Cut the power of, and switch on again,", force=force, yes=yes)
    _switch(session, node, "cycle", coordinator, force=force, wait=wait, timeout=timeout)


@click.command("confirm")
@click.argument("node", type=NODE)
@click.option("--reason", default="", metavar="TEXT", help="How you know it; it is kept with the proof.")
@click.option("-y", "--yes", metavar="NODE", help="Do not ask: the name of the node once more.")
@format_option
@pass_session
def confirm(session: Session, node: str, reason: str, yes: str | None) -> None:
    """Confirm that NODE is dead, so that its VMs are started elsewhere.

    For a node that cannot be fenced otherwise.  Be sure that it is off and stays off, or is cut off from all storage:
    if its VMs still run there, they will run twice and destroy the data on their disks.
    """
    found = _look(session, node)
    if found.lease == "held":
        raise not_dead(found.node)
    _sure(session, found, yes)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    request = FenceConfirm(node=node, by=by, reason=reason, lease=found.generation)
    done = fence_confirm(session.client.ops, request)
    proof = done.proof
    text = f"node {node}: it is recorded that {proof.by} confirmed its death; its VMs will be started elsewhere"
    if not done.recorded:
        text = f"node {node}: its death is proven already: {proof.kind} by {proof.by}, {proof.evidence}"
    session.out.done(text, fence=done)


def _sure(session: Session, node: NodeFencing, yes: str | None) -> None:
    """Have the node's name said once more; raise InvalidRequest unless it is."""
    if node.waits_for:
        session.out.note(f"no proof so far: {node.waits_for}")
    on = [device for device in node.devices if any(check.power == "on" for check in device.checks)]
    if on and node.stage is None:
        # Only then it was asked since: devices are left alone while their node is being fenced.
        check = next(check for check in on[0].checks if check.power == "on")
        session.out.warn(
            f"when it was last asked ({words.when(check.checked)}), {on[0].driver} of node {node.node} said that its power "
            "is ON"
        )
    if yes is None:
        if not session.interactive:
            raise InvalidRequest(
                f"confirm the death of node {node.node}: not done without confirmation; repeat it with --yes {node.node}"
            )
        vms = f"VMs {words.words(node.vms)}" if node.vms else "VMs"
        click.echo(
            f"You are about to say that node {node.node} is dead: powered off, and not going to come back by itself.\n"
            f"Its {vms} will be started on other nodes at once.\n"
            "If it still runs, they run twice and destroy the data on their disks.",
            err=True,
        )
        yes = click.prompt(
            f"Type the name of the node ({node.node}) to confirm", default="", show_default=False, err=True
        )
    if yes != node.node:
        raise InvalidRequest(f"{yes!r} is not {node.node!r}: nothing was recorded")
