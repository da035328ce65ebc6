"""Volumes on a real Ceph, beyond what the contract asks: images of other hypervisors, streams, calls that are killed."""

import contextlib
import random
import struct
import subprocess
import threading
import time

import pytest
from rbd import RBD

from pvc_ceph.workers import Workers
from pvc_core.plugin import Cancelled, DriverError, ObjectBusy
from pvc_core.testkit.lan import entered

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(180)]

MIB = 1 << 20
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"


def never(_done):
    return False


def image(site, format_, *options):
    raw = site.directory / "raw"
    raw.write_bytes(b"contents".ljust(6 * MIB, b"\0"))
    path = site.directory / f"disk.{format_}"
    subprocess.run(["qemu-img", "convert", "-q", "-O", format_, *options, raw, path], check=True)
    return path


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk", "vdi", "vpc"])
def test_every_format_comes_in_and_goes_out_the_same(site, format_):
    driver, target = site.driver(), site.directory / f"out.{format_}"
    options = ("-o", "force_size=on") if format_ == "vpc" else ()
    driver.volume_import(site.ref("web1"), str(image(site, format_, *options)), format_, never)
    assert driver.volume_info(site.ref("web1")).size_bytes == 6 * MIB
    assert site.read("web1", 0, 8) == b"contents"
    driver.volume_export(site.ref("web1"), "", str(target), format_, never)
    driver.volume_import(site.ref("web2"), str(target), format_, never)
    assert driver.volume_info(site.ref("web2")).size_bytes == 6 * MIB
    assert site.read("web2", 0, 8) == b"contents"


def test_an_imported_image_takes_no_more_room_than_it_needs(site):
    path = site.directory / "big.raw"
    with path.open("wb") as file:
        file.write(b"contents")
        file.truncate(1024 * MIB)
    site.driver().volume_import(site.ref("web1"), str(path), "raw", never)
    assert site.driver().volume_info(site.ref("web1")).used_bytes <= 4 * MIB


def test_an_image_that_refers_to_other_files_is_refused(site):
    secret = site.directory / "shadow"
    secret.write_bytes(b"root:secret".ljust(MIB, b"\0"))
    evil = site.directory / "evil.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, evil], check=True)
    with pytest.raises(DriverError, match="refers to other files"):
        site.driver().volume_import(site.ref("web1"), str(evil), "qcow2", never)
    assert site.driver().volume_list(site.pool) == []


def rbd(site, *words):
    with entered(site.ceph.namespace("node1")):
        done = subprocess.run(["rbd", "-c", site.ceph.conf, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_streams_are_those_of_cephs_own_tools(site):
    driver, pool = site.driver(), site.pool.name
    driver.volume_create(site.ref("web1"), 8 * MIB, "")
    site.write("web1", b"state 1")
    site.write("web1", b"x" * MIB, 5 * MIB)
    driver.snapshot_create(site.ref("web1"), "s1")
    site.write("web1", b"state 2")
    driver.volume_resize(site.ref("web1"), 12 * MIB)
    driver.snapshot_create(site.ref("web1"), "s2")
    files = {name: str(site.directory / name) for name in ("full", "step", "full.rbd", "step.rbd")}
    driver.volume_diff_export(site.ref("web1"), "", "s1", files["full"], never)
    driver.volume_diff_export(site.ref("web1"), "s1", "s2", files["step"], never)
    rbd(site, "export-diff", f"{pool}/web1@s1", files["full.rbd"])
    rbd(site, "export-diff", "--from-snap", "s1", f"{pool}/web1@s2", files["step.rbd"])
    for name, full, step in (("ours", "full.rbd", "step.rbd"), ("theirs", "full", "step")):
        driver.volume_create(site.ref(name), 8 * MIB, "")
        for file in (full, step):
            if name == "ours":
                driver.volume_diff_import(site.ref(name), files[file], never)
            else:
                rbd(site, "import-diff", files[file], f"{pool}/{name}")
        info = driver.volume_info(site.ref(name))
        assert (info.size_bytes, [s.name for s in info.snapshots]) == (12 * MIB, ["s1", "s2"])
        assert site.read(name, 0, 7) == b"state 2"
        assert site.read(name, 5 * MIB, 8) == b"x" * 8
    driver.volume_diff_import(site.ref("ours"), files["step"], never)  # once more


@pytest.fixture
def stream(site):
    """A volume ``copy`` with snapshot s1, and the file with what came between s1 and s2."""
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 16 * MIB, "")
    site.write("web1", b"state 1")
    driver.snapshot_create(site.ref("web1"), "s1")
    for number in range(4):
        site.write("web1", b"state 2" * 1000, number * 4 * MIB)
    driver.snapshot_create(site.ref("web1"), "s2")
    full, step = site.directory / "full", site.directory / "step"
    driver.volume_diff_export(site.ref("web1"), "", "s1", str(full), never)
    driver.volume_diff_export(site.ref("web1"), "s1", "s2", str(step), never)
    driver.volume_create(site.ref("copy"), 16 * MIB, "")
    driver.volume_diff_import(site.ref("copy"), str(full), never)
    return step


def unchanged(site):
    names = [snapshot.name for snapshot in site.driver().volume_info(site.ref("copy")).snapshots]
    return names == ["s1"] and site.read("copy", 0, 7) == b"state 1" and site.read("copy", 4 * MIB, 7) == bytes(7)


def test_a_stream_that_is_damaged_or_stopped_changes_nothing(site, stream):
    driver, whole = site.driver(), stream.read_bytes()
    broken = site.directory / "broken"
    for content, said in (
        (whole[:-1], "ends too early"),
        (whole[: len(whole) // 2], "ends too early"),
        (whole[:-1] + b"?", "is damaged at byte"),
        (b"something else", "is not an incremental stream"),
    ):
        broken.write_bytes(content)
        with pytest.raises(DriverError, match=said):
            driver.volume_diff_import(site.ref("copy"), str(broken), never)
        assert unchanged(site)
    with pytest.raises(Cancelled):
        driver.volume_diff_import(site.ref("copy"), str(stream), lambda _done: True)
    assert unchanged(site)
    driver.volume_diff_import(site.ref("copy"), str(stream), never)
    assert site.read("copy", 4 * MIB, 7) == b"state 2"


def test_a_stream_is_not_applied_to_what_has_changed_since(site, stream):
    site.write("copy", b"mine", 8 * MIB)
    with pytest.raises(DriverError, match="has been written to since snapshot 's1'"):
        site.driver().volume_diff_import(site.ref("copy"), str(stream), never)
    assert site.read("copy", 8 * MIB, 4) == b"mine"


def test_a_volume_that_a_stranger_has_open_is_not_deleted(site):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with site.image("web1") as opened:
        opened.write(b"x", 0)
        with pytest.raises(ObjectBusy, match="is open by a client at"):
            driver.volume_delete(site.ref("web1"))
    assert driver.volume_delete(site.ref("web1"))


def test_what_takes_long_is_of_one_instant(site, monkeypatch):
    """A full copy and an export of a volume itself, whose VM is started in their midst."""
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    site.write("web1", b"before")
    copy = driver._driver._images.copy

    def write_first(*args, **kwargs):
        site.write("web1", b"after!")
        return copy(*args, **kwargs)

    monkeypatch.setattr(driver._driver._images, "copy", write_first)
    out = site.directory / "out"
    driver.volume_export(site.ref("web1"), "", str(out), "raw", never)
    assert out.read_bytes()[:6] == b"before"
    driver.volume_clone(site.ref("web1"), "", site.ref("web2"), True)
    assert site.read("web2", 0, 6) == b"after!"
    with site.image("web1") as image:
        assert list(image.list_snaps()) == []


def test_a_volume_that_is_half_rolled_back_is_given_to_nobody(site, ceph):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    driver.snapshot_create(site.ref("web1"), "s1")
    with site.image("web1") as image:
        image.metadata_set("pvc.rolling_back", "s1")  # as a roll-back that was killed leaves it
    with pytest.raises(ObjectBusy, match=r"rolled back to snapshot 's1', or was, but not to its end: .*repeat it"):
        driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
    assert driver.disk_attachments() == []
    driver.snapshot_rollback(site.ref("web1"), "s1", never)
    assert driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
    with pytest.raises(ObjectBusy):
        driver.snapshot_rollback(site.ref("web1"), "s1", never)
    assert driver.disk_attach(site.ref("web1"), VM, 1, incoming=False), "a refused roll-back leaves no mark"
    assert driver.disk_detach(site.ref("web1"), VM)


@pytest.mark.parametrize("leftover", [".pvc-doomed.x", ".pvc-new.copy"])
def test_a_snapshot_is_deleted_though_a_leftover_rests_on_it(site, ceph, leftover):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    driver.snapshot_create(site.ref("web1"), "s1")
    ioctx = ceph.cluster.open_ioctx(site.pool.name)
    with contextlib.closing(ioctx):
        ceph.cluster.conf_set("rbd_default_clone_format", "2")  # as in the driver
        RBD().clone(ioctx, "web1", "s1", ioctx, leftover)
        assert driver.snapshot_delete(site.ref("web1"), "s1")
        assert RBD().list(ioctx) == ["web1"]


def begin_removal(ceph, site, name, snapshot):
    """Leave a snapshot as a call leaves it that is killed after the first step of its removal."""
    with site.image(name) as image:
        (found,) = [each for each in image.list_snaps() if each["name"] == snapshot]
        header = f"rbd_header.{image.id()}"
    with contextlib.closing(ceph.cluster.open_ioctx(site.pool.name)) as ioctx:
        ioctx.execute(header, "rbd", "snapshot_trash_add", struct.pack("<Q", found["id"]))


def all_snapshots(site, name):
    with site.image(name) as image:
        return [each["name"] for each in image.list_snaps()]


@pytest.mark.parametrize("call", ["create", "delete", "clone", "remove"])
def test_a_snapshot_whose_removal_was_killed_is_none_and_does_not_stay(site, ceph, call):
    driver, web = site.driver(), site.ref("web1")
    driver.volume_create(web, 4 * MIB, "")
    for snapshot in ("s1", "s2"):
        driver.snapshot_create(web, snapshot)
    begin_removal(ceph, site, "web1", "s1")
    assert len(all_snapshots(site, "web1")) == 2
    assert [[kept.name for kept in info.snapshots] for info in driver.volume_list(site.pool)] == [["s2"]]
    if call == "create":
        assert driver.snapshot_create(web, "s1")
        assert all_snapshots(site, "web1") == ["s2", "s1"]
    elif call == "delete":
        assert driver.snapshot_delete(web, "s1")
        assert all_snapshots(site, "web1") == ["s2"]
    elif call == "clone":
        assert driver.volume_clone(web, "", site.ref("web2"), True)
        assert all_snapshots(site, "web1") == ["s2"]
    else:
        assert driver.volume_delete(web)
        assert driver.volume_list(site.pool) == []


def test_a_removed_snapshot_on_which_a_clone_rests_keeps_its_volume(site, ceph):
    driver, web = site.driver(), site.ref("web1")
    driver.volume_create(web, 4 * MIB, "")
    driver.snapshot_create(web, "s1")
    driver.volume_clone(web, "s1", site.ref("web2"), False)
    rbd(site, "snap", "rm", f"{site.pool.name}/web1@s1")  # an operator's tool may
    assert [(info.name, info.snapshots) for info in driver.volume_list(site.pool)] == [("web1", ()), ("web2", ())]
    with pytest.raises(ObjectBusy, match="'web2' shares its blocks"):
        driver.volume_delete(web)
    assert driver.snapshot_create(web, "s1")
    assert [kept.name for kept in driver.volume_info(web).snapshots] == ["s1"]
    assert driver.volume_delete(site.ref("web2"))
    assert driver.volume_delete(web)


def test_a_clone_that_was_killed_while_it_got_its_name_is_a_volume_when_it_is_done(site, ceph):
    driver, web, copy = site.driver(), site.ref("web1"), site.ref("copy")
    driver.volume_create(web, 4 * MIB, "")
    driver.snapshot_create(web, "s1")
    driver.volume_clone(web, "s1", copy, False)
    half_named(ceph, site, "copy")
    assert [info.name for info in driver.volume_list(site.pool)] == ["web1"]
    assert driver.volume_clone(web, "s1", copy, False)
    assert [info.name for info in driver.volume_list(site.pool)] == ["copy", "web1"]
    assert driver.volume_delete(copy)
    assert driver.volume_list(site.pool) == [driver.volume_info(web)]


def half_named(ceph, site, volume):
    """Leave a volume as a call leaves it that is killed after the first of the three steps in which it gets its name."""
    with contextlib.closing(ceph.cluster.open_ioctx(site.pool.name)) as ioctx:
        RBD().rename(ioctx, volume, f".pvc-new.{volume}")
        ioctx.write_full(f"rbd_id.{volume}", ioctx.read(f"rbd_id..pvc-new.{volume}"))


def objects(ceph, site):
    with contextlib.closing(ceph.cluster.open_ioctx(site.pool.name)) as ioctx:
        return {object_.key for object_ in ioctx.list_objects() if object_.key.startswith(("rbd_id.", "rbd_header."))}


@pytest.mark.parametrize("then", ["delete", "import"])
def test_a_volume_that_has_half_its_name_is_deleted_or_made_anew(site, ceph, then):
    driver, copy = site.driver(), site.ref("copy")
    driver.volume_create(copy, 4 * MIB, "")
    half_named(ceph, site, "copy")
    if then == "import":
        driver.volume_import(copy, str(image(site, "qcow2")), "qcow2", never)
        assert site.read("copy", 0, 8) == b"contents"
    assert driver.volume_delete(copy)
    assert driver.volume_list(site.pool) == []
    assert objects(ceph, site) == set()


def test_a_deletion_that_took_too_long_is_gone_on_with_under_its_name(site, ceph):
    driver = site.driver()
    for name in ("web1", "web2"):
        driver.volume_create(site.ref(name), 4 * MIB, "")
        with contextlib.closing(ceph.cluster.open_ioctx(site.pool.name)) as ioctx:
            with site.image(name) as opened:
                id_ = opened.id()
            RBD().rename(ioctx, name, f".pvc-doomed.{id_}.{name}")
    assert driver.volume_list(site.pool) == []
    assert driver.volume_delete(site.ref("web1"))
    with contextlib.closing(ceph.cluster.open_ioctx(site.pool.name)) as ioctx:
        assert [name.rpartition(".")[2] for name in RBD().list(ioctx)] == ["web2"]


def test_snapshots_that_are_not_pvcs_stay(site, ceph):
    """Those of a group of images, which an operator keeps: they are neither a user's nor removed."""
    driver, web, pool = site.driver(), site.ref("web1"), site.pool.name
    driver.volume_create(web, 4 * MIB, "")
    for words in (
        ("create", f"{pool}/g"),
        ("image", "add", f"{pool}/g", f"{pool}/web1"),
        ("snap", "create", f"{pool}/g@s"),
    ):
        rbd(site, "group", *words)
    driver.snapshot_create(web, "s1")
    driver.volume_clone(web, "", site.ref("copy"), True)
    driver.snapshot_delete(web, "s1")
    assert [info.snapshots for info in driver.volume_list(site.pool)] == [(), ()]
    assert len(all_snapshots(site, "web1")) == 1
    with pytest.raises(ObjectBusy, match="made of a group of images"):
        driver.volume_delete(web)
    assert [info.name for info in driver.volume_list(site.pool)] == ["copy", "web1"]
    rbd(site, "group", "snap", "rm", f"{pool}/g@s")
    rbd(site, "group", "rm", f"{pool}/g")


@pytest.mark.parametrize("shared", [False, True])
def test_a_full_copy_has_all_data_and_no_more(site, shared):
    driver, source = site.driver(), site.ref("web1")
    driver.volume_create(source, 64 * MIB + 512, "")
    for offset in (0, 5 * MIB + 7, 64 * MIB):
        site.write("web1", b"contents", offset)
    site.write("web1", bytes(8 * MIB), 32 * MIB)
    if shared:
        driver.snapshot_create(source, "s1")
        driver.volume_clone(source, "s1", site.ref("clone"), False)
        site.write("clone", b"its own", 20 * MIB)
        source = site.ref("clone")
    driver.volume_clone(source, "", site.ref("copy"), True)
    info = driver.volume_info(site.ref("copy"))
    assert (info.size_bytes, info.parent) == (64 * MIB + 512, "")
    assert info.used_bytes <= (4 if shared else 3) * 4 * MIB
    assert site.read("copy", 0, info.size_bytes) == site.read(source.name, 0, info.size_bytes)


@pytest.mark.parametrize("snapshot", ["s1", ""])
def test_a_copy_whose_snapshot_is_removed_meanwhile_is_no_volume(site, ceph, snapshot):
    from pvc_ceph.worker import clones

    driver, web = site.driver(), site.ref("web1")
    driver.volume_create(web, 4 * MIB, "")
    site.write("web1", b"contents")
    driver.snapshot_create(web, "s1")
    done = []

    def removed(_part):
        """Remove what is read, and its name be given to another one."""
        if not done:
            done.append(True)
            with site.image("web1") as image:
                image.write(b"later...", 0)
                name = next(
                    name for name in (each["name"] for each in image.list_snaps()) if (name == "s1") == bool(snapshot)
                )
                image.remove_snap(name)
                image.create_snap(name)
        return False

    with (
        entered(ceph.namespace("node2")),
        contextlib.closing(own_cluster(ceph, site)) as cluster,
        pytest.raises(DriverError, match="the snapshot was removed while it was read"),
    ):
        clones.clone(cluster, site.pool.name, "web1", snapshot, "copy", True, removed)
    assert [info.name for info in driver.volume_list(site.pool)] == ["web1"]


def own_cluster(ceph, site):
    from pvc_ceph.protocol import Open
    from pvc_ceph.worker.ceph import Cluster

    return Cluster(Open(conf=str(ceph.conf), user="admin", state_pool=site.pool.name, node="node2"))


def test_an_export_whose_snapshot_is_removed_meanwhile_is_no_file(site, monkeypatch):
    driver, web = site.driver(), site.ref("web1")
    driver.volume_create(web, 4 * MIB, "")
    driver.snapshot_create(web, "s1")
    copy = driver._driver._images.copy

    def remove_first(*args, **kwargs):
        copy(*args, **kwargs)
        driver.snapshot_delete(web, "s1")

    monkeypatch.setattr(driver._driver._images, "copy", remove_first)
    out = site.directory / "out"
    with pytest.raises(DriverError, match="the snapshot was removed while it was read"):
        driver.volume_export(web, "s1", str(out), "raw", never)
    assert list(site.directory.glob("out*")) == []


class Killer:
    """Kills the worker that is given the next call, a random while after it was."""

    def __init__(self, monkeypatch, chance):
        self.killed = 0
        self.armed = False
        self._chance = chance
        taken = Workers._take

        def take(workers):
            worker, fresh = taken(workers)
            if self.armed:
                self.armed = False
                threading.Thread(target=self._kill, args=(worker._process,), daemon=True).start()
            return worker, fresh

        monkeypatch.setattr(Workers, "_take", take)

    def _kill(self, process):
        time.sleep(self._chance.uniform(0.0, self._chance.choice((0.02, 0.1, 0.3))))
        if process.poll() is None:
            self.killed += 1
            process.kill()


@pytest.mark.parametrize("seed", range(12))
def test_a_call_that_is_killed_at_any_moment_is_repeated_to_its_end(site, monkeypatch, seed):
    driver, chance = site.driver(), random.Random(seed)
    killer = Killer(monkeypatch, chance)

    def repeat(call, *arguments):
        # A client that was killed is believed for half a minute to have a volume open, or locked.
        deadline = time.monotonic() + 100
        killer.armed = True
        while True:
            try:
                call(*arguments)
            except DriverError as error:
                assert error.retryable, error
                assert time.monotonic() < deadline, error
                time.sleep(0.2)
            else:
                killer.armed = False
                return

    web, clone, copy, new = (site.ref(name) for name in ("web", "clone", "copy", "new"))
    repeat(driver.volume_create, web, 8 * MIB, "")
    site.write(web.name, b"contents")
    repeat(driver.snapshot_create, web, "s1")
    repeat(driver.volume_clone, web, "s1", clone, False)
    repeat(driver.volume_clone, web, "", copy, True)
    repeat(driver.volume_resize, web, 12 * MIB)
    repeat(driver.volume_rename, copy, new.name)
    for name in (web.name, clone.name, new.name):
        assert site.read(name, 0, 8) == b"contents"
    listed = {info.name: info for info in driver.volume_list(site.pool)}
    assert listed.keys() == {web.name, clone.name, new.name}
    assert (listed[web.name].size_bytes, listed[clone.name].parent) == (12 * MIB, f"{web.name}@s1")
    for volume in (clone, new, web):
        repeat(driver.volume_delete, volume)
    assert driver.volume_list(site.pool) == []
    assert killer.killed > 2
