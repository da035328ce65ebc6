"""Tasks: one-off jobs of a node."""

from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View


class TaskCreate(Request, frozen=True, kw_only=True):
    """Ask a node for a job; plugins' own kinds go through here."""

    kind: str
    node: str
    arguments: dict[str, str | int | bool | list[str] | None] = {}
    subject: str = ""
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
    """Create a task.  Raises NotFound (node), InvalidRequest (node not alive)."""
    raise NotImplementedError


def task_list(ops: Ops, request: TaskList) -> list[Task]:
    """List tasks, oldest first."""
    raise NotImplementedError


def task_info(ops: Ops, request: TaskQuery) -> Task:
    """Return one task.  Raises NotFound."""
    raise NotImplementedError


def task_cancel(ops: Ops, request: TaskQuery) -> Task:
    """Ask a task to stop; a queued one is cancelled at once.  Raises NotFound, InvalidRequest when it ended."""
    raise NotImplementedError


def task_prune(ops: Ops, request: TaskPrune) -> TaskPruned:
    """Forget final tasks that ended longer ago than ``older_than_s``."""
    raise NotImplementedError
