"""Places for live migrations."""

import pytest

from pvc_core.node.reconcile.slots import Slots


@pytest.fixture
def woken():
    return []


@pytest.fixture
def slots(woken):
    return Slots(woken.append)


def test_no_more_than_the_limit_are_admitted(slots):
    assert [slots.admit(vm, 2) for vm in "abc"] == [True, True, False]


def test_one_that_has_a_place_keeps_it_when_the_limit_is_reached_or_lowered(slots):
    assert slots.admit("a", 1)
    assert slots.is_free("a", 1)
    assert slots.admit("a", 1)
    assert not slots.is_free("b", 1)


def test_those_refused_are_woken_once_when_a_place_gets_free(slots, woken):
    slots.admit("a", 1)
    slots.admit("b", 1)
    slots.is_free("c", 1)
    slots.count("a", taken=False)
    assert woken == ["b", "c"]
    slots.count("a", taken=False)
    assert woken == ["b", "c"]


def test_one_that_was_looked_at_since_is_not_woken(slots, woken):
    slots.admit("a", 1)
    slots.admit("b", 1)
    slots.count("b", taken=False)
    slots.count("a", taken=False)
    assert woken == []
