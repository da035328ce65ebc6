"""Real guests on Ceph: their disks, live migration, and what follows the loss of a node."""

import filecmp
import json
import os
import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(240)]

MIB = 1 << 20
NODES = ("hv1", "hv2", "hv3")


def beats(cluster, id_):
    return [tick.number for tick in cluster.ticks(id_)]


def test_guest_on_ceph_counts_on_its_disk_and_moves_live(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    xml = ceph_cluster.sandbox.exec("hv1", ["virsh", "dumpxml", id_]).check().stdout
    assert "protocol='rbd'" in xml
    assert "discard='unmap'" in xml
    ceph_cluster.pvc("vm", "move", name, "--node", "hv2")
    assert ceph_cluster.place(name) == ("running", "hv2")
    before = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it goes on counting", lambda: len(beats(ceph_cluster, id_)) >= before + 3)
    seen = beats(ceph_cluster, id_)
    assert len(set(seen)) == len(seen)  # it was not started anew
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


def test_volume_grows_and_is_kept_and_another_is_plugged_in_under_a_running_guest(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1")
    id_, path = ceph_cluster.id(name), f"systemtest/{name}"
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 2)
    ceph_cluster.pvc("storage", "volume", "resize", path, "8M")
    told = ceph_cluster.sandbox.exec("hv1", ["virsh", "domblkinfo", id_, "vda"]).check().stdout
    assert f"Capacity:       {8 * MIB}" in told
    ceph_cluster.pvc("storage", "snapshot", "create", path, "s1")
    copy, more = ceph_guests.name(), ceph_guests.with_volume(ceph_guests.name())
    ceph_cluster.pvc("storage", "volume", "clone", path, copy, "--snapshot", "s1")
    ceph_guests.with_volume(copy)
    ceph_cluster.pvc("storage", "volume", "add", more, "4M")
    ceph_cluster.pvc("vm", "disk", "add", name, more, "--bus", "scsi")
    xml = ceph_cluster.sandbox.exec("hv1", ["virsh", "dumpxml", id_]).check().stdout
    assert "model='virtio-scsi'" in xml
    assert xml.count("discard='unmap'") == 2
    ceph_cluster.pvc("vm", "move", name, "--node", "hv2")
    ceph_cluster.pvc("vm", "disk", "remove", name, more)
    xml = ceph_cluster.sandbox.exec("hv2", ["virsh", "dumpxml", id_]).check().stdout
    assert xml.count("discard='unmap'") == 1
    last = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it goes on counting", lambda: len(beats(ceph_cluster, id_)) >= last + 2)
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk", "vdi", "vpc"])
def test_image_of_any_format_is_uploaded(ceph_cluster, ceph_guests, tmp_path, format_):
    raw, image, back = tmp_path / "raw", tmp_path / f"disk.{format_}", tmp_path / "back"
    with raw.open("wb") as file:
        for place in (0, 20, 63):
            file.seek(place * MIB)
            file.write(os.urandom(MIB))
    options = ["-o", "force_size=on"] if format_ == "vpc" else []
    subprocess.run(["qemu-img", "convert", "-O", format_, *options, raw, image], check=True)
    path = ceph_guests.with_volume(ceph_guests.name())
    ceph_cluster.pvc("storage", "volume", "upload", path, str(image))
    found = ceph_cluster.pvc.json("storage", "volume", "info", path)
    assert (found["state"], found["size_bytes"]) == ("ready", 64 * MIB)
    ceph_cluster.pvc("storage", "volume", "export", path, str(back))
    assert filecmp.cmp(raw, back, shallow=False)
    assert spooled(ceph_cluster) == []


def test_uploaded_image_that_refers_to_a_file_of_the_node_is_refused(ceph_cluster, ceph_guests, tmp_path):
    image = tmp_path / "evil.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", "-u", image, "1M"], check=True
    )
    path = ceph_guests.with_volume(ceph_guests.name())
    done = ceph_cluster.pvc.run("storage", "volume", "upload", path, str(image), deadline_s=60)
    assert (done.returncode, "-evil.qcow2 refers to other files (/etc/shadow)" in done.stderr) == (1, True)
    assert spooled(ceph_cluster) == []
    ceph_cluster.eventually(
        "the volume says so", lambda: ceph_cluster.pvc.json("storage", "volume", "info", path)["state"] == "failed"
    )


def spooled(cluster):
    """Return the files that were sent to nodes and are there still."""
    places = [cluster.sandbox.layout.node_state(number) / "upload" for number in (1, 2, 3)]
    return [path for place in places for path in place.iterdir()]


def test_what_is_set_of_a_disk_holds_in_the_guest(ceph_cluster, ceph_guests):
    """Limits, the cache policy, the size after growing, and what the guest discards."""
    name = ceph_guests.linux(node="hv1")
    id_, data = ceph_cluster.id(name), ceph_guests.with_volume(ceph_guests.name())
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 1, within_s=90)
    ceph_cluster.pvc("storage", "volume", "add", data, "8M")
    ceph_cluster.pvc("vm", "disk", "add", name, data, "--write-iops", "500", "--cache", "writeback")
    tune = ceph_cluster.sandbox.exec("hv1", ["virsh", "blkdeviotune", id_, "vdb"]).check().stdout
    assert "write_iops_sec : 500" in tune
    xml = ceph_cluster.sandbox.exec("hv1", ["virsh", "dumpxml", id_]).check().stdout
    assert "cache='writeback'" in xml

    def used():
        info = ceph_cluster.sandbox.exec("hv1", ["rbd", "du", "--format", "json", data]).check()
        return json.loads(info.stdout)["images"][0]["used_size"]

    with ceph_cluster.shell("hv1", id_) as type_:
        size = "/sys/block/vdb/size"  # Linux finds the disk some time after QEMU has it
        type_(f"until [ -e {size} ]; do sleep 1; done; echo SIZE-$(cat {size})", f"SIZE-{8 * MIB // 512}")
        type_("dd if=/dev/zero of=/dev/vdb bs=1M count=8 conv=fsync && echo WROTE-$?", "WROTE-0")
        assert used() == 8 * MIB
        type_("blkdiscard /dev/vdb && sync && echo TRIMMED-$?", "TRIMMED-0")
        ceph_cluster.eventually("its space is free again", lambda: used() == 0)
        ceph_cluster.pvc("storage", "volume", "resize", data, "12M")
        # Linux takes the new size over some time after QEMU has it.
        type_(f"until grep -qx {12 * MIB // 512} {size}; do sleep 1; done; echo GROWN-$((1 + 1))", "GROWN-2")


def test_what_has_no_room_is_refused_with_the_figures(ceph_cluster, ceph_guests):
    """There are 12 GiB of disks, of which three copies leave less than 4."""
    refused = ceph_cluster.pvc.run("storage", "volume", "add", "systemtest/large", "3500M")
    assert refused.returncode == 1
    assert "more than 80 %" in refused.stderr
    assert "use --force" in refused.stderr
    assert "large" not in {row["name"] for row in ceph_cluster.pvc.json("storage", "volume", "list")}
    path = ceph_guests.with_volume(ceph_guests.name())
    ceph_cluster.pvc("storage", "volume", "add", path, "3500M", "--force")


def test_ceph_is_shown_as_an_operator_looks_at_it(ceph_cluster):
    ceph_cluster.eventually(
        "all managers have registered", lambda: len(ceph_cluster.pvc.json("storage", "status")["managers"]) == 3
    )
    status = ceph_cluster.pvc.json("storage", "status")
    assert (status["osds"]["total"], status["osds"]["up"]) == (3, 3)
    assert {each["host"] for each in status["monitors"]} == {each["host"] for each in status["managers"]} == {*NODES}
    assert sorted(each["state"] for each in status["managers"]) == ["active", "standby", "standby"]
    use = ceph_cluster.pvc.json("storage", "util")
    assert [(each["name"], each["osds"], each["up"]) for each in use["hosts"]] == [(node, 1, 1) for node in NODES]
    (pool,) = [each for each in use["pools"] if each["name"] == "systemtest"]
    # Three copies on three hosts: what fits is what the smallest host has left.
    assert 0 < pool["free_bytes"] < min(each["total_bytes"] - each["used_bytes"] for each in use["hosts"])
    shown = ceph_cluster.pvc("storage", "status") + ceph_cluster.pvc("storage", "util")
    assert all(word in shown for word in ("monitor", "manager", "hv2", "systemtest"))
    # Single clients that died may be; no node is.
    assert [each for each in ceph_cluster.pvc.json("storage", "blocked") if each["lease"]] == []
    for node in NODES:
        right = {each["type"] for each in ceph_cluster.node_info(node)["conditions"] if each["ok"]}
        assert {"Ceph", "CephMonitor", "CephManager", "CephOsds"} <= right


def test_guest_of_a_node_without_power_goes_on_elsewhere_at_once(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv3")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    ceph_cluster.sandbox.power_cut("hv3")
    ceph_cluster.eventually(
        "it runs elsewhere",
        lambda: ceph_cluster.place(name)[1] in ("hv1", "hv2") and ceph_cluster.place(name)[0] == "running",
        120,
    )
    last = max(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it counts on from where it was", lambda: max(beats(ceph_cluster, id_)) > last)
    assert "DISK-ERROR" not in ceph_cluster.console(id_)
    ceph_cluster.sandbox.power_on("hv3")
    ceph_cluster.sandbox.wait_ready(["hv3"])
    ceph_cluster.eventually(
        "it may be put into service", lambda: not ceph_cluster.pvc.run("node", "ready", "hv3").returncode
    )


def test_node_lives_on_while_ceph_answers_nothing(ceph_cluster, ceph_guests):
    """All OSDs and monitors hang: no node loses its lease, guests stay, and everything goes on afterwards."""
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    leases = {node: ceph_cluster.lease(node) for node in ceph_cluster.sandbox.nodes()}
    hosts = [ceph_cluster.sandbox.host(node) for node in ceph_cluster.sandbox.nodes()]
    daemons = [
        (host, service)
        for host in hosts
        for service in host.services()
        if service.startswith(("ceph-osd@", "ceph-mon@"))
    ]
    for host, service in daemons:
        host.signal_service(service, signal.SIGSTOP)
    try:
        ceph_cluster.eventually(
            "every node says so",
            lambda: all(
                any(c["type"] == "Ceph" and not c["ok"] for c in ceph_cluster.node_info(node)["conditions"])
                for node in leases
            ),
            90,
        )
        new = ceph_guests.with_volume(ceph_guests.name())
        added = ceph_cluster.pvc.run("storage", "volume", "add", new, "1M", "--timeout", "45")
        assert added.returncode == 1
        assert "monitor" in added.stderr
        assert {node: ceph_cluster.lease(node) for node in leases} == leases
        assert ceph_cluster.place(name) == ("running", "hv1")
        assert ceph_cluster.pvc.json("cluster", "status")["primary"]
    finally:
        for host, service in daemons:
            host.signal_service(service, signal.SIGCONT)
    last = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("the guest goes on", lambda: len(beats(ceph_cluster, id_)) > last)
    ceph_cluster.eventually("the volume is there", lambda: volume(ceph_cluster, new)["state"] == "ready", 120)
    assert {node: ceph_cluster.lease(node) for node in leases} == leases
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


def volume(cluster, path):
    return cluster.pvc.json("storage", "volume", "info", path)


def test_guest_whose_emulator_was_killed_writes_again_at_once(ceph_cluster, ceph_guests):
    """Ceph believes for half a minute that the dead emulator lives, unless it is told."""
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    ceph_cluster.kill_emulator("hv1", id_)
    ceph_cluster.eventually("it boots again", lambda: ceph_cluster.console(id_).count("GUEST-UP") == 2)
    booted = time.monotonic()
    last = max(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it writes", lambda: max(beats(ceph_cluster, id_)) > last + 1)
    assert time.monotonic() - booted < 20


def test_locks_of_a_program_outside_are_flushed(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1", start=False)
    path = f"systemtest/{name}"
    argv = ["stdbuf", "-oL", "qemu-io", "-f", "raw", f"rbd:{path}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(ceph_cluster.sandbox.host("hv3").command(argv), **pipes) as stranger:
        stranger.stdin.write("write 0 512\n")
        stranger.stdin.flush()
        ceph_cluster.eventually("it has written", lambda: "wrote 512" in stranger.stdout.readline())
        assert "1 lock broken" in ceph_cluster.pvc("vm", "flush-locks", name, "--yes")
        assert "0 locks broken" in ceph_cluster.pvc("vm", "flush-locks", name, "--yes")
        said, _ = stranger.communicate("write 0 512\nquit\n")
        assert "write failed" in said
    ceph_cluster.pvc("vm", "start", name)
    assert "holds the claim" in ceph_cluster.refused("vm", "flush-locks", name, "--yes")[1]
