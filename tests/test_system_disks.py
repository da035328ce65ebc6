"""Disks that come and go while real guests run: one that lets go of them, and one that does not."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

MARK = b"written-while-it-ran"


def holders(cluster, name):
    """Return the nodes that hold a volume open, as the driver's own record in the pool says."""
    newest = max(
        (cluster.sandbox.shared / "systemtest/volumes" / name).glob("state.*"), key=lambda path: int(path.suffix[1:])
    )
    record = json.loads(newest.read_text().partition("\n")[2])
    return [holder["node"] for holder in record.get("holders", ())]


def volume(cluster, guests, name):
    path = guests.with_volume(name)
    cluster.pvc("storage", "volume", "add", path, "4M")
    return path


def targets(cluster, node, id_):
    lines = cluster.sandbox.exec(node, ["virsh", "-q", "domblklist", id_]).check().stdout.splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def conditions(cluster, vm):
    return {condition["type"]: condition["reason"] for condition in cluster.info(vm)["conditions"]}


def test_a_disk_comes_and_goes_while_linux_runs_and_moves(cluster, guests):
    name = guests.linux(node="hv1", migration="live")
    id_ = cluster.id(name)
    data, more = (volume(cluster, guests, f"{name}-{word}") for word in ("data", "more"))
    cluster.eventually("Linux boots", lambda: cluster.ticks(id_), within_s=90)

    added = cluster.pvc.json("vm", "disk", "add", name, data, "--write-iops", "500")
    assert not added["restart_needed"]
    cluster.pvc("vm", "disk", "add", name, more, "--bus", "scsi")
    assert targets(cluster, "hv1", id_) == ["vda", "vdb", "sda"]
    with cluster.shell("hv1", id_) as type_:
        # Linux finds them some time after QEMU has them.
        type_("until [ -b /dev/vdb ] && [ -b /dev/sda ]; do sleep 1; done; echo FOUND-$((1 + 1))", "FOUND-2")
        type_("echo SIZE-$(cat /sys/block/vdb/size)-$(cat /sys/block/sda/size)", "SIZE-8192-8192")
        type_(f"printf {MARK.decode()} | dd of=/dev/vdb conv=notrunc,fsync && echo WROTE-$?", "WROTE-0")
    tune = cluster.sandbox.exec("hv1", ["virsh", "blkdeviotune", id_, "vdb"]).check().stdout
    assert "write_iops_sec : 500" in tune
    cluster.pvc("vm", "disk", "modify", name, data, "--write-iops", "0", "--bandwidth", "10M")
    tune = cluster.sandbox.exec("hv1", ["virsh", "blkdeviotune", id_, "vdb"]).check().stdout
    assert "write_iops_sec : 0" in tune
    assert f"total_bytes_sec: {10 << 20}" in tune

    cluster.pvc("vm", "move", name, "--node", "hv2")
    assert cluster.place(name) == ("running", "hv2")
    assert cluster.info(name)["last_migration"]["method"] == "live"
    assert targets(cluster, "hv2", id_) == ["vda", "vdb", "sda"]
    assert conditions(cluster, name) == {}
    with cluster.shell("hv2", id_) as type_:
        type_(f"echo READ-$(dd if=/dev/vdb bs={len(MARK)} count=1 2>/dev/null)", f"READ-{MARK.decode()}")

    cluster.pvc("vm", "disk", "remove", name, data)
    assert targets(cluster, "hv2", id_) == ["vda", "sda"]
    assert holders(cluster, f"{name}-data") == []
    assert cluster.pvc.json("storage", "volume", "info", data)["vm"] is None
    # Its place is free, the others keep theirs, and the guest goes on, also on the way back.
    cluster.pvc("vm", "move", name, "--node", "hv1")
    assert targets(cluster, "hv1", id_) == ["vda", "sda"]
    with cluster.shell("hv1", id_) as type_:
        type_("echo GONE-$(ls /sys/block | grep -c vdb)-$(cat /sys/block/sda/size)", "GONE-0-8192")
    assert cluster.console(id_).count("GUEST-UP") == 1

    other = guests.boot_sector(node="hv3")
    cluster.pvc("vm", "disk", "add", other, data)
    assert targets(cluster, "hv3", cluster.id(other)) == ["vda", "vdb"]
    assert holders(cluster, f"{name}-data") == ["hv3"]
    file = cluster.sandbox.exec("hv3", ["virsh", "-q", "domblklist", cluster.id(other)]).check().stdout.split()[-1]
    with Path(file).open("rb") as image:
        assert image.read(len(MARK)) == MARK
    # Both disks at once, the SCSI one too, by a guest that lets go.
    cluster.pvc("vm", "disk", "remove", name, more)
    assert targets(cluster, "hv1", id_) == ["vda"]


def test_a_guest_that_does_not_let_go_keeps_the_volume_from_everybody(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    data = volume(cluster, guests, f"{name}-data")
    cluster.eventually("it boots", lambda: "GUEST-UP" in cluster.console(id_))
    cluster.pvc("vm", "disk", "add", name, data)
    waited = cluster.pvc.run("vm", "disk", "remove", name, data)
    assert waited.returncode == 1
    assert f"the guest does not let go of {data}" in waited.stderr.splitlines()[-1]
    assert conditions(cluster, name) == {"Disks": "GuestKeepsDisk"}
    assert targets(cluster, "hv1", id_) == ["vda", "vdb"]
    assert holders(cluster, f"{name}-data") == ["hv1"]
    assert "has not let go" in cluster.refused("storage", "volume", "remove", data, "--yes")[1]
    thief = guests.definition(guests.name(), disks=[{"pool": "systemtest", "volume": f"{name}-data"}])
    assert name in cluster.refused("vm", "define", thief)[1]
    # It is moved with the guest, and so is what is asked for.
    cluster.pvc("vm", "move", name, "--node", "hv2")
    cluster.eventually("the new node asks, too", lambda: conditions(cluster, name).get("Disks") == "GuestKeepsDisk")
    assert targets(cluster, "hv2", id_) == ["vda", "vdb"]
    # Taken back, nothing is left of it; asked for again, the guest's end is enough.
    cluster.pvc("vm", "disk", "add", name, data)
    assert conditions(cluster, name) == {}
    cluster.pvc("vm", "disk", "remove", name, data, "--no-wait")
    cluster.pvc("vm", "restart", name)
    cluster.eventually("the volume is free", lambda: holders(cluster, f"{name}-data") == [])
    assert targets(cluster, "hv2", id_) == ["vda"]
    cluster.pvc("storage", "volume", "remove", data, "--yes")
