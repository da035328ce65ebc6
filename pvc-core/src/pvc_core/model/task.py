"""One-off jobs, run by the daemon of a named node."""

import enum

from pvc_core.model.base import Document


class TaskState(enum.StrEnum):
    """States of a task; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED})


class Task(Document, frozen=True, kw_only=True):
    """A job.  Written by the operation that asks for it, then by the daemon of ``node`` only."""

    id: str
    kind: str
    """Such as ``volume.import``; plugins add kinds of their own with a dot after their name."""
    node: str
    arguments: dict[str, str | int | bool | list[str] | None] = {}
    subject: str = ""
    """What it works on, for people: ``volume ssd/web1``."""
    state: TaskState = TaskState.QUEUED
    progress: float = 0.0
    """0.0 to 1.0."""
    message: str = ""
    error: str = ""
    result: dict[str, str | int | float | bool | None] = {}
    cancel: bool = False
    time_limit_s: int = 86400
    lease: int = 0
    """Generation of the runner's lease: a task of an older generation died with its daemon."""
    created: float = 0.0
    finished: float = 0.0
