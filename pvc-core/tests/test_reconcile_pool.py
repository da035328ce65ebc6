"""Pools: made once, watched, deleted, and taken over."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import InUse
from pvc_core.ops.pool import PoolAdd, PoolModify, PoolQuery, pool_add, pool_info, pool_modify, pool_remove
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.plugin.errors import DriverError, NotReady, ObjectBusy
from pvc_core.store import documents, keys
from pvc_core.testkit.doomed import every_death
from pvc_core.testkit.storage_site import StorageSite


@pytest.fixture
def site():
    return StorageSite("hv1")


def _gone(site, pool):
    return documents.read(site.ops.store, keys.pool_spec(pool)) is None


def test_a_pool_is_made_and_its_usage_told(site):
    pool = site.pool()
    status = site.pool_status(pool)
    assert status.created
    assert status.usage.total_bytes == site.backend.total_bytes
    assert pool_info(site.ops, PoolQuery(pool="ssd")).ready


def test_the_usage_is_told_every_minute(site):
    pool = site.pool()
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    site.until(lambda: site.settled(volume))
    site.write(pool, "web1", b"x" * 100_000)
    site.until(lambda: site.pool_status(pool).usage.used_bytes == 100_000, 61.0)


def test_the_part_of_its_volumes_is_told_with_the_usage(site):
    pool = site.pool()
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="200M")).id
    site.until(lambda: site.settled(volume))
    site.write(pool, "web1", b"x" * (100 << 20))
    site.until(lambda: site.pool_status(pool).volumes_bytes == 100 << 20, 180.0)
    assert site.pool_status(pool).usage.used_bytes == 100 << 20


def test_an_unchanged_pool_is_not_written_again(site):
    pool = site.pool()
    version = site.ops.store.get(keys.pool_status(pool).path).version
    calls = site.faults["hv1"].count("pool_usage")
    site.cluster.run(600)
    assert site.faults["hv1"].count("pool_usage") >= calls + 9
    assert site.ops.store.get(keys.pool_status(pool).path).version == version


def test_a_pool_that_was_made_once_is_never_made_again(site):
    """An unmounted directory must not become a new, empty pool."""
    pool = site.pool()
    made = site.faults["hv1"].count("pool_ensure")
    site.faults["hv1"].fail_always("pool_usage", NotReady("/srv/pvc has no marker; is it mounted?"))
    pool_modify(site.ops, PoolModify(pool="ssd", description="fast"))
    site.until(lambda: not site.pool_ready(pool))
    (condition,) = site.pool_status(pool).conditions
    assert (condition.reason, condition.message) == ("BackendNotReady", "/srv/pvc has no marker; is it mounted?")
    site.cluster.run(300)
    assert site.faults["hv1"].count("pool_ensure") == made
    site.faults["hv1"].clear()
    site.until(lambda: site.pool_ready(pool) and site.pool_status(pool).observed_generation == 2)
    assert site.faults["hv1"].count("pool_ensure") == made + 1


def test_what_may_pass_is_tried_again(site):
    site.faults["hv1"].fail("pool_ensure", NotReady("the monitors do not answer"), times=4)
    pool = pool_add(site.ops, PoolAdd(name="ssd", driver="fake")).id
    site.until(lambda: site.pool_status(pool) is not None)
    assert site.pool_status(pool).observed_generation == 0
    assert [c.reason for c in site.pool_status(pool).conditions] == ["BackendNotReady"]
    site.until(lambda: site.pool_ready(pool), 60.0)


def test_what_the_driver_refuses_settles_the_pool_with_the_reason(site):
    site.faults["hv1"].fail_always("pool_ensure", DriverError("/srv/pvc is not empty", retryable=False))
    pool = pool_add(site.ops, PoolAdd(name="ssd", driver="fake")).id
    site.until(lambda: site.pool_status(pool) is not None)
    view = pool_info(site.ops, PoolQuery(pool="ssd"))
    assert (view.settled, view.ready) == (True, False)
    assert view.conditions[0].message == "/srv/pvc is not empty"
    site.faults["hv1"].clear()
    site.until(lambda: site.pool_ready(pool), 90.0)


def test_a_missing_driver_is_said(site):
    pool = site.pool()
    site.drivers["hv1"].break_driver("fake", "qemu-img is not installed")
    site.until(lambda: not site.pool_ready(pool))
    assert "qemu-img is not installed" in site.pool_status(pool).conditions[0].message


def test_a_deleted_pool_leaves_nothing(site):
    pool = site.pool()
    pool_remove(site.ops, PoolQuery(pool="ssd"))
    site.until(lambda: _gone(site, pool))
    assert site.paths() == []
    assert pool not in site.backend.pools
    site.pool()


def test_a_pool_with_volumes_is_not_deleted(site):
    site.pool()
    volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M"))
    with pytest.raises(InUse, match="web1"):
        pool_remove(site.ops, PoolQuery(pool="ssd"))


def test_a_pool_that_cannot_be_deleted_says_why_and_is_tried_again(site):
    pool = site.pool()
    site.faults["hv1"].fail("pool_delete", ObjectBusy("it holds volumes of somebody else"), times=3)
    pool_remove(site.ops, PoolQuery(pool="ssd"))
    site.until(lambda: site.pool_status(pool).conditions[0].reason == "Busy")
    site.until(lambda: _gone(site, pool))


def test_another_node_takes_over_when_the_pools_node_is_gone():
    site = StorageSite("hv1", "hv2", "hv3")
    pool = site.pool()
    first = pool_info(site.ops, PoolQuery(pool="ssd")).node
    site.cut_off(first)
    site.until(lambda: pool_info(site.ops, PoolQuery(pool="ssd")).node != first)
    second = pool_info(site.ops, PoolQuery(pool="ssd")).node
    made = site.faults[second].count("pool_ensure")
    site.until(lambda: site.pool_ready(pool) and site.faults[second].count("pool_usage") > 0)
    # The new node looked for the pool before it touched it.
    calls = site.faults[second].calls
    assert calls.index("pool_usage") < (calls.index("pool_ensure") if made else len(calls))
    pool_remove(site.ops, PoolQuery(pool="ssd"))
    site.until(lambda: _gone(site, pool))


def test_a_node_that_is_not_the_pools_leaves_it_alone():
    site = StorageSite("hv1", "hv2")
    pool = site.pool()
    node = pool_info(site.ops, PoolQuery(pool="ssd")).node
    other = {"hv1": "hv2", "hv2": "hv1"}[node]
    site.cluster.run(300)
    assert site.faults[other].count("pool_ensure") == site.faults[other].count("pool_usage") == 0
    entry = documents.read(site.ops.store, keys.pool_spec(pool))
    site.ops.store.commit(entry.put(replace(entry.value, node=other, generation=2)))
    site.until(lambda: site.pool_status(pool).observed_generation == 2)
    assert site.faults[other].count("pool_usage") > 0


def test_a_pool_is_made_whenever_the_daemon_dies():
    def add(site):
        pool = pool_add(site.ops, PoolAdd(name="ssd", driver="fake")).id
        return lambda: site.pool_ready(pool)

    def check(site):
        assert len(site.paths()) == 4
        assert len(site.backend.pools) == 1

    assert every_death(StorageSite, add, check) >= 4


def test_a_pool_is_deleted_whenever_the_daemon_dies():
    def make():
        site = StorageSite()
        site.pool()
        return site

    def remove(site):
        pool_remove(site.ops, PoolQuery(pool="ssd"))
        return lambda: site.paths() == []

    assert every_death(make, remove, lambda site: None) >= 4
