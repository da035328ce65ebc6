"""A cluster on paper: space, losses, resources, warnings."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_ceph.sizing import usable_bytes
from pvc_ceph.sizing_plan import GIB, Layout, PlannedNode, hosts_of, osds_per_device, plan
from pvc_ceph.sizing_warnings import warnings

TIB = 1 << 40


def cluster(*disks, **more):
    """Return a layout; each argument is the disks of a node in TiB."""
    keys = ("db_devices", "memory_bytes", "cores")
    own = {key: more.pop(key) for key in keys if key in more}
    nodes = tuple(
        PlannedNode(name=f"hv{index}", disks=tuple(int(size * TIB) for size in sizes), **own)
        for index, sizes in enumerate(disks, 1)
    )
    return Layout(nodes=nodes, **more)


def said(layout):
    return "\n".join(warnings(layout, plan(layout)))


FOUR = (4, 4, 4, 4)


# --- space and losses -------------------------------------------------------------------------------


def test_three_equal_nodes():
    found = plan(cluster(FOUR, FOUR, FOUR))
    assert (found.osds, found.raw_bytes, found.usable_bytes) == (12, 48 * TIB, 16 * TIB)
    assert found.planned_bytes == 16 * TIB * 8 // 10
    assert [round(node.full_percent) for node in found.nodes] == [80, 80, 80]
    assert (found.host_loss.outcome, found.host_loss.osds) == ("degraded", 4)
    assert found.host_loss.copied_bytes == pytest.approx(found.planned_bytes, abs=1)


def test_with_as_many_hosts_as_copies_the_rest_of_a_host_takes_over_a_lost_disk():
    loss = plan(cluster(FOUR, FOUR, FOUR)).disk_loss
    assert (loss.outcome, round(loss.full_percent)) == ("too full", 107)
    assert loss.copied_bytes == pytest.approx(3.2 * TIB, abs=1)
    assert loss.heals_up_to_bytes == 12 * TIB * 8 // 10
    assert plan(cluster(FOUR, FOUR, FOUR)).recommended_bytes == loss.heals_up_to_bytes


def test_many_small_disks_take_over_a_lost_one():
    loss = plan(cluster(*[(1,) * 12] * 3)).disk_loss
    assert (loss.outcome, round(loss.full_percent)) == ("heals", 87)


def test_a_fifth_host_lets_a_lost_one_heal():
    found = plan(cluster(*[FOUR] * 5, full_percent=70))
    assert (found.host_loss.outcome, found.host_loss.full_percent) == ("heals", pytest.approx(87.5))
    assert found.host_loss.heals_up_to_bytes == usable_bytes({str(n): 16 * TIB for n in range(4)}, 3) * 7 // 10
    assert found.recommended_bytes == found.host_loss.heals_up_to_bytes
    assert plan(cluster(*[FOUR] * 5)).host_loss.outcome == "too full"


def test_the_worst_host_is_the_one_that_leaves_the_least_room():
    found = plan(cluster((8, 8), FOUR, FOUR, (4, 4), full_percent=10))
    assert found.host_loss.what == "host hv1"
    assert found.host_loss.heals_up_to_bytes == 8 * TIB // 10


@pytest.mark.parametrize(
    ("copies", "mincopies", "hosts", "outcome"),
    [(3, 2, 3, "degraded"), (3, 3, 3, "stops"), (2, 1, 2, "degraded"), (2, 2, 2, "stops"), (3, 2, 2, "stops")],
)
def test_what_is_left_after_a_lost_host_decides_whether_guests_go_on(copies, mincopies, hosts, outcome):
    found = plan(cluster(*[FOUR] * hosts, copies=copies, mincopies=mincopies))
    assert found.host_loss.outcome == outcome
    assert (found.host_loss.full_percent, found.host_loss.heals_up_to_bytes) == (0, 0)


def test_a_single_copy_is_lost_with_its_disk():
    found = plan(cluster(FOUR, FOUR, FOUR, copies=1, mincopies=1))
    assert (found.host_loss.outcome, found.disk_loss.outcome) == ("lost", "lost")
    assert plan(cluster(FOUR)).disk_loss.outcome == "lost"


def test_with_fewer_hosts_than_copies_the_copies_that_can_be_are_counted():
    found = plan(cluster(FOUR, FOUR))
    assert (found.usable_bytes, found.ideal_bytes) == (16 * TIB, 16 * TIB)


def test_a_node_without_disks_only_runs_guests():
    found = plan(cluster(FOUR, FOUR, FOUR, (), memory_bytes=64 * GIB, monitors=3))
    assert found.usable_bytes == 16 * TIB
    last = found.nodes[3]
    assert (last.osds, last.ceph_memory_bytes, last.full_percent) == (0, 0, 0)
    assert last.vm_memory_bytes == 60 * GIB


@given(st.lists(st.lists(st.integers(1, 8), max_size=3), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 95))
def test_what_is_recommended_is_no_fuller_than_planned_after_any_loss_that_heals(disks, copies, percent):
    if not any(disks):
        return
    layout = cluster(*disks, copies=copies, mincopies=copies - copies // 2, full_percent=percent)
    found, hosts = plan(layout), hosts_of(layout.nodes)
    copies = min(copies, len(hosts))
    assert 0 <= found.recommended_bytes <= found.planned_bytes <= found.usable_bytes <= found.ideal_bytes
    assert max(node.full_percent for node in found.nodes) <= percent + 1e-6
    if copies == 1:
        return
    for node in layout.nodes:
        for gone in (node.disks, *[(disk,) for disk in node.disks]):
            left = {**hosts, node.name: node.disk_bytes - sum(gone)}
            if sum(size > 0 for size in left.values()) >= copies:
                assert found.recommended_bytes <= usable_bytes(left, copies) * percent // 100


# --- what Ceph takes --------------------------------------------------------------------------------


def test_ceph_takes_memory_and_cores_by_osds_and_monitors():
    found = plan(cluster(*[FOUR] * 4, memory_bytes=256 * GIB, cores=32))
    first, last = found.nodes[0], found.nodes[3]
    assert (first.monitor, last.monitor) == (True, False)
    assert last.ceph_memory_bytes == 4 * 4 * GIB * 12 // 10
    assert first.ceph_memory_bytes == last.ceph_memory_bytes + 7 * GIB
    assert (first.ceph_cores, last.ceph_cores) == (10, 8)
    assert first.vm_memory_bytes == 256 * GIB - first.ceph_memory_bytes - 4 * GIB
    assert (first.vm_cores, last.vm_cores) == (21, 23)
    assert found.vm_memory_bytes == 3 * first.vm_memory_bytes
    assert found.vm_cores == 3 * 21


@pytest.mark.parametrize(("media", "cores"), [("hdd", 4), ("ssd", 8), ("nvme", 20)])
def test_faster_disks_take_more_cores(media, cores):
    assert plan(cluster(FOUR, media=media, monitors=0)).nodes[0].ceph_cores == cores


def test_of_nodes_whose_memory_is_not_known_nothing_is_said():
    found = plan(cluster(FOUR, FOUR, FOUR))
    assert (found.vm_memory_bytes, found.vm_cores, found.nodes[0].vm_memory_bytes) == (None, None, None)


def test_db_devices_are_shared_by_the_osds():
    found = plan(cluster(*[(10,) * 5] * 4, db_devices=(TIB, TIB)))
    node = found.nodes[0]
    assert (node.osds_per_db, node.db_bytes) == (3, TIB // 3)
    assert node.db_percent == pytest.approx(100 / 30)
    assert (found.db_loss.osds, found.db_loss.what) == (3, "a DB device in hv1")


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(0, 4))
def test_every_osd_has_one_db_device_and_they_serve_as_many_each(disks, devices):
    served = osds_per_device(PlannedNode(name="a", disks=tuple(disks), db_devices=(TIB,) * devices))
    assert len(served) == devices
    if devices:
        assert sorted(disk for osds in served for disk in osds) == sorted(disks)
        assert max(map(len, served)) - min(map(len, served)) <= 1


# --- warnings ---------------------------------------------------------------------------------------


def test_a_sound_cluster_has_no_warnings():
    assert said(cluster(*[(1,) * 12] * 6, full_percent=70, memory_bytes=256 * GIB, cores=64)) == ""


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (cluster(FOUR, FOUR, FOUR, copies=1, mincopies=1), "1 copy: every lost disk loses data for good"),
        (cluster(FOUR, FOUR, FOUR, copies=2, mincopies=1), "2 copies: while one is being restored"),
        (
            cluster(FOUR, FOUR, FOUR, copies=3, mincopies=1),
            "1 copy that must be there: writes go on with a single copy",
        ),
        (cluster(FOUR, FOUR, FOUR, copies=3, mincopies=3), "all 3 copies must be there: .*; let 2 be needed"),
        (cluster(FOUR, FOUR), "2 hosts with disks for 3 copies: .* every object stays degraded; add 1 more"),
        (cluster(FOUR), "1 hosts with disks for 3 copies: .* nothing can be written; add 2 more"),
        (cluster(FOUR, FOUR, copies=2, mincopies=1), "2 hosts: the monitors have no majority when one is lost"),
        (cluster(FOUR, FOUR), "a lost host stops all guests, because fewer than 2 copies are left; add a host"),
        (
            cluster((4,) * 8, FOUR, FOUR),
            "uneven hosts, hv2 with 16 TiB to hv1 with 32 TiB: 16 TiB are usable, with the same .* 21.3 TiB; move disks",
        ),
        (cluster(FOUR, FOUR, FOUR, (4,)), r"\(with Ceph's balancer up to 17.3 TiB\)"),
        (
            cluster(FOUR, FOUR, FOUR),
            "a disk in hv1 that is lost at 80 % full is not healed, because its 3.2 TiB .* to 107 %, .* 9.6 TiB, or use more",
        ),
        (cluster(*[FOUR] * 4), "host hv1 that is lost at 80 % full is not healed, .* 107 %, .* or use more hosts"),
        (cluster(*[(4, 8)] * 3), "disks of 4 TiB to 8 TiB: the largest gets 2.0 times the requests"),
        (
            cluster(*[(4,) * 12] * 3, db_devices=(TIB,)),
            "12 OSDs share a DB device in hv1: .* let at most 10 share an NVMe device, 5 a SATA one",
        ),
        (
            cluster(*[FOUR] * 3, db_devices=(100 * GIB,)),
            "25 GiB of DB space for each OSD in hv1 are 0.6 % of it: metadata would go over to the slow disk; give 1 to 2 %",
        ),
        (
            cluster(*[FOUR] * 5, db_devices=(TIB,)),
            "a DB device in hv1 takes all its 4 OSDs with it, as if the host were lost; use 2 or more",
        ),
        (cluster(*[FOUR] * 5, db_devices=(TIB,), media="nvme"), "DB devices beside NVMe disks gain nothing"),
        (cluster(*[FOUR] * 3, osd_memory_bytes=2 * GIB), "2 GiB of memory for each OSD: below 4 GiB metadata is read"),
        (
            cluster(*[FOUR] * 7, memory_bytes=30 * GIB),
            "hv1, hv2, hv3: 30 GiB of memory, and Ceph and the system alone need 30.2 GiB; add memory",
        ),
        (cluster(*[FOUR] * 3, cores=8), "hv1, hv2, hv3: 8 cores, and Ceph and the system alone want 11"),
        (cluster(*[FOUR] * 3, monitors=2), "2 monitors survive the loss of 0: use an odd number, 3 or 5"),
        (cluster(*[FOUR] * 5, monitors=4), "4 monitors survive the loss of 1"),
    ],
)
def test_what_is_unwise_is_said_with_its_numbers(layout, message):
    assert re.search(message, said(layout)), said(layout)


def test_hosts_without_a_db_device_beside_others_with_one_are_named():
    nodes = [PlannedNode(name=f"hv{n}", disks=(TIB,) * 4, db_devices=(TIB,) * (n < 3)) for n in range(1, 4)]
    assert "no DB device in hv3: writes are as slow as there" in said(Layout(nodes=tuple(nodes)))


def test_many_nodes_alike_are_named_once():
    text = said(cluster(*[FOUR] * 9, memory_bytes=16 * GIB, monitors=9))
    assert text.count("of memory, and Ceph") == 1
    assert "hv1, hv2, hv3, hv4, hv5 and 4 more: 16 GiB" in text


def test_every_warning_is_one_sentence():
    layouts = [cluster(FOUR), cluster(FOUR, (4,), db_devices=(GIB,), memory_bytes=GIB, cores=1, copies=2, mincopies=2)]
    for layout in layouts:
        for text in warnings(layout, plan(layout)):
            assert not text.endswith(".")
            assert ". " not in text
