"""The sandbox's BMCs and watchdogs at their work: the cluster itself uses them."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture
def sandbox(fenced_sandbox, view_of):
    """Every test leaves all nodes on and in service, and all BMCs mended."""
    yield fenced_sandbox
    for node in fenced_sandbox.nodes():
        fenced_sandbox.bmc(node).mend()
        fenced_sandbox.power_on(node)
    view_of(fenced_sandbox).bring_into_service(*fenced_sandbox.nodes())


def power(sandbox, node):
    return next(state.power for state in sandbox.status().nodes if state.name == node)


@pytest.fixture
def stage(view_of):
    return lambda sandbox, node: view_of(sandbox).fence_stage(node)


def test_node_that_hangs_is_switched_off_by_the_others(sandbox, stage, eventually):
    sandbox.freeze("hv3")
    eventually("the cluster has proof of its death", lambda: stage(sandbox, "hv3") == "recovered")
    assert power(sandbox, "hv3") == "off"
    sandbox.thaw("hv3")
    assert power(sandbox, "hv3") == "off"
    assert sandbox.bmc("hv3").received()[-1] == "power=0"


def test_node_without_a_link_is_switched_off_and_comes_back_without_one(sandbox, stage, eventually):
    sandbox.cut_link("hv2")
    eventually("the cluster has proof of its death", lambda: stage(sandbox, "hv2") == "recovered")
    assert power(sandbox, "hv2") == "off"
    sandbox.host("hv2").boot()
    assert next(state.link for state in sandbox.status().nodes if state.name == "hv2") == "down"


def test_node_whose_bmc_is_broken_is_not_taken_for_dead_until_that_is_mended(sandbox, stage, eventually):
    sandbox.bmc("hv1").stuck()
    sandbox.cut_link("hv1")
    eventually("the BMC said yes", lambda: "power=0" in sandbox.bmc("hv1").received(), within_s=90)
    assert power(sandbox, "hv1") == "on"
    assert stage(sandbox, "hv1") == "fencing"
    sandbox.bmc("hv1").mend()
    eventually("the cluster has proof of its death", lambda: stage(sandbox, "hv1") == "recovered", within_s=120)
    assert power(sandbox, "hv1") == "off"
