"""Changing definitions, names, tags, disks and NICs."""

import pytest
from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.model.vm import DirectKernel, Tag
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition
from pvc_core.ops.vm_disks import VmDiskAdd, VmDiskRemove, vm_disk_add, vm_disk_remove
from pvc_core.ops.vm_modify import (
    VmAutostart,
    VmModify,
    VmPatch,
    VmRename,
    VmTags,
    vm_autostart,
    vm_modify,
    vm_rename,
    vm_tags,
)
from pvc_core.ops.vm_nics import VmNicAdd, VmNicRemove, vm_nic_add, vm_nic_remove
from pvc_core.ops.vm_views import VmQuery, vm_dump
from pvc_core.ops.volume import VolumeQuery, volume_remove
from pvc_core.store import keys

DISK = DiskDefinition(pool="ssd", volume="web")
NIC = NicDefinition(network="lan", mac="52:54:00:00:00:01")


def patch(small, restart=False, dry_run=False, generation=None, **fields):
    return vm_modify(
        small.ops,
        VmModify(vm="web", patch=VmPatch(**fields), restart=restart, dry_run=dry_run, generation=generation),
    )


def diff(modified):
    return {change.field: (change.old, change.new) for change in modified.changes}


def test_patch_changes_only_what_is_given_and_answers_the_difference(small):
    id_ = small.define(description="old", vcpus=2)
    modified = patch(small, memory="2G", description="new", direct_kernel=DirectKernel(kernel="/k"))
    assert diff(modified) == {
        "memory_mib": (1024, 2048),
        "description": ("old", "new"),
        "direct_kernel": (None, {"kernel": "/k"}),
    }
    assert modified.written
    spec = small.spec(id_)
    assert (spec.memory_mib, spec.vcpus, spec.description, spec.generation) == (2048, 2, "new", 2)
    assert patch(small, direct_kernel=None).changes[0].new is None


def test_same_values_write_nothing(small):
    small.define(vcpus=2)
    before = small.dump()
    modified = patch(small, vcpus=2, memory=1024)
    assert (modified.changes, modified.written) == ((), False)
    assert small.dump() == before


def test_dry_run_checks_and_answers_but_writes_nothing(small):
    small.define()
    before = small.dump()
    modified = patch(small, memory="2G", dry_run=True)
    assert diff(modified) == {"memory_mib": (1024, 2048)}
    assert not modified.written
    with pytest.raises(InvalidRequest, match="wants 64 GiB"):
        patch(small, memory="64G", dry_run=True)
    assert small.dump() == before


def test_restart_is_needed_only_for_hardware_of_a_running_guest(small):
    id_ = small.define()
    assert not patch(small, memory="2G").restart_needed
    small.set_node("hv1", maintenance=False)
    id_ = small.run("other")
    modified = vm_modify(small.ops, VmModify(vm="other", patch=VmPatch(description="x")))
    assert not modified.restart_needed
    modified = vm_modify(small.ops, VmModify(vm="other", patch=VmPatch(vcpus=4)))
    assert (modified.restart_needed, modified.restarting) == (True, False)
    assert small.spec(id_).restart_request == 0
    modified = vm_modify(small.ops, VmModify(vm="other", patch=VmPatch(vcpus=5), restart=True))
    assert (modified.restart_needed, modified.restarting) == (False, True)
    assert small.spec(id_).restart_request == 1


def test_change_back_to_what_the_guest_runs_with_needs_no_restart(small):
    small.run()
    assert patch(small, vcpus=4).restart_needed
    assert not patch(small, vcpus=1).restart_needed


def test_restart_with_more_memory_than_its_node_has_left_is_refused(small):
    small.run("full", memory="6G")
    small.run(node="hv1")
    before = small.dump()
    with pytest.raises(NoNodeFits, match="node hv1 cannot take VM 'web': 4 GiB wanted, 2 GiB of 8 GiB left"):
        patch(small, memory="4G", restart=True)
    assert small.dump() == before
    assert patch(small, memory="2G", restart=True).restarting


def test_other_generation_than_edited_is_refused(small):
    small.define()
    patch(small, vcpus=2, generation=1)
    with pytest.raises(Conflict, match="was changed meanwhile"):
        patch(small, vcpus=3, generation=1)


def test_whole_definition_replaces_all_fields(equipped):
    id_ = equipped.define(disks=(DISK,), nics=(NIC,), tags=("a",), description="x")
    edited = replace(vm_dump(equipped.ops, VmQuery(vm="web")), description="", vcpus=3, tags=("b",), disks=())
    modified = vm_modify(equipped.ops, VmModify(vm="web", definition=edited))
    assert set(diff(modified)) == {"description", "vcpus", "tags", "disks"}
    assert equipped.spec(id_).tags == (Tag(name="b"),)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "other"}, InvalidRequest, "rename a VM with 'vm rename'"),
        ({"id": "11111111-1111-4111-8111-111111111111"}, InvalidRequest, "an id never changes"),
        ({"node": "hv2"}, InvalidRequest, "it is placed on no node: move it with 'vm move'"),
        ({"tags": ()}, InUse, r"leaves out protected tags of VM 'web' \(keep\)"),
        ({"memory": "x"}, InvalidRequest, "is not a size"),
    ],
)
def test_definition_of_something_else_is_refused(small, changes, error, message):
    small.define(tags=(Tag(name="keep", protected=True),))
    edited = replace(vm_dump(small.ops, VmQuery(vm="web")), **changes)
    with pytest.raises(error, match=message):
        vm_modify(small.ops, VmModify(vm="web", definition=edited))


def test_definition_without_macs_keeps_those_the_vm_has(equipped):
    id_ = equipped.define(nics=(NIC, NicDefinition(network="lan", mac="52:54:00:00:00:02")))
    equipped.network("dmz")
    edited = replace(
        vm_dump(equipped.ops, VmQuery(vm="web")),
        nics=(NicDefinition(network="dmz"), NicDefinition(network="lan"), NicDefinition(network="lan")),
    )
    vm_modify(equipped.ops, VmModify(vm="web", definition=edited))
    assert [nic.mac for nic in equipped.spec(id_).nics][1:] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]


def test_patch_and_definition_together_make_no_sense(small):
    small.define()
    with pytest.raises(InvalidRequest, match="either a patch or a definition"):
        vm_modify(small.ops, VmModify(vm="web"))


def test_change_leaves_a_guest_that_ended_for_good_as_it_is(small):
    id_ = small.run()
    small.claim(id_, "")
    small.report(id_, "failed", halted=small.spec(id_).generation, reason="gave up")
    patch(small, description="x")
    info = small.info(id_)
    assert info.status.halted == info.spec.generation
    assert (info.view.state, info.view.reason, info.view.settled) == ("failed", "gave up", True)


# --- name, tags, autostart --------------------------------------------------------------------------


def test_rename_of_a_running_vm_changes_only_the_name(small):
    id_ = small.run()
    small.define("taken")
    assert vm_rename(small.ops, VmRename(vm="web", name="www")).name == "www"
    assert small.store.get(keys.name("vm", "web")) is None
    assert small.store.get(keys.name("vm", "www")).value.decode() == id_
    assert vm_rename(small.ops, VmRename(vm="www", name="www")).generation == small.spec(id_).generation
    for name, error in (("taken", AlreadyExists), ("a b", InvalidRequest)):
        with pytest.raises(error):
            vm_rename(small.ops, VmRename(vm="www", name=name))


def test_tags_are_added_sorted_and_protected_ones_need_force(small):
    id_ = small.define(tags=("b",))
    assert vm_tags(small.ops, VmTags(vm="web", add=("a", "b"), protected=True)).tags == ("a", "b")
    assert all(tag.protected for tag in small.spec(id_).tags)
    with pytest.raises(InUse, match="tag 'a' of VM 'web' is protected"):
        vm_tags(small.ops, VmTags(vm="web", remove=("a",)))
    with pytest.raises(NotFound, match="VM 'web' has no tag 'aa'; did you mean 'a'"):
        vm_tags(small.ops, VmTags(vm="web", remove=("aa",)))
    assert vm_tags(small.ops, VmTags(vm="web", remove=("a",), force=True)).tags == ("b",)


def test_autostart(small):
    small.define()
    assert vm_autostart(small.ops, VmAutostart(vm="web", autostart=True)).autostart
    assert not vm_autostart(small.ops, VmAutostart(vm="web", autostart=False)).autostart


# --- disks and NICs ---------------------------------------------------------------------------------


def test_disk_is_added_last_and_taken_away(equipped):
    id_ = equipped.define(disks=(DISK,))
    vm_disk_add(equipped.ops, VmDiskAdd(vm="web", disk=DiskDefinition(pool="ssd", volume="db", bus="scsi")))
    assert [(disk.volume, disk.bus) for disk in equipped.spec(id_).disks] == [("web", "virtio"), ("db", "scsi")]
    with pytest.raises(InvalidRequest, match="ssd/db is given twice"):
        vm_disk_add(equipped.ops, VmDiskAdd(vm="web", disk=DiskDefinition(pool="ssd", volume="db")))
    vm_disk_remove(equipped.ops, VmDiskRemove(vm="web", volume="ssd/web"))
    assert [disk.volume for disk in equipped.spec(id_).disks] == ["db"]
    volume_remove(equipped.ops, VolumeQuery(volume="ssd/web"))
    with pytest.raises(NotFound, match="VM 'web' has no disk 'ssd/dbb'; did you mean 'ssd/db'"):
        vm_disk_remove(equipped.ops, VmDiskRemove(vm="web", volume="ssd/dbb"))


def test_volume_of_another_vm_cannot_be_added(equipped):
    equipped.define("other", disks=(DISK,))
    equipped.define()
    with pytest.raises(InUse, match="volume ssd/web belongs to VM 'other'"):
        vm_disk_add(equipped.ops, VmDiskAdd(vm="web", disk=DISK))


def test_what_a_running_guest_uses_is_not_taken_from_it(equipped):
    equipped.run(disks=(DISK,), nics=(NIC,))
    before = equipped.dump()
    with pytest.raises(
        InUse, match="VM 'web' runs on node hv1 and its guest uses volume ssd/web, its first disk: shut it"
    ):
        vm_disk_remove(equipped.ops, VmDiskRemove(vm="web", volume="ssd/web"))
    assert equipped.dump() == before


def test_disk_is_not_taken_from_a_vm_that_starts_in_the_last_moment(equipped):
    id_ = equipped.run(disks=(DISK,))
    equipped.report_stopped(id_)

    def start_first():
        equipped.tree.fault = None
        equipped.claim(id_, "hv1")

    equipped.before_commit("/holder", start_first)
    with pytest.raises(InUse, match="runs on node hv1"):
        vm_disk_remove(equipped.ops, VmDiskRemove(vm="web", volume="ssd/web"))


def test_nic_is_added_with_its_own_mac_and_removed_by_network_or_mac(equipped):
    equipped.network("dmz")
    id_ = equipped.define(nics=(NIC,))
    vm_nic_add(equipped.ops, VmNicAdd(vm="web", nic=NicDefinition(network="lan")))
    vm_nic_add(equipped.ops, VmNicAdd(vm="web", nic=NicDefinition(network="dmz", model="e1000")))
    assert len({nic.mac for nic in equipped.spec(id_).nics}) == 3
    with pytest.raises(
        InvalidRequest, match="VM 'web' has 2 NICs in lan; give the MAC address, one of 52:54:00:00:00:01"
    ):
        vm_nic_remove(equipped.ops, VmNicRemove(vm="web", network="lan"))
    vm_nic_remove(equipped.ops, VmNicRemove(vm="web", mac="52-54-00-00-00-01"))
    vm_nic_remove(equipped.ops, VmNicRemove(vm="web", network="dmz"))
    assert [nic.network for nic in equipped.spec(id_).nics] == ["lan"]
    assert equipped.store.get(keys.name("mac", "52:54:00:00:00:01")) is None
    with pytest.raises(NotFound, match="VM 'web' has no NIC dmz; it has 52:54"):
        vm_nic_remove(equipped.ops, VmNicRemove(vm="web", network="dmz"))
    with pytest.raises(InvalidRequest, match="say which NIC"):
        vm_nic_remove(equipped.ops, VmNicRemove(vm="web"))


def test_mac_of_another_vm_is_refused(equipped):
    equipped.define("other", nics=(NIC,))
    equipped.define()
    with pytest.raises(AlreadyExists, match="MAC address 52:54:00:00:00:01 belongs to VM 'other'"):
        vm_nic_add(equipped.ops, VmNicAdd(vm="web", nic=NIC))


def test_network_of_a_removed_nic_is_free(equipped):
    id_ = equipped.define(nics=(NIC,))
    network = equipped.store.children(f"{keys.SPEC}/network")[0]
    assert equipped.store.children(keys.ref("network", network)) == [id_]
    vm_nic_remove(equipped.ops, VmNicRemove(vm="web", network="lan"))
    assert equipped.store.children(keys.ref("network", network)) == []
