"""Tasks: begun once, ended always, cancelled, limited in time, bounded in number."""

import threading

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import PvcError
from pvc_core.model.task import Task, TaskState
from pvc_core.node.tasks import AT_ONCE, spawn_thread
from pvc_core.plugin.specs.storage import Cancelled
from pvc_core.store import documents, keys
from pvc_core.store.api import StoreUnavailable
from pvc_core.store.documents import create
from pvc_core.store.memory import Moment
from pvc_core.testkit.stepped import SteppedCluster


class Held:
    """Runs what it is given only when told, so that a test can look at a running task."""

    def __init__(self):
        self.functions = []

    def __call__(self, name, function):
        self.functions.append(function)

    def run(self):
        self.functions.pop(0)()


class Site:
    def __init__(self, **runners):
        self.cluster = SteppedCluster()
        self.held = Held()
        self.steps = []
        self.node = self.cluster.add(
            "hv1",
            spawn=self.held,
            runners={kind.replace("_", "."): runner for kind, runner in runners.items()},
            repeated=("x.again",),
        )
        self.cluster.settle()

    def add(self, id_="t", kind="x.copy", **fields):
        self.cluster.operator.commit(create(keys.task(id_), Task(id=id_, kind=kind, node="hv1", **fields)))
        self.cluster.settle()

    def task(self, id_="t"):
        return documents.read(self.cluster.operator, keys.task(id_)).value

    def change(self, id_="t", **changes):
        entry = documents.read(self.cluster.operator, keys.task(id_))
        self.cluster.operator.commit(entry.put(replace(entry.value, **changes)))
        self.cluster.settle()


def copy(task, progress):
    if progress(0.5):
        raise Cancelled
    return {"bytes": 12}


def test_a_task_runs_under_the_lease_of_its_daemon_and_ends_with_its_result():
    site = Site(x_copy=copy)
    site.add()
    assert (site.task().state, site.task().lease) == (TaskState.RUNNING, 1)
    site.held.run()
    site.cluster.settle()
    task = site.task()
    assert (task.state, task.result, task.progress) == (TaskState.DONE, {"bytes": 12}, 1.0)
    assert task.finished == site.cluster.clock.wall()


def test_what_a_runner_says_is_shown_until_the_task_ends():
    seen = []

    def wait(task, progress):
        for message in ("waits for the others", ""):
            progress.say(message)
            progress(0.5)
            seen.append(site.task().message)
            site.cluster.clock.move_to(site.cluster.clock.monotonic() + 2.0)
        progress.say("nearly done")
        progress(0.9)
        return {}

    site = Site(x_wait=wait)
    site.add(kind="x.wait")
    site.held.run()
    site.cluster.settle()
    assert seen == ["waits for the others", ""]
    assert (site.task().state, site.task().message) == (TaskState.DONE, "")


def test_an_error_of_the_runner_is_the_tasks_error():
    def fail(task, progress):
        raise PvcError("file /x is not there")

    site = Site(x_copy=fail)
    site.add()
    site.held.run()
    site.cluster.settle()
    assert (site.task().state, site.task().error) == (TaskState.FAILED, "file /x is not there")


def test_a_defect_of_the_runner_ends_the_task_too(caplog):
    def fail(task, progress):
        raise ZeroDivisionError("oops")

    site = Site(x_copy=fail)
    site.add()
    site.held.run()
    site.cluster.settle()
    assert (site.task().state, site.task().error) == (TaskState.FAILED, "ZeroDivisionError: oops")
    assert "task-defect" in caplog.text


def test_a_kind_that_nobody_runs_fails_at_once_naming_the_known_ones():
    site = Site(x_copy=copy)
    site.add(kind="y.paint")
    assert site.task().state is TaskState.FAILED
    assert "y.paint" in site.task().error
    assert "x.copy" in site.task().error


def test_a_task_of_another_node_is_left_alone():
    site = Site(x_copy=copy)
    site.cluster.operator.commit(create(keys.task("t"), Task(id="t", kind="x.copy", node="hv2")))
    site.cluster.settle()
    assert site.task().state is TaskState.QUEUED


def test_a_cancelled_task_that_waits_is_never_begun():
    site = Site(x_copy=copy)
    site.add(cancel=True)
    assert site.task().state is TaskState.CANCELLED
    assert site.held.functions == []


def test_a_running_task_sees_its_cancellation():
    site = Site(x_copy=copy)
    site.add()
    site.change(cancel=True)
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.CANCELLED
    assert site.task().cancel


def test_a_task_that_ended_in_spite_of_its_cancellation_is_done():
    site = Site(x_copy=lambda task, progress: {})
    site.add()
    site.change(cancel=True)
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.DONE


def test_progress_is_written_at_most_once_a_second():
    site = Site()
    writes = []

    def runner(task, progress):
        for number in range(30):
            progress(number / 30)
            site.cluster.clock.move_to(site.cluster.clock.monotonic() + 0.1)
        return {}

    site = Site(x_copy=runner)
    site.cluster.operator.watch(keys.TASK, writes.append)
    site.add()
    before = len(writes)
    site.held.run()
    assert 2 <= len(writes) - before <= 4


def test_a_task_over_its_time_limit_is_told_to_stop_and_has_failed():
    site = Site(x_copy=copy)
    site.add(time_limit_s=30)
    site.cluster.run(32)
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.FAILED
    assert "time limit of 30 s" in site.task().error


def test_a_task_that_does_not_stop_is_given_up():
    site = Site(x_copy=copy)
    site.add(time_limit_s=30)
    site.cluster.run(100)
    assert site.task().state is TaskState.FAILED
    assert "did not stop" in site.task().error
    assert site.node.parts.tasks.running() == 0


def test_a_killed_daemons_task_fails_when_it_is_back():
    site = Site(x_copy=copy)
    site.add()
    site.node.kill()
    site.node.start()
    site.cluster.settle()
    assert (site.task().state, site.task().error) == (TaskState.FAILED, "the daemon ended while the task ran")


def test_one_that_can_be_repeated_is_begun_again_by_the_next_daemon():
    site = Site(x_again=copy)
    site.add(kind="x.again")
    site.held.functions.clear()  # its thread is gone with the daemon
    site.node.kill().expire()
    site.node.start()
    site.cluster.settle()
    assert (site.task().state, site.task().lease) == (TaskState.RUNNING, 2)
    site.held.run()
    site.cluster.settle()
    assert (site.task().state, site.task().result) == (TaskState.DONE, {"bytes": 12})


def test_one_that_is_repeated_sees_that_it_was_cancelled_meanwhile():
    site = Site(x_again=copy)
    site.add(kind="x.again")
    site.held.functions.clear()
    site.node.kill().expire()
    site.change(cancel=True)
    site.node.start()
    site.cluster.settle()
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.CANCELLED


def test_an_orderly_stop_leaves_to_the_next_daemon_what_can_be_repeated():
    site = Site(x_again=copy, x_copy=copy)
    site.add("a", kind="x.again")
    site.add("b", kind="x.copy")
    site.node.parts.tasks.stop(0.0)
    assert (site.task("a").state, site.task("b").state) == (TaskState.RUNNING, TaskState.FAILED)
    site.held.functions.clear()
    site.node.kill().expire()
    site.node.start()
    site.cluster.settle()
    site.held.run()
    site.cluster.settle()
    assert site.task("a").state is TaskState.DONE


def test_a_task_goes_on_when_only_the_session_was_lost():
    site = Site(x_copy=copy)
    site.add()
    site.node.store.expire()
    site.node.store.reconnect()
    site.cluster.settle()
    assert (site.task().state, site.task().lease) == (TaskState.RUNNING, 2)
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.DONE


def test_an_end_during_a_disturbance_is_written_afterwards():
    site = Site(x_copy=copy)
    site.add()
    site.node.store.suspend()
    site.held.run()
    site.cluster.settle()
    site.node.store.resume()
    site.cluster.run(5)
    assert site.task().state is TaskState.DONE


def test_a_task_that_the_primary_ended_meanwhile_is_told_to_stop_and_its_end_is_kept():
    site = Site(x_copy=copy)
    site.add()
    site.change(state=TaskState.FAILED, error="node gone")
    site.held.run()
    site.cluster.settle()
    assert (site.task().state, site.task().error) == (TaskState.FAILED, "node gone")
    assert site.node.parts.tasks.running() == 0


def test_a_task_whose_beginning_was_written_but_not_answered_is_begun_all_the_same():
    site = Site(x_copy=copy)

    def lose_answer(moment, session, operations):
        if session is site.node.store and moment is Moment.AFTER and operations[0].path == keys.task("t").path:
            site.cluster.tree.fault = None
            raise StoreUnavailable("no answer")

    site.cluster.tree.fault = lose_answer
    site.add()
    site.cluster.run(5)
    site.held.run()
    site.cluster.settle()
    assert site.task().state is TaskState.DONE


def test_only_so_many_run_at_once_and_the_others_follow():
    site = Site(x_copy=copy)
    for number in range(AT_ONCE + 2):
        site.add(f"t{number}")
    states = [site.task(f"t{number}").state for number in range(AT_ONCE + 2)]
    assert states.count(TaskState.RUNNING) == AT_ONCE
    while site.held.functions:
        site.held.run()
        site.cluster.settle()
    assert {site.task(f"t{number}").state for number in range(AT_ONCE + 2)} == {TaskState.DONE}


def test_tasks_of_one_family_keep_none_of_another_waiting():
    site = Site(x_wait=copy, y_copy=copy)
    for number in range(AT_ONCE + 1):
        site.add(f"t{number}", kind="x.wait")
    site.add("other", kind="y.copy")
    assert site.task(f"t{AT_ONCE}").state is TaskState.QUEUED
    assert site.task("other").state is TaskState.RUNNING


def test_tasks_on_volumes_and_their_snapshots_are_one_family():
    site = Site(volume_copy=copy, snapshot_copy=copy)
    for number in range(AT_ONCE):
        site.add(f"t{number}", kind="volume.copy")
    site.add("last", kind="snapshot.copy")
    assert site.task("last").state is TaskState.QUEUED


def test_a_task_that_was_deleted_is_told_to_stop():
    site = Site(x_copy=copy)
    site.add()
    site.cluster.operator.commit(documents.read(site.cluster.operator, keys.task("t")).delete())
    site.cluster.settle()
    site.held.run()
    site.cluster.settle()
    assert site.node.parts.tasks.running() == 0
    assert documents.read(site.cluster.operator, keys.task("t")) is None


@pytest.mark.parametrize("obeys", [True, False])
def test_stopping_the_daemon_ends_its_tasks(obeys):
    from pvc_core.node.clock import SystemClock

    release = threading.Event()
    begun = threading.Event()

    def runner(task, progress):
        begun.set()
        while not (obeys and progress(0.1)):
            if release.wait(0.01):
                return {}
        raise Cancelled

    cluster = SteppedCluster()
    cluster.clock = SystemClock()
    cluster.tree.connect(clock=cluster.clock)
    node = cluster.add("hv1", spawn=spawn_thread, runners={"x.copy": runner})
    cluster.settle()
    cluster.operator.commit(create(keys.task("t"), Task(id="t", kind="x.copy", node="hv1")))
    cluster.settle()
    assert begun.wait(10)
    node.parts.tasks.stop(0.5)
    task = documents.read(cluster.operator, keys.task("t")).value
    assert (task.state, task.error) == (TaskState.FAILED, "the daemon of its node was stopped")
    release.set()
