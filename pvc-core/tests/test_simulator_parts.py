"""The parts of the simulator that runs rest on: time, threads, sessions, power, the hidden truth."""

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from pvc_core.model.fence import Proof, ProofKind
from pvc_core.plugin.errors import AuthFailed, DriverError, NotReady
from pvc_core.plugin.specs.fencing import FenceTarget, PowerState
from pvc_core.store import keys
from pvc_core.store.api import SessionState
from pvc_core.testkit.simulator import failures
from pvc_core.testkit.simulator.clock import NodeClock, VirtualClock
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.fence_driver import SimFence, Site
from pvc_core.testkit.simulator.fibres import FibreLock, Fibres
from pvc_core.testkit.simulator.node import NodeSetup, SimNode
from pvc_core.testkit.simulator.power import Controller, Mode, Power

NODES = (
    NodeSetup("n1", coordinator=True, watchdog_s=10.0),
    NodeSetup("n2", coordinator=True),
    NodeSetup("n3", coordinator=True),
    NodeSetup("n4"),
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Four nodes that have joined."""
    made = Cluster(7, NODES)
    with made.trace.listening():
        made.run(5.0)
        yield made
    made.close()


def _session(node: SimNode) -> int:
    assert node.store is not None
    return node.store.session


def _leased(cluster: Cluster, name: str) -> bool:
    return cluster.tree.peek(keys.lease(name).path) is not None


# --- time and threads -------------------------------------------------------------------------------------


def test_a_nodes_clock_runs_at_its_own_rate_and_says_when_it_will_show_a_time():
    true = VirtualClock()
    fast = NodeClock(true, rate=1.004)
    true.move_to(1100.0)
    assert fast.monotonic() == pytest.approx(1100.4)
    when = fast.when(1200.0)
    true.move_to(when)
    assert fast.monotonic() >= 1200.0
    assert when < 1200.0


def test_a_fibre_runs_only_while_it_is_waited_for():
    fibres, said = Fibres(), []

    def work() -> None:
        said.append("begins")
        fibres.wait()
        said.append("ends")

    fibre = fibres.start(work)
    said.append("meanwhile")
    fibres.resume(fibre)
    assert (said, fibre.done) == (["begins", "meanwhile", "ends"], True)


def test_what_ends_a_fibre_is_raised_where_it_was_resumed():
    fibres = Fibres()

    def work() -> None:
        fibres.wait()
        raise ValueError("lost")

    fibre = fibres.start(work)
    with pytest.raises(ValueError, match="lost"):
        fibres.resume(fibre)


def test_a_fibre_lock_is_held_across_waiting():
    fibres, order, ready = Fibres(), [], []
    lock = FibreLock(fibres, ready.append)

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            with lock:
                order.append(f"{name} begins")
                fibres.wait()
                order.append(f"{name} ends")

        return run

    first, _ = fibres.start(work("one")), fibres.start(work("two"))
    fibres.resume(first)
    assert order == ["one begins", "one ends"]
    fibres.resume(ready.pop())
    assert order[2:] == ["two begins"]
    fibres.close()


# --- sessions ---------------------------------------------------------------------------------------------


def test_a_node_that_is_cut_off_loses_its_session_after_the_session_time(cluster: Cluster):
    node = cluster.nodes["n4"]
    failures.set_link(cluster, node, Link.CUT, None)
    cluster.run(6.0)
    assert _leased(cluster, "n4")
    cluster.run(8.0)
    assert not _leased(cluster, "n4")
    assert node.store is not None
    assert node.store.state is SessionState.SUSPENDED


def test_a_short_cut_costs_no_session(cluster: Cluster):
    before = _session(cluster.nodes["n4"])
    failures.set_link(cluster, cluster.nodes["n4"], Link.CUT, 5.0)
    cluster.run(20.0)
    assert _session(cluster.nodes["n4"]) == before


def test_no_session_ends_while_there_is_no_majority_and_each_has_its_full_time_afterwards(cluster: Cluster):
    node, unguarded = cluster.nodes["n4"], [n for n in cluster.nodes.values() if n.watchdog is None]
    before = [_session(n) for n in unguarded]
    for name in ("n2", "n3"):
        failures.server_down(cluster, cluster.nodes[name], 100.0)
    failures.freeze(cluster, node, 106.0)
    cluster.run(90.0)
    assert _leased(cluster, "n4")
    cluster.run(30.0)
    assert [_session(n) for n in unguarded] == before


def test_a_node_whose_answers_are_lost_keeps_its_lease_as_long_as_it_sends(cluster: Cluster):
    node = cluster.nodes["n4"]
    failures.set_link(cluster, node, Link.NO_ANSWERS, None)
    cluster.run(13.0)
    assert _leased(cluster, "n4")  # it gave the connection up after 7 s, and the session time began only then
    assert node.daemon is not None
    assert not node.daemon.agent.lease.alive()
    cluster.run(7.0)
    assert not _leased(cluster, "n4")


def test_an_isolated_server_answers_while_the_others_end_the_session(cluster: Cluster):
    node = cluster.nodes["n4"]
    failures.set_link(cluster, node, Link.ISOLATED, None)
    cluster.run(13.0)
    assert not _leased(cluster, "n4")
    assert node.store is not None
    assert node.store.get(keys.lease("n4").path) is not None
    assert cluster.clock.monotonic() - node.store.last_heard() < 5.0


def test_a_stopped_daemon_learns_late_that_its_session_is_over(cluster: Cluster):
    node, before = cluster.nodes["n4"], _session(cluster.nodes["n4"])
    failures.freeze(cluster, node, 40.0)
    cluster.run(20.0)
    assert not _leased(cluster, "n4")
    assert node.store is not None
    assert node.store.state is SessionState.CONNECTED
    cluster.run(25.0)
    assert _leased(cluster, "n4")
    assert _session(node) != before


# --- power ------------------------------------------------------------------------------------------------


def test_a_host_runs_on_one_of_two_power_supplies():
    told: list[bool] = []
    power = Power(told.append)
    power.outlets = {"pdu-a": True, "pdu-b": True}
    power.switch("pdu-a", on=False)
    assert power.on
    power.switch("pdu-b", on=False)
    power.restore()
    assert told == [False, True]


def test_a_watchdog_resets_a_node_whose_daemon_is_stopped(cluster: Cluster):
    node = cluster.nodes["n1"]
    failures.freeze(cluster, node, None)
    cluster.run(15.0)
    assert node.boots == 2


class _Caller:
    """A daemon that never dies, whose time passes by itself."""

    on_request = False

    def __init__(self) -> None:
        self.spent = 0.0

    def pause(self, seconds: float) -> None:
        self.spent += seconds

    def send(self, delay_s: float, effect: Callable[[], None]) -> None:
        effect()

    def effect(self, where: str) -> None:
        """Nothing happens here."""


def _fence(mode: Mode) -> tuple[SimFence, Power, Controller, _Caller]:
    power = Power(lambda _: None)
    controller, caller = Controller(power, "bmc"), _Caller()
    controller.mode = mode
    site = Site({("n1", "bmc"): controller}, random.Random(1), lambda *_: None, lambda _: None)
    return SimFence(site, "n2", caller), power, controller, caller


TARGET = FenceTarget(node="n1", parameters={"device": "bmc"})


def test_a_controller_switches_off_and_reads_back():
    driver, power, _, caller = _fence(Mode.OK)
    assert driver.power_off(TARGET) is PowerState.OFF
    assert not power.on
    assert caller.spent < 3.0


def test_a_slow_controller_takes_its_time():
    driver, _, _, caller = _fence(Mode.SLOW)
    assert driver.power_off(TARGET) is PowerState.OFF
    assert caller.spent >= 10.0


def test_a_stuck_controller_is_not_believed():
    driver, power, _, _ = _fence(Mode.STUCK)
    for _ in range(10):
        with contextlib.suppress(DriverError):  # drivers may say it in one way or the other
            assert driver.power_off(TARGET) is PowerState.ON
    assert power.on


def test_nobody_knows_what_a_garbled_controller_did():
    driver, _, _, _ = _fence(Mode.GARBAGE)
    assert driver.power_off(TARGET) is PowerState.UNKNOWN


def test_a_controller_without_power_of_its_own_goes_with_its_node():
    driver, power, controller, _ = _fence(Mode.OK)
    controller.own_power = False
    power.switch("mains", on=False)
    with pytest.raises(NotReady):
        driver.power_off(TARGET)


def test_a_wrong_password_is_one_coordinators_own_trouble():
    driver, _, controller, _ = _fence(Mode.OK)
    controller.wrong_password.add("n2")
    with pytest.raises(AuthFailed):
        driver.power_off(TARGET)
    assert (controller.usable("n2"), controller.usable("n3")) == (False, True)


# --- the hidden truth -------------------------------------------------------------------------------------


def test_a_proof_by_power_is_true_only_if_the_power_was_off_after_the_loss(cluster: Cluster):
    node, truth = cluster.nodes["n4"], cluster.truth
    proof = Proof(kind=ProofKind.POWER, evidence="", by="n1")
    assert "never lost" in truth.disproof(proof, "n4", 1, ())
    cluster.reset(node, "in a test")  # before the lease is gone
    failures.set_link(cluster, node, Link.CUT, None)
    cluster.run(14.0)
    assert "never off after" in truth.disproof(proof, "n4", 1, ())
    failures.power_cut(cluster, node, None)
    assert truth.disproof(proof, "n4", 1, ()) == ""


def test_a_proof_by_watchdog_is_true_only_if_the_host_was_reset(cluster: Cluster):
    node, truth = cluster.nodes["n4"], cluster.truth
    proof = Proof(kind=ProofKind.WATCHDOG, evidence="", by="n1")
    failures.set_link(cluster, node, Link.CUT, None)
    cluster.run(14.0)
    assert "still runs" in truth.disproof(proof, "n4", 1, ())
    cluster.reset(node, "in a test")
    assert truth.disproof(proof, "n4", 1, ()) == ""


def test_a_fence_call_for_a_node_with_a_lease_is_a_violation(cluster: Cluster):
    found: list[str] = []
    cluster.truth.violated = found.append
    cluster.truth.fencing("n4", "n1", False)
    assert "has had a lease" in found[0]
