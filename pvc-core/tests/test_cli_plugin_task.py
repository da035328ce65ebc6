"""A plugin's command that begins a task, and follows it."""

import threading

import click
import pytest
from msgspec.structs import replace

from pvc_core.cli.session import Session
from pvc_core.client.local import Client
from pvc_core.model.task import Task, TaskState
from pvc_core.plugin.cli import format_option, session, wait_options, yes_option
from pvc_core.store import keys
from pvc_core.store.documents import read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node
from pvc_core.testkit.waiting import eventually


@click.command()
@yes_option
@wait_options(30.0)
@format_option
def scrub(yes: bool, wait: bool, timeout: float) -> None:
    call = session()
    call.confirm("scrub?", yes=yes)
    task = call.client.call("task.create", kind="acme.scrub", node="node1", subject="array a")
    call.follow(task, lambda ended: f"{ended.result['blocks']} blocks are scrubbed", wait=wait, timeout=timeout)


@pytest.fixture
def tree() -> MemoryTree:
    made = MemoryTree()
    CommandLine(made)
    add_node(made, "node1")
    return made


def run(tree: MemoryTree, *args: str, ends: Task | None = None):
    """Run the command; the node lets its task end like ``ends``."""
    store = tree.connect()

    def node() -> None:
        (id_,) = eventually(lambda: store.children(keys.TASK), "the task is there")
        entry = read(store, keys.task(id_))
        store.commit(entry.put(replace(entry.value, state=ends.state, result=ends.result, error=ends.error)))

    thread = threading.Thread(target=node)
    if ends is not None:
        thread.start()
    made = Session(connect=lambda *_, **__: Client(tree.connect), interactive=False)
    from click.testing import CliRunner

    try:
        return CliRunner().invoke(scrub, args, obj=made)
    finally:
        made.close()
        if ends is not None:
            thread.join()


def task(state: TaskState, **fields) -> Task:
    return Task(id="t", kind="acme.scrub", node="node1", state=state, **fields)


def test_end_of_the_task_is_the_result(tree):
    ran = run(tree, "--yes", ends=task(TaskState.DONE, result={"blocks": 7}))
    assert (ran.exit_code, ran.stdout) == (0, "7 blocks are scrubbed\n")


def test_json_has_the_task(tree):
    ran = run(tree, "--yes", "--format", "json", ends=task(TaskState.DONE, result={"blocks": 7}))
    assert '"message": "7 blocks are scrubbed"' in ran.stdout
    assert '"kind": "acme.scrub"' in ran.stdout


def test_failure_of_the_task_is_that_of_the_command(tree):
    ran = run(tree, "--yes", ends=task(TaskState.FAILED, error="the array is on fire"))
    assert str(ran.exception) == "array a: the task failed: the array is on fire"


def test_task_goes_on_when_nobody_waits(tree):
    ran = run(tree, "--yes", "--no-wait")
    assert ran.exit_code == 0
    assert "acme.scrub was given to node node1" in ran.stdout


def test_nothing_begins_unconfirmed(tree):
    ran = run(tree)
    assert "repeat it with --yes" in str(ran.exception)
    assert tree.connect().children(keys.TASK) == []
