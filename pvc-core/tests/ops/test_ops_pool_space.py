"""Additions to a pool that has no room for them are refused, also when several come at once."""

import pytest

from pvc_core.model.errors import NotFound
from pvc_core.model.storage import PoolUsage, VolumeState
from pvc_core.ops.cluster import ClusterSettings, cluster_settings
from pvc_core.ops.pool_space import NoSpace, space_warning
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeClone,
    VolumeQuery,
    VolumeResize,
    volume_add,
    volume_clone,
    volume_info,
    volume_remove,
    volume_resize,
)
from pvc_core.ops.volume_image import VolumeImport, volume_import

GIB = 1 << 30


def usage(total, used):
    return PoolUsage(total_bytes=total * GIB, used_bytes=used * GIB, free_bytes=(total - used) * GIB)


@pytest.fixture
def ssd(small):
    """Pool ``ssd`` of 100 GiB, with volume ``web`` of 10 GiB, 4 of them written, and 6 GiB of other files."""
    pool = small.pool()
    web = small.volume()
    small.report_volume(web, used_bytes=4 * GIB)
    small.report_pool(pool, usage=usage(100, 10), volumes_bytes=4 * GIB)
    return small


def add(small, name, size, **more):
    return volume_add(small.ops, VolumeAdd(pool="ssd", name=name, size=size, **more))


def clone(small, **more):
    return volume_clone(small.ops, VolumeClone(pool="ssd", source="web", name="copy", **more))


def image(small, **more):
    return volume_import(small.ops, VolumeImport(pool="ssd", name="img", path="/srv/a.img", **more))


def refused(small, do, message):
    before = small.dump()
    with pytest.raises(NoSpace, match=message):
        do()
    assert small.dump() == before


def test_a_volume_is_refused_when_the_pool_would_be_promised_beyond_its_limit(ssd):
    refused(ssd, lambda: add(ssd, "a", "65G"), r"become 81 % full, more than 80 %.*19 GiB would be left; .* --force")
    add(ssd, "a", "64G")
    refused(ssd, lambda: add(ssd, "b", 1), "become 81 % full, more than 80 %")


def test_force_promises_more_than_there_is_but_not_to_one_volume(ssd):
    add(ssd, "a", "64G")
    add(ssd, "b", "90G", force=True)
    refused(
        ssd,
        lambda: add(ssd, "c", "91G", force=True),
        "does not fit into pool ssd: 91 GiB are needed and 90 GiB of its 100 GiB are free",
    )


def test_additions_between_two_figures_count_each_other(ssd):
    for name in ("a", "b"):
        add(ssd, name, "30G")
    refused(ssd, lambda: add(ssd, "c", "30G"), "66 GiB more are promised")


def test_an_addition_of_the_last_moment_is_counted(ssd):
    other = ssd.connect()
    ssd.before_commit("/spec/volume/", lambda: volume_add(other, VolumeAdd(pool="ssd", name="first", size="40G")))
    with pytest.raises(NoSpace, match="46 GiB more are promised"):
        add(ssd, "second", "40G")
    assert len(ssd.ids("volume")) == 2


def test_a_growth_of_the_last_moment_is_counted(ssd):
    ssd.volume("db", size="1G")
    other = ssd.connect()
    ssd.before_commit("/spec/volume/", lambda: volume_resize(other, VolumeResize(volume="ssd/db", size="50G")))
    with pytest.raises(NoSpace, match="more than 80 %"):
        volume_resize(ssd.ops, VolumeResize(volume="ssd/web", size="40G"))
    assert volume_info(ssd.ops, VolumeQuery(volume="ssd/web")).size_bytes == 10 * GIB


def test_a_growth_is_refused_by_what_it_adds(ssd):
    def grow(size, **more):
        return volume_resize(ssd.ops, VolumeResize(volume="ssd/web", size=size, **more))

    refused(ssd, lambda: grow("75G"), "volume ssd/web of 75 GiB instead of 10 GiB would let pool ssd become 81 % full")
    grow("74G")
    assert grow("74G").generation == 2
    grow("100G", force=True)
    refused(ssd, lambda: grow("191G", force=True), "91 GiB are needed and 90 GiB of its 100 GiB are free")


def test_a_full_copy_needs_what_its_source_has_and_promises_all_of_it(ssd):
    add(ssd, "a", "60G")
    refused(ssd, lambda: clone(ssd, full_copy=True), "volume ssd/copy of 10 GiB would let pool ssd become 86 % full")
    ssd.report_pool(ssd.ids("pool")[0], usage=usage(100, 97), volumes_bytes=4 * GIB)
    refused(ssd, lambda: clone(ssd, full_copy=True, force=True), "4 GiB are needed and 3 GiB of its 100 GiB are free")


def test_a_full_copy_of_a_volume_that_shares_its_blocks_needs_its_whole_size(ssd):
    clone(ssd)
    ssd.report_volume(ssd.ids("volume")[1], used_bytes=0)
    ssd.report_pool(ssd.ids("pool")[0], usage=usage(100, 95), volumes_bytes=4 * GIB)
    request = VolumeClone(pool="ssd", source="copy", name="deep", full_copy=True, force=True)
    refused(ssd, lambda: volume_clone(ssd.ops, request), "10 GiB are needed and 5 GiB of its 100 GiB are free")


def test_full_copies_that_are_being_made_take_their_room_already(ssd):
    ssd.report_pool(ssd.ids("pool")[0], usage=usage(100, 87), volumes_bytes=4 * GIB)
    clone(ssd, full_copy=True, force=True)
    refused(ssd, lambda: add(ssd, "a", "4G", force=True), "4 GiB are needed and 3 GiB of its 100 GiB are free")


def test_a_clone_needs_nothing_now_but_its_whole_size_is_promised(ssd):
    add(ssd, "a", "60G")
    refused(ssd, lambda: clone(ssd), "86 % full")
    ssd.report_pool(ssd.ids("pool")[0], usage=usage(100, 99), volumes_bytes=4 * GIB)
    assert clone(ssd, force=True).size_bytes == 10 * GIB


def test_an_import_is_refused_by_a_pool_that_is_at_its_limit(ssd):
    add(ssd, "a", "64G")
    refused(ssd, lambda: image(ssd), "volume ssd/img would let pool ssd become 81 % full")
    assert image(ssd, force=True).arguments["force"] is True
    ssd.report_pool(ssd.ids("pool")[0], usage=usage(100, 100), volumes_bytes=4 * GIB)
    request = VolumeImport(pool="ssd", name="other", path="/srv/a.img", force=True)
    refused(
        ssd,
        lambda: volume_import(ssd.ops, request),
        "volume ssd/other does not fit into pool ssd: nothing of its 100 GiB is free",
    )


def test_a_removed_volume_gives_its_promise_back(ssd):
    volume = add(ssd, "a", "64G").id
    ssd.report_volume(volume)
    volume_remove(ssd.ops, VolumeQuery(volume="ssd/a"))
    add(ssd, "b", "64G")


def test_a_volume_that_failed_to_be_made_is_promised_nothing(ssd):
    volume = add(ssd, "a", "64G").id
    ssd.report_volume(volume, state=VolumeState.FAILED, size_bytes=0)
    add(ssd, "b", "64G")


def test_a_pool_without_figures_takes_everything(small):
    small.pool()
    add(small, "a", "900T")
    assert space_warning(small.ops, "ssd") == ""


def test_the_limit_is_a_setting_of_the_cluster(ssd):
    cluster_settings(ssd.ops, ClusterSettings(pool_full_percent=50))
    refused(ssd, lambda: add(ssd, "a", "35G"), "become 51 % full, more than 50 %")
    cluster_settings(ssd.ops, ClusterSettings(pool_full_percent=100))
    add(ssd, "a", "84G")
    refused(ssd, lambda: add(ssd, "b", 1), "more than 100 %")


def test_the_warning_after_force_is_about_the_pool_as_it_is_now(ssd):
    add(ssd, "a", "60G", force=True)
    assert space_warning(ssd.ops, "ssd") == ""
    add(ssd, "b", "60G", force=True)
    assert "pool ssd becomes 136 % full once its volumes are" in space_warning(ssd.ops, "ssd")
    with pytest.raises(NotFound, match="no storage pool named 'sdd'"):
        space_warning(ssd.ops, "sdd")
