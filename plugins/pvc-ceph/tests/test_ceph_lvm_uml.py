"""Layout ``lvm`` with real LVM, ``ceph-volume`` and OSDs, in a kernel that has device-mapper: a user-mode Linux.

All of it is one program in one boot (``lvm_program.py``); the tests look at what it reports.  What a boot of the node does is
not tested there: nothing runs systemd, so the units of ``ceph-volume`` are only enabled.
"""

import json
import sys
from pathlib import Path

import pytest

from pvc_sandbox.uml import run_in_uml

PROGRAM = Path(__file__).with_name("lvm_program.py")
GIB = 1 << 30
BOUND_S = 900.0

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(BOUND_S + 60)]


@pytest.fixture(scope="module")
def report():
    """What each step of the program came to."""
    done = run_in_uml(
        [sys.executable, "-P", str(PROGRAM)],
        deadline_s=BOUND_S,
        modules=["dm-mod"],
        disks_mib=[4096, 4096, 2048],  # ubdb, ubdc, ubdd
        unpacked=["udev"],
        memory_mib=3072,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    steps = json.loads(done.stdout)
    assert not [name for name, step in steps.items() if "defect" in step], steps
    return steps


def result(report, name):
    assert "result" in report[name], report[name]
    return report[name]["result"]


def rows(report, name):
    return {row["id"]: row for row in result(report, name)}


def devices(report, name):
    return {row["device"]: row for row in result(report, name)}


def test_empty_disks_are_free(report):
    assert {name: row["free"] for name, row in devices(report, "devices-empty").items()} == {
        "/dev/ubdb": True,
        "/dev/ubdc": True,
        "/dev/ubdd": True,
    }


def test_group_for_metadata_is_made_once(report):
    assert result(report, "create-db-vg")["group"] == "pvc-db-1"
    assert "/dev/ubdd has data on it: LVM2_member" in report["create-db-vg-again"]["error"]


def test_metadata_that_has_no_room_is_refused(report):
    assert "volume group pvc-db-1 has 2.0 GiB free" in report["add-too-much-db"]["error"]


def test_two_osds_on_a_disk_with_metadata_volumes(report):
    assert result(report, "add-two")["osds"] == "0,1"
    found = rows(report, "list")
    assert set(found) == {0, 1}
    for row in found.values():
        assert (row["up"], row["inside"], row["device_class"], row["weight"]) == (True, True, "ssd", 0.5)
        assert (row["device"], row["db"], row["node"]) == ("/dev/ubdb", "/dev/ubdd", "uml")
    volumes = [volume for osd in result(report, "found").values() for volume in osd]
    assert sorted((volume["type"], volume["vg_name"][:7]) for volume in volumes) == [
        ("block", "pvc-osd"),
        ("block", "pvc-osd"),
        ("db", "pvc-db-"),
        ("db", "pvc-db-"),
    ]
    sizes = [int(volume["lv_size"]) for volume in volumes if volume["type"] == "block"]
    assert max(sizes) - min(sizes) <= 4 << 20
    assert {int(volume["lv_size"]) for volume in volumes if volume["type"] == "db"} == {256 << 20}


def test_disk_with_osds_is_refused(report):
    assert "/dev/ubdb holds OSD 0, holds OSD 1" in report["add-again"]["error"]
    assert devices(report, "devices")["/dev/ubdb"]["osds"] == [0, 1]
    assert not devices(report, "devices")["/dev/ubdd"]["free"]


def test_osds_are_found_again_after_an_installation(report):
    assert result(report, "forget") == [False, False]
    assert result(report, "refresh") == {"osds": "0,1", "refused": ""}
    assert all(row["up"] for row in rows(report, "list-refreshed").values())
    enabled = [name for name in result(report, "enabled") if name.startswith("ceph-volume@lvm-")]
    assert {name.split("-")[2] for name in enabled} == {"0", "1"}


def test_osd_gets_another_disk_and_new_metadata_under_its_id(report):
    assert result(report, "replace")["osds"] == "0"
    before, after = rows(report, "list-refreshed"), rows(report, "list-replaced")
    assert after[0]["fsid"] != before[0]["fsid"]
    assert (after[0]["device"], after[0]["up"], after[0]["inside"]) == ("/dev/ubdc", True, True)
    assert after[1]["fsid"] == before[1]["fsid"]


def test_removed_osd_leaves_an_empty_disk_and_no_volume(report):
    assert result(report, "remove")["wiped"] == "/dev/ubdb"
    assert set(rows(report, "list-removed")) == {0}
    assert devices(report, "devices-removed")["/dev/ubdb"]["free"]
    assert result(report, "add-whole")["osds"] == "1"
    assert result(report, "remove-forced")["wiped"] == "/dev/ubdb"
    assert sorted(volume["lv_name"][:7] for volume in result(report, "volumes")) == ["osd-blo", "osd-db-"]
    assert [group["vg_name"][:7] for group in result(report, "groups")] == ["pvc-db-", "pvc-osd"]


@pytest.mark.parametrize(("word", "left"), [("lvcreate", 2), ("prepare", 4), ("activate", 4)])
def test_what_a_dead_daemon_has_left_of_an_addition_is_cleared(report, word, left):
    assert result(report, f"dies-before-{word}") == {"died": word, "left": left}
    assert result(report, f"cleared-after-{word}") == {"osds": "0", "refused": ""}
    assert devices(report, f"devices-after-{word}")["/dev/ubdb"]["free"]
    assert set(rows(report, f"list-after-{word}")) == {0}
