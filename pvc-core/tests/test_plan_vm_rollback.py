"""A VM whose disks are being rolled back is not started."""

import pytest
from msgspec.structs import replace

from pvc_core.model.vm import Rollback, VmClaim, VmSpec, VmState, VmStatus
from pvc_core.plan.vm import Idle, ReleaseClaim, SetStatus, Snapshot, StartDomain, TakeClaim, decide

LOCK = Rollback(snapshot="1", name="s1", task="t1")


def view(*, power="running", rollback=LOCK, **more):
    vm = VmSpec(id="a", name="a", memory_mib=64, vcpus=1, node="hv1", power=power, rollback=rollback)
    return Snapshot(me="hv1", lease=1, now=0.0, vm=vm, **more)


def test_the_claim_is_not_taken_and_the_status_says_why():
    said = decide(view())
    assert isinstance(said, SetStatus)
    assert said.status.state is VmState.WAITING
    assert said.status.reason == "it is not started until its disks are rolled back to snapshot s1 (task t1)"
    assert decide(view(status=said.status)) == Idle()
    assert isinstance(decide(view(rollback=None, status=said.status)), TakeClaim)


@pytest.mark.parametrize(("power", "state"), [("stopped", VmState.STOPPED), ("disabled", VmState.DISABLED)])
def test_one_that_is_off_says_so_too(power, state):
    said = decide(view(power=power))
    assert (said.status.state, "snapshot s1" in said.status.reason) == (state, True)
    after = decide(view(power=power, rollback=None, status=said.status))
    assert after.status.reason == ""


@pytest.mark.parametrize("status", [None, VmStatus(id="a", state=VmState.STARTING, node="hv1")])
def test_a_claim_that_was_taken_all_the_same_is_given_up(status):
    held = view(status=status, claim=VmClaim(vm="a", node="hv1", lease=1, epoch=1))
    assert decide(held) == ReleaseClaim()
    free = replace(
        held, vm=replace(held.vm, rollback=None), status=VmStatus(id="a", state=VmState.STARTING, node="hv1")
    )
    assert not isinstance(decide(free), ReleaseClaim)
    assert not isinstance(decide(held), StartDomain)
