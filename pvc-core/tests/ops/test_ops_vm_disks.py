"""Disks of VMs that run: what is written, what is refused, and what needs a restart."""

import pytest
from msgspec.structs import replace

from pvc_core.model.disk import DiskLimits
from pvc_core.model.errors import InUse, InvalidRequest, NotFound
from pvc_core.ops.fence_status import FenceStatus, fence_status
from pvc_core.ops.message import decode_request
from pvc_core.ops.vm_definition import DiskDefinition, LimitsDefinition, VmDefine
from pvc_core.ops.vm_disks import (
    VmDiskAdd,
    VmDiskModify,
    VmDiskRemove,
    vm_disk_add,
    vm_disk_modify,
    vm_disk_remove,
)
from pvc_core.ops.vm_modify import VmModify, VmPatch, VmTags, vm_modify, vm_tags
from pvc_core.ops.vm_power import VmStop, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery, vm_dump
from pvc_core.ops.volume import VolumeQuery, volume_info, volume_remove
from pvc_core.store import keys

WEB, DB = DiskDefinition(pool="ssd", volume="web"), DiskDefinition(pool="ssd", volume="db")


def add(cluster, disk=DB, **more):
    return vm_disk_add(cluster.ops, VmDiskAdd(vm="web", disk=disk, **more))


def remove(cluster, volume="ssd/db", **more):
    return vm_disk_remove(cluster.ops, VmDiskRemove(vm="web", volume=volume, **more))


def modify(cluster, **changes):
    return vm_disk_modify(cluster.ops, VmDiskModify(vm="web", **({"volume": "ssd/db"} | changes)))


def patch(cluster, *disks):
    return vm_modify(cluster.ops, VmModify(vm="web", patch=VmPatch(disks=disks)))


def marks(cluster, vm):
    """Return the VM's disks, with a minus those that are to be taken away."""
    return ["-" * disk.removing + disk.volume for disk in cluster.spec(vm).disks]


def holder(cluster, volume="ssd/db"):
    return volume_info(cluster.ops, VolumeQuery(volume=volume)).vm


# --- adding -----------------------------------------------------------------------------------------


def test_a_disk_that_the_guest_gets_while_it_runs_needs_no_restart(equipped):
    id_ = equipped.run(disks=(WEB,))
    added = add(equipped, restart=True)
    assert (added.restart_needed, added.restarting, added.reasons) == (False, False, ())
    assert marks(equipped, id_) == ["web", "db"]
    assert holder(equipped) == "web"


@pytest.mark.parametrize("bus", ["sata", "ide", "usb"])
def test_a_disk_on_a_bus_that_cannot_plug_it_in_needs_a_restart(equipped, bus):
    id_ = equipped.run(disks=(WEB,))
    added = add(equipped, replace(DB, bus=bus))
    assert added.restart_needed
    on = "sata" if bus == "ide" else bus
    assert added.reasons == (f"ssd/db is not plugged in while it runs, for bus {on} cannot do that",)
    restarted = remove(equipped, restart=True)
    assert not restarted.restarting  # the guest never had it
    assert add(equipped, replace(DB, bus=bus), restart=True).restarting
    assert equipped.spec(id_).restart_request == 1


def test_a_usb_disk_is_plugged_in_where_there_is_a_controller(equipped):
    equipped.run(disks=(WEB,), vnc=True)
    assert not add(equipped, replace(DB, bus="usb")).restart_needed


def test_a_vm_that_does_not_run_needs_no_restart(equipped):
    equipped.define(disks=(WEB,))
    assert not add(equipped, replace(DB, bus="sata")).restart_needed


# --- taking away ------------------------------------------------------------------------------------


def test_a_disk_of_a_running_guest_is_marked_and_stays_the_vms(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    removed = remove(equipped)
    assert not removed.restart_needed
    assert [change.field for change in removed.changes] == ["disks"]
    assert marks(equipped, id_) == ["web", "-db"]
    assert holder(equipped) == "web"
    before = equipped.dump()
    with pytest.raises(InUse, match="volume ssd/db is being taken from VM 'web', whose guest has not let go of it yet"):
        volume_remove(equipped.ops, VolumeQuery(volume="ssd/db"))
    with pytest.raises(InUse, match="volume ssd/db belongs to VM 'web'"):
        equipped.define("thief", disks=(DB,))
    with pytest.raises(NotFound, match="VM 'web' has no disk 'ssd/db'; did you mean 'ssd/web'"):
        remove(equipped)
    with pytest.raises(NotFound, match="has no disk 'ssd/db'"):
        modify(equipped, limits={"iops": 1})
    assert equipped.dump() == before


def test_a_disk_that_is_to_be_taken_away_is_in_no_definition(equipped):
    equipped.run(disks=(WEB, DB))
    remove(equipped)
    assert [disk.volume for disk in vm_dump(equipped.ops, VmQuery(vm="web")).disks] == ["web"]


def test_a_removal_is_taken_back_in_its_place(equipped):
    equipped.volume("logs")
    logs = DiskDefinition(pool="ssd", volume="logs")
    id_ = equipped.run(disks=(WEB, DB, logs))
    remove(equipped)
    assert marks(equipped, id_) == ["web", "-db", "logs"]
    patch(equipped, WEB, DB, logs)
    assert marks(equipped, id_) == ["web", "db", "logs"]
    remove(equipped)
    remove(equipped, "ssd/logs")
    assert marks(equipped, id_) == ["web", "-db", "-logs"]
    assert not add(equipped).restart_needed
    assert marks(equipped, id_) == ["web", "db", "-logs"]


def test_other_changes_leave_a_removal_as_it_is(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    remove(equipped)
    vm_modify(equipped.ops, VmModify(vm="web", patch=VmPatch(description="new")))
    vm_tags(equipped.ops, VmTags(vm="web", add=("prod",)))
    assert marks(equipped, id_) == ["web", "-db"]


def test_a_definition_without_the_disk_takes_it_away(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    definition = vm_dump(equipped.ops, VmQuery(vm="web"))
    vm_modify(equipped.ops, VmModify(vm="web", definition=replace(definition, disks=(WEB,))))
    assert marks(equipped, id_) == ["web", "-db"]


@pytest.mark.parametrize("disks", [(), (DB,)])
def test_the_first_disk_of_a_running_guest_is_not_taken_away(equipped, disks):
    equipped.run(disks=(WEB, DB))
    before = equipped.dump()
    with pytest.raises(InUse, match="VM 'web' runs on node hv1 and its guest uses volume ssd/web, its first disk"):
        patch(equipped, *disks)
    assert equipped.dump() == before


def test_a_disk_that_was_first_when_the_guest_started_waits_for_its_end(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    patch(equipped, DB, WEB)
    removed = remove(equipped, "ssd/web")
    assert removed.reasons == ("ssd/web is taken away when it stops",)
    assert removed.restart_needed
    assert marks(equipped, id_) == ["db", "-web"]


def test_nothing_is_left_of_a_removal_once_nobody_runs_the_vm(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    remove(equipped)
    vm_stop(equipped.ops, VmStop(vm="web"))
    equipped.report_stopped(id_)
    vm_modify(equipped.ops, VmModify(vm="web", patch=VmPatch(description="new")))
    assert marks(equipped, id_) == ["web"]
    assert holder(equipped) is None


def test_what_is_left_of_a_removal_is_not_freed_when_the_vm_starts_in_the_last_moment(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    remove(equipped)
    vm_stop(equipped.ops, VmStop(vm="web"))
    equipped.report_stopped(id_)

    def start_first():
        equipped.tree.fault = None
        equipped.claim(id_, "hv1")

    equipped.before_commit("/holder", start_first)
    vm_modify(equipped.ops, VmModify(vm="web", patch=VmPatch(description="new")))
    assert marks(equipped, id_) == ["web", "-db"]
    assert holder(equipped) == "web"


def test_a_removed_vm_keeps_the_volume_that_was_being_taken_from_it(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    remove(equipped)
    equipped.report_stopped(id_)
    assert vm_remove(equipped.ops, VmRemove(vm="web", volumes=True)).volumes == ("ssd/web",)
    assert volume_info(equipped.ops, VolumeQuery(volume="ssd/web")).deleting
    assert not volume_info(equipped.ops, VolumeQuery(volume="ssd/db")).deleting
    assert holder(equipped) is None


# --- settings ---------------------------------------------------------------------------------------


def test_limits_change_at_once_and_cache_and_discard_at_the_next_start(equipped):
    id_ = equipped.run(disks=(WEB, DB))
    changed = modify(equipped, limits={"bandwidth": "100M", "iops": 300})
    assert not changed.restart_needed
    assert equipped.spec(id_).disks[1].limits == DiskLimits(bandwidth=100 << 20, iops=300)
    changed = modify(equipped, limits={"iops": 0, "read_iops": 50}, cache="writeback", discard=False)
    assert changed.reasons == ("ssd/db has other settings",)
    disk = equipped.spec(id_).disks[1]
    assert (disk.limits, disk.cache, disk.discard) == (
        DiskLimits(bandwidth=100 << 20, read_iops=50),
        "writeback",
        False,
    )
    assert not modify(equipped, cache="none", discard=True).restart_needed
    assert vm_dump(equipped.ops, VmQuery(vm="web")).disks[1].limits == LimitsDefinition(
        bandwidth=100 << 20, read_iops=50
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits": {"iopz": 1}}, "a disk has no limit 'iopz'; did you mean 'iops'"),
        ({"limits": {"iops": 5, "read_iops": 5}}, "disk ssd/db: limit iops is that of reading and writing together"),
        ({"limits": {"iops": -1}}, "disk ssd/db: limits: Expected `int` >= 0"),
        ({"limits": {"bandwidth": "fast"}}, "disk ssd/db: limit bandwidth 'fast' is not a size"),
        ({"limits": {"iops": "many"}}, "disk ssd/db: limits: Expected `int`, got `str`"),
        ({"limits": {"write_bandwidth_burst": "1G"}}, "disk ssd/db: limit write_bandwidth_burst needs a limit"),
        ({}, "say what to change of disk ssd/db: a limit, cache or discard"),
    ],
)
def test_settings_that_make_no_sense_change_nothing(equipped, changes, said):
    equipped.run(disks=(WEB, DB))
    before = equipped.dump()
    with pytest.raises(InvalidRequest) as error:
        modify(equipped, **changes)
    assert str(error.value).startswith(said)
    assert equipped.dump() == before


def test_limits_of_a_definition_are_checked(equipped):
    with pytest.raises(InvalidRequest, match="disk ssd/web: limit iops_burst is 5, less than iops, which is 10"):
        equipped.define(disks=(replace(WEB, limits=LimitsDefinition(iops=10, iops_burst=5)),))
    id_ = equipped.define(disks=(replace(WEB, limits=LimitsDefinition(bandwidth="1M", bandwidth_burst=2 << 20)),))
    assert equipped.spec(id_).disks[0].limits == DiskLimits(bandwidth=1 << 20, bandwidth_burst=2 << 20)


def test_nobody_writes_the_mark_of_a_removal_by_hand():
    disk = {"pool": "ssd", "volume": "web", "removing": True}
    with pytest.raises(InvalidRequest, match="removing"):
        decode_request(VmDefine, {"name": "web", "memory": 64, "disks": [disk]})


# --- fencing ----------------------------------------------------------------------------------------


def test_a_guest_is_covered_by_closed_storage_by_what_it_has(equipped):
    pool = equipped.pool("local")
    equipped.volume("db", pool="local")
    equipped.put(
        keys.pool_spec(pool).path, equipped.store.get(keys.pool_spec(pool).path).value.replace(b'"dir"', b'"lvm"')
    )
    equipped.report_node("hv3", lease=1, identities={"dir": {}})
    id_ = equipped.run(node="hv3", disks=(WEB,))

    def uncovered():
        (ways,) = fence_status(equipped.ops, FenceStatus(node="hv3"))
        return next(way for way in ways.outlook.prospects if way.means == "storage").uncovered

    assert uncovered() == ()
    add(equipped, DiskDefinition(pool="local", volume="db"))
    assert uncovered() == ()
    spec = equipped.spec(id_)
    equipped.report(id_, "running", "hv3", running_disks=("ssd/web", "local/db"), guest_disks=spec.disks)
    assert uncovered() == ("web",)
    remove(equipped, "local/db")
    assert uncovered() == ("web",)
