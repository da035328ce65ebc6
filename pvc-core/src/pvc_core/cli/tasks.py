"""What commands that begin a task do with it."""

from collections.abc import Callable

from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session
from pvc_core.model.task import Task
from pvc_core.ops.wait import wait_task

SHORT: int = 8
"""Letters of a task's id that are shown: the beginning is enough to name it."""


def short_id(task: Task) -> str:
    """Return the beginning of a task's id, by which commands take it."""
    return task.id[:SHORT]


def finish_task(
    session: Session,
    task: Task,
    done: Callable[[Task], str],
    *,
    wait: bool,
    timeout: float,
) -> None:
    """Wait for a task's end and say ``done(task)``; without ``wait`` say which task it is."""
    if not wait:
        session.out.done(f"task {short_id(task)} {task.kind} was given to node {task.node}", task=task)
        return
    task = ended_task(session, task, timeout=timeout)
    session.out.done(done(task), task=task)


def ended_task(session: Session, task: Task, *, timeout: float) -> Task:
    """Wait for a task's end, showing its progress; return it as it is then.  Raises NotFinished, Interrupted."""
    what = task.subject or task.kind
    with watching(session, what, later=f"pvc task wait {short_id(task)}") as report:
        return wait_task(session.client.ops, task.id, timeout_s=timeout, report=report)
