"""Calls made at the same time: how long they are waited for, and what they raise."""

import threading

from pvc_core.node.reconcile.together import Threads


def test_calls_run_at_the_same_time_and_all_are_waited_for():
    barrier = threading.Barrier(3, timeout=10)
    calls = Threads([barrier.wait] * 3)
    assert calls.done_within(10, lambda: False)
    assert calls.failures() == []


def test_no_calls_are_done_at_once():
    assert Threads([]).done_within(0, lambda: True)


def test_what_each_raises_is_kept():
    def fail(error):
        raise error

    errors = [ValueError("one"), OSError("two")]
    calls = Threads([lambda e=error: fail(e) for error in errors] + [lambda: None])
    assert calls.done_within(10, lambda: False)
    assert set(calls.failures()) == set(errors)


def test_one_that_takes_too_long_goes_on_and_is_waited_for_in_the_end():
    gate, ended = threading.Event(), []

    def slow():
        gate.wait(10)
        ended.append(True)

    calls = Threads([slow, lambda: None])
    assert not calls.done_within(0.05, lambda: False)
    assert ended == []
    gate.set()
    assert calls.failures() == []
    assert ended == [True]


def test_waiting_ends_when_it_shall_stop():
    gate = threading.Event()
    calls = Threads([lambda: gate.wait(10)])
    assert not calls.done_within(30, lambda: True)
    gate.set()
    assert calls.failures() == []
