"""A live migration with something killed at each of its steps: the guest always ends up executing exactly once."""

import signal
import time

import pytest

from pvc_core.model.vm import MigrationPhase
from pvc_core.store import keys
from pvc_core.store.documents import read

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

BOUND_S = 60.0
"""A move must be finished or undone this long after the last thing was killed."""

ATTEMPTS = 3
STEPS = ("wanted", "prepare", "ready", "transfer", "incoming", "arrived", "handed-over")
"""What happens in a migration, in order, as it can be seen from outside."""

_PHASES = {
    MigrationPhase.PREPARE: "prepare",
    MigrationPhase.READY: "ready",
    MigrationPhase.TRANSFER: "transfer",
    MigrationPhase.UNCERTAIN: "arrived",
    MigrationPhase.ARRIVED: "arrived",
}


@pytest.fixture(scope="module")
def guest(cluster, module_guests):
    """The id of a Linux guest that counts on its disk; it is moved to and fro by all tests."""
    id_ = cluster.id(module_guests.linux(node="hv1"))
    cluster.eventually("the guest counts", lambda: cluster.ticks(id_))
    return id_


def step_reached(cluster, id_, target):
    """Return how far the migration to a node is."""
    claim = read(cluster.store, keys.claim(id_)).value
    if claim.node == target:
        return STEPS.index("handed-over")
    if claim.migration is not None:
        step = STEPS.index(_PHASES.get(claim.migration.phase, "wanted"))
        if step == STEPS.index("transfer") and cluster.copy(target, id_):
            return STEPS.index("incoming")
        return step
    return 0 if read(cluster.store, keys.vm_spec(id_)).value.node == target else -1


def until_step(cluster, id_, target, step):
    """Wait without a pause until a step is reached, or passed."""
    end = time.monotonic() + BOUND_S
    while (now := step_reached(cluster, id_, target)) < STEPS.index(step):
        assert time.monotonic() < end, f"the migration did not come to {step!r}"
    return STEPS[now]


def leader(cluster):
    from pvc_sandbox import zookeeper

    layout = cluster.sandbox.layout
    return cluster.eventually(
        "a leading ZooKeeper server",
        lambda: next(
            (n for n in cluster.sandbox.nodes() if zookeeper.mode(layout, layout.node_number(n)) == "leader"), None
        ),
    )


def at_rest(cluster, id_):
    """Return the node that executes the guest, once nothing of a move is left; None before."""
    claim = read(cluster.store, keys.claim(id_)).value
    spec, status = read(cluster.store, keys.vm_spec(id_)).value, read(cluster.store, keys.vm_status(id_)).value
    settled = claim.migration is None and claim.node == spec.node == status.node and status.state.value == "running"
    return claim.node if settled and cluster.copies(id_) == {claim.node: "running"} else None


CASES = [
    *((victim, step) for step in STEPS for victim in ("source", "target")),
    *(("server", step) for step in ("prepare", "transfer", "incoming", "handed-over")),
    *(("command", step) for step in ("wanted", "transfer")),
]


@pytest.mark.parametrize(("victim", "step"), CASES, ids=lambda word: word)
def test_guest_executes_exactly_once_after_a_kill(cluster, guest, victim, step):
    source = cluster.eventually("the guest is at rest", lambda: at_rest(cluster, guest))
    target = next(node for node in cluster.sandbox.nodes() if node != source)
    lead = leader(cluster) if victim == "server" else ""
    beats = cluster.ticks(guest)
    with cluster.start_command("vm", "move", guest, "--node", target) as command:
        seen = until_step(cluster, guest, target, step)
        if victim == "source":
            cluster.signal(source, signal.SIGKILL)
        elif victim == "target":
            cluster.signal(target, signal.SIGKILL)
        elif victim == "server":
            cluster.signal(lead, signal.SIGKILL, "zookeeper")
        else:
            command.kill()
        killed = time.monotonic()
        command.wait(120)
    where = cluster.eventually("the guest is at rest", lambda: at_rest(cluster, guest), BOUND_S)
    took = time.monotonic() - killed
    print(f"{victim} killed at {seen}: {'finished' if where == target else 'undone'} after {took:.1f} s")
    assert where in (source, target)
    was = len(cluster.consoles(guest).get(where, ""))
    cluster.eventually(
        "the guest goes on",
        lambda: cluster.consoles(guest)[where][was:].count("tick") >= 2,
        detail=lambda: cluster.registers(guest),
    )
    after = cluster.ticks(guest)
    numbers = [beat.number for beat in after]
    assert numbers == sorted(set(numbers)), "two copies of the guest counted"
    assert after[-1].number > beats[-1].number
    assert cluster.console(guest).count("GUEST-UP") == 1, "the guest began anew"
    cluster.eventually("all daemons", lambda: all(cluster.service(node).ready for node in (source, target)))


def test_guest_does_not_go_to_a_target_that_has_lost_its_power_since_it_agreed(cluster, guest):
    refused = None
    for _ in range(ATTEMPTS):
        refused = refused or move_to_a_rebooted_target(cluster, guest)
    assert refused, f"it was too slow {ATTEMPTS} times: the lease that the source relies on was over"
    assert f"arrivals/{guest}/" in refused
    assert cluster.console(guest).count("GUEST-UP") == 1, "the guest began anew"


def move_to_a_rebooted_target(cluster, guest):
    """Move the guest; return why it was not transferred, or None when the target's lease was over before that."""
    source = cluster.eventually("the guest is at rest", lambda: at_rest(cluster, guest))
    target = next(node for node in cluster.sandbox.nodes() if node != source)
    last = cluster.info(guest)["last_migration"]
    cluster.signal(target, signal.SIGSTOP)  # so that the source is stopped before it hears that the target has agreed
    with cluster.start_command("vm", "move", guest, "--node", target) as command:
        until_step(cluster, guest, target, "prepare")
        cluster.signal(source, signal.SIGSTOP)
        cluster.signal(target, signal.SIGCONT)
        until_step(cluster, guest, target, "ready")
        cluster.sandbox.power_cut(target)
        cluster.sandbox.power_on(target)
        in_time = cluster.lease(target)
        cluster.signal(source, signal.SIGCONT)
        ended = cluster.eventually(
            "the transfer ends", lambda: (m := cluster.info(guest)["last_migration"]) != last and m
        )
        if in_time:
            assert not ended["ok"]
        refused = in_time and "lost its lease" not in ended["message"]
        if refused:
            assert cluster.copies(guest) == {source: "running"}
        command.wait(120)
    assert cluster.eventually("the guest is at rest", lambda: at_rest(cluster, guest), BOUND_S) == target
    return ended["message"] if refused else None
