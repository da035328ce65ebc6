"""Volumes and snapshots of real guests, on a pool of image files that all nodes see."""

import json
import re
import subprocess
import uuid

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

POOL = "systemtest"
MIB = 1 << 20
BEAT = re.compile(r"^tick (\d+) [\d.]+\r?$", re.MULTILINE)


def capacities(cluster, vm):
    """Return the sizes of a guest's disks as its emulator sees them."""
    import libvirt

    connection = libvirt.open(cluster.sandbox.uri(cluster.view(vm)["running_on"]))
    try:
        domain = connection.lookupByUUIDString(cluster.id(vm))
        return [domain.blockInfo(disk)[0] for disk in ("vda", "vdb")]
    finally:
        connection.close()


def volume(cluster, name):
    return next(row for row in cluster.pvc.json("storage", "volume", "list", "--pool", POOL) if row["name"] == name)


def state(cluster, name):
    """Return what pvc-dir keeps beside the images."""
    directory = cluster.sandbox.shared / POOL / "volumes" / name
    newest = max(directory.glob("state.*"), key=lambda path: int(path.name.partition(".")[2]))
    return json.loads(newest.read_bytes().partition(b"\n")[2])


def holders(cluster, name):
    return {(holder["node"], holder["vm"]) for holder in state(cluster, name)["holders"]}


def failed(cluster, *arguments):
    """Run a command whose task must fail; return what it says last."""
    done = cluster.pvc.run(*arguments)
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1]


def highest_tick(cluster, id_):
    ticks = cluster.ticks(id_)
    return max((tick.number for tick in ticks), default=0)


def beating(cluster, id_, beyond):
    cluster.eventually(f"the guest counts beyond {beyond}", lambda: highest_tick(cluster, id_) > beyond)


def test_disks_of_a_running_guest_grow_whatever_their_format(cluster, guests):
    name = guests.name()
    guests.volume(name)
    second = guests.with_volume(f"{name}-data")
    cluster.pvc("storage", "volume", "add", second, "8M", "--image-format", "qcow2")
    disks = [{"pool": POOL, "volume": name}, {"pool": POOL, "volume": f"{name}-data"}]
    guests.define(name, node="hv2", disks=disks)
    cluster.pvc("storage", "volume", "resize", f"{POOL}/{name}", "16M")
    cluster.pvc("storage", "volume", "resize", second, "32M")
    assert capacities(cluster, name) == [16 * MIB, 32 * MIB]
    cluster.pvc("vm", "move", name, "--node", "hv3")
    assert capacities(cluster, name) == [16 * MIB, 32 * MIB]
    cluster.pvc("storage", "volume", "resize", second, "64M")
    assert capacities(cluster, name) == [16 * MIB, 64 * MIB]
    status, said = cluster.refused("storage", "volume", "resize", second, "8M")
    assert (status, "cannot shrink" in said) == (2, True)


def test_a_volume_is_open_on_the_node_of_its_guest_only(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    assert holders(cluster, name) == {("hv1", id_)}
    cluster.pvc("vm", "move", name, "--node", "hv2")
    cluster.eventually("hv1 has let go", lambda: holders(cluster, name) == {("hv2", id_)})
    cluster.pvc("vm", "stop", name, "--yes")
    assert holders(cluster, name) == set()
    status, said = cluster.refused("storage", "volume", "remove", f"{POOL}/{name}", "--yes")
    assert (status, "is a disk of VM" in said) == (1, True)


def test_a_node_takes_its_guests_volume_again_after_a_power_cut(cluster, guests):
    name = guests.linux(node="hv2")
    id_ = cluster.id(name)
    beating(cluster, id_, 3)
    cluster.sandbox.power_cut("hv2")
    counted = highest_tick(cluster, id_)
    assert holders(cluster, name) == {("hv2", id_)}
    cluster.sandbox.power_on("hv2")
    cluster.eventually("it runs again", lambda: cluster.copies(id_) == {"hv2": "running"}, within_s=120)
    beating(cluster, id_, counted)
    assert holders(cluster, name) == {("hv2", id_)}


def test_a_guest_goes_on_from_the_snapshot_it_is_rolled_back_to(cluster, guests):
    name = guests.linux(node="hv1")
    id_ = cluster.id(name)
    beating(cluster, id_, 2)
    said = failed(cluster, "storage", "snapshot", "create", f"{POOL}/{name}", "s1")
    assert "stop the VM to take a snapshot" in said
    cluster.pvc("vm", "stop", name, "--yes")
    kept = highest_tick(cluster, id_)
    cluster.pvc("storage", "snapshot", "create", f"{POOL}/{name}", "s1")
    cluster.pvc("vm", "start", name)
    beating(cluster, id_, kept + 4)
    cluster.refused("storage", "snapshot", "rollback", f"{POOL}/{name}", "s1", "--yes")
    cluster.pvc("vm", "stop", name, "--yes")
    later = highest_tick(cluster, id_)
    cluster.pvc("storage", "snapshot", "rollback", f"{POOL}/{name}", "s1", "--yes")
    cluster.pvc("vm", "start", name, "--node", "hv3")

    def counted():
        return [int(number) for number in BEAT.findall(cluster.consoles(id_).get("hv3", ""))]

    first = cluster.eventually("it counts again", counted)[0]
    assert kept < first <= later, f"it went on from {first}, not from {kept}"
    cluster.pvc("vm", "stop", name, "--yes")
    cluster.pvc("storage", "snapshot", "remove", f"{POOL}/{name}", "s1", "--yes")
    assert len(state(cluster, name)["layers"]) == 1


def test_a_clone_boots_and_protects_what_it_rests_on(cluster, guests):
    golden = guests.name()
    guests.volume(golden)
    cluster.pvc("storage", "snapshot", "create", f"{POOL}/{golden}", "v1")
    name = guests.name()
    cluster.pvc("storage", "volume", "clone", f"{POOL}/{golden}@v1", guests.with_volume(name).partition("/")[2])
    guests.define(name, node="hv2", disks=[{"pool": POOL, "volume": name}])
    assert cluster.place(name) == ("running", "hv2")
    cluster.pvc("vm", "move", name, "--node", "hv1")
    assert cluster.place(name) == ("running", "hv1")
    assert f"clone '{name}'" in failed(cluster, "storage", "snapshot", "remove", f"{POOL}/{golden}", "v1", "--yes")


def test_images_go_out_and_in_again(cluster, guests, tmp_path):
    name = guests.name()
    guests.volume(name)
    target = cluster.sandbox.shared / f"{name}.qcow2"
    cluster.pvc("storage", "volume", "export", f"{POOL}/{name}", str(target), "--image-format", "qcow2")
    found = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", target], check=True, capture_output=True).stdout
    )
    assert (found["format"], found["virtual-size"]) == ("qcow2", volume(cluster, name)["size_bytes"])
    again = guests.name()
    cluster.pvc(
        "storage",
        "volume",
        "import",
        guests.with_volume(again),
        str(target),
        "--image-format",
        "qcow2",
        "--node",
        "hv3",
    )
    guests.define(again, node="hv3", disks=[{"pool": POOL, "volume": again}])
    assert cluster.place(again) == ("running", "hv3")
    _, said = cluster.refused("storage", "volume", "export", f"{POOL}/{again}", str(target) + "2")
    assert "in use" in said
    target.unlink()


def test_an_import_ends_when_its_daemon_is_killed(cluster, guests):
    image = cluster.sandbox.shared / f"{uuid.uuid4().hex}.raw"
    with image.open("wb") as file:
        for _ in range(512):
            file.write(uuid.uuid4().bytes * (MIB // 16))
    name = guests.name()
    cluster.pvc(
        "storage", "volume", "import", guests.with_volume(name), str(image), "--node", "hv3", "--no-wait"
    )  # fmt: skip
    task = next(t["id"] for t in cluster.pvc.json("task", "list") if t["subject"].endswith(name))

    def ended():
        return next(t for t in cluster.pvc.json("task", "list") if t["id"] == task)["state"] not in (
            "queued",
            "running",
        )

    cluster.eventually(
        "the copy has begun",
        lambda: ended() or list((cluster.sandbox.shared / POOL / "building").glob(f"{name}@*")),
    )
    cluster.sandbox.host("hv3").stop_service("pvcnoded")
    cluster.start_daemon("hv3")
    cluster.eventually("the task has ended", ended)
    cluster.eventually("the volume is told", lambda: volume(cluster, name)["state"] in ("failed", "ready"))
    cluster.pvc("storage", "volume", "remove", f"{POOL}/{name}", "--yes")
    assert not list((cluster.sandbox.shared / POOL / "building").glob(f"{name}@*"))
    image.unlink()


def test_a_pool_whose_file_system_is_not_mounted_is_left_alone(cluster):
    name = f"pool-{uuid.uuid4().hex[:6]}"
    path = cluster.sandbox.shared / name
    path.mkdir()
    cluster.pvc("storage", "pool", "add", name, "-d", "dir", "-p", f"path={path}")
    cluster.pvc("storage", "volume", "add", f"{name}/data", "1M")
    away = cluster.sandbox.shared / f"{name}-away"
    path.rename(away)
    path.mkdir()

    def pool():
        return next(row for row in cluster.pvc.json("storage", "pool", "list") if row["name"] == name)

    cluster.pvc("storage", "pool", "modify", name, "--description", "look again", "--no-wait")
    cluster.eventually("the pool is not ready", lambda: pool()["conditions"] and not pool()["ready"])
    assert "mounted on this node" in pool()["conditions"][0]["message"]
    assert list(path.iterdir()) == []
    path.rmdir()
    away.rename(path)
    cluster.eventually("the pool is ready again", lambda: pool()["ready"], within_s=90)
    cluster.pvc("storage", "volume", "remove", f"{name}/data", "--yes")
    cluster.pvc("storage", "pool", "remove", name, "--yes")
    assert list(path.iterdir()) == []
    path.rmdir()
