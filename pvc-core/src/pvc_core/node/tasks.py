"""Runs the tasks of this node.

A task is queued by an operation, and from then on written by its node only (but for ``cancel``).  It is begun by one
transaction that records the generation of our lease; a task that says it runs under an older one, and is not in
work in this process, died with its daemon: it failed, or is begun again when its kind can be repeated.  Its end is written
until that succeeds, so a task always comes to one, and if the whole node is gone the primary writes it.

A task is told to stop through its ``progress`` callback: when somebody cancels it, when its time limit has passed,
when its document is gone or already final, and when the daemon stops.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec.structs import replace

from pvc_core.model.errors import PvcError
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.node.context import NodeContext
from pvc_core.node.interest import Interest
from pvc_core.plugin.specs.lifecycle import TaskRunner
from pvc_core.plugin.specs.storage import Cancelled
from pvc_core.store import documents, keys
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

Result = dict[str, str | int | float | bool | None]
Spawn = Callable[[str, Callable[[], None]], None]
"""``spawn(name, function)``: run a function; in a thread of its own, or at once in the simulator."""

AT_ONCE: Final = 4
"""Tasks of one node and one family that run at the same time.

Those of a plugin, which may wait for hours, keep no volume waiting."""
_STORAGE: Final = ("volume", "snapshot", "vm-snapshot")
"""What core's own kinds that work on volumes begin with: one family.  Others are by their first word, which is a plugin's."""

_PROGRESS_S: Final = 1.0
"""Least pause between two writes of a task's progress."""

_STOP_S: Final = 60.0
"""A task that was told to stop and does not is given up after this, unless its kind is repeated: others rely on its end."""


def spawn_thread(name: str, function: Callable[[], None]) -> None:
    """Run a function in a daemon thread: one that never ends does not keep the process."""
    threading.Thread(target=function, name=name, daemon=True).start()


def _family(task: Task) -> str:
    word = task.kind.partition(".")[0]
    return "storage" if word in _STORAGE else word


class _Job:
    """A task in work in this process."""

    def __init__(self, task: Task, started: float) -> None:
        self.task = task
        self.started = started
        self.stop = ""
        """Why it shall stop."""
        self.stop_state = TaskState.CANCELLED
        self.stop_since: float | None = None
        self.reported = 0.0
        self.message = ""
        self.written: float | None = None
        self.end: Task | None = None
        """Its final document, to be written."""


class _Telling:
    """What a runner tells of its job: ``TaskProgress``."""

    def __init__(self, job: _Job, tell: Callable[[_Job, float], bool]) -> None:
        self._job: Final = job
        self._tell: Final = tell

    def __call__(self, done: float, /) -> bool:
        return self._tell(self._job, done)

    def say(self, message: str) -> None:
        self._job.message = message


class TaskEngine:
    """Reconciler of keys ``("task", <id>)``."""

    def __init__(
        self,
        context: NodeContext,
        interest: Interest,
        runners: Mapping[str, TaskRunner],
        *,
        repeated: Collection[str] = (),
        at_once: int = AT_ONCE,
        spawn: Spawn = spawn_thread,
    ) -> None:
        """``repeated``: kinds whose runners find out how far an earlier daemon came, and go on from there."""
        self._context = context
        self._interest = interest
        self._runners = dict(runners)
        self._repeated = frozenset(repeated)
        self._at_once = at_once
        self._spawn = spawn
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[str] = []
        self._stopping = False

    def reconcile(self, id_: str) -> float | None:
        """Begin a queued task, write the end of one, stop one that shall not go on."""
        entry = documents.read(self._context.store, keys.task(id_))
        job = self._jobs.get(id_)
        if entry is None:
            return self._halt(job, "its record is gone", TaskState.CANCELLED)
        task = entry.value
        if task.node != self._context.name:
            self._interest.foreign_task(id_)
            return None
        if task.state in FINAL:
            return self._halt(job, "it was ended by another node", task.state)
        if job is not None:
            return self._tend(entry, job)
        died = task.state is TaskState.RUNNING and task.lease != self._context.lease.generation()
        if died and task.kind not in self._repeated:
            self._end(entry, TaskState.FAILED, "the daemon ended while the task ran")
            return None
        # One that runs under our lease and is not in work was begun in a transaction whose answer was lost.
        return self._begin(entry)

    def stop(self, deadline_s: float) -> None:
        """Tell all running tasks to stop, wait for them, and write their ends.  Raises StoreUnavailable."""
        self._stopping = True
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            self._tell(job, "the daemon of its node was stopped", TaskState.FAILED)
        clock = self._context.clock
        deadline = clock.monotonic() + deadline_s
        pause = threading.Event()
        while clock.monotonic() < deadline and any(job.end is None for job in jobs):
            pause.wait(0.05)
        for job in jobs:
            if job.task.kind in self._repeated and (job.end is None or job.end.state is not TaskState.DONE):
                continue  # the next daemon goes on with it; if there is none, the primary ends it
            entry = documents.read(self._context.store, keys.task(job.task.id))
            if entry is not None and entry.value.state not in FINAL:
                end = job.end or self._final(entry.value, TaskState.FAILED, job.stop)
                self._context.store.commit(entry.put(end), *self._context.lease.guard())

    def running(self) -> int:
        """Return how many tasks are in work here."""
        with self._lock:
            return sum(job.end is None for job in self._jobs.values())

    # --- beginning ----------------------------------------------------------------------------------

    def _begin(self, entry: Entry[Task]) -> float | None:
        task = entry.value
        if self._stopping:
            return None
        if task.cancel and task.state is TaskState.QUEUED:
            self._end(entry, TaskState.CANCELLED, "it was cancelled before it began")
            return None
        runner = self._runners.get(task.kind)
        if runner is None:
            known = ", ".join(sorted(self._runners)) or "none"
            self._end(
                entry,
                TaskState.FAILED,
                f"no plugin of node {task.node} runs tasks of kind {task.kind!r}; known: {known}",
            )
            return None
        lease = self._context.lease.generation()
        if lease is None:
            return None
        with self._lock:
            if sum(_family(job.task) == _family(task) for job in self._jobs.values()) >= self._at_once:
                if task.id not in self._waiting:
                    self._waiting.append(task.id)
                return None
            running = replace(task, state=TaskState.RUNNING, lease=lease, progress=0.0)
            job = self._jobs[task.id] = _Job(running, self._context.clock.monotonic())
        try:
            self._context.store.commit(entry.put(running), *self._context.lease.guard())
        except PvcError:
            with self._lock:
                del self._jobs[task.id]
            raise
        log.info("task-started task=%s kind=%s subject=%r", task.id, task.kind, task.subject)
        self._spawn(f"task-{task.id}", lambda: self._run(job, runner))
        return self._tend_again(job)

    def _run(self, job: _Job, runner: TaskRunner) -> None:
        task = job.task
        try:
            result = runner(task, _Telling(job, self._progress))
        except Cancelled:
            end = self._final(task, job.stop_state, job.stop or "it was cancelled")
        except PvcError as error:
            end = self._final(task, TaskState.FAILED, str(error))
        except Exception as error:
            # A plugin's runner may raise anything; the task must come to its end all the same.
            log.exception("task-defect task=%s kind=%s", task.id, task.kind)
            end = self._final(task, TaskState.FAILED, f"{type(error).__name__}: {error}")
        else:
            end = replace(self._final(task, TaskState.DONE, ""), progress=1.0, result=result)
        job.end = end
        self._context.wake("task", task.id, 0.0)

    def _progress(self, job: _Job, part: float) -> bool:
        """Take note of a runner's progress, write it at most once a second; return whether it shall stop."""
        job.reported = min(max(part, 0.0), 1.0)
        now = self._context.clock.monotonic()
        if not job.stop and (job.written is None or now - job.written >= _PROGRESS_S):
            job.written = now
            try:
                self._write_progress(job)
            except PvcError as error:
                # Only a figure: the next one is due in a second.
                log.debug("progress-not-written task=%s error=%s", job.task.id, error)
        if not job.stop and now - job.started > job.task.time_limit_s:
            self._tell_limit(job)
        return bool(job.stop)

    def _write_progress(self, job: _Job) -> None:
        entry = documents.read(self._context.store, keys.task(job.task.id))
        if entry is None or entry.value.state in FINAL:
            self._tell(job, "it was ended by another node", TaskState.CANCELLED)
        elif entry.value.cancel:
            self._tell(job, "it was cancelled", TaskState.CANCELLED)
        elif (entry.value.progress, entry.value.message) != (round(job.reported, 4), job.message):
            new = replace(entry.value, progress=round(job.reported, 4), message=job.message)
            self._context.store.commit(entry.put(new), *self._context.lease.guard())

    # --- tending ------------------------------------------------------------------------------------

    def _tend(self, entry: Entry[Task], job: _Job) -> float | None:
        """Look after a task in work: its end, its cancellation, its time limit, a new lease."""
        task = entry.value
        if job.end is not None:
            end = replace(job.end, cancel=task.cancel, lease=task.lease)
            self._context.store.commit(entry.put(end), *self._context.lease.guard())
            log.info("task-ended task=%s kind=%s state=%s error=%r", task.id, task.kind, end.state.value, end.error)
            self._drop(job)
            return None
        now = self._context.clock.monotonic()
        if task.cancel:
            self._tell(job, "it was cancelled", TaskState.CANCELLED)
        if now - job.started > task.time_limit_s:
            self._tell_limit(job)
        late = job.stop_since is not None and now - job.stop_since > _STOP_S
        if late and task.kind not in self._repeated:
            error = f"{job.stop}; its runner did not stop within {_STOP_S:g} s"
            self._end(entry, TaskState.FAILED, error)
            self._drop(job)
            return None
        generation = self._context.lease.generation()
        if generation is not None and task.lease != generation:
            # It went on while our session was lost: it belongs to the new lease now.
            self._context.store.commit(entry.put(replace(task, lease=generation)), *self._context.lease.guard())
        return self._tend_again(job)

    def _tend_again(self, job: _Job) -> float:
        now = self._context.clock.monotonic()
        due = job.started + job.task.time_limit_s if job.stop_since is None else job.stop_since + _STOP_S
        return max(due - now, 0.0) + _PROGRESS_S

    def _halt(self, job: _Job | None, why: str, state: TaskState) -> float | None:
        """The record says that it is over: tell the runner, and forget it when it has ended."""
        if job is None:
            return None
        self._tell(job, why, state)
        now = self._context.clock.monotonic()
        if job.end is not None or (job.stop_since is not None and now - job.stop_since > _STOP_S):
            self._drop(job)
            return None
        return self._tend_again(job)

    def _tell(self, job: _Job, why: str, state: TaskState) -> None:
        if not job.stop:
            job.stop, job.stop_state = why, state
            job.stop_since = self._context.clock.monotonic()
            log.info("task-stopping task=%s reason=%r", job.task.id, why)

    def _tell_limit(self, job: _Job) -> None:
        limit = job.task.time_limit_s
        self._tell(job, f"it took longer than its time limit of {limit} s", TaskState.FAILED)

    def _drop(self, job: _Job) -> None:
        with self._lock:
            self._jobs.pop(job.task.id, None)
            waiting, self._waiting = self._waiting, []
        for id_ in waiting:
            self._context.wake("task", id_, 0.0)

    def _end(self, entry: Entry[Task], state: TaskState, error: str) -> None:
        task = entry.value
        self._context.store.commit(entry.put(self._final(task, state, error)), *self._context.lease.guard())
        log.info("task-ended task=%s kind=%s state=%s error=%r", task.id, task.kind, state.value, error)

    def _final(self, task: Task, state: TaskState, error: str) -> Task:
        return replace(task, state=state, error=error, finished=self._context.clock.wall())
