"""Flushing the locks on a VM's disks: only where the VM runs nowhere, and never those of a newer start."""

import pytest

from pvc_core.model.errors import InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.ops.vm_definition import DiskDefinition
from pvc_core.ops.vm_locks import vm_flush_locks
from pvc_core.ops.vm_views import VmQuery
from pvc_core.store import keys
from pvc_core.testkit.vm_site import VOLUMES, VmSite

DISKS = (DiskDefinition(pool="ssd", volume="web"), DiskDefinition(pool="ssd", volume="db"))


def test_a_vm_that_runs_nowhere_gets_a_task_on_a_node_with_its_drivers(equipped):
    vm = equipped.define("web", disks=DISKS, node="hv2")
    task = vm_flush_locks(equipped.ops, VmQuery(vm="web"))
    assert (task.kind, task.arguments) == ("vm.flush-locks", {"vm": vm, "epoch": 0})
    assert task.node in ("hv1", "hv2", "hv3")


def test_a_vm_whose_claim_is_held_is_refused_and_nothing_is_written(equipped):
    vm = equipped.define("web", disks=DISKS, node="hv2")
    equipped.claim(vm, "hv2")
    before = equipped.dump()
    with pytest.raises(InUse, match="node hv2 holds the claim of VM 'web'"):
        vm_flush_locks(equipped.ops, VmQuery(vm="web"))
    assert equipped.dump() == before


def test_what_cannot_be_done_is_refused(equipped):
    equipped.define("bare")
    equipped.define("web", disks=DISKS)
    with pytest.raises(NotFound):
        vm_flush_locks(equipped.ops, VmQuery(vm="nothing"))
    with pytest.raises(InvalidRequest, match="no disks"):
        vm_flush_locks(equipped.ops, VmQuery(vm="bare"))
    for node in ("hv1", "hv2", "hv3"):
        equipped.kill(node)
    with pytest.raises(NoNodeFits):
        vm_flush_locks(equipped.ops, VmQuery(vm="web"))


def test_a_claim_that_is_taken_in_the_same_moment_is_noticed(equipped):
    vm = equipped.define("web", disks=DISKS, node="hv2")
    equipped.before_commit(keys.TASK, lambda: equipped.claim(vm, "hv2"))
    with pytest.raises(InUse):
        vm_flush_locks(equipped.ops, VmQuery(vm="web"))


def test_the_task_breaks_what_a_dead_node_left():
    site = VmSite("hv1", "hv2")
    site.drivers["hv2"].storage("fake").disk_attach(site.ref("web-root"), site.vm, epoch=0, incoming=False)
    ended = site.end(vm_flush_locks(site.ops, VmQuery(vm="web")))
    assert (ended.state, ended.result["broken"]) == ("done", 1)
    assert "node hv2 held volume 'web-root'" in str(ended.result["what"])
    assert site.backend.holders == {}


def test_a_task_that_is_begun_while_the_vm_starts_breaks_nothing():
    site = VmSite("hv1", "hv2")
    for name in VOLUMES:
        site.drivers["hv1"].storage("fake").disk_attach(site.ref(name), site.vm, epoch=1, incoming=False)
    ended = site.end(vm_flush_locks(site.ops, VmQuery(vm="web")))
    assert ended.state == "failed"
    assert "attached" in ended.error
    assert len(site.backend.holders) == 2
