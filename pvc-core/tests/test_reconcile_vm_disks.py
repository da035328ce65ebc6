"""Disks that come and go while a guest runs, whatever befalls the daemon, the guest and the nodes in between."""

from functools import partial

import pytest

from pvc_core.hypervisor.api import HypervisorUnavailable
from pvc_core.model.disk import DiskLimits
from pvc_core.model.errors import InUse
from pvc_core.model.vm import VmState
from pvc_core.node.storage_block import StorageFences
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.vm_disks import (
    VmDiskAdd,
    VmDiskModify,
    VmDiskRemove,
    vm_disk_add,
    vm_disk_modify,
    vm_disk_remove,
)
from pvc_core.ops.vm_move import VmMove, vm_move
from pvc_core.ops.vm_power import VmStop, vm_restart, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.ops.volume import VolumeAdd, VolumeQuery, VolumeResize, volume_add, volume_remove, volume_resize
from pvc_core.plugin.errors import DriverError
from pvc_core.store import documents, keys
from pvc_core.store.memory import Moment
from pvc_core.testkit.doomed import every_death
from pvc_core.testkit.storage_site import StorageSite

MIB = 1 << 20


class Site(StorageSite):
    """One or more nodes, volumes root, data and logs, and VM web that runs with root on hv1.

    After every write it is checked that no guest has a volume that does not belong to its VM, but one that storage is
    closed to.
    """

    def __init__(self, *names, disks=("root",)):
        super().__init__(*names)
        self.pool_id = self.pool()
        self.volumes = {}
        for name in ("root", "data", "logs"):
            id_ = volume_add(self.ops, VolumeAdd(pool="ssd", name=name, size="4M")).id
            self.until(lambda id_=id_: self.settled(id_))
            self.volumes[name] = id_
        self.wrong = []
        self.vm = ""
        self._fault = self.cluster.tree.fault
        self.cluster.tree.fault = self._checked
        self.vm = self.define("web", *disks)

    def define(self, name, *volumes, node="hv1"):
        disks = tuple(DiskDefinition(pool="ssd", volume=volume) for volume in volumes)
        vm = vm_define(self.ops, VmDefine(name=name, memory="64M", disks=disks, node=node, start=True)).id
        self.until(lambda: self.state(vm) is VmState.RUNNING)
        return vm

    def _checked(self, moment, session, operations):
        if moment is Moment.AFTER:
            self._check()
        self._fault(moment, session, operations)

    def _check(self):
        for host in set(self.cluster.world.running(self.vm) if self.vm else ()) - self.backend.blocked:
            for volume in self.cluster.world.volumes(host, self.vm):
                holder = self.cluster.tree.peek(keys.volume_holder(self.volumes[volume.removeprefix("ssd/")]))
                if holder is None or holder.value.decode() != self.vm:
                    self.wrong.append(f"the guest on {host} has {volume}, which is held by {holder}")
                if volume not in (self.status().running_disks or ()):
                    self.wrong.append(f"the guest on {host} has {volume}, which its status does not name")

    def status(self):
        return documents.maybe(keys.vm_status(self.vm), self.cluster.tree.peek(keys.vm_status(self.vm).path)).value

    def spec(self):
        entry = documents.read(self.ops.store, keys.vm_spec(self.vm))
        return entry.value if entry is not None else None

    def state(self, vm):
        entry = documents.read(self.ops.store, keys.vm_status(vm))
        return entry.value.state if entry is not None else None

    def guest(self):
        """Return the volumes that the guest has, without the pool, in the order in which it got them."""
        (host,) = self.cluster.world.running(self.vm)
        return [volume.removeprefix("ssd/") for volume in self.cluster.world.volumes(host, self.vm)]

    def holder(self, name):
        node = self.ops.store.get(keys.volume_holder(self.volumes[name]))
        return node.value.decode() if node is not None else ""

    def attached(self, name):
        """Return the nodes on which the backend has a volume attached for web."""
        holders = self.backend.holders.get((self.pool_id, name), [])
        return [holder.node for holder in holders if holder.vm == self.vm]

    def conditions(self):
        return {condition.type: condition.reason for condition in self.status().conditions}

    def quiet(self):
        """Whether the node has seen the last change, and nothing is left to do about it."""
        return self.status().observed_generation == self.spec().generation and not self.conditions()

    def add(self, name, **fields):
        return vm_disk_add(self.ops, VmDiskAdd(vm="web", disk=DiskDefinition(pool="ssd", volume=name, **fields)))

    def remove(self, name):
        return vm_disk_remove(self.ops, VmDiskRemove(vm="web", volume=f"ssd/{name}"))

    def keeps_devices(self, *, keeps=True):
        self.cluster.world.vm_faults(self.vm).keeps_devices = keeps


@pytest.fixture
def site():
    made = Site("hv1")
    yield made
    assert made.wrong == []


@pytest.fixture
def pair():
    made = Site("hv1", "hv2", disks=("root", "data"))
    yield made
    assert made.wrong == []


# --- whatever befalls the daemon --------------------------------------------------------------------


def test_a_daemon_that_dies_at_any_moment_of_plugging_a_disk_in_does_it_all_the_same():
    def act(site):
        assert not site.add("data").restart_needed
        return lambda: site.guest() == ["root", "data"] and site.quiet()

    def check(site):
        assert site.wrong == []
        assert site.holder("data") == site.vm
        assert site.attached("data") == ["hv1"]
        assert site.status().running_disks == ("ssd/root", "ssd/data")

    assert every_death(lambda: Site("hv1"), act, check) > 6


def test_a_daemon_that_dies_at_any_moment_of_plugging_a_scsi_disk_in_does_it_all_the_same():
    def act(site):
        site.add("data", bus="scsi")
        return lambda: site.guest() == ["root", "data"] and site.quiet()

    def check(site):
        assert site.wrong == []

    assert every_death(lambda: Site("hv1"), act, check) > 8


def test_a_daemon_that_dies_at_any_moment_of_taking_a_disk_away_frees_it_only_when_the_guest_has_let_go():
    def act(site):
        site.remove("data")
        return lambda: site.holder("data") == "" and site.quiet()

    def check(site):
        assert site.wrong == []
        assert site.guest() == ["root"]
        assert site.attached("data") == []
        assert [disk.path for disk in site.spec().disks] == ["ssd/root"]
        assert site.status().running_disks == ("ssd/root",)
        other = site.define("other", "data")
        assert site.holder("data") == other

    assert every_death(lambda: Site("hv1", disks=("root", "data")), act, check) > 6


def test_a_daemon_that_dies_while_the_guest_stops_frees_its_removed_disk():
    def make():
        site = Site("hv1", disks=("root", "data"))
        site.keeps_devices()
        site.remove("data")
        site.until(lambda: site.conditions() == {"Disks": "GuestKeepsDisk"})
        return site

    def act(site):
        vm_stop(site.ops, VmStop(vm="web"))
        return lambda: site.state(site.vm) is VmState.STOPPED and site.holder("data") == ""

    def check(site):
        assert site.wrong == []
        assert site.attached("data") == site.attached("root") == []
        assert [disk.path for disk in site.spec().disks] == ["ssd/root"]

    assert every_death(make, act, check) > 6


def test_a_daemon_that_dies_at_any_moment_of_changing_limits_does_it_all_the_same():
    def act(site):
        vm_disk_modify(site.ops, VmDiskModify(vm="web", volume="ssd/root", limits={"iops": 100, "iops_burst": 300}))
        wanted = {"vda": DiskLimits(iops=100, iops_burst=300)}
        return lambda: site.cluster.world.limits("hv1", site.vm) == wanted and site.quiet()

    def check(site):
        assert site.status().guest_disks[0].limits.iops == 100

    assert every_death(lambda: Site("hv1"), act, check) > 3


# --- guests that do not cooperate -------------------------------------------------------------------


def test_a_guest_that_keeps_a_disk_keeps_the_volume_from_everybody(pair):
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "GuestKeepsDisk"})
    assert pair.guest() == ["root", "data"]
    with pytest.raises(InUse, match="ssd/data is being taken from VM 'web', whose guest has not let go of it yet"):
        volume_remove(pair.ops, VolumeQuery(volume="ssd/data"))
    with pytest.raises(InUse, match="volume ssd/data belongs to VM 'web'"):
        vm_define(pair.ops, VmDefine(name="thief", memory="64M", disks=(DiskDefinition(pool="ssd", volume="data"),)))
    pair.keeps_devices(keeps=False)
    pair.until(lambda: pair.holder("data") == "")
    assert pair.quiet()


def test_a_guest_that_let_go_late_is_noticed_without_being_asked_again(pair):
    pair.cluster.world.pace.unplug_s = 9.0
    pair.remove("data")
    pair.until(lambda: pair.holder("data") == "", 9.5)


def test_a_removal_is_taken_back(pair):
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "GuestKeepsDisk"})
    assert not pair.add("data").restart_needed
    pair.until(pair.quiet)
    assert pair.guest() == ["root", "data"]
    assert [disk.removing for disk in pair.spec().disks] == [False, False]


def test_a_disk_whose_removal_is_taken_back_is_as_it_was(pair):
    vm_disk_modify(pair.ops, VmDiskModify(vm="web", volume="ssd/data", limits={"iops": 100}))
    pair.until(pair.quiet)
    before = pair.spec().disks
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "GuestKeepsDisk"})
    pair.add("data")
    assert pair.spec().disks == before
    assert before[1].limits == DiskLimits(iops=100)


def test_a_guest_that_lets_go_after_the_removal_was_taken_back_gets_the_disk_again(pair):
    pair.cluster.world.pace.unplug_s = 5.0
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "Unplugging"})
    body = pair.cluster.world._hosts["hv1"].guests[pair.vm].body
    before = body.disk("web", "vdb")
    pair.add("data")
    pair.until(lambda: body.disk("web", "vdb") is not before)
    assert pair.guest() == ["root", "data"]
    assert pair.quiet()


def test_a_restarted_guest_does_not_have_the_disk_any_more(pair):
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "GuestKeepsDisk"})
    vm_restart(pair.ops, VmQuery(vm="web"))
    pair.until(lambda: pair.holder("data") == "" and pair.state(pair.vm) is VmState.RUNNING and pair.quiet())
    assert pair.guest() == ["root"]


def test_a_crashed_guest_does_not_have_the_disk_any_more(pair):
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: bool(pair.conditions()))
    pair.cluster.world.crash("hv1", pair.vm)
    pair.until(lambda: pair.holder("data") == "" and pair.cluster.world.running(pair.vm) == ["hv1"])
    assert pair.guest() == ["root"]


def test_a_removed_vm_leaves_the_volume_that_was_being_taken_from_it(pair):
    pair.keeps_devices()
    pair.remove("data")
    pair.until(lambda: bool(pair.conditions()))
    assert vm_remove(pair.ops, VmRemove(vm="web", volumes=True, force=True)).volumes == ("ssd/root",)
    pair.until(lambda: pair.spec() is None and pair.volume(pair.volumes["root"]) is None)
    assert not pair.volume(pair.volumes["data"]).deleting
    assert pair.holder("data") == ""


# --- what fails -------------------------------------------------------------------------------------


def test_a_disk_that_cannot_be_plugged_in_is_told_and_tried_again(site):
    site.cluster.world.vm_faults(site.vm).device_error = "No more available PCI slots"
    site.add("data")
    site.until(lambda: site.conditions() == {"Disks": "PlugFailed"})
    assert "No more available PCI slots" in site.status().conditions[0].message
    site.cluster.world.vm_faults(site.vm).device_error = ""
    site.until(lambda: site.guest() == ["root", "data"] and site.quiet())


def test_a_disk_whose_storage_does_not_answer_is_told_and_given_up_on_request(site):
    site.faults["hv1"].fail_always("disk_attach", DriverError("no route to the storage"))
    site.add("data")
    site.until(lambda: site.conditions() == {"Disks": "PlugFailed"})
    site.remove("data")
    site.until(lambda: site.holder("data") == "" and site.quiet())
    assert site.guest() == ["root"]


def test_a_volume_that_is_not_ready_is_not_plugged_in(site):
    site.faults["hv1"].fail_always("volume_create")
    new = volume_add(site.ops, VolumeAdd(pool="ssd", name="new", size="4M")).id
    site.volumes["new"] = new
    site.add("new")
    site.until(lambda: site.conditions() == {"Disks": "PlugFailed"})
    assert site.status().conditions[0].message == "ssd/new cannot be plugged in: volume ssd/new is creating"
    site.faults["hv1"].clear()
    site.until(lambda: site.guest() == ["root", "new"] and site.quiet())


def test_a_disk_that_the_bus_cannot_plug_in_comes_and_goes_with_a_restart(site):
    added = site.add("data", bus="sata")
    assert added.restart_needed
    assert added.reasons == ("ssd/data is not plugged in while it runs, for bus sata cannot do that",)
    site.until(lambda: site.conditions() == {"Hardware": "RestartNeeded"})
    vm_restart(site.ops, VmQuery(vm="web"))
    site.until(lambda: site.guest() == ["root", "data"] and site.quiet())
    removed = site.remove("data")
    assert removed.reasons == ("ssd/data is taken away when it stops",)
    site.until(lambda: site.conditions() == {"Hardware": "RestartNeeded"})
    assert site.holder("data") == site.vm
    vm_restart(site.ops, VmQuery(vm="web"))
    site.until(lambda: site.guest() == ["root"] and site.holder("data") == "" and site.quiet())


def test_a_disk_that_a_hung_hypervisor_plugs_in_late_is_not_given_away_before(site):
    """Its answer was lost, and the disk is not wanted any more by then."""
    hypervisor = site.nodes["hv1"].agent.context.hypervisor
    attach = hypervisor.attach_device

    def hangs(vm, xml):
        hypervisor.attach_device = attach
        site.cluster.world.later(20.0, partial(site.nodes["hv1"].hypervisor.attach_device, vm, xml))
        raise HypervisorUnavailable("libvirtd does not answer")

    hypervisor.attach_device = hangs
    site.add("data")
    site.cluster.settle()
    site.remove("data")
    site.cluster.run(15.0)
    assert site.holder("data") == site.vm
    assert site.guest() == ["root"]
    site.until(lambda: site.guest() == ["root", "data"])
    site.until(lambda: site.holder("data") == "" and site.quiet())
    assert site.guest() == ["root"]


# --- nodes ------------------------------------------------------------------------------------------


def _targets(site):
    (host,) = site.cluster.world.running(site.vm)
    disks = site.nodes[host].hypervisor.domain(site.vm).disks
    return {disk.volume.removeprefix("ssd/"): disk.target for disk in disks}


def test_disks_keep_their_names_when_one_between_them_goes_and_over_a_live_migration(pair):
    pair.add("logs")
    pair.until(pair.quiet)
    assert _targets(pair) == {"root": "vda", "data": "vdb", "logs": "vdc"}
    pair.remove("data")
    pair.until(lambda: pair.holder("data") == "")
    assert _targets(pair) == {"root": "vda", "logs": "vdc"}
    vm_move(pair.ops, VmMove(vm="web", node="hv2"))
    pair.until(lambda: pair.cluster.world.running(pair.vm) == ["hv2"] and pair.quiet())
    assert _targets(pair) == {"root": "vda", "logs": "vdc"}
    assert pair.attached("logs") == pair.attached("root") == ["hv2"]
    volume_resize(pair.ops, VolumeResize(volume="ssd/logs", size="9M"))
    pair.until(lambda: pair.settled(pair.volumes["logs"]))
    assert pair.cluster.world._hosts["hv2"].guests[pair.vm].body.disk_bytes == {"vdc": 9 * MIB}
    pair.add("data")
    pair.until(lambda: pair.guest() == ["root", "logs", "data"] and pair.quiet())
    assert _targets(pair) == {"root": "vda", "logs": "vdc", "data": "vdb"}


def test_storage_that_does_not_let_go_of_a_disk_is_told_and_keeps_the_guest_from_nothing(pair):
    pair.faults["hv1"].fail_always("disk_detach", DriverError("the storage is busy"))
    pair.remove("data")
    pair.until(lambda: pair.conditions() == {"Disks": "ReleaseFailed"})
    (condition,) = pair.status().conditions
    assert condition.message == ("the guest has let go of ssd/data, and its storage does not: the storage is busy")
    assert pair.holder("data") == pair.vm
    pair.add("logs")
    pair.until(lambda: pair.guest() == ["root", "logs"])
    pair.faults["hv1"].clear()
    pair.until(lambda: pair.holder("data") == "" and pair.quiet())
    assert pair.attached("data") == []


def test_a_source_that_was_restarted_in_a_migration_lets_go_of_a_disk_that_was_taken_away_since(pair):
    """Its daemon does not remember what it attached, and the spec does not name it any more."""
    vm_move(pair.ops, VmMove(vm="web", node="hv2"))
    pair.until(lambda: len(pair.cluster.world.present(pair.vm)) == 2)
    pair.nodes["hv1"].kill()
    pair.until(lambda: pair.cluster.world.running(pair.vm) == ["hv2"])
    pair.remove("data")
    pair.faults["hv1"].fail_always("disk_detach", DriverError("the storage is busy"))
    pair.nodes["hv1"].start()
    pair.until(lambda: pair.holder("data") == "" and pair.quiet())
    assert pair.attached("data") == ["hv1"]
    pair.faults["hv1"].clear()
    pair.until(lambda: pair.attached("data") == pair.attached("root")[1:] == [])


def test_what_is_asked_for_in_a_live_migration_is_done_after_it(pair):
    vm_move(pair.ops, VmMove(vm="web", node="hv2"))
    pair.until(lambda: len(pair.cluster.world.present(pair.vm)) == 2)
    pair.remove("data")
    pair.add("logs")
    pair.until(lambda: pair.cluster.world.running(pair.vm) == ["hv2"] and pair.quiet())
    assert pair.guest() == ["root", "logs"]
    assert pair.holder("data") == ""
    assert pair.attached("data") == []
    assert pair.attached("logs") == ["hv2"]


@pytest.mark.parametrize("power", [False, True])
def test_a_disk_that_was_being_taken_from_a_guest_is_free_when_its_node_cannot_write_to_it_any_more(power):
    """The node's storage is closed: its guest may run on, with a disk that another VM has by then."""
    site = Site("hv1", "hv2", "hv3", disks=("root", "data"))
    site.keeps_devices()
    site.remove("data")
    site.until(lambda: bool(site.conditions()))
    if not power:
        site.cluster.world.power_off("hv1")
    site.cut_off("hv1")
    site.cluster.run(1.0)
    assert site.holder("data") == site.vm
    site.until(lambda: bool(set(site.cluster.world.running(site.vm)) & {"hv2", "hv3"}), 900.0)
    assert documents.read(site.ops.store, keys.fence("hv1")).value.proofs[0].pools == (site.pool_id,)
    site.until(lambda: site.holder("data") == "")
    (host,) = set(site.cluster.world.running(site.vm)) - {"hv1"}
    assert site.cluster.world.volumes(host, site.vm) == ["ssd/root"]
    # The lost node's hold in the backend ended, too.
    site.define("other", "data", node="hv2")
    assert site.wrong == []


def test_a_disk_that_was_plugged_in_is_closed_with_the_others(pair):
    """A guest that was given a disk of another pool while it runs may write to that one too."""
    other = pair.pool("nvme")
    fast = volume_add(pair.ops, VolumeAdd(pool="nvme", name="fast", size="4M")).id
    pair.until(lambda: pair.settled(fast))
    disk = DiskDefinition(pool="nvme", volume="fast")
    pair.volumes["nvme/fast"] = fast
    vm_disk_add(pair.ops, VmDiskAdd(vm="web", disk=disk))
    pair.until(lambda: len(pair.guest()) == 3 and pair.quiet())
    pair.keeps_devices()
    vm_disk_remove(pair.ops, VmDiskRemove(vm="web", volume="nvme/fast"))
    pair.until(lambda: pair.conditions() == {"Disks": "GuestKeepsDisk"})
    blocks = StorageFences(pair.nodes["hv2"].agent.context).plan("hv1", 1)
    assert {pool for block in blocks for pool in block.pools} == {pair.pool_id, other}
