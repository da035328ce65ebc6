"""Volumes of pvc-dir under real guests."""

import filecmp
import json
import os
import signal
import subprocess
import time
import uuid

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

MIB = 1 << 20


def booted(cluster, id_, times):
    cluster.eventually("the guest boots", lambda: cluster.console(id_).count("GUEST-UP") >= times)


def volume(cluster, path):
    return cluster.pvc.json("storage", "volume", "info", path)


def holders(cluster, name):
    """Return the nodes that hold a volume open, as the driver's own record in the pool says."""
    newest = max(
        (cluster.sandbox.shared / "systemtest/volumes" / name).glob("state.*"), key=lambda path: int(path.suffix[1:])
    )
    record = json.loads(newest.read_text().partition("\n")[2])
    return [holder["node"] for holder in record.get("holders", ())]


def test_imported_qcow2_boots_grows_and_is_cloned(cluster, guests):
    from pvc_core.plugin.process import run

    name = guests.name()
    shared = cluster.sandbox.shared
    image = shared / f"{name}.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", str(shared / "heeding.raw"), str(image)], deadline_s=60).check()
    path = guests.with_volume(name)
    cluster.pvc("storage", "volume", "import", path, str(image), "--image-format", "qcow2")
    image.unlink()
    assert volume(cluster, path)["size_bytes"] == MIB
    cluster.pvc("storage", "volume", "resize", path, "8M")
    assert volume(cluster, path)["size_bytes"] == 8 * MIB
    assert "shrink" in cluster.refused("storage", "volume", "resize", path, "2M")[1]
    clone = guests.name()
    guests.with_volume(clone)
    cluster.pvc("storage", "volume", "clone", path, clone)
    for vm, node in ((name, "hv1"), (clone, "hv2")):
        guests.define(vm, node=node, disks=[{"pool": "systemtest", "volume": vm}])
        booted(cluster, cluster.id(vm), 1)
        size = cluster.sandbox.exec(node, ["virsh", "domblkinfo", cluster.id(vm), "vda"]).check().stdout
        assert f"Capacity:       {8 * MIB}" in size
        assert volume(cluster, f"systemtest/{vm}")["vm"] == vm


def test_uploaded_image_boots_though_the_daemon_of_its_node_is_restarted_meanwhile(cluster, guests, tmp_path):
    name = guests.name()
    image = tmp_path / "disk.img"
    image.write_bytes((cluster.sandbox.shared / "heeding.raw").read_bytes() + os.urandom(255 * MIB))
    spool = cluster.sandbox.layout.node_state(2) / "upload"
    command = cluster.start_command(
        "storage",
        "volume",
        "upload",
        guests.with_volume(name),
        str(image),
        "--node",
        "hv2",
        stderr=subprocess.PIPE,
        text=True,
    )
    cluster.eventually("some of it is sent", lambda: any(path.stat().st_blocks for path in spool.iterdir()))
    cluster.signal("hv2", signal.SIGKILL)
    assert command.communicate(timeout=120)[1].count("sent 100 %") == 1
    assert command.returncode == 0
    exported = tmp_path / "back.raw"
    cluster.pvc("storage", "volume", "export", f"systemtest/{name}", str(exported))
    assert filecmp.cmp(image, exported, shallow=False)
    assert list(spool.iterdir()) == []
    guests.define(name, node="hv1", disks=[{"pool": "systemtest", "volume": name}])
    booted(cluster, cluster.id(name), 1)


def test_upload_that_was_given_up_is_removed_by_its_node(cluster):
    spool = cluster.sandbox.layout.node_state(3) / "upload"
    old, new = (spool / f"{uuid.uuid4().hex}-disk.img" for _ in range(2))
    for path, age_s in ((old, 3700), (new, 3500)):
        path.write_bytes(b"some of it")
        os.utime(path, (0, time.time() - age_s))
    cluster.signal("hv3", signal.SIGKILL)
    cluster.eventually("what was given up is removed", lambda: not old.exists())
    assert new.exists()
    new.unlink()


def test_rolled_back_volume_has_what_the_snapshot_had(cluster, guests):
    name = guests.linux(node="hv1", start=False)
    path, id_ = f"systemtest/{name}", cluster.id(name)
    cluster.pvc("storage", "snapshot", "create", path, "blank")
    assert [snapshot["name"] for snapshot in cluster.pvc.json("storage", "snapshot", "list", path)] == ["blank"]
    cluster.pvc("vm", "start", name)
    cluster.eventually("the guest counts", lambda: any(beat.number >= 3 for beat in cluster.ticks(id_)))
    status, message = cluster.refused("storage", "snapshot", "rollback", path, "blank", "--yes")
    assert status == 1
    assert name in message
    cluster.pvc("vm", "stop", name, "--yes")
    cluster.pvc("storage", "snapshot", "rollback", path, "blank", "--yes")
    cluster.pvc("vm", "start", name)
    counted = cluster.eventually(
        "it counts from the beginning", lambda: [beat.number for beat in cluster.ticks(id_)].count(1) == 2
    )
    assert counted
    cluster.pvc("vm", "stop", name, "--yes")
    cluster.pvc("storage", "snapshot", "remove", path, "blank", "--yes")
    assert cluster.pvc.json("storage", "snapshot", "list", path) == []


def test_image_is_open_on_one_node_and_for_one_vm_only(cluster, guests):
    name = guests.boot_sector(node="hv1")
    file = cluster.sandbox.exec("hv1", ["virsh", "domblklist", cluster.id(name)]).check().stdout.split()[-1]
    assert holders(cluster, name) == ["hv1"]
    write = ["qemu-io", "-f", "raw", "-c", "write 0 512", file]
    second = cluster.sandbox.exec("hv2", write)
    assert second.returncode != 0
    assert "lock" in second.stderr
    thief = guests.definition(guests.name(), disks=[{"pool": "systemtest", "volume": name}])
    assert name in cluster.refused("vm", "define", thief)[1]
    assert "VM" in cluster.refused("storage", "volume", "remove", f"systemtest/{name}", "--yes")[1]
    cluster.pvc("vm", "move", name, "--node", "hv2")
    cluster.eventually("the old node has let it go", lambda: holders(cluster, name) == ["hv2"])
    cluster.pvc("vm", "stop", name, "--yes")
    cluster.eventually("nobody has it open", lambda: holders(cluster, name) == [])
