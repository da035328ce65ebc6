"""`pvc task ...`."""

import time

import click

from pvc_core.cli import words
from pvc_core.cli.complete import NODE, TASK
from pvc_core.cli.options import format_option, timeout_option
from pvc_core.cli.output import Block, Cell, Column, Line
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import finish_task, short_id
from pvc_core.model.task import Task
from pvc_core.ops.task import TaskList, TaskQuery, task_cancel, task_info, task_list


def _message(task: Task) -> Cell:
    return Cell(task.error, "bad") if task.error else Cell(task.message)


_COLUMNS = (
    Column("ID", lambda task: words.name(short_id(task))),
    Column("Kind", lambda task: task.kind),
    Column("Subject", lambda task: task.subject),
    Column("Node", lambda task: task.node),
    Column("State", lambda task: words.state(task.state)),
    Column("Done", lambda task: f"{task.progress:.0%}", right=True),
    Column("Age", lambda task: words.ago(task.created, time.time()), right=True, extra=True),
    Column("Message", _message, long=True),
)


@click.command("list")
@click.option("-t", "--node", type=NODE, default="", help="Only those of this node.")
@click.option("-k", "--kind", default="", help="Only those of this kind, such as volume.import.")
@click.option("-u", "--unfinished", is_flag=True, help="Only those that have not ended.")
@format_option
@pass_session
def list_(session: Session, node: str, kind: str, unfinished: bool) -> None:
    """List the tasks, the oldest first."""
    request = TaskList(node=node, kind=kind, unfinished=unfinished)
    tasks = task_list(session.client.ops, request)
    session.out.listing(tasks, _COLUMNS, empty="no tasks" + (" match" if request != TaskList() else ""))


@click.command("info")
@click.argument("task", type=TASK)
@format_option
@pass_session
def info(session: Session, task: str) -> None:
    """Show one task in detail; the beginning of its id is enough."""
    found = task_info(session.client.ops, TaskQuery(task=task))
    pairs = (Column("Name", lambda pair: pair[0]), Column("Value", lambda pair: str(pair[1]), long=True))
    session.out.record(
        found,
        [
            Line("ID", words.name(found.id)),
            Line("Kind", found.kind),
            Line("Subject", found.subject),
            Line("Node", found.node),
            Line("State", words.state(found.state)),
            Line("Done", f"{found.progress:.0%}"),
            Line("Message", _message(found)),
            Line("Created", words.when(found.created)),
            Line("Finished", words.when(found.finished)),
            Block("Arguments", pairs, sorted(found.arguments.items())),
            Block("Result", pairs, sorted(found.result.items())),
        ],
    )


@click.command("wait")
@click.argument("task", type=TASK)
@timeout_option(None)
@format_option
@pass_session
def wait(session: Session, task: str, timeout: float) -> None:
    """Wait for a task to end; exit status 1 when it failed or was cancelled."""
    found = task_info(session.client.ops, TaskQuery(task=task))
    finish_task(session, found, lambda done: f"task {short_id(done)} is {done.state}", wait=True, timeout=timeout)


@click.command("cancel")
@click.argument("task", type=TASK)
@format_option
@pass_session
def cancel(session: Session, task: str) -> None:
    """Ask a task to stop."""
    asked = task_cancel(session.client.ops, TaskQuery(task=task))
    text = "is cancelled" if asked.state == "cancelled" else f"was asked to stop, see: pvc task info {short_id(asked)}"
    session.out.done(f"task {short_id(asked)} {text}", task=asked)
