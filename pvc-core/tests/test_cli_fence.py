"""`pvc fence` on a state tree in memory, with a coordinator that answers tasks as it is told to."""

import threading
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import (
    DeviceHealth,
    EarlierLoss,
    FenceAttempt,
    FenceDevice,
    FenceEvent,
    FenceHealth,
    FenceLevel,
    FenceRecord,
    FenceStage,
    Proof,
    ProofKind,
    VmRecovery,
)
from pvc_core.model.node import Primary
from pvc_core.model.task import Task, TaskState
from pvc_core.store import keys
from pvc_core.store.api import ANY, Delete, Store
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node

NODES = ("hv1", "hv2", "hv3")
LEVELS = (
    FenceLevel(devices=(FenceDevice(driver="ipmi", parameters={"address": "10.0.9.1"}),)),
    FenceLevel(devices=(FenceDevice(driver="strip"), FenceDevice(driver="strip"))),
)
Answer = Callable[[Task], Task]


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def store(tree: MemoryTree, pvc: CommandLine) -> Store:
    del pvc
    return tree.connect()


@pytest.fixture
def pvc(tree: MemoryTree) -> CommandLine:
    command = CommandLine(tree)
    for name in NODES:
        add_node(tree, name, capabilities=("fencing:ipmi", "fencing:strip"))
    store = tree.connect()
    primary = read(store, keys.PRIMARY)
    assert primary is not None
    store.commit(primary.put(Primary(node="hv1", term=1, stage="active")))
    for name in ("hv2", "hv3"):
        spec = read(store, keys.node_spec(name))
        assert spec is not None
        store.commit(spec.put(replace(spec.value, fence_levels=LEVELS)))
    assert (
        command("vm", "define", "-", "--node", "hv3", "--start", "--no-wait", input="name: web\nmemory: 1G\n").status
        == 0
    )
    return command


def found(store: Store, coordinator: str, error: str = "") -> None:
    """Let a coordinator have asked the devices of hv3: the BMC answers, or not; one of the strips never does."""
    bmc = DeviceHealth(level=1, device=1, driver="ipmi", power="unknown" if error else "on", error=error, took_s=0.05)
    strips = tuple(DeviceHealth(level=2, device=n, driver="strip", power="on", took_s=0.05) for n in (1, 2))
    broken = replace(strips[1], power="unknown", error="no answer")
    document = FenceHealth(coordinator=coordinator, nodes={"hv3": (bmc, strips[0], broken)})
    store.commit(create(keys.fence_health(coordinator), document))


def lose(store: Store, node: str = "hv3") -> None:
    store.commit(Delete(keys.lease(node).path, ANY))


def record(store: Store, **fields: object) -> None:
    fields = {"node": "hv3", "lease": 1, "opened": 1000.0, "changed": 1005.0} | fields
    store.commit(create(keys.fence("hv3"), FenceRecord(**fields)))  # type: ignore[arg-type]


@pytest.fixture
def runner(tree: MemoryTree, store: Store) -> Callable[[Answer], None]:
    """Return a function that says how tasks are answered, by whatever node they were given to."""

    def answer_with(answer: Answer) -> None:
        def work() -> None:
            for id_ in store.children(keys.TASK):
                entry = read(store, keys.task(id_))
                if entry is not None and entry.value.state is TaskState.QUEUED:
                    store.commit(entry.put(answer(entry.value)))

        tree.connect().watch(keys.TASK, lambda _: threading.Thread(target=work).start())

    return answer_with


def done(**result: str | int) -> Answer:
    return lambda task: replace(task, state=TaskState.DONE, result=dict(result))


# --- status, list, info ---------------------------------------------------------------------------------


def test_status_shows_each_node_and_warns_of_those_without_any_proof(pvc: CommandLine, store: Store) -> None:
    found(store, "hv1")
    found(store, "hv2")
    said = pvc("fence", "status")
    assert said.out.splitlines() == [
        "NODE  STATE  PROOF           WATCHDOG  STORAGE  DEVICES",
        "hv1   alive  NONE                   -  -        -",
        (
            "hv2   alive  unknown                -  -        "
            "ipmi: not checked yet; strip: not checked yet; strip: not checked yet"
        ),
        "hv3   alive  in 18 s: power         -  -        ipmi: on; strip: on; strip: no answer",
    ]
    assert "no proof of its death could be had of hv1: VMs there would not be started elsewhere" in said.err
    assert pvc("fence", "status", "--format", "json").err == ""


def test_status_of_one_node_says_by_what_and_from_where(pvc: CommandLine, store: Store) -> None:
    found(store, "hv1", "wrong password")
    found(store, "hv2")
    out = pvc("fence", "status", "hv3").out
    assert "If it is lost    none: its VMs would not be started elsewhere until somebody confirms its death" in out
    assert "Not covered      web" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "ipmi", "hv1", "cannot", "be", "used", "50", "ms", "-", "wrong", "password"] in lines
    assert ["1", "ipmi", "hv2", "on", "50", "ms", "-", "-"] in lines
    assert ["2.2", "strip", "-"] in lines
    assert "hv2 could use them: pvc node primary hv2" in out
    assert pvc("fence", "status", "hv3", "--format", "json").json()["outlook"]["expected"] == "no"
    assert pvc("fence", "status", "hv9").status == 1


def test_losses_are_listed_with_what_they_wait_for(pvc: CommandLine, store: Store) -> None:
    assert pvc("fence", "list").err == "no node was ever lost\n"
    lose(store)
    record(store, stage=FenceStage.FENCING, round=2, waits_for="power: no answer")
    row = pvc("fence", "list", "--active").out.splitlines()[1]
    assert row.split()[:2] == ["hv3", "fencing"]
    assert row.endswith("  -              -       2  power: no answer")
    assert pvc("fence", "list", "--format", "json").json()[0]["stage"] == "fencing"
    assert "hv3   coordinator  lost" in pvc("node", "list").out
    assert "fencing: power: no answer" in pvc("node", "list").out
    assert "no proof of its death after 2 rounds" in pvc("cluster", "status").out


def test_the_course_of_a_loss_is_shown_whole(pvc: CommandLine, store: Store) -> None:
    proof = Proof(kind=ProofKind.POWER, evidence="ipmi: off", by="hv1", at=1007.0)
    record(
        store,
        stage=FenceStage.RETURNED,
        proofs=(proof,),
        attempts=(FenceAttempt(means="power", level=1, ok=True, message="ipmi: off", at=1007.0, took_s=1.5),),
        events=(
            FenceEvent(at=1000.0, by="hv1", stage=FenceStage.SUSPECTED, message="its lease 1 is gone"),
            FenceEvent(at=1007.0, by="hv1", stage=FenceStage.PROVEN, message="power-off-confirmed: ipmi: off"),
        ),
        vms=(VmRecovery(vm="1", name="web", outcome="freed", proof=ProofKind.POWER, at=1007.5),),
        drained=True,
        earlier=(EarlierLoss(lease=7, stage=FenceStage.CANCELLED, opened=500.0, changed=501.0),),
    )
    out = pvc("fence", "info", "hv3").out
    assert "Still to do  put back into service by an operator" in out
    for title in ("Proofs:", "VMs:", "Tries:", "Events:", "Earlier losses:"):
        assert title in out
    assert "7.0 s  proven     hv1  power-off-confirmed: ipmi: off" in out
    assert pvc("fence", "info", "hv3", "--follow").out == out
    assert pvc("fence", "info", "hv3", "--format", "json").json()["record"]["vms"][0]["outcome"] == "freed"
    assert pvc("fence", "info", "hv2").err == "pvc: node hv2 was never lost: there is no record of a fencing\n"


# --- power ----------------------------------------------------------------------------------------------


def test_a_test_says_of_each_device_what_it_answered(pvc: CommandLine, runner: Callable[[Answer], None]) -> None:
    runner(done(**{"2.2": "strip: no answer", "1.1": "ipmi: on", "2.1": "strip: on"}))
    said = pvc("fence", "test", "hv3")
    assert said.status == 0
    assert said.out.splitlines() == [
        "LEVEL  ANSWER",
        "1.1    ipmi: on",
        "2.1    strip: on",
        "2.2    strip: no answer",
    ]
    found = pvc("fence", "test", "hv3", "--format", "json").json()
    assert (found["node"], found["from"], found["usable_levels"]) == ("hv3", "hv1", [1])
    assert found["devices"]["2.2"] == "strip: no answer"


def test_a_device_that_says_off_is_good_only_for_a_node_that_is_not_at_work(
    pvc: CommandLine, store: Store, runner: Callable[[Answer], None]
) -> None:
    runner(done(**{"1.1": "strip: off"}))
    said = pvc("fence", "test", "hv3")
    assert said.status == 1
    assert "1.1    strip: off, but the node is at work: it is the device of another machine" in said.out
    lose(store)
    assert pvc("fence", "test", "hv3").status == 0


def test_a_test_without_a_whole_level_fails(pvc: CommandLine, runner: Callable[[Answer], None]) -> None:
    runner(done(**{"1.1": "ipmi: it answers, but cannot tell", "2.1": "strip: on", "2.2": "strip: unknown"}))
    said = pvc("fence", "test", "hv3", "--from", "hv2")
    assert said.status == 1
    assert said.err.endswith("pvc: node hv3 could not be fenced by its devices now: no level works from hv2\n")


def test_the_power_of_a_lost_node_is_cut_after_a_question(
    pvc: CommandLine, store: Store, runner: Callable[[Answer], None]
) -> None:
    runner(done(power="off", level=1, message="ipmi: off"))
    lose(store)
    asked = pvc("fence", "off", "hv3", input="n\n", interactive=True)
    assert asked.status == 1
    assert "Cut the power of node hv3, which has no lease, with VMs web?" in asked.err
    assert store.children(keys.TASK) == []
    assert pvc("fence", "off", "hv3").status == 2
    said = pvc("fence", "off", "hv3", "--yes")
    assert (said.status, said.out) == (0, "node hv3 is off, confirmed by level 1 from hv1\n")


def test_a_node_at_work_is_not_even_asked_about_without_force(
    pvc: CommandLine, store: Store, runner: Callable[[Answer], None]
) -> None:
    runner(done(power="on", level=1))
    refused = pvc("fence", "cycle", "hv3", interactive=True)
    assert refused.status == 1
    assert refused.err.startswith("pvc: node hv3 has its lease, so it is at work")
    assert store.children(keys.TASK) == []
    asked = pvc("fence", "cycle", "hv3", "--force", input="y\n", interactive=True)
    assert "and switch on again, node hv3, which is at work, with VMs web?" in asked.err
    assert asked.out == "node hv3 is off and on again, confirmed by level 1 from hv1\n"


def test_a_failure_of_the_devices_is_the_error(pvc: CommandLine, runner: Callable[[Answer], None]) -> None:
    error = "node hv3 was not confirmed on by any fence level: level 1: ipmi: wrong password"
    runner(lambda task: replace(task, state=TaskState.FAILED, error=error))
    said = pvc("fence", "on", "hv3")
    assert said.status == 1
    assert error in said.err
    assert pvc("fence", "on", "hv3", "--no-wait").out.endswith("fence.power was given to node hv1\n")


# --- confirm --------------------------------------------------------------------------------------------


def test_confirming_says_what_it_means_and_wants_the_name(pvc: CommandLine, store: Store) -> None:
    found(store, "hv1")
    lose(store)
    said = pvc("fence", "confirm", "hv3", input="hv2\n", interactive=True)
    assert said.status == 2
    assert "ipmi of node hv3 said that its power is ON" in said.err
    assert "Its VMs web will be started on other nodes at once." in said.err
    assert "If it still runs, they run twice and destroy the data on their disks." in said.err
    assert said.err.endswith("pvc: 'hv2' is not 'hv3': nothing was recorded\n")
    assert read(store, keys.fence("hv3")) is None
    said = pvc("fence", "confirm", "hv3", "--reason", "unplugged", input="hv3\n", interactive=True)
    assert said.status == 0
    assert "node hv3: it is recorded that " in said.out
    entry = read(store, keys.fence("hv3"))
    assert entry is not None
    assert entry.value.proofs[0].evidence == "unplugged"
    assert "@" in entry.value.proofs[0].by


def test_confirming_shows_what_the_fencing_found(pvc: CommandLine, store: Store) -> None:
    found(store, "hv1")
    lose(store)
    record(store, stage=FenceStage.FENCING, waits_for="power: level 1: ipmi: on")
    said = pvc("fence", "confirm", "hv3", "--yes", "hv3")
    assert said.status == 0
    assert said.err == "no proof so far: power: level 1: ipmi: on\n"


def test_confirming_without_a_terminal_takes_the_name_as_an_option(pvc: CommandLine, store: Store) -> None:
    lose(store)
    said = pvc("fence", "confirm", "hv3")
    assert said.status == 2
    assert "repeat it with --yes hv3" in said.err
    assert pvc("fence", "confirm", "hv3", "--yes", "hv2").status == 2
    assert read(store, keys.fence("hv3")) is None
    first = pvc("fence", "confirm", "hv3", "--yes", "hv3", "--format", "json").json()
    assert first["fence"]["recorded"] is True
    again = pvc("fence", "confirm", "hv3", "--yes", "hv3")
    assert "its death is proven already: operator by " in again.out


def test_a_node_at_work_is_not_confirmed(pvc: CommandLine, store: Store) -> None:
    said = pvc("fence", "confirm", "hv3", interactive=True)
    assert said.status == 1
    assert said.err.startswith("pvc: node hv3 has its lease, so it is at work now: nothing was recorded")
    assert read(store, keys.fence("hv3")) is None
