"""OSDs of a real Ceph in the sandbox: added, listed, put out, replaced, found again, removed; with the node's daemon killed."""

import json
import os
import signal
import subprocess
import threading

import pytest

from pvc_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(300)]

SPARE, DB = "/dev/pvc-disk2", "/dev/pvc-disk3"
MINUTES = 180.0


@pytest.fixture(scope="module")
def sandbox():
    """Three nodes with an OSD and two empty disks each."""
    made = Sandbox(f"pytest-{os.getpid()}-osds")
    try:
        made.up(nodes=3, storage="ceph", disks=3, bmc=False)
        yield made
    finally:
        made.down()


@pytest.fixture
def osd(sandbox):
    """``pvc storage osd``."""

    def run(*words):
        done = sandbox.pvc.run("storage", "osd", *words, deadline_s=MINUTES)
        assert done.returncode == 0, done.stderr
        return done

    run.json = lambda *words: sandbox.pvc.json("storage", "osd", *words)
    run.refused = lambda *words: _refused(sandbox, words)
    run.list = lambda: {row["id"]: row for row in run.json("list")}
    run.devices = lambda node: {row["device"]: row for row in run.json("devices", node)}
    return run


def _refused(sandbox, words):
    done = sandbox.pvc.run("storage", "osd", *words, deadline_s=MINUTES)
    assert done.returncode in (1, 2), done
    return done.stderr


def ceph(sandbox, *words):
    done = sandbox.exec("hv1", ["ceph", "--format", "json", *words]).check()
    return json.loads(done.stdout)


def unit(sandbox, node, verb, name):
    """Return the exit status of the node's own ``systemctl``."""
    command = sandbox.shell_command(node, ["systemctl", verb, name])
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


def settled(sandbox):
    status = ceph(sandbox, "status")
    states = {row["state_name"]: row["count"] for row in status["pgmap"]["pgs_by_state"]}
    return set(states) == {"active+clean"} and status["osdmap"]["num_up_osds"] == status["osdmap"]["num_osds"]


@pytest.fixture(autouse=True)
def clean(sandbox, osd, eventually):
    """Every test leaves the first OSD of each node, and two empty disks."""
    yield
    sandbox.wait_ready()
    for name in osd.json("flag", "list"):
        osd("flag", "unset", name["flag"], *([] if name["osd"] is None else [str(name["osd"])]))
    for id_, row in osd.list().items():
        if id_ > 2:
            osd("remove", str(id_), "--force", "--yes")
        elif not row["inside"]:
            osd("in", str(id_))
    for node in sandbox.nodes():
        for disk in (SPARE, DB):
            sandbox.exec(node, ["wipefs", "--all", disk]).check()
    eventually("Ceph is settled", lambda: settled(sandbox))


def test_spare_disk_of_each_node_becomes_an_osd(sandbox, osd, eventually):
    assert {name: row["free"] for name, row in osd.devices("hv1").items() if name.startswith("/dev/pvc")} == {
        "/dev/pvc-disk1": False,
        SPARE: True,
        DB: True,
    }
    assert osd.devices("hv1")["/dev/pvc-disk1"]["found"] == ["holds OSD 0"]
    warnings = [osd("add", node, SPARE, "--yes").stderr for node in sandbox.nodes()]
    assert "the 4 GiB added to hv1 give nothing of usable space instead of 1.3 GiB" in warnings[0]
    assert "usable space" not in warnings[2]
    found = osd.list()
    assert {id_: row["node"] for id_, row in found.items()} == {
        0: "hv1",
        1: "hv2",
        2: "hv3",
        3: "hv1",
        4: "hv2",
        5: "hv3",
    }
    assert all(row["up"] and row["inside"] and row["size_bytes"] == 4 << 30 for row in found.values())
    assert osd.devices("hv2")[SPARE]["osds"] == [4]
    eventually("Ceph is settled", lambda: settled(sandbox))
    # It comes up with the node, whatever its disk is called then.
    sandbox.power_cut("hv3")
    sandbox.power_on("hv3")
    eventually("its OSDs are up", lambda: settled(sandbox), within_s=90)


def test_disk_with_anything_on_it_is_refused(sandbox, osd):
    sandbox.exec("hv2", ["mkfs.ext4", "-q", "-L", "home", SPARE]).check()
    assert "/dev/pvc-disk2 has data on it: ext4 (label home)" in osd.refused("add", "hv2", SPARE, "--yes")
    assert osd.devices("hv2")[SPARE]["found"] == ["has data on it: ext4 (label home)"]
    assert "holds OSD 1" in osd.refused("add", "hv2", "/dev/pvc-disk1", "--yes")
    assert "no device /dev/sdz" in osd.refused("add", "hv2", "/dev/sdz", "--yes")
    assert "need LVM" in osd.refused("add", "hv2", DB, "--count", "2", "--yes")
    assert set(osd.list()) == {0, 1, 2}


def test_weight_class_and_a_disk_for_metadata(sandbox, osd):
    osd("add", "hv1", SPARE, "--weight", "0.002", "--class", "fast", "--db", DB, "--yes")
    row = osd.list()[3]
    assert (row["device_class"], row["weight"]) == ("fast", 0.002)
    assert row["db"], row
    assert osd.devices("hv1")[DB]["found"] == ["holds OSD 3"]
    assert "holds OSD 3" in osd.refused("add", "hv1", DB, "--yes")
    osd("remove", "3", "--yes")
    assert osd.devices("hv1")[DB]["free"]
    assert osd.devices("hv1")[SPARE]["free"]


def test_out_in_and_flags(sandbox, osd):
    osd("add", "hv1", SPARE, "--yes")
    osd("out", "3", "--yes")
    assert (osd.list()[3]["inside"], osd.list()[3]["reweight"]) == (False, 0.0)
    osd("in", "3")
    assert osd.list()[3]["inside"]
    osd("flag", "set", "noout")
    osd("flag", "set", "noin", "3")
    assert osd.json("flag", "list") == [{"flag": "noout", "osd": None}, {"flag": "noin", "osd": 3}]
    osd("flag", "unset", "noout")
    osd("flag", "unset", "noin", "3")
    assert osd.json("flag", "list") == []


def test_osd_is_replaced_and_removed(sandbox, osd, eventually):
    osd("add", "hv2", SPARE, "--yes")
    before = osd.list()[3]
    osd("replace", "3", DB, "--yes")
    after = osd.list()[3]
    assert (after["node"], after["up"], after["inside"]) == ("hv2", True, True)
    assert after["fsid"] != before["fsid"]
    devices = osd.devices("hv2")
    assert devices[SPARE]["free"]
    assert devices[DB]["osds"] == [3]
    eventually("Ceph is settled", lambda: settled(sandbox))
    osd("remove", "3", "--yes")
    assert set(osd.list()) == {0, 1, 2}
    assert osd.devices("hv2")[DB]["free"]
    assert unit(sandbox, "hv2", "is-enabled", "ceph-osd@3") == 1
    assert not [entry for entry in ceph(sandbox, "auth", "ls")["auth_dump"] if entry["entity"] == "osd.3"]


def test_removal_waits_while_a_copy_would_be_lost_and_can_be_cancelled(sandbox, osd, eventually):
    task = osd.json("remove", "0", "--yes", "--no-wait")["task"]["id"]
    eventually("it is out", lambda: not osd.list()[0]["inside"])
    sandbox.pvc("task", "cancel", task)
    eventually("it is cancelled", lambda: sandbox.pvc.json("task", "info", task)["state"] == "cancelled")
    assert osd.list()[0]["inside"]
    assert osd.list()[0]["up"]


def test_osds_are_found_again_after_the_node_was_installed_anew(sandbox, osd, eventually):
    osd("add", "hv3", SPARE, "--db", DB, "--yes")
    for id_ in (2, 3):
        for verb in ("disable", "stop"):
            assert unit(sandbox, "hv3", verb, f"ceph-osd@{id_}") == 0
    sandbox.exec("hv3", ["sh", "-c", "rm -rf /var/lib/ceph/osd/*"]).check()
    eventually("they are down", lambda: {id_ for id_, row in osd.list().items() if not row["up"]} == {2, 3})
    assert "node hv3: OSD 2,3 up" in osd("refresh", "hv3").stdout
    assert all(row["up"] for row in osd.list().values())
    assert unit(sandbox, "hv3", "is-enabled", "ceph-osd@3") == 0
    eventually("Ceph is settled", lambda: settled(sandbox))


def test_osd_of_another_cluster_is_left_alone(sandbox, osd):
    other = "11111111-2222-3333-4444-555555555555"
    script = (
        "mkdir -p /run/other && ln -sf /dev/pvc-disk2 /run/other/block && ceph-osd --no-mon-config --mkfs -i 7 "
        f"--fsid {other} --osd-uuid {other} --osd-data /run/other --key AQDgzQxred6mIRAAbowFSPQXumE9MBFsvY8v/w=="
    )
    sandbox.exec("hv1", ["sh", "-c", script]).check()
    said = osd("refresh", "hv1")
    assert f"/dev/pvc-disk2 holds OSD 7 of another Ceph cluster ({other})" in said.stderr.replace("\n", " ")
    assert f"holds OSD 7 of another Ceph cluster ({other})" in osd.refused("add", "hv1", SPARE, "--yes")
    assert set(osd.list()) == {0, 1, 2}


@pytest.mark.parametrize("pause_s", [0.2, 0.9, 1.6, 2.6])
def test_daemon_that_is_killed_while_it_adds_leaves_nothing_half_made(sandbox, osd, eventually, pause_s):
    task = osd.json("add", "hv1", SPARE, "--yes", "--no-wait")["task"]["id"]
    eventually("it runs", lambda: sandbox.pvc.json("task", "info", task)["state"] != "queued")
    # Not to let something settle: the moment of the kill is what the cases differ in.
    threading.Event().wait(pause_s)
    sandbox.host("hv1").signal_service("pvcnoded", signal.SIGKILL)
    eventually("the task has ended", lambda: sandbox.pvc.json("task", "info", task)["finished"] > 0)
    eventually("its node answers", lambda: sandbox.pvc.run("storage", "osd", "devices", "hv1").returncode == 0)
    osd("refresh", "hv1")
    found = osd.list()
    assert all(row["up"] and row["state"] == "" for row in found.values())
    device = osd.devices("hv1")[SPARE]
    assert (device["osds"], device["free"]) == (([3], False) if 3 in found else ([], True))


@pytest.mark.parametrize("pause_s", [1.0, 4.0])
def test_replacement_whose_daemon_is_killed_goes_on_when_it_is_repeated(sandbox, osd, eventually, pause_s):
    osd("add", "hv2", SPARE, "--yes")
    before = osd.list()[3]["fsid"]
    task = osd.json("replace", "3", DB, "--yes", "--no-wait")["task"]["id"]
    eventually("it runs", lambda: sandbox.pvc.json("task", "info", task)["state"] != "queued")
    threading.Event().wait(pause_s)
    sandbox.host("hv2").signal_service("pvcnoded", signal.SIGKILL)
    eventually("the task has ended", lambda: sandbox.pvc.json("task", "info", task)["finished"] > 0)
    sandbox.wait_ready()
    osd("refresh", "hv2")  # what was half made is taken back, what was up is kept
    if osd.list()[3]["fsid"] in ("", before):
        osd("replace", "3", DB, "--yes")
    after = osd.list()
    assert set(after) == {0, 1, 2, 3}
    assert (after[3]["up"], after[3]["inside"]) == (True, True)
    assert after[3]["fsid"] != before
    devices = osd.devices("hv2")
    assert (devices[SPARE]["free"], devices[DB]["osds"]) == (True, [3])
