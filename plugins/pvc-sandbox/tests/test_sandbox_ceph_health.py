"""When Ceph counts as serving."""

import msgspec
import pytest

from pvc_sandbox.ceph_health import (
    Groups,
    Health,
    HealthCheck,
    OsdMap,
    Status,
    complaint,
    described,
    silent_osds,
    unsettled_groups,
)


def osds(*states):
    """One OSD per word: up or down, and in or out; it came up in epoch 10."""
    found = [
        {"osd": number, "up": int("up" in state), "in": int("in" in state), "up_from": 10}
        for number, state in enumerate(states)
    ]
    return msgspec.convert({"osds": found}, OsdMap)


def groups(*states, epoch=11, acting=(0, 1, 2)):
    found = [
        {"pgid": f"1.{number}", "state": state, "reported_epoch": epoch, "acting": list(acting)}
        for number, state in enumerate(states)
    ]
    return msgspec.convert({"pg_stats": found}, Groups)


def status(health="HEALTH_OK", *, available=True, checks=()):
    severities = {name: {"severity": "HEALTH_WARN"} for name in checks}
    return msgspec.convert(
        {"health": {"status": health, "checks": severities}, "mgrmap": {"available": available}}, Status
    )


ALL_UP = osds("up in", "up in", "up in")


def test_healthy_cluster_is_not_complained_of():
    assert complaint(status(), ALL_UP, [0, 1, 2]) == ""
    assert unsettled_groups(ALL_UP, groups("active+clean", "active+clean+scrubbing+deep")) == []
    assert unsettled_groups(ALL_UP, groups()) == []


def test_wanted_osds_must_be_up():
    known = osds("up in", "down in")
    assert silent_osds(known, [0, 1, 2]) == [1, 2]
    assert complaint(status(), known, [0, 1, 2]) == "not up: osd.1, osd.2"
    assert complaint(status(), known, [0]) == ""


def test_manager_must_work():
    assert complaint(status(available=False), ALL_UP, [0]) == "no manager works"


def test_error_is_a_reason_and_a_warning_is_none():
    assert complaint(status("HEALTH_ERR", checks=["B", "A"]), ALL_UP, []) == "HEALTH_ERR (A, B)"
    assert complaint(status("HEALTH_WARN", checks=["A"]), ALL_UP, []) == ""
    assert described(Health("HEALTH_WARN", {"A": HealthCheck("HEALTH_WARN")})) == "HEALTH_WARN (A)"


@pytest.mark.parametrize("state", ["unknown", "peering", "active+undersized+degraded", "active", "stale+clean"])
def test_group_must_be_clean_while_all_osds_are_there(state):
    assert unsettled_groups(ALL_UP, groups("active+clean", state)) == [f"1.1 {state}"]


@pytest.mark.parametrize("known", [osds("up in", "up in", "down in"), osds("up in", "up in", "up out")])
def test_group_must_only_be_active_while_somebody_has_taken_an_osd_away(known):
    assert unsettled_groups(known, groups("active+undersized+degraded", acting=(0, 1))) == []
    assert unsettled_groups(known, groups("peering", acting=(0, 1))) == ["1.0 peering"]


def test_state_of_before_a_power_cut_does_not_count():
    """A manager that has just begun shows it: reported in epoch 9, while the OSDs came up in epoch 10."""
    assert unsettled_groups(ALL_UP, groups("active+clean", epoch=9)) == ["1.0 was active+clean"]
    assert unsettled_groups(ALL_UP, groups("active+clean", epoch=10)) == []
    assert unsettled_groups(osds("up in", "up in", "down in"), groups("active", epoch=10)) == ["1.0 was active"]
