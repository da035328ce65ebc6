"""Losses at their edges: what is broken, late, unclean or removed must neither run twice nor hold up the rest."""

import pytest
from msgspec.structs import replace

from pvc_core.hypervisor.api import HypervisorError
from pvc_core.model.fence import FenceStage
from pvc_core.model.vm import MigrationPhase, MigrationRecord, VmState
from pvc_core.ops.network import NetworkAdd, network_add
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import node_remove
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import NicDefinition, VmDefine
from pvc_core.ops.vm_power import VmDisable, VmStop, vm_disable, vm_stop
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.plugin.errors import DriverError
from pvc_core.store import documents, keys
from pvc_core.store.api import Put
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeNetwork
from pvc_core.testkit.fence_site import LEVEL, OTHER, ClosableSite, FenceSite


@pytest.fixture
def site():
    return FenceSite()


@pytest.fixture
def stored():
    return ClosableSite()


def spoil(site, key):
    """Put into a document what nobody can read."""
    entry = documents.read(site.cluster.operator, key)
    site.cluster.operator.commit(Put(key.path, b'{"broken', entry.version))


# --- what cannot be read -------------------------------------------------------------------------------


def test_a_fence_record_that_cannot_be_read_does_not_keep_other_nodes_from_being_fenced(site):
    site.lost("hv2")
    site.until(lambda: site.stage("hv2") is FenceStage.RECOVERED)
    spoil(site, keys.fence("hv2"))
    vm = site.vm("web")
    site.lost("hv3")
    site.until(lambda: site.running(vm) == ["hv1"])


@pytest.mark.parametrize("key", [keys.generation, keys.node_spec])
def test_a_node_that_cannot_be_read_does_not_keep_others_from_being_fenced(site, key):
    vm = site.vm("web")
    site.lost("hv2")
    site.until(lambda: site.stage("hv2") is FenceStage.RECOVERED)
    spoil(site, key("hv2"))
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert site.read(keys.claim(vm)).node != "hv3"


@pytest.mark.parametrize("key", [keys.vm_spec, keys.vm_status])
def test_a_vm_that_cannot_be_read_does_not_keep_the_others_of_its_node_from_being_freed(site, key):
    broken, vm = site.vm("broken"), site.vm("web")
    site.dies("hv3")
    spoil(site, key(broken))
    site.loses_lease("hv3")
    site.until(lambda: site.read(keys.claim(vm)).node != "hv3")


def test_a_vm_that_cannot_be_read_does_not_keep_the_others_from_being_placed(site):
    broken, vm = site.vm("broken"), site.vm("web")
    site.dies("hv3")
    spoil(site, keys.vm_spec(broken))
    site.loses_lease("hv3")
    site.until(lambda: site.running(vm) in (["hv1"], ["hv2"]))


def test_an_answer_for_one_node_survives_trouble_with_another(site):
    vm = site.vm("web")
    store = site.cluster.nodes["hv1"].store
    commit = store.commit

    def troubled(*operations):
        if any(operation.path == keys.fence("hv2").path and isinstance(operation, Put) for operation in operations):
            raise documents.CorruptDocument("trouble with hv2")
        commit(*operations)

    site.lost("hv2")
    store.commit = troubled
    site.lost("hv3")
    site.until(lambda: len(site.running(vm)) == 1)


def test_a_driver_that_says_very_much_does_not_keep_the_record_from_being_written(site):
    site.change(keys.node_spec("hv3"), fence_levels=(OTHER, LEVEL))
    driver = site.cluster.nodes["hv1"].drivers.fencing("other")
    driver.faults.fail_always("power_status", DriverError("no " * 1_000_000))
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    assert [attempt.ok for attempt in site.record().attempts] == [False, True]


def test_claims_are_read_once_for_all_nodes_that_are_gone(site):
    site.vm("web", node="hv1")
    for node in ("hv2", "hv3"):
        site.lost(node)
    site.until(lambda: {site.stage("hv2"), site.stage("hv3")} == {FenceStage.RECOVERED})
    site.cluster.run(5.0)
    node = site.cluster.nodes["hv1"]
    children, asked = node.store.children, []
    node.store.children = lambda path: asked.append(path) or children(path)
    node.agent.queue.add("duties", "")
    node.agent.step(("duties", ""))
    assert asked.count(keys.CLAIM) == 1


# --- who returns ----------------------------------------------------------------------------------------


def held_domain(site, vm):
    """Let a VM's domain on hv3 refuse to end."""
    hypervisor = site.cluster.nodes["hv3"].hypervisor
    destroy = hypervisor.destroy

    def refuse(which):
        if which == vm:
            raise HypervisorError(f"VM {vm} did not end")
        destroy(which)

    hypervisor.destroy = refuse
    return lambda: setattr(hypervisor, "destroy", destroy)


def frozen_elsewhere(site):
    """Keep the other nodes from taking VMs."""
    for name in ("hv1", "hv2"):
        site.change(keys.node_spec(name), scheduling="drain")
    site.cluster.settle()


def test_a_domain_that_does_not_end_keeps_the_node_from_everything_but_ending_the_others(site):
    stubborn, other = sorted([site.vm("a"), site.vm("b")])
    site.power.stuck.add("hv3")
    frozen_elsewhere(site)
    new = vm_define(site.cluster.ops, VmDefine(name="new", memory=512, node="hv3")).id
    site.isolated("hv3")
    site.confirmed()
    site.until(lambda: not site.read(keys.claim(stubborn)).node and not site.read(keys.claim(other)).node)
    release = held_domain(site, stubborn)
    site.change(keys.node_spec("hv3"), scheduling="ready")
    site.change(keys.vm_spec(new), power="running")
    site.reconnected("hv3")
    site.cluster.run(60.0)
    assert site.running(other) == []
    assert site.running(new) == []
    assert site.read(keys.claim(stubborn)).node == ""
    assert site.record().dirty
    assert f"{stubborn} (VM {stubborn} did not end)" in site.record().waits_for
    assert site.read(keys.node_status("hv3")).lease == site.read(keys.generation("hv3")).generation
    release()
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    site.until(lambda: site.running(new) == ["hv3"], 120.0)


def test_a_start_that_hung_while_its_node_was_proven_dead_comes_to_nothing(site):
    node = site.cluster.nodes["hv3"]
    vm = vm_define(site.cluster.ops, VmDefine(name="web", memory=512, node="hv3")).id
    site.power.stuck.add("hv3")
    get_many, start, holders = node.store.get_many, node.hypervisor.start, []

    def noted(plan):
        holders.append(site.read(keys.claim(vm)).node)
        start(plan)

    def hangs(paths):
        found = get_many(paths)
        # The last that is read before a domain is started: the machine types of all nodes.
        if [path for path in paths if not path.startswith(f"{keys.STATUS}/node/")] or len(paths) < 2:
            return found
        node.store.get_many = get_many
        site.isolated("hv3")
        site.confirmed()
        site.until(lambda: site.running(vm) in (["hv1"], ["hv2"]))
        site.reconnected("hv3")
        site.until(lambda: site.stage() is FenceStage.RETURNED)
        return found

    node.hypervisor.start, node.store.get_many = noted, hangs
    site.change(keys.vm_spec(vm), power="running")
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    site.cluster.run(30.0)
    assert len(site.running(vm)) == 1
    assert holders == []


# --- migrations -----------------------------------------------------------------------------------------


def test_a_migration_whose_target_dies_before_the_transfer_ends(site):
    vm = site.vm("web", node="hv2")
    site.dies("hv3")
    entry = documents.read(site.cluster.operator, keys.claim(vm))
    migration = MigrationRecord(target="hv3", attempt="a1", phase=MigrationPhase.READY, target_lease=1)
    site.cluster.operator.commit(entry.put(replace(entry.value, migration=migration)))
    site.change(keys.vm_spec(vm), node="hv3")
    site.loses_lease("hv3")
    site.until(lambda: site.read(keys.claim(vm)).migration is None)
    site.until(lambda: "hv3 is not alive" in site.read(keys.vm_status(vm)).reason)
    assert site.running(vm) == ["hv2"]


def test_a_node_is_drained_although_the_node_that_a_vm_was_to_move_to_died(site):
    vm = site.vm("web", node="hv2")
    site.dies("hv3")
    site.change(keys.node_spec("hv2"), scheduling="drain")
    site.change(keys.vm_spec(vm), node="hv3", home="hv2")
    site.loses_lease("hv3")
    site.until(lambda: site.running(vm) == ["hv1"], 120.0)
    assert site.read(keys.vm_spec(vm)).home == "hv2"


# --- places -----------------------------------------------------------------------------------------------


def test_a_vm_does_not_wait_for_a_node_whose_storage_stays_closed(stored):
    vm = stored.vm_on("a", "shared")
    new = vm_define(stored.cluster.ops, VmDefine(name="new", memory=512, node="hv3")).id
    stored.isolated("hv3")
    stored.until(lambda: stored.read(keys.claim(vm)).node in ("hv1", "hv2"))
    for name in ("hv1", "hv2"):
        stored.cluster.nodes[name].drivers.break_driver("fake", "gone")
    stored.reconnected("hv3")
    stored.until(lambda: stored.stage() is FenceStage.RETURNED)
    stored.change(keys.node_spec("hv3"), scheduling="ready")
    stored.cluster.run(5.0)
    stored.change(keys.vm_spec(new), power="running")
    stored.until(lambda: stored.running(new) in (["hv1"], ["hv2"]), 120.0)


def test_a_vm_that_was_never_started_says_why_it_has_no_place(site):
    vm = vm_define(site.cluster.ops, VmDefine(name="web", memory=512, node="hv3", node_limit=("hv3",))).id
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.change(keys.vm_spec(vm), power="running")
    site.until(lambda: site.read(keys.vm_status(vm)) is not None)
    status = site.read(keys.vm_status(vm))
    assert (status.state, "hv3: " in status.reason) == (VmState.WAITING, True)


# --- removal ----------------------------------------------------------------------------------------------


def removed(site):
    """Let hv3 be believed dead while it runs a VM, let the VM run elsewhere and be stopped there, remove hv3."""
    vm = site.vm("web")
    site.power.stuck.add("hv3")
    site.isolated("hv3")
    site.confirmed()
    site.until(lambda: len(site.running(vm)) == 2)
    site.change(keys.vm_spec(vm), power="stopped", stop_forced=True)
    site.until(lambda: site.running(vm) == ["hv3"])
    node_remove(site.cluster.ops, NodeQuery(node="hv3"))
    return vm


def test_an_outdated_guest_on_a_removed_node_is_ended_and_never_adopted(site):
    vm = removed(site)
    before = site.read(keys.claim(vm)).epoch
    site.reconnected("hv3")
    site.cluster.settle()
    assert site.running(vm) == []
    assert site.read(keys.claim(vm)).epoch == before
    assert site.stage() is FenceStage.RETURNED


def test_leases_of_a_name_never_begin_anew(site):
    removed(site)
    last = site.read(keys.generation("hv3")).generation
    site.reconnected("hv3")
    site.cluster.settle()
    assert site.read(keys.generation("hv3")).generation == last + 1


# --- where VMs go ------------------------------------------------------------------------------------------------


class NetworkSite(FenceSite):
    """``hv1`` cannot set up networks."""

    def _drivers(self, name):
        drivers, network = super()._drivers(name), FakeNetwork(name)
        if name == "hv1":
            network.faults.fail_always("network_ensure", DriverError("device eth9 does not exist here"))
        fencing = {kind: drivers.fencing(kind) for kind in ("fake", "other")}
        return DirectDrivers(fencing=fencing, network={"fake": network})


def test_a_vm_goes_to_a_node_that_has_its_network(caplog):
    site = NetworkSite()
    network_add(site.cluster.ops, NetworkAdd(name="lan", driver="fake"))
    site.cluster.run(30)
    vms = [site.vm(f"web{number}", nics=(NicDefinition(network="lan"),)) for number in range(3)]
    site.lost("hv3")
    site.until(lambda: all(site.running(vm) == ["hv2"] for vm in vms))
    site.change(keys.node_spec("hv2"), scheduling="drain")
    site.cluster.run(120)
    assert "hv1: network lan cannot be set up there: device eth9 does not exist here" in caplog.text


def test_a_vm_that_waits_for_a_place_and_is_stopped_says_that_it_is_stopped(site):
    site.vm("web", node_limit=("hv3",))
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.cluster.run(30)

    def view():
        found = vm_info(site.cluster.ops, VmQuery(vm="web")).view
        return found.state, found.reason.partition(":")[0], found.settled

    assert view()[:2] == ("waiting", "no node can take it")
    vm_stop(site.cluster.ops, VmStop(vm="web"))
    site.cluster.run(30)
    assert view() == ("stopped", "", True)
    vm_disable(site.cluster.ops, VmDisable(vm="web"))
    assert view() == ("disabled", "", True)
