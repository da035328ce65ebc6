"""Pools in a real Ceph: how they are made, whose they are, and how they are deleted."""

import contextlib

import pytest
from msgspec.structs import replace

from pvc_core.plugin import DriverError, NotReady, ObjectBusy, ObjectExists, ObjectMissing

pytestmark = [pytest.mark.real, pytest.mark.ceph]

MIB = 1 << 20


def detail(site):
    return next(
        each for each in site.ceph.command("osd pool ls", detail="detail") if each["pool_name"] == site.pool.name
    )


def names(site):
    return {each["pool_name"] for each in site.ceph.command("osd pool ls", detail="detail")}


def test_a_pool_is_as_its_parameters_say(site):
    found = detail(site)
    assert (found["size"], found["min_size"], found["pg_num"], found["pg_autoscale_mode"]) == (3, 2, 4, "off")
    assert "nodelete" in found["flags_names"]
    assert found["application_metadata"] == {"rbd": {"pvc": site.pool.id}}
    rules = {rule["rule_id"]: rule for rule in site.ceph.command("osd crush rule dump")}
    assert [step["type"] for step in rules[found["crush_rule"]]["steps"] if "type" in step] == ["host"]


def test_a_tier_is_the_devices_of_a_class(tmp_path, new_site, ceph):
    with contextlib.closing(new_site(tmp_path)) as site:
        there = ceph.command("osd crush class ls")[0]
        site.pool = replace(site.pool, parameters={"tier": there, "pgs": 4})
        site.driver().pool_ensure(site.pool)
        rules = {rule["rule_id"]: rule for rule in ceph.command("osd crush rule dump")}
        assert rules[detail(site)["crush_rule"]]["steps"][0]["item_name"] == f"default~{there}"
        absent = replace(site.pool, name="other", parameters={"tier": "optane"})
        with pytest.raises(NotReady, match=f"no OSD is of tier 'optane'; there are: {there}"):
            site.driver().pool_ensure(absent)
        assert "other" not in names(site)


def test_a_pool_of_one_copy_is_made(tmp_path, new_site):
    with contextlib.closing(new_site(tmp_path)) as site:
        site.pool = replace(site.pool, parameters={"copies": 1, "pgs": 1})
        site.driver().pool_ensure(site.pool)
        assert (detail(site)["size"], detail(site)["min_size"]) == (1, 1)


def test_two_pools_of_pvc_do_not_share_one_in_ceph(site):
    twin = replace(site.pool, id="11111111-3a0c-4a0e-9a53-0d3b1f5b7a01")
    with pytest.raises(ObjectExists, match="belongs to another pool of PVC"):
        site.driver().pool_ensure(twin)
    with pytest.raises(NotReady, match="belongs to another pool of PVC"):
        site.driver().pool_usage(twin)
    site.driver().pool_delete(twin)
    assert site.pool.name in names(site)


def test_other_copies_than_those_it_has_are_refused(site):
    changed = replace(site.pool, parameters={"copies": 2})
    with pytest.raises(DriverError, match="Ceph has 3 copies, of which 2 must be written, and 2 and 1 are wanted"):
        site.driver().pool_ensure(changed)


def test_a_pool_that_somebody_else_made_is_adopted_only_when_asked_and_never_deleted(tmp_path, new_site, ceph):
    with contextlib.closing(new_site(tmp_path)) as site:
        ceph.command("osd pool create", pool=site.pool.name, pg_num=4, autoscale_mode="off")
        ceph.command("osd pool application enable", pool=site.pool.name, app="rbd")
        driver = site.driver()
        with pytest.raises(ObjectExists, match="to use it as it is: -p adopt=true"):
            driver.pool_ensure(site.pool)
        adopted = replace(site.pool, parameters={"adopt": True})
        driver.pool_ensure(adopted)
        site.pool = adopted
        driver.volume_create(site.ref("web1"), 4 * MIB, "")
        driver.pool_delete(adopted)
        assert site.pool.name in names(site)
        assert detail(site)["application_metadata"] == {"rbd": {}}


def test_a_pool_that_is_to_be_adopted_must_exist(tmp_path, new_site):
    with contextlib.closing(new_site(tmp_path)) as site:
        with pytest.raises(NotReady, match=r"has no pool .* to adopt"):
            site.driver().pool_ensure(replace(site.pool, parameters={"adopt": True}))
        with pytest.raises(ObjectMissing, match="any more"):
            site.driver().pool_usage(site.pool)


def strictness(ceph):
    """Return what is set, in the monitors' own configuration, of whether pools may be deleted."""
    return [
        each["value"]
        for each in ceph.command("config dump")
        if (each["section"], each["name"]) == ("mon", "mon_allow_pool_delete")
    ]


@pytest.mark.parametrize("before", [[], ["false"]])
def test_a_pool_is_deleted_when_it_is_empty_and_the_monitors_stay_as_strict_as_they_were(site, ceph, before):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with pytest.raises(ObjectBusy, match="holds 1 volumes, such as web1"):
        driver.pool_delete(site.pool)
    driver.volume_delete(site.ref("web1"))
    for value in before:
        ceph.command("config set", who="mon", name="mon_allow_pool_delete", value=value)
    try:
        assert driver.pool_delete(site.pool)
        assert site.pool.name not in names(site)
        assert strictness(ceph) == before
    finally:
        ceph.command("config rm", who="mon", name="mon_allow_pool_delete")


def test_a_deletion_that_was_killed_leaves_no_pool_unprotected(site, ceph):
    ceph.command("osd pool set", pool=site.pool.name, var="nodelete", val="false")
    ceph.command("config-key set", key="pvc/mon_allow_pool_delete", val="[]")
    ceph.command("config set", who="mon", name="mon_allow_pool_delete", value="true")
    site.driver().pool_ensure(site.pool)
    assert strictness(ceph) == []
    assert "nodelete" in detail(site)["flags_names"]


def test_placement_groups_their_scaling_and_the_tier_can_be_changed(site, ceph):
    driver = site.driver()
    site.pool = replace(site.pool, parameters={"pgs": 8, "autoscale": "warn", "tier": "hdd"})
    driver.pool_ensure(site.pool)
    now = detail(site)
    assert (now["pg_num_target"], now["pg_autoscale_mode"]) == (8, "warn")
    rules = {each["rule_id"]: each["rule_name"] for each in ceph.command("osd crush rule dump")}
    assert rules[now["crush_rule"]] == "pvc-hdd"
    site.pool = replace(site.pool, parameters={})
    driver.pool_ensure(site.pool)
    assert detail(site)["pg_autoscale_mode"] == "on"


def test_a_rule_that_an_operator_made_stays(site, ceph):
    ceph.command("osd crush rule create-replicated", name="mine", root="default", type="host")
    ceph.command("osd pool set", pool=site.pool.name, var="crush_rule", val="mine")
    before = detail(site)["crush_rule"]
    site.driver().pool_ensure(site.pool)
    assert detail(site)["crush_rule"] == before


def test_a_pool_of_which_nothing_is_said_has_what_the_readme_says(tmp_path, new_site):
    with contextlib.closing(new_site(tmp_path)) as site:
        site.pool = replace(site.pool, parameters={})
        site.driver().pool_ensure(site.pool)
        now = detail(site)
        assert (now["size"], now["min_size"], now["pg_num_target"], now["pg_autoscale_mode"]) == (3, 2, 32, "on")


def test_what_killed_calls_have_left_goes_away(site):
    driver = site.driver()
    ioctx = site.ceph.cluster.open_ioctx(site.pool.name)
    with contextlib.closing(ioctx):
        import rbd

        rbd.RBD().create(ioctx, ".pvc-doomed.x", MIB, old_format=False)
        rbd.RBD().create(ioctx, ".pvc-new.young", MIB, old_format=False)
        assert driver.volume_list(site.pool) == []
        driver.pool_ensure(site.pool)
        assert rbd.RBD().list(ioctx) == [".pvc-new.young"]
