"""Pauses after failures in a row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.plan.backoff import backoff


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0)])
def test_it_doubles_with_each_failure_up_to_the_bound(failures, pause):
    assert backoff(failures, 0.5, 30.0) == pause


@given(st.integers(0, 10**9), st.floats(0.001, 100.0), st.floats(0.001, 1000.0))
def test_it_stays_within_its_bounds_after_any_number_of_failures(failures, first_s, longest_s):
    assert min(first_s, longest_s) <= backoff(failures, first_s, longest_s) <= longest_s


@given(st.integers(0, 5000))
def test_it_never_gets_shorter(failures):
    assert backoff(failures, 0.5, 30.0) <= backoff(failures + 1, 0.5, 30.0)
