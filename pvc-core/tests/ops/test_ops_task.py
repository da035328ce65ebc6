"""Tasks."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.task import TaskState
from pvc_core.ops.task import (
    TaskCreate,
    TaskList,
    TaskPrune,
    TaskQuery,
    task_cancel,
    task_create,
    task_info,
    task_list,
    task_prune,
)
from pvc_core.store import keys
from pvc_core.store.documents import read


def create(small, **more):
    return task_create(small.ops, TaskCreate(**({"kind": "ceph.osd-add", "node": "hv1"} | more)))


def report(small, task, **changes):
    entry = read(small.store, keys.task(task.id))
    small.store.commit(entry.put(replace(entry.value, **changes)))


def test_task_is_queued_for_its_node(small):
    task = create(small, arguments={"device": "/dev/sdb"}, subject="OSD")
    assert (task.state, task.created, task.arguments) == (TaskState.QUEUED, 1000.0, {"device": "/dev/sdb"})
    assert task_info(small.ops, TaskQuery(task=task.id)) == task


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"node": "hv9"}, NotFound, "no node named 'hv9'"),
        ({"node": "hv3"}, InvalidRequest, "node hv3 is not alive"),
        ({"kind": "a/b"}, InvalidRequest, "not a valid name"),
        ({"time_limit_s": 0}, InvalidRequest, "too short"),
    ],
)
def test_bad_task_is_refused(small, request_, error, message):
    small.kill("hv3")
    with pytest.raises(error, match=message):
        create(small, **request_)
    assert small.store.children(keys.TASK) == []


def test_list_is_oldest_first_and_filtered(small):
    tasks = []
    for kind, node in (("a", "hv1"), ("b", "hv2"), ("a", "hv2")):
        small.now += 1
        tasks.append(create(small, kind=kind, node=node).id)
    report(small, task_info(small.ops, TaskQuery(task=tasks[0])), state=TaskState.DONE)

    def found(**request):
        return [tasks.index(task.id) for task in task_list(small.ops, TaskList(**request))]

    assert found() == [0, 1, 2]
    assert found(kind="a") == [0, 2]
    assert found(node="hv2") == [1, 2]
    assert found(unfinished=True) == [1, 2]


def test_beginning_of_an_id_is_enough_when_it_is_the_only_one(small):
    one = create(small)
    assert task_info(small.ops, TaskQuery(task=one.id[:-1])) == one
    two = create(small)
    with pytest.raises(InvalidRequest, match="2 tasks have ids that begin with"):
        task_info(small.ops, TaskQuery(task=one.id[:8]))
    for text in ("", "x", "../x"):
        with pytest.raises(NotFound, match="no task named"):
            task_info(small.ops, TaskQuery(task=text))
    assert two.id != one.id


def test_queued_task_is_cancelled_at_once(small):
    task = task_cancel(small.ops, TaskQuery(task=create(small).id))
    assert (task.state, task.finished) == (TaskState.CANCELLED, 1000.0)
    with pytest.raises(InvalidRequest, match="is cancelled already"):
        task_cancel(small.ops, TaskQuery(task=task.id))


def test_running_task_is_asked_to_stop(small):
    task = create(small)
    report(small, task, state=TaskState.RUNNING)
    assert task_cancel(small.ops, TaskQuery(task=task.id)).state is TaskState.RUNNING
    assert task_cancel(small.ops, TaskQuery(task=task.id)).cancel


def test_task_that_begins_in_the_last_moment_is_asked_to_stop(small):
    task = create(small)
    small.before_commit("/task/", lambda: report(small, task, state=TaskState.RUNNING))
    cancelled = task_cancel(small.ops, TaskQuery(task=task.id))
    assert (cancelled.state, cancelled.cancel) == (TaskState.RUNNING, True)


def test_only_old_final_tasks_are_forgotten(small):
    old, recent, running = create(small), create(small), create(small)
    report(small, old, state=TaskState.FAILED, finished=1000.0)
    report(small, recent, state=TaskState.DONE, finished=1900.0)
    report(small, running, state=TaskState.RUNNING)
    small.now = 2000.0
    assert task_prune(small.ops, TaskPrune(older_than_s=500)).removed == 1
    assert small.store.children(keys.TASK) == sorted([recent.id, running.id])
