"""The pool of threads between core and a plugin, and its circuit breaker."""

import threading

import pytest

from pvc_core.plugin.errors import CircuitOpen, DeadlineExceeded, NotReady
from pvc_core.runtime import bulkhead as module
from pvc_core.runtime.bulkhead import Bulkhead
from pvc_core.testkit.waiting import eventually

SHORT_S = 0.05


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hanging:
    """A call that hangs until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.release.wait(60)
        return "late"


def hang(bulkhead: Bulkhead) -> Hanging:
    """Leave one hanging call behind."""
    call = Hanging()
    pending = bulkhead.submit(call)
    assert call.begun.wait(20)
    with pytest.raises(DeadlineExceeded, match="did not come back"):
        pending.wait(0)
    return call


def test_result_and_exception_come_back():
    bulkhead = Bulkhead("b")
    assert bulkhead.run(lambda: 42, 20) == (42, None)
    error = bulkhead.run(lambda: 1 / 0, 20).error
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(bulkhead.run(lambda: exec("raise SystemExit(1)"), 20).error, SystemExit)


def test_threads_are_reused_and_are_daemons():
    bulkhead = Bulkhead("b")
    threads = {bulkhead.run(threading.current_thread, 20).value for _ in range(10)}
    assert len(threads) == 1
    assert all(thread.daemon for thread in threads)


def test_calls_run_side_by_side_up_to_the_size():
    bulkhead = Bulkhead("b", threads=2)
    calls = [Hanging() for _ in range(3)]
    pending = [bulkhead.submit(call) for call in calls]
    assert calls[0].begun.wait(20)
    assert calls[1].begun.wait(20)
    with pytest.raises(DeadlineExceeded, match=r"all 2 threads were busy .*; it was not begun"):
        pending[2].wait(SHORT_S)
    for call in calls:
        call.release.set()
    assert pending[0].wait(20).value == "late"
    assert pending[1].wait(20).value == "late"
    assert not calls[2].begun.is_set(), "what was taken out of the line never runs"
    assert bulkhead.state == "closed", "waiting in line is no sign of a stuck plugin"


def test_one_stuck_call_leaves_the_circuit_closed_and_its_place_is_filled():
    bulkhead = Bulkhead("b", threads=1)
    hang(bulkhead)
    assert bulkhead.stuck == 1
    assert bulkhead.run(lambda: "ok", 20).value == "ok"


def test_two_stuck_calls_open_the_circuit_until_one_comes_back():
    changes = []
    bulkhead = Bulkhead("b", changed=lambda: changes.append(bulkhead.state))
    first, second = hang(bulkhead), hang(bulkhead)
    assert bulkhead.state == "open"
    with pytest.raises(CircuitOpen, match="2 calls hang"):
        bulkhead.run(lambda: 1, 20)
    second.release.set()
    eventually(lambda: bulkhead.state == "closed", "the circuit is closed")
    assert bulkhead.run(lambda: 1, 20).value == 1
    assert changes == ["open", "closed"]
    first.release.set()
    eventually(lambda: bulkhead.stuck == 0, "no call is stuck")


def test_a_probe_closes_the_circuit_though_the_stuck_ones_stay():
    clock = FakeClock()
    bulkhead = Bulkhead("b", clock=clock)
    hang(bulkhead)
    hang(bulkhead)
    clock.now += module.PROBE_AFTER_S - 1
    with pytest.raises(CircuitOpen, match="tried again in 1 s"):
        bulkhead.submit(lambda: 1)
    clock.now += 1
    assert bulkhead.run(lambda: 1, 20).value == 1
    assert (bulkhead.state, bulkhead.stuck) == ("closed", 2)
    hang(bulkhead)
    assert bulkhead.state == "closed", "only calls that got stuck since it closed count"


def test_only_one_probe_at_a_time():
    clock = FakeClock()
    bulkhead = Bulkhead("b", clock=clock)
    hang(bulkhead)
    hang(bulkhead)
    clock.now += module.PROBE_AFTER_S
    probe = Hanging()
    pending = bulkhead.submit(probe)
    with pytest.raises(CircuitOpen, match="being tried"):
        bulkhead.submit(lambda: 1)
    probe.release.set()
    assert pending.wait(20).value == "late"
    assert bulkhead.state == "closed"


def test_a_probe_that_hangs_doubles_the_pause_up_to_a_limit():
    clock = FakeClock()
    bulkhead = Bulkhead("b", clock=clock)
    hang(bulkhead)
    hang(bulkhead)
    pause = module.PROBE_AFTER_S
    for _ in range(4):
        clock.now += pause
        hang(bulkhead)
        pause = min(2 * pause, module.PROBE_AFTER_MAX_S)
        with pytest.raises(CircuitOpen, match=f"tried again in {pause:.0f} s"):
            bulkhead.submit(lambda: 1)


def test_the_number_of_threads_left_behind_is_bounded():
    clock = FakeClock()
    bulkhead = Bulkhead("b", clock=clock)
    calls = []
    while bulkhead.stuck < module.STUCK_MAX:
        calls.append(hang(bulkhead))
        clock.now += module.PROBE_AFTER_MAX_S
    with pytest.raises(CircuitOpen, match=f"{module.STUCK_MAX} calls hang; restart the node's daemon"):
        bulkhead.submit(lambda: 1)
    calls[0].release.set()
    eventually(lambda: bulkhead.state == "closed", "the circuit is closed")
    assert bulkhead.run(lambda: 1, 20).value == 1


def test_a_result_that_comes_late_is_thrown_away():
    bulkhead = Bulkhead("b")
    call = hang(bulkhead)
    call.release.set()
    eventually(lambda: bulkhead.stuck == 0, "no call is stuck")
    assert bulkhead.run(lambda: "mine", 20).value == "mine"


def test_slow_is_told_once_while_the_call_runs():
    bulkhead = Bulkhead("b")
    call, told = Hanging(), []

    def slow():
        told.append(True)
        call.release.set()

    assert bulkhead.submit(call).wait(20, slow_s=0.01, slow=slow).value == "late"
    assert told == [True]


def test_shut_lets_no_call_in_and_dismisses_idle_threads():
    bulkhead = Bulkhead("b")
    thread = bulkhead.run(threading.current_thread, 20).value
    bulkhead.shut()
    bulkhead.shut()
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(NotReady, match="shut down"):
        bulkhead.submit(lambda: 1)


def test_many_callers_at_once_each_get_their_own_result():
    bulkhead = Bulkhead("b")
    results: dict[int, int] = {}

    def call(number: int) -> None:
        results[number] = bulkhead.run(lambda: number * number, 60).value

    callers = [threading.Thread(target=call, args=(number,)) for number in range(50)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert results == {number: number * number for number in range(50)}
