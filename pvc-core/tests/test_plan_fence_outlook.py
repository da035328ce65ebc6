"""What is forecast of a node's loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.fence import DeviceHealth, FenceDevice, FenceLevel
from pvc_core.plan.fence_outlook import BLOCK_S, SWITCH_S, Fencer, Guest, Subject, outlook

LEASE_S, GRACE_S = 10.0, 5.0
ALL = ("power", "storage", "watchdog")


def levels(*drivers):
    return tuple(FenceLevel(devices=tuple(FenceDevice(driver=d) for d in level.split("+"))) for level in drivers)


def health(level, device, driver, error="", took_s=1.0):
    power = "unknown" if error else "on"
    return DeviceHealth(level=level, device=device, driver=driver, power=power, error=error, took_s=took_s)


def fencer(name="hv1", *devices, drivers=("ipmi", "strip"), storage=()):
    return Fencer(name, devices, frozenset(drivers), frozenset(storage))


def subject(**more):
    return Subject(**({"node": "hv3", "recovery": ALL, "fencers": (fencer(),)} | more))


def prospect(found, means):
    return next(p for p in found.prospects if p.means == means)


def test_nothing_set_up_is_no_proof_and_says_so():
    found = outlook(subject(guests=(Guest("web", frozenset()),)))
    assert (found.expected, found.seconds, found.uncovered) == ("no", None, ("web",))
    assert found.verdict.startswith("none: its VMs would not be started elsewhere until somebody confirms its death")
    assert [p.reason for p in found.prospects] == [
        "it has no fence level",
        "no storage driver can keep it from writing",
        "it has armed none",
    ]


def test_a_level_that_answers_gives_proof_after_lease_grace_and_its_own_time():
    found = outlook(subject(levels=levels("ipmi"), fencers=(fencer("hv1", health(1, 1, "ipmi")),)))
    assert (found.expected, found.seconds) == ("yes", LEASE_S + GRACE_S + 1 + 1 + SWITCH_S)
    assert prospect(found, "power").reason == "level 1 (ipmi) by hv1"


def test_the_time_of_levels_that_fail_first_counts():
    devices = (health(1, 1, "ipmi", "wrong password", 20.0), health(2, 1, "strip"), health(2, 2, "strip"))
    found = outlook(subject(levels=levels("ipmi", "strip+strip"), fencers=(fencer("hv1", *devices),)))
    assert found.seconds == LEASE_S + GRACE_S + 20 + 2 + 2 * (1 + SWITCH_S)


def test_a_level_is_usable_only_when_all_its_devices_are():
    devices = (health(1, 1, "strip"), health(1, 2, "strip", "no answer"))
    found = prospect(outlook(subject(levels=levels("strip+strip"), fencers=(fencer("hv1", *devices),))), "power")
    assert (found.expected, found.reason) == ("no", "level 1: strip: no answer")


def test_a_device_that_nobody_has_asked_yet_is_neither_good_nor_bad():
    found = outlook(subject(levels=levels("ipmi")))
    assert (found.expected, found.verdict) == ("unknown", "not certain: power: level 1: not checked yet by hv1")
    assert outlook(subject(levels=levels("ipmi"), watchdog_down_s=40.0)).expected == "yes"


def test_what_was_found_at_another_device_of_the_same_place_says_nothing():
    found = outlook(subject(levels=levels("strip"), fencers=(fencer("hv1", health(1, 1, "ipmi")),)))
    assert found.expected == "unknown"


def test_a_driver_that_does_not_work_where_it_is_needed_is_no_way():
    found = outlook(subject(levels=levels("ipmi"), fencers=(fencer("hv1", health(1, 1, "ipmi"), drivers=()),)))
    assert found.expected == "no"
    assert "coordinator hv1 has no working fence driver ipmi" in prospect(found, "power").reason


def test_a_primary_that_cannot_use_a_device_is_pointed_to_one_that_can():
    broken, good = fencer("hv1", health(1, 1, "ipmi", "no route")), fencer("hv2", health(1, 1, "ipmi"))
    found = prospect(outlook(subject(levels=levels("ipmi"), fencers=(broken,), others=(good,))), "power")
    assert found.expected == "no"
    assert found.reason.endswith("hv2 could use them: pvc node primary hv2")


def test_the_loss_of_the_primary_depends_on_who_takes_over():
    broken, good = fencer("hv1", health(1, 1, "ipmi", "no route")), fencer("hv2", health(1, 1, "ipmi"))
    found = outlook(subject(levels=levels("ipmi"), fencers=(broken, good)))
    assert found.expected == "unknown"
    assert "it depends on who takes over as primary; hv1: level 1: ipmi: no route" in found.verdict
    slow = fencer("hv1", health(1, 1, "ipmi", took_s=3.0))
    both = outlook(subject(levels=levels("ipmi"), fencers=(slow, good)))
    assert both.seconds == LEASE_S + GRACE_S + 2 * 3 + SWITCH_S


@pytest.mark.parametrize(("declared", "seconds"), [(40.0, LEASE_S + 40), (2.0, LEASE_S + GRACE_S)])
def test_a_watchdog_is_waited_for_and_the_grace_time_too(declared, seconds):
    found = outlook(subject(watchdog_down_s=declared))
    assert (found.expected, found.seconds) == ("yes", seconds)


def test_the_quickest_way_counts():
    found = outlook(
        subject(levels=levels("ipmi"), watchdog_down_s=40.0, fencers=(fencer("hv1", health(1, 1, "ipmi")),))
    )
    assert found.seconds == prospect(found, "power").seconds < prospect(found, "watchdog").seconds


def test_storage_covers_only_vms_whose_disks_are_all_on_it():
    guests = (
        Guest("on-ceph", frozenset({"ceph"})),
        Guest("on-both", frozenset({"ceph", "dir"})),
        Guest("diskless", frozenset()),
    )
    found = outlook(subject(identities=frozenset({"ceph"}), guests=guests, fencers=(fencer(storage=("ceph", "dir")),)))
    assert (found.expected, found.uncovered) == ("yes", ("on-both", "diskless"))
    assert found.verdict.endswith("by storage, which does not cover VMs on-both, diskless")
    assert found.seconds == LEASE_S + GRACE_S + BLOCK_S
    nothing = outlook(subject(identities=frozenset({"ceph"}), guests=guests[1:], fencers=(fencer(storage=("ceph",)),)))
    assert (nothing.expected, nothing.uncovered) == ("no", ("on-both", "diskless"))
    whole = outlook(
        subject(
            identities=frozenset({"ceph"}),
            guests=guests,
            fencers=(fencer(storage=("ceph",)),),
            watchdog_down_s=40.0,
        )
    )
    assert (whole.seconds, whole.uncovered) == (LEASE_S + 40, ())


def test_storage_is_closed_when_the_first_level_has_failed():
    broken = fencer("hv1", health(1, 1, "ipmi", "no answer", 20.0), storage=("ceph",))
    found = outlook(subject(identities=frozenset({"ceph"}), levels=levels("ipmi"), fencers=(broken,)))
    assert found.seconds == LEASE_S + GRACE_S + 20 + SWITCH_S + BLOCK_S
    found = outlook(
        subject(recovery=("storage",), identities=frozenset({"ceph"}), levels=levels("ipmi"), fencers=(broken,))
    )
    assert found.seconds == LEASE_S + GRACE_S + BLOCK_S


def test_storage_needs_its_driver_where_it_is_closed():
    found = prospect(outlook(subject(identities=frozenset({"ceph"}))), "storage")
    assert (found.expected, found.reason) == ("no", "no working storage driver ceph on hv1")


def test_means_that_the_cluster_does_not_allow_do_not_count():
    found = outlook(subject(recovery=("power",), watchdog_down_s=40.0))
    assert (found.expected, [p.means for p in found.prospects]) == ("no", ["power"])
    assert outlook(subject(recovery=(), watchdog_down_s=40.0)).expected == "no"


def test_without_another_coordinator_nothing_is_done():
    found = outlook(subject(levels=levels("ipmi"), identities=frozenset({"ceph"}), watchdog_down_s=40.0, fencers=()))
    assert found.expected == "no"
    assert {p.reason for p in found.prospects} == {"no other coordinator is alive that could take over"}


words = st.sampled_from(["", "broken"])
fencers = st.lists(
    st.builds(
        Fencer,
        st.sampled_from(["hv1", "hv2"]),
        st.lists(
            st.builds(health, st.integers(1, 2), st.integers(1, 2), st.sampled_from(["ipmi", "strip"]), words),
            max_size=4,
        ).map(tuple),
        st.frozensets(st.sampled_from(["ipmi", "strip"])),
        st.frozensets(st.sampled_from(["ceph", "dir"])),
    ),
    max_size=2,
).map(tuple)
subjects = st.builds(
    subject,
    recovery=st.permutations(ALL).flatmap(lambda means: st.integers(0, 3).map(lambda n: tuple(means[:n]))),
    levels=st.lists(st.sampled_from(["ipmi", "strip", "strip+strip"]), max_size=2).map(lambda names: levels(*names)),
    watchdog_down_s=st.sampled_from([0.0, 20.0]),
    identities=st.frozensets(st.sampled_from(["ceph", "dir"])),
    guests=st.lists(
        st.builds(Guest, st.sampled_from(["a", "b", "c"]), st.frozensets(st.sampled_from(["ceph", "dir"]))), max_size=3
    ).map(tuple),
    fencers=fencers,
    others=fencers,
)


@given(subjects)
def test_a_forecast_is_consistent(made):
    found = outlook(made)
    assert tuple(p.means for p in found.prospects) == made.recovery
    good = [p for p in found.prospects if p.expected == "yes"]
    assert (found.expected == "yes") == bool(good)
    assert all((p.seconds is not None) == (p.expected == "yes") for p in found.prospects)
    assert all(p.reason for p in found.prospects)
    if good:
        assert found.seconds in [p.seconds for p in good]
        assert found.seconds >= made.lease_s + made.grace_s
        assert set(found.uncovered) == set.intersection(*(set(p.uncovered) for p in good))
    else:
        assert set(found.uncovered) == {guest.name for guest in made.guests}
    if not made.fencers:
        assert not good
