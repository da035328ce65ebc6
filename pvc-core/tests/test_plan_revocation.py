"""What becomes of a VM whose claim is taken from a dead node."""

import pytest

from pvc_core.model.fence import FenceRecord, Proof, ProofKind
from pvc_core.model.vm import (
    MAY_EXECUTE_ON_TARGET,
    Disk,
    MigrationPhase,
    MigrationRecord,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    started_with,
)
from pvc_core.plan.revocation import covering, given_up, refused_by_the_dead, revoke

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
PROOF = Proof(kind=ProofKind.POWER, evidence="read", by="n1")


def vm(**changes):
    return VmSpec(**({"id": "v", "name": "web", "memory_mib": 512, "vcpus": 1, "power": "running"} | changes))


def status(**changes):
    return VmStatus(**({"id": "v", "state": VmState.RUNNING, "node": "dead"} | changes))


def claim(phase=None, *, node="dead", target="n2"):
    record = None
    if phase is not None:
        record = MigrationRecord(target=target, attempt="a", phase=phase, target_lease=4)
    return VmClaim(vm="v", node=node, lease=3, epoch=5, migration=record)


def taken(claim_, vm_=None, status_=None):
    return revoke("dead", claim_, vm_, status_, PROOF, 9.0)


def closed(*pools):
    return FenceRecord(node="dead", lease=3, proofs=(Proof(kind=ProofKind.STORAGE, evidence="", by="n1", pools=pools),))


def test_a_vm_is_freed_and_says_what_it_waits_for():
    new = taken(claim(), vm(), status())
    assert new.claim == VmClaim(vm="v", node="", lease=0, epoch=5)
    assert (new.status.state, new.status.node) == (VmState.WAITING, None)
    assert new.status.reason == "node dead failed (power-off-confirmed); it waits for a place"
    assert new.outcome.outcome == "freed"


@pytest.mark.parametrize("phase", MigrationPhase)
def test_the_target_gets_the_claim_exactly_when_it_may_execute_the_guest(phase):
    new = taken(claim(phase), vm(), status())
    if phase in MAY_EXECUTE_ON_TARGET:
        assert new.claim == VmClaim(vm="v", node="n2", lease=4, epoch=6)
        assert (new.outcome.outcome, new.outcome.target, new.status) == ("handed-over", "n2", None)
    else:
        assert new.claim == VmClaim(vm="v", node="", lease=0, epoch=5)
        assert new.outcome.outcome == "freed"


@pytest.mark.parametrize("phase", MigrationPhase)
def test_a_node_that_gives_up_hands_over_to_the_target_too(phase):
    new, _ = given_up("dead", claim(phase), vm(), status())
    assert (new.node == "n2") is (phase in MAY_EXECUTE_ON_TARGET)


@pytest.mark.parametrize("phase", MigrationPhase)
def test_only_a_migration_that_waits_for_the_dead_is_answered_for_it(phase):
    new = refused_by_the_dead("dead", claim(phase, node="n2", target="dead"))
    if phase is MigrationPhase.UNCERTAIN:
        assert (new.node, new.migration.phase) == ("n2", MigrationPhase.REFUSED)
    else:
        assert new is None


def test_a_migration_to_another_node_is_not_answered_for():
    assert refused_by_the_dead("dead", claim(MigrationPhase.UNCERTAIN, node="n2", target="n1")) is None


@pytest.mark.parametrize(("power", "state"), [("stopped", VmState.STOPPED), ("disabled", VmState.DISABLED)])
def test_a_vm_that_should_not_run_is_at_rest(power, state):
    new = taken(claim(), vm(power=power), status())
    assert (new.status.state, new.outcome.outcome) == (state, "not-restarted")


def test_a_vm_that_ended_for_good_stays_so():
    new = taken(claim(), vm(generation=2), status(state=VmState.FAILED, reason="it crashed", halted=2))
    assert (new.status.state, new.status.reason, new.status.halted) == (VmState.FAILED, "it crashed", 2)


def test_a_vm_that_is_never_restarted_ends_for_good():
    new = taken(claim(), vm(restart="never", generation=2), status())
    assert (new.status.state, new.status.halted, new.outcome.outcome) == (VmState.STOPPED, 2, "not-restarted")


def test_a_vm_that_is_restarted_on_crash_is_restarted():
    assert taken(claim(), vm(restart="on-crash"), status()).outcome.outcome == "freed"


def test_the_claim_of_a_vm_that_is_gone_is_vacant():
    new = taken(claim())
    assert (new.claim.node, new.status) == ("", None)


@pytest.mark.parametrize(
    ("pools", "covered"), [({"a"}, True), ({"a", "b"}, True), ({"a", "c"}, False), ({"c"}, False), (set(), False)]
)
def test_closed_storage_covers_vms_with_all_their_disks_on_it(pools, covered):
    runs = status(**started_with(vm()))
    assert (covering(closed("a", "b"), vm(), runs, pools) is not None) is covered


def test_closed_storage_covers_a_guest_by_what_it_has_and_not_by_what_its_spec_says_by_now():
    runs = status(**started_with(vm(disks=(Disk(pool="a", volume="old"),))))
    assert covering(closed("a"), vm(disks=(Disk(pool="b", volume="new"),)), runs, {"a"}) is not None


def test_closed_storage_covers_no_guest_of_which_it_is_unknown_what_it_has():
    assert covering(closed("a"), vm(), status(), {"a"}) is None
    assert covering(closed("a"), vm(), None, {"a"}) is None


def test_closed_storage_covers_a_guest_with_other_changes_that_wait_for_its_restart():
    runs = status(**started_with(vm(memory_mib=1024)))
    assert covering(closed("a"), vm(), runs, {"a"}) is not None


@pytest.mark.parametrize(
    ("overlay", "covered"),
    [
        ("<domain><cputune><shares>9</shares></cputune></domain>", True),
        ("<domain><devices><disk type='network'><target dev='vdb'/></disk></devices></domain>", False),
        ("<domain><devices><filesystem><target dir='x'/></filesystem></devices></domain>", False),
        ("<domain><devices><hostdev mode='subsystem' type='pci'/></devices></domain>", False),
        (
            f"<domain xmlns:qemu='{QEMU}'><qemu:commandline><qemu:arg value='-drive'/></qemu:commandline></domain>",
            False,
        ),
        ("<domain", False),
    ],
)
def test_closed_storage_covers_no_guest_whose_overlay_may_let_it_write_elsewhere(overlay, covered):
    runs = status(**started_with(vm(overlay_xml=overlay)))
    assert (covering(closed("a"), vm(overlay_xml=overlay), runs, {"a"}) is not None) is covered


def test_closed_storage_does_not_cover_what_has_no_spec():
    assert covering(closed("a"), None, None, {"a"}) is None


def test_a_proof_for_the_whole_node_covers_all():
    record = FenceRecord(node="dead", lease=3, proofs=(PROOF,))
    assert covering(record, None, None, set()) == covering(record, vm(), None, {"x"}) == PROOF


def test_without_a_proof_nothing_is_covered():
    assert covering(FenceRecord(node="dead", lease=3), vm(), None, {"a"}) is None
