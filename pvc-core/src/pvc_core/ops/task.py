"""Tasks: one-off jobs of a node."""

import logging

from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_name, not_found
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.transaction import attempt
from pvc_core.store import keys
from pvc_core.store.api import Operation, TransactionFailed
from pvc_core.store.documents import Entry, create, read, read_many

log = logging.getLogger(__name__)


class TaskCreate(Request, frozen=True, kw_only=True):
    """Ask a node for a job; plugins' own kinds go through here."""

    kind: str
    node: str
    arguments: dict[str, str | int | bool | list[str] | None] = {}
    subject: str = ""
    """What it works on, for people."""
    time_limit_s: int = 86400


class TaskList(Request, frozen=True, kw_only=True):
    """Which tasks to list."""

    node: str = ""
    kind: str = ""
    unfinished: bool = False
    """Only those that are not final."""


class TaskQuery(Request, frozen=True, kw_only=True):
    """One task; the beginning of its id is enough when no other begins so."""

    task: str


class TaskPrune(Request, frozen=True, kw_only=True):
    """Forget tasks that ended long ago."""

    older_than_s: float = 7 * 86400.0


class TaskPruned(View, frozen=True, kw_only=True):
    """How many were forgotten."""

    removed: int


def task_create(ops: Ops, request: TaskCreate) -> Task:
    """Create a task.  Raises NotFound (node), InvalidRequest (node not alive, malformed)."""
    check_name(request.kind, "task kind")
    if request.time_limit_s < 1:
        raise InvalidRequest(f"a time limit of {request.time_limit_s} s is too short")
    require_alive(ops, request.node)
    task = new_task(ops, request)
    ops.store.commit(create(keys.task(task.id), task))
    log.info("task-created task=%s kind=%s node=%s", task.id, task.kind, task.node)
    return task


def task_list(ops: Ops, request: TaskList) -> list[Task]:
    """List tasks, oldest first."""
    wanted = [keys.task(id_) for id_ in ops.store.children(keys.TASK)]
    tasks = [entry.value for entry in read_many(ops.store, wanted) if entry is not None]
    return sorted(
        (
            task
            for task in tasks
            if request.node in ("", task.node)
            and request.kind in ("", task.kind)
            and not (request.unfinished and task.state in FINAL)
        ),
        key=lambda task: (task.created, task.id),
    )


def task_info(ops: Ops, request: TaskQuery) -> Task:
    """Return one task.  Raises NotFound, InvalidRequest when several begin so."""
    return _find(ops, request.task).value


def task_cancel(ops: Ops, request: TaskQuery) -> Task:
    """Ask a task to stop; a queued one is cancelled at once.  Raises NotFound, InvalidRequest when it ended."""

    def once() -> Task:
        entry = _find(ops, request.task)
        task = entry.value
        if task.state in FINAL:
            raise InvalidRequest(f"task {task.id} is {task.state.value} already")
        if task.cancel:
            return task
        new = replace(task, cancel=True)
        if task.state is TaskState.QUEUED:
            new = replace(new, state=TaskState.CANCELLED, finished=ops.wall(), message="cancelled before it began")
        ops.store.commit(entry.put(new))
        log.info("task-cancel task=%s state=%s", task.id, new.state.value)
        return new

    return attempt(f"task {request.task!r} could not be cancelled", once)


def task_prune(ops: Ops, request: TaskPrune) -> TaskPruned:
    """Forget final tasks that ended longer ago than ``older_than_s``, by the clock of who asks."""
    limit = ops.wall() - request.older_than_s
    wanted = [keys.task(id_) for id_ in ops.store.children(keys.TASK)]
    entries = [entry for entry in read_many(ops.store, wanted) if entry is not None]
    removed = 0
    for entry in entries:
        if entry.value.state in FINAL and entry.value.finished <= limit:
            try:
                ops.store.commit(entry.delete())
                removed += 1
            except TransactionFailed as error:
                log.info("task-not-forgotten task=%s error=%s", entry.value.id, error)
    return TaskPruned(removed=removed)


def new_task(ops: Ops, request: TaskCreate) -> Task:
    """Return a task to be written."""
    return Task(
        id=ops.new_id(),
        kind=request.kind,
        node=request.node,
        arguments=request.arguments,
        subject=request.subject,
        time_limit_s=request.time_limit_s,
        created=ops.wall(),
    )


def begin(ops: Ops, request: TaskCreate, *more: Operation) -> Task:
    """Write a new task together with other operations."""
    task = new_task(ops, request)
    ops.store.commit(create(keys.task(task.id), task), *more)
    log.info("task-created task=%s kind=%s node=%s subject=%r", task.id, task.kind, task.node, task.subject)
    return task


def require_alive(ops: Ops, node: str) -> None:
    """Demand that a node exists and is alive; raises NotFound, InvalidRequest."""
    name = resolve.node(ops, node).value.id
    if ops.store.get(keys.lease(name).path) is None:
        raise InvalidRequest(f"node {name} is not alive: it cannot carry out a task")


def _find(ops: Ops, text: str) -> Entry[Task]:
    if resolve.is_plain(text):
        entry = read(ops.store, keys.task(text))
        if entry is not None:
            return entry
    ids = [id_ for id_ in ops.store.children(keys.TASK) if text and id_.startswith(text)]
    if len(ids) > 1:
        raise InvalidRequest(f"{len(ids)} tasks have ids that begin with {text!r}: write more of it")
    entry = read(ops.store, keys.task(ids[0])) if ids else None
    if entry is None:
        raise not_found("task", text)
    return entry
