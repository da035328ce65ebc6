"""Volumes: made, cloned, grown, renamed and deleted, whatever befalls the daemon in between."""

import threading

import pytest

from pvc_core.model.storage import VolumeState
from pvc_core.model.vm import MigrationPhase, VmState
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.vm_move import VmMove, vm_move
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeClone,
    VolumeQuery,
    VolumeRename,
    VolumeResize,
    volume_add,
    volume_clone,
    volume_info,
    volume_remove,
    volume_rename,
    volume_resize,
)
from pvc_core.plugin.errors import DriverError, NotReady, ObjectBusy
from pvc_core.plugin.specs.storage import VolumeRef
from pvc_core.store import documents, keys
from pvc_core.testkit.doomed import Died, every_death
from pvc_core.testkit.storage_site import StorageSite

MIB = 1 << 20


@pytest.fixture
def site():
    made = StorageSite("hv1")
    made.pool()
    return made


def _add(site, name="web1", size="4M"):
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name=name, size=size)).id
    site.until(lambda: site.settled(volume))
    return volume


def _pool(site):
    return next(iter(site.backend.pools))


def _gone(site, volume):
    return site.volume(volume) is None


def _node(site, volume):
    return site.volume(volume).node


def _condition(site, volume):
    (condition,) = site.volume_status(volume).conditions
    return condition


# --- making -----------------------------------------------------------------------------------------


def test_a_volume_is_made(site):
    volume = _add(site)
    status = site.volume_status(volume)
    assert (status.state, status.name, status.size_bytes) == (VolumeState.READY, "web1", 4 * MIB)
    assert _condition(site, volume).ok
    assert site.names() == ["web1"]


def test_a_volume_waits_for_its_backend(site):
    site.faults["hv1"].fail("volume_create", NotReady("the pool is not mounted"), times=4)
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    site.until(lambda: bool(site.volume_status(volume).conditions))
    assert site.volume_status(volume).state is VolumeState.CREATING
    assert (_condition(site, volume).reason, _condition(site, volume).message) == (
        "BackendNotReady",
        "the pool is not mounted",
    )
    assert not site.settled(volume)
    site.until(lambda: site.settled(volume), 60.0)
    assert site.volume_status(volume).state is VolumeState.READY


def test_a_volume_whose_size_is_raised_before_it_is_said_to_be_made(site):
    site.faults["hv1"].lose_answer("volume_create", NotReady("no answer"))
    site.faults["hv1"].fail_always("volume_info", NotReady("no answer"))
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    site.cluster.settle()
    assert site.names() == ["web1"]
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.faults["hv1"].clear()
    site.until(lambda: site.settled(volume))
    assert (site.volume_status(volume).state, site.volume_status(volume).size_bytes) == (VolumeState.READY, 9 * MIB)


def test_a_volume_of_another_size_is_not_taken_over(site):
    pool = documents.read(site.ops.store, keys.pool_spec(_pool(site))).value
    site.drivers["hv1"].storage("fake").volume_create(VolumeRef(pool=pool, name="web1"), 8 * MIB, "")
    volume = _add(site)
    assert site.volume_status(volume).state is VolumeState.FAILED
    assert _condition(site, volume).reason == "Exists"


def test_what_the_driver_refuses_fails_the_volume_with_the_reason(site):
    site.faults["hv1"].fail_always("volume_create", DriverError("a size must be a multiple of 512", retryable=False))
    volume = _add(site, size="100")
    assert site.volume_status(volume).state is VolumeState.FAILED
    assert _condition(site, volume).message == "a size must be a multiple of 512"
    site.faults["hv1"].clear()
    site.until(lambda: site.volume_status(volume).state is VolumeState.READY, 90.0)


def test_a_failed_volume_can_be_removed(site):
    site.faults["hv1"].fail_always("volume_create", DriverError("no", retryable=False))
    volume = _add(site)
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: _gone(site, volume))


def test_an_unchanged_volume_is_not_written_again(site):
    volume = _add(site)
    site.write(_pool(site), "web1", b"a little")
    version = site.ops.store.get(keys.volume_status(volume).path).version
    site.cluster.run(600)
    assert site.faults["hv1"].count("volume_info") > 5
    assert site.ops.store.get(keys.volume_status(volume).path).version == version


def test_the_used_bytes_are_told_when_they_changed_by_a_good_deal(site):
    volume = _add(site, size="1G")
    site.write(_pool(site), "web1", b"x" * (100 * MIB))
    site.until(lambda: site.volume_status(volume).used_bytes == 100 * MIB, 90.0)


def test_a_lost_volume_is_said_to_be_lost_and_found_again(site):
    volume = _add(site)
    lost = site.backend.volumes.pop((_pool(site), "web1"))
    site.until(lambda: site.volume_status(volume).state is VolumeState.FAILED, 90.0)
    assert _condition(site, volume).reason == "Missing"
    site.backend.volumes[(_pool(site), "web1")] = lost
    site.until(lambda: site.volume_status(volume).state is VolumeState.READY, 90.0)


def test_a_clone_has_the_contents_of_its_source(site):
    _add(site)
    site.write(_pool(site), "web1", b"contents")
    for name, full in (("shared", False), ("copied", True)):
        clone = volume_clone(site.ops, VolumeClone(pool="ssd", source="web1", name=name, full_copy=full)).id
        site.until(lambda clone=clone: site.settled(clone))
        assert site.read(_pool(site), name, 8) == b"contents"


def test_a_full_copy_waits_while_its_node_makes_as_many_as_it_does_at_a_time(monkeypatch):
    site = StorageSite("hv1")
    site.pool()
    _add(site)
    made = volume_clone(site.ops, VolumeClone(pool="ssd", source="web1", name="copy", full_copy=True)).id
    places = threading.BoundedSemaphore(2)
    assert places.acquire()
    assert places.acquire()
    monkeypatch.setattr(site.nodes["hv1"].agent._reconcilers["volume"], "_copies", places)
    site.until(lambda: bool(site.volume_status(made).conditions))
    assert _condition(site, made).message == "node hv1 makes 2 other full copies; this one waits for them"
    shared = volume_clone(site.ops, VolumeClone(pool="ssd", source="web1", name="shared")).id
    site.until(lambda: site.settled(shared))
    places.release()
    site.until(lambda: site.settled(made))
    assert places.acquire(blocking=False)


def test_a_clone_waits_for_its_source(site):
    site.faults["hv1"].fail_always("volume_create")
    source = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    clone = volume_clone(site.ops, VolumeClone(pool="ssd", source="web1", name="web2")).id
    site.until(lambda: bool(site.volume_status(clone).conditions))
    assert _condition(site, clone).message == "the volume to clone, ssd/web1, is not ready yet"
    site.faults["hv1"].clear()
    site.until(lambda: site.settled(clone) and site.settled(source))
    assert site.volume_status(clone).state is VolumeState.READY


# --- renaming ---------------------------------------------------------------------------------------


def test_a_renamed_volume_keeps_its_contents(site):
    volume = _add(site)
    site.write(_pool(site), "web1", b"contents")
    volume_rename(site.ops, VolumeRename(volume="ssd/web1", name="web2"))
    site.until(lambda: site.settled(volume))
    assert site.names() == ["web2"]
    assert site.read(_pool(site), "web2", 8) == b"contents"
    assert site.ops.store.get(keys.name("volume", "ssd:web1")) is None


def test_the_old_name_is_taken_until_the_backend_has_let_go_of_it(site):
    """Otherwise the next volume of that name would be given the contents of this one."""
    first = _add(site)
    site.write(_pool(site), "web1", b"precious")
    site.faults["hv1"].fail_always("volume_rename")
    volume_rename(site.ops, VolumeRename(volume="ssd/web1", name="web2"))
    site.cluster.run(5)
    with pytest.raises(Exception, match="ssd/web1 already"):
        volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M"))
    site.faults["hv1"].clear()
    site.until(lambda: site.settled(first))
    second = _add(site)
    assert site.read(_pool(site), "web1", 8) == bytes(8)
    assert site.read(_pool(site), "web2", 8) == b"precious"
    assert site.volume_status(second).state is VolumeState.READY


def test_a_volume_is_renamed_to_and_fro_before_the_backend_follows(site):
    volume = _add(site)
    site.faults["hv1"].fail_always("volume_rename")
    for name in ("web2", "web3", "web1", "web4"):
        old = volume_info(site.ops, VolumeQuery(volume=volume)).name
        volume_rename(site.ops, VolumeRename(volume=f"ssd/{old}", name=name))
        site.cluster.settle()
    site.faults["hv1"].clear()
    site.until(lambda: site.settled(volume))
    assert site.names() == ["web4"]
    assert [path for path in site.paths() if "/name/volume/" in path] == [keys.name("volume", "ssd:web4")]


def test_a_volume_is_renamed_before_it_is_made(site):
    site.faults["hv1"].fail_always("volume_create")
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    site.cluster.settle()
    volume_rename(site.ops, VolumeRename(volume="ssd/web1", name="web2"))
    site.cluster.settle()
    site.faults["hv1"].clear()
    site.until(lambda: site.settled(volume))
    assert site.names() == ["web2"]
    assert len([path for path in site.paths() if "/name/volume/" in path]) == 1


def test_a_volume_is_removed_before_its_rename_was_done(site):
    volume = _add(site)
    site.faults["hv1"].fail_always("volume_rename")
    volume_rename(site.ops, VolumeRename(volume="ssd/web1", name="web2"))
    site.cluster.settle()
    volume_remove(site.ops, VolumeQuery(volume="ssd/web2"))
    site.cluster.settle()
    site.faults["hv1"].clear()
    site.until(lambda: _gone(site, volume))
    assert site.names() == []
    assert [path for path in site.paths() if "volume" in path] == []


# --- growing ----------------------------------------------------------------------------------------


def _vm(site, node):
    disk = DiskDefinition(pool="ssd", volume="web1")
    vm = vm_define(site.ops, VmDefine(name="vm1", memory="64M", disks=(disk,), node=node, start=True))
    site.until(lambda: _vm_state(site, vm.id) is VmState.RUNNING)
    return vm.id


def _vm_state(site, vm):
    entry = documents.read(site.ops.store, keys.vm_status(vm))
    return entry.value.state if entry is not None else None


def test_a_volume_grows(site):
    volume = _add(site)
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.until(lambda: site.settled(volume))
    status = site.volume_status(volume)
    assert (status.state, status.size_bytes) == (VolumeState.READY, 9 * MIB)


def test_a_volume_that_cannot_grow_stays_usable(site):
    volume = _add(site)
    site.faults["hv1"].fail_always("volume_resize", DriverError("quota exceeded", retryable=False))
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.until(lambda: site.settled(volume))
    status = site.volume_status(volume)
    assert (status.state, status.size_bytes) == (VolumeState.READY, 4 * MIB)
    assert (_condition(site, volume).ok, _condition(site, volume).message) == (False, "quota exceeded")
    version = site.ops.store.get(keys.volume_status(volume).path).version
    site.cluster.run(300)
    assert site.ops.store.get(keys.volume_status(volume).path).version == version
    site.faults["hv1"].clear()
    site.until(lambda: site.volume_status(volume).size_bytes == 9 * MIB, 90.0)
    assert _condition(site, volume).ok


def test_the_guest_is_told_that_its_disk_grew():
    site = StorageSite("hv1", "hv2")
    site.pool()
    volume = _add(site)
    where = {"hv1": "hv2", "hv2": "hv1"}[_node(site, volume)]
    vm = _vm(site, where)
    told = []
    hypervisor = site.nodes[where].agent.context.hypervisor
    real = hypervisor.resize_disk
    hypervisor.resize_disk = lambda *arguments: (told.append(arguments), real(*arguments))
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.until(lambda: site.settled(volume))
    assert told == [(vm, "vda", 9 * MIB)]
    assert site.volume_status(volume).size_bytes == 9 * MIB
    # The node that runs the guest took the volume over, because only it can tell the guest.
    assert _node(site, volume) == where


def test_a_guest_that_cannot_be_told_is_told_later():
    site = StorageSite("hv1")
    site.pool()
    volume = _add(site)
    vm = _vm(site, "hv1")
    site.cluster.world.vm_faults(vm).device_error = "Device is busy"
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.until(lambda: not _condition(site, volume).ok)
    assert "Device is busy" in _condition(site, volume).message
    site.cluster.world.vm_faults(vm).device_error = ""
    site.until(lambda: site.settled(volume))
    assert _condition(site, volume).ok


def test_a_disk_grows_after_its_vm_has_moved():
    site = StorageSite("hv1", "hv2")
    site.pool()
    volume = _add(site)
    vm = _vm(site, "hv1")
    vm_move(site.ops, VmMove(vm="vm1", node="hv2"))
    site.until(lambda: _claim(site, vm).migration is not None)
    assert _claim(site, vm).migration.phase in MigrationPhase
    volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M"))
    site.until(lambda: site.settled(volume) and _claim(site, vm).migration is None)
    assert _claim(site, vm).node == "hv2"
    assert site.volume_status(volume).size_bytes == 9 * MIB


def _claim(site, vm):
    return documents.read(site.ops.store, keys.claim(vm)).value


# --- deleting ---------------------------------------------------------------------------------------


def test_a_removed_volume_leaves_nothing(site):
    volume = _add(site)
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: _gone(site, volume))
    assert site.names() == []
    assert [path for path in site.paths() if "volume" in path] == []
    assert site.ops.store.children(keys.ref("pool", _pool(site))) == []


def test_a_volume_with_clones_waits_and_says_so(site):
    source = _add(site)
    clone = volume_clone(site.ops, VolumeClone(pool="ssd", source="web1", name="web2")).id
    site.until(lambda: site.settled(clone))
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: not _condition(site, source).ok)
    assert site.volume_status(source).state is VolumeState.DELETING
    assert "clone 'web2'" in _condition(site, source).message
    volume_remove(site.ops, VolumeQuery(volume="ssd/web2"))
    site.until(lambda: _gone(site, source) and _gone(site, clone), 600.0)
    assert site.names() == []


def test_a_volume_that_is_gone_from_the_backend_is_removed(site):
    volume = _add(site)
    site.backend.volumes.clear()
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: _gone(site, volume))


def test_a_volume_that_cannot_be_deleted_now_is_deleted_later(site):
    volume = _add(site)
    site.faults["hv1"].fail("volume_delete", ObjectBusy("node hv9 has it open"), times=5)
    volume_remove(site.ops, VolumeQuery(volume="ssd/web1"))
    site.until(lambda: not _condition(site, volume).ok)
    assert _condition(site, volume).message == "node hv9 has it open"
    site.until(lambda: _gone(site, volume))


# --- the daemon dies --------------------------------------------------------------------------------


def _with_volume():
    site = StorageSite("hv1")
    site.pool()
    _add(site)
    site.write(_pool(site), "web1", b"contents")
    return site


def _settled(site, volume):
    return lambda: site.settled(volume)


def test_a_volume_is_made_whenever_the_daemon_dies():
    def make():
        site = StorageSite("hv1")
        site.pool()
        return site

    def add(site):
        return _settled(site, volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id)

    def check(site):
        assert site.names() == ["web1"]
        assert volume_info(site.ops, VolumeQuery(volume="ssd/web1")).state == "ready"

    assert every_death(make, add, check) > 6


@pytest.mark.parametrize("full", [True, False])
def test_a_volume_is_cloned_whenever_the_daemon_dies(full):
    def clone(site):
        request = VolumeClone(pool="ssd", source="web1", name="web2", full_copy=full)
        return _settled(site, volume_clone(site.ops, request).id)

    def check(site):
        assert site.names() == ["web1", "web2"]
        assert site.read(_pool(site), "web2", 8) == b"contents"
        assert volume_info(site.ops, VolumeQuery(volume="ssd/web2")).state == "ready"

    assert every_death(_with_volume, clone, check) > 6


def test_a_volume_is_renamed_whenever_the_daemon_dies():
    def rename(site):
        return _settled(site, volume_rename(site.ops, VolumeRename(volume="ssd/web1", name="web2")).id)

    def check(site):
        assert site.names() == ["web2"]
        assert site.read(_pool(site), "web2", 8) == b"contents"
        assert [path for path in site.paths() if "/name/volume/" in path] == [keys.name("volume", "ssd:web2")]

    assert every_death(_with_volume, rename, check) > 6


def test_a_volume_grows_whenever_the_daemon_dies():
    def grow(site):
        return _settled(site, volume_resize(site.ops, VolumeResize(volume="ssd/web1", size="9M")).id)

    def check(site):
        assert volume_info(site.ops, VolumeQuery(volume="ssd/web1")).size_bytes == 9 * MIB
        assert volume_info(site.ops, VolumeQuery(volume="ssd/web1")).state == "ready"

    assert every_death(_with_volume, grow, check) > 6


def test_a_volume_is_removed_whenever_the_daemon_dies():
    def remove(site):
        volume = volume_remove(site.ops, VolumeQuery(volume="ssd/web1")).id
        return lambda: _gone(site, volume)

    def check(site):
        assert site.names() == []
        assert [path for path in site.paths() if "volume" in path] == []

    assert every_death(_with_volume, remove, check) > 4


def _hand_on(count):
    """Let the daemon of a new volume's node die for good at moment ``count``; return the site and whether it died."""
    site = StorageSite("hv1", "hv2", "hv3")
    site.pool()
    volume = volume_add(site.ops, VolumeAdd(pool="ssd", name="web1", size="4M")).id
    assert _node(site, volume) == "hv1"
    site.doom.after(count)
    try:
        site.until(lambda: site.settled(volume))
    except Died:
        site.cut_off("hv1")
        site.until(lambda: site.settled(volume) and _node(site, volume) != "hv1")
    assert site.volume_status(volume).state is VolumeState.READY
    return site


def test_another_node_finishes_what_a_dead_one_began():
    for count in range(50):
        site = _hand_on(count)
        assert site.names() == ["web1"]
        if not site.doom.struck:
            assert count > 6
            return
    pytest.fail("there are always new moments")
