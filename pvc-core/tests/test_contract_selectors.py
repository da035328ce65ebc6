"""Core's own selectors keep the contract."""

import pytest

from pvc_core.model.vm import SELECTORS
from pvc_core.plan.placement import CORE_SELECTORS
from pvc_core.testkit.contracts.scheduling import BUSY, IDLE, VM, SchedulingContract, Score


def test_all_selectors_are_in_a_suite():
    assert set(CORE_SELECTORS) == set(SELECTORS) == {suite.name for suite in SUITES}


@pytest.mark.parametrize("name", CORE_SELECTORS)
def test_an_idle_node_is_better_than_a_busy_one(name):
    assert CORE_SELECTORS[name](VM, IDLE) > CORE_SELECTORS[name](VM, BUSY)


class _CoreSelector(SchedulingContract):
    name = ""

    def make_selector(self) -> Score:
        return CORE_SELECTORS[self.name]


class TestMem(_CoreSelector):
    __test__ = True
    name = "mem"


class TestMemprov(_CoreSelector):
    __test__ = True
    name = "memprov"


class TestVcpus(_CoreSelector):
    __test__ = True
    name = "vcpus"


class TestLoad(_CoreSelector):
    __test__ = True
    name = "load"


class TestVms(_CoreSelector):
    __test__ = True
    name = "vms"


SUITES = (TestMem, TestMemprov, TestVcpus, TestLoad, TestVms)
