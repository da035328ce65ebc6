"""The work queue: de-duplication, one worker per key, back-off, places."""

import threading
from collections import Counter

import pytest

from pvc_core.node.clock import SystemClock
from pvc_core.node.workers import Workers
from pvc_core.node.workqueue import EVENT_PAUSE_S, OTHER_KINDS, ROUTINE_S, WorkQueue
from pvc_core.testkit.simulator.clock import VirtualClock

VM = ("vm", "a")


@pytest.fixture
def clock():
    return VirtualClock(100.0)


@pytest.fixture
def queue(clock):
    return WorkQueue(clock)


def test_a_key_added_twice_is_given_out_once(queue, clock):
    queue.add(*VM)
    queue.add(*VM)
    assert queue.ready(clock.monotonic()) == [VM]
    assert queue.take(VM)
    queue.done(VM)
    assert queue.ready(clock.monotonic()) == []


def test_the_earlier_of_two_times_counts(queue, clock):
    queue.add(*VM, 10)
    queue.add(*VM, 3)
    queue.add(*VM, 20)
    assert queue.next_due() == clock.monotonic() + 3
    assert queue.ready(clock.monotonic() + 2.9) == []
    assert queue.ready(clock.monotonic() + 3) == [VM]


def test_keys_come_in_the_order_they_became_due_and_equal_ones_in_the_order_added(queue, clock):
    queue.add("vm", "late", 2)
    queue.add("vm", "z")
    queue.add("vm", "a")
    assert queue.ready(clock.monotonic() + 2) == [("vm", "z"), ("vm", "a"), ("vm", "late")]


def test_what_something_happened_to_comes_before_routine(queue, clock):
    for id_ in "abc":
        queue.add("network", id_, routine=True)
    clock.move_to(clock.monotonic() + 1)
    queue.add("network", "d")
    queue.add("network", "b")
    assert [id_ for _, id_ in queue.ready(clock.monotonic())] == ["d", "b", "a", "c"]


def test_routine_that_has_waited_for_long_comes_before_what_happens_now(queue, clock):
    queue.add("network", "a", routine=True)
    clock.move_to(clock.monotonic() + ROUTINE_S + 1)
    queue.add("network", "b")
    assert [id_ for _, id_ in queue.ready(clock.monotonic())] == ["a", "b"]


def test_routine_does_not_put_off_what_is_in_the_queue(queue, clock):
    queue.add("network", "a")
    queue.add("network", "b")
    queue.add("network", "a", routine=True)
    assert [id_ for _, id_ in queue.ready(clock.monotonic())] == ["a", "b"]


def test_a_key_in_work_is_not_given_out_again_until_it_is_done(queue, clock):
    queue.add(*VM)
    assert queue.take(VM)
    assert not queue.take(VM)
    queue.add(*VM)
    assert queue.ready(clock.monotonic()) == []
    assert queue.next_due() is None
    queue.done(VM)
    assert queue.ready(clock.monotonic()) == [VM]


def test_done_with_a_delay_puts_the_key_back(queue, clock):
    queue.add(*VM)
    queue.take(VM)
    queue.done(VM, 5)
    assert queue.next_due() == clock.monotonic() + 5


def test_an_event_during_work_wins_over_the_delay_asked_for(queue, clock):
    queue.take(VM)
    queue.add(*VM)
    queue.done(VM, 60)
    assert queue.ready(clock.monotonic()) == [VM]


def test_failures_pause_longer_each_time_up_to_the_bound_and_success_resets(clock):
    queue = WorkQueue(clock, backoff_first_s=1, backoff_max_s=5)
    pauses = []
    for _ in range(5):
        queue.take(VM)
        pauses.append(queue.failed(VM))
        clock.move_to(queue.next_due())
    assert pauses == [1, 2, 4, 5, 5]
    assert queue.failures(VM) == 5
    queue.take(VM)
    queue.done(VM)
    assert queue.failures(VM) == 0
    queue.take(VM)
    assert queue.failed(VM) == 1


def test_an_event_brings_a_failed_key_forward_but_not_to_a_hot_loop(clock):
    queue = WorkQueue(clock, backoff_first_s=30)
    queue.take(VM)
    queue.failed(VM)
    assert queue.next_due() == clock.monotonic() + 30
    queue.add(*VM)
    assert queue.next_due() == clock.monotonic() + EVENT_PAUSE_S


def test_an_event_during_work_that_fails_is_not_answered_at_once(clock):
    queue = WorkQueue(clock, backoff_first_s=30)
    queue.take(VM)
    queue.add(*VM)
    assert queue.failed(VM) == EVENT_PAUSE_S
    assert queue.ready(clock.monotonic()) == []


def test_many_failures_do_not_overflow(queue):
    for _ in range(3000):
        queue.take(VM)
        queue.failed(VM)
    assert queue.failures(VM) == 3000


def test_slow_work_of_one_kind_leaves_the_places_of_others(clock):
    queue = WorkQueue(clock, places={"volume": 1, "vm": 1, OTHER_KINDS: 1})
    for key in (("volume", "1"), ("volume", "2"), ("vm", "1"), ("x", "1"), ("y", "1")):
        queue.add(*key)
    queue.take(("volume", "1"))
    assert queue.ready(clock.monotonic()) == [("vm", "1"), ("x", "1"), ("y", "1")]
    queue.take(("x", "1"))
    assert queue.ready(clock.monotonic()) == [("vm", "1")]
    queue.done(("volume", "1"))
    assert queue.ready(clock.monotonic()) == [("volume", "2"), ("vm", "1")]


def test_worker_threads_work_on_a_key_one_at_a_time_and_lose_none():
    queue = WorkQueue(SystemClock(), places={"vm": 4})
    busy, most, count = Counter(), Counter(), Counter()
    lock, finished = threading.Lock(), threading.Event()

    def work(key):
        with lock:
            busy[key] += 1
            most[key] = max(most[key], busy[key])
        with lock:
            busy[key] -= 1
            count[key] += 1
            again = count[key] < 50
            if sum(count.values()) == 150:
                finished.set()
        queue.done(key, 0 if again else None)

    workers = Workers(queue, work, 4)
    workers.start()
    for name in "abc":
        queue.add("vm", name)
    assert finished.wait(20)
    assert workers.stop(5) == frozenset()
    assert set(most.values()) == {1}
    assert set(count.values()) == {50}


def test_a_waiting_worker_takes_an_earlier_key_that_comes_in_meanwhile():
    queue = WorkQueue(SystemClock())
    queue.add("vm", "late", 60)
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.take_next(30)))
    thread.start()
    queue.add("vm", "now")
    thread.join(10)
    assert got == [("vm", "now")]


def test_stop_names_the_keys_that_are_stuck():
    queue = WorkQueue(SystemClock())
    entered, release = threading.Event(), threading.Event()

    def work(key):
        entered.set()
        release.wait(20)
        queue.done(key)

    workers = Workers(queue, work, 1)
    workers.start()
    queue.add(*VM)
    assert entered.wait(10)
    assert workers.stop(0.05) == {VM}
    release.set()
