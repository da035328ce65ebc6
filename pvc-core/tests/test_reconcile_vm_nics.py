"""NICs that come and go while a guest runs, whatever befalls the daemon, the guest and the nodes in between."""

from functools import partial

import pytest

from pvc_core.hypervisor.api import HypervisorUnavailable
from pvc_core.model.errors import AlreadyExists, InUse
from pvc_core.model.vm import NicLimits, VmState
from pvc_core.ops.network import NetworkAdd, NetworkQuery, network_add, network_remove
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.ops.vm_move import VmMove, vm_move
from pvc_core.ops.vm_nic_definition import NicDefinition
from pvc_core.ops.vm_nics import VmNicAdd, VmNicModify, VmNicRemove, vm_nic_add, vm_nic_modify, vm_nic_remove
from pvc_core.ops.vm_power import VmStop, vm_restart, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.network import NetworkCapabilities
from pvc_core.store import documents, keys
from pvc_core.store.memory import Moment
from pvc_core.testkit.doomed import every_death
from pvc_core.testkit.storage_site import StorageSite

LAN, DMZ, MORE = (f"52:54:00:00:00:0{number}" for number in (1, 2, 3))
NETWORKS = {LAN: "lan", DMZ: "dmz", MORE: "dmz"}


class Site(StorageSite):
    """One or more nodes, networks lan and dmz, and VM web that runs with NICs on hv1.

    After every write it is checked that no guest has a NIC whose MAC address or network is not held by its VM, or that
    its node's driver does not know.
    """

    def __init__(self, *names, macs=(LAN,)):
        super().__init__(*names)
        self.networks = {}
        for name in ("lan", "dmz"):
            self.networks[name] = network_add(self.ops, NetworkAdd(name=name, driver="fakenet")).id
        for node in self.nodes:
            self.until(lambda node=node: all(self.ready(network, node) for network in self.networks.values()))
        self.wrong = []
        self.vm = ""
        self._fault = self.cluster.tree.fault
        self.cluster.tree.fault = self._checked
        self.vm = self.define("web", *macs)

    def ready(self, network, node):
        status = self.network_status(network, node)
        return status is not None and bool(status.device)

    def define(self, name, *macs, node="hv1"):
        nics = tuple(NicDefinition(network=NETWORKS[mac], mac=mac) for mac in macs)
        vm = vm_define(self.ops, VmDefine(name=name, memory="64M", nics=nics, node=node, start=True)).id
        self.until(lambda: self.state(vm) is VmState.RUNNING)
        return vm

    def _checked(self, moment, session, operations):
        if moment is Moment.AFTER:
            self._check()
        self._fault(moment, session, operations)

    def _check(self):
        for host in self.cluster.world.running(self.vm) if self.vm else ():
            for mac in self.cluster.world.nics(host, self.vm):
                owner = self.cluster.tree.peek(keys.name("mac", mac))
                hold = self.cluster.tree.peek(f"{keys.ref('network', self.networks[NETWORKS[mac]])}/{self.vm}")
                if owner is None or owner.value.decode() != self.vm or hold is None:
                    self.wrong.append(f"the guest on {host} has {mac}, which is held by {owner}, its network by {hold}")
                if mac not in {nic.mac for nic in self.status().guest_nics or ()}:
                    self.wrong.append(f"the guest on {host} has {mac}, which its status does not name")
                if mac not in self.prepared(host):
                    self.wrong.append(f"the guest on {host} has {mac}, of which the driver there knows nothing")

    def status(self):
        return documents.maybe(keys.vm_status(self.vm), self.cluster.tree.peek(keys.vm_status(self.vm).path)).value

    def spec(self):
        entry = documents.read(self.ops.store, keys.vm_spec(self.vm))
        return entry.value if entry is not None else None

    def state(self, vm):
        entry = documents.read(self.ops.store, keys.vm_status(vm))
        return entry.value.state if entry is not None else None

    def guest(self):
        """Return the NICs that the guest has: link and limits by MAC address, in the order in which it got them."""
        (host,) = self.cluster.world.running(self.vm)
        return self.cluster.world.nics(host, self.vm)

    def prepared(self, node):
        """Return the MAC addresses that the driver on a node has prepared for web."""
        return {mac for _, vm, mac in self.kernels[node].nics if vm == self.vm}

    def owner(self, mac):
        node = self.ops.store.get(keys.name("mac", mac))
        return node.value.decode() if node is not None else ""

    def conditions(self):
        return {condition.type: condition.reason for condition in self.status().conditions}

    def quiet(self):
        """Whether the node has seen the last change, and nothing is left to do about it."""
        return self.status().observed_generation == self.spec().generation and not self.conditions()

    def add(self, mac, **fields):
        nic = NicDefinition(network=NETWORKS[mac], mac=mac, **fields)
        return vm_nic_add(self.ops, VmNicAdd(vm="web", nic=nic))

    def remove(self, mac):
        return vm_nic_remove(self.ops, VmNicRemove(vm="web", mac=mac))

    def modify(self, mac, **changes):
        return vm_nic_modify(self.ops, VmNicModify(vm="web", mac=mac, **changes))

    def keeps_devices(self, *, keeps=True):
        self.cluster.world.vm_faults(self.vm).keeps_devices = keeps

    def is_free(self, mac):
        return self.owner(mac) == ""


@pytest.fixture
def site():
    made = Site("hv1")
    yield made
    assert made.wrong == []


@pytest.fixture
def pair():
    made = Site("hv1", "hv2", macs=(LAN, DMZ))
    yield made
    assert made.wrong == []


# --- whatever befalls the daemon --------------------------------------------------------------------


def test_a_daemon_that_dies_at_any_moment_of_plugging_a_nic_in_does_it_all_the_same():
    def act(site):
        assert not site.add(DMZ).restart_needed
        return lambda: list(site.guest()) == [LAN, DMZ] and site.quiet()

    def check(site):
        assert site.wrong == []
        assert site.owner(DMZ) == site.vm
        assert site.prepared("hv1") == {LAN, DMZ}

    assert every_death(lambda: Site("hv1"), act, check) > 6


def test_a_daemon_that_dies_at_any_moment_of_taking_a_nic_away_frees_it_only_when_the_guest_has_let_go():
    def act(site):
        site.remove(DMZ)
        return lambda: site.is_free(DMZ) and site.quiet()

    def check(site):
        assert site.wrong == []
        assert list(site.guest()) == [LAN]
        assert site.prepared("hv1") == {LAN}
        assert [nic.mac for nic in site.spec().nics] == [LAN]
        assert [nic.mac for nic in site.status().guest_nics] == [LAN]
        network_remove(site.ops, NetworkQuery(network="dmz"))

    assert every_death(lambda: Site("hv1", macs=(LAN, DMZ)), act, check) > 6


def test_a_daemon_that_dies_while_the_guest_stops_frees_its_removed_nic():
    def make():
        site = Site("hv1", macs=(LAN, DMZ))
        site.keeps_devices()
        site.remove(DMZ)
        site.until(lambda: site.conditions() == {"Nics": "GuestKeepsNic"})
        return site

    def act(site):
        vm_stop(site.ops, VmStop(vm="web"))
        return lambda: site.state(site.vm) is VmState.STOPPED and site.is_free(DMZ)

    def check(site):
        assert site.wrong == []
        assert site.prepared("hv1") == set()
        assert [nic.mac for nic in site.spec().nics] == [LAN]

    assert every_death(make, act, check) > 6


def test_a_daemon_that_dies_at_any_moment_of_changing_a_nic_does_it_all_the_same():
    limits = NicLimits(in_average=100, out_average=50)

    def act(site):
        site.modify(LAN, link_up=False, limits={"in_average": 100, "out_average": 50}, addresses=("10.0.0.1",))
        return lambda: site.guest() == {LAN: (False, limits)} and site.quiet()

    def check(site):
        (nic,) = site.status().guest_nics
        assert (nic.link_up, nic.limits, nic.addresses) == (False, limits, ("10.0.0.1",))
        assert site.status().unsettled == ()

    assert every_death(lambda: Site("hv1"), act, check) > 5


# --- guests that do not cooperate -------------------------------------------------------------------


def test_a_guest_that_keeps_a_nic_keeps_address_and_network_from_everybody(pair):
    pair.keeps_devices()
    pair.remove(DMZ)
    pair.until(lambda: pair.conditions() == {"Nics": "GuestKeepsNic"})
    assert list(pair.guest()) == [LAN, DMZ]
    with pytest.raises(InUse):
        network_remove(pair.ops, NetworkQuery(network="dmz"))
    with pytest.raises(AlreadyExists, match="belongs to VM 'web'"):
        pair.define("thief", DMZ)
    pair.keeps_devices(keeps=False)
    pair.until(lambda: pair.is_free(DMZ))
    assert pair.quiet()


def test_a_removal_is_taken_back(pair):
    pair.keeps_devices()
    pair.remove(DMZ)
    pair.until(lambda: pair.conditions() == {"Nics": "GuestKeepsNic"})
    assert not pair.add(DMZ).restart_needed
    pair.until(pair.quiet)
    assert list(pair.guest()) == [LAN, DMZ]


def test_a_restarted_or_crashed_guest_does_not_have_the_nic_any_more(pair):
    pair.keeps_devices()
    pair.remove(DMZ)
    pair.until(lambda: pair.conditions() == {"Nics": "GuestKeepsNic"})
    vm_restart(pair.ops, VmQuery(vm="web"))
    pair.until(lambda: pair.is_free(DMZ) and pair.state(pair.vm) is VmState.RUNNING and pair.quiet())
    pair.remove(LAN)
    pair.until(lambda: bool(pair.conditions()))
    pair.cluster.world.crash("hv1", pair.vm)
    pair.until(lambda: pair.is_free(LAN) and pair.cluster.world.running(pair.vm) == ["hv1"])
    assert pair.guest() == {}


def test_a_removed_vm_leaves_nothing_of_a_nic_that_was_being_taken_from_it(pair):
    pair.keeps_devices()
    pair.remove(DMZ)
    pair.until(lambda: bool(pair.conditions()))
    vm_remove(pair.ops, VmRemove(vm="web", force=True))
    pair.until(lambda: pair.spec() is None)
    assert pair.is_free(LAN)
    assert pair.is_free(DMZ)
    network_remove(pair.ops, NetworkQuery(network="dmz"))


# --- what fails -------------------------------------------------------------------------------------


def test_a_nic_that_cannot_be_plugged_in_is_told_and_tried_again(site):
    site.cluster.world.vm_faults(site.vm).device_error = "No more available PCI slots"
    site.add(DMZ)
    site.until(lambda: site.conditions() == {"Nics": "PlugFailed"})
    assert "No more available PCI slots" in site.status().conditions[0].message
    site.cluster.world.vm_faults(site.vm).device_error = ""
    site.until(lambda: list(site.guest()) == [LAN, DMZ] and site.quiet())


def test_a_nic_whose_driver_fails_is_told_and_given_up_on_request(site):
    site.network_faults["hv1"].fail_always("nic_attach", DriverError("no more virtual functions"))
    site.add(DMZ)
    site.until(lambda: site.conditions() == {"Nics": "PlugFailed"})
    site.remove(DMZ)
    site.until(lambda: site.is_free(DMZ) and site.quiet())
    assert list(site.guest()) == [LAN]


def test_a_nic_whose_driver_does_not_let_go_stays_the_vms_and_is_told(pair):
    pair.network_faults["hv1"].fail_always("nic_detach", DriverError("device busy"))
    pair.remove(DMZ)
    pair.until(lambda: pair.conditions() == {"Nics": "ReleaseFailed"})
    assert pair.owner(DMZ) == pair.vm
    pair.network_faults["hv1"].clear()
    pair.until(lambda: pair.is_free(DMZ) and pair.quiet())


def test_settings_that_cannot_be_changed_are_told_and_tried_again(site):
    site.cluster.world.vm_faults(site.vm).device_error = "no qdisc sfq"
    site.modify(LAN, limits={"in_average": 5})
    site.until(lambda: site.conditions() == {"Nics": "ChangeFailed"})
    site.cluster.world.vm_faults(site.vm).device_error = ""
    site.until(lambda: site.guest() == {LAN: (True, NicLimits(in_average=5))} and site.quiet())


def test_a_driver_that_gives_no_nic_to_a_running_guest_gives_it_to_the_next_one(site):
    site.kernels["hv1"]._capabilities = NetworkCapabilities(hot_plug=False)
    site.add(DMZ)
    site.until(lambda: site.conditions() == {"Nics": "PlugFailed"})
    assert "gives no NIC to a guest that runs: restart the VM" in site.status().conditions[0].message
    vm_restart(site.ops, VmQuery(vm="web"))
    site.until(lambda: list(site.guest()) == [LAN, DMZ] and site.quiet())


def test_a_nic_that_a_hung_hypervisor_plugs_in_late_is_not_given_away_before(site):
    """Its answer was lost, and the NIC is not wanted any more by then."""
    hypervisor = site.nodes["hv1"].agent.context.hypervisor
    attach = hypervisor.attach_device

    def hangs(vm, xml):
        hypervisor.attach_device = attach
        site.cluster.world.later(20.0, partial(site.nodes["hv1"].hypervisor.attach_device, vm, xml))
        raise HypervisorUnavailable("libvirtd does not answer")

    hypervisor.attach_device = hangs
    site.add(DMZ)
    site.cluster.settle()
    site.remove(DMZ)
    site.cluster.run(15.0)
    assert site.owner(DMZ) == site.vm
    site.until(lambda: list(site.guest()) == [LAN, DMZ])
    site.until(lambda: site.is_free(DMZ) and site.quiet())
    assert list(site.guest()) == [LAN]


# --- nodes ------------------------------------------------------------------------------------------


def test_nics_that_were_plugged_in_limited_and_cut_move_with_the_guest(pair):
    pair.add(MORE)
    pair.modify(DMZ, link_up=False, limits={"in_average": 7})
    pair.until(lambda: len(pair.guest()) == 3 and pair.quiet())
    before = pair.guest()
    vm_move(pair.ops, VmMove(vm="web", node="hv2"))
    pair.until(lambda: pair.cluster.world.running(pair.vm) == ["hv2"] and pair.quiet())
    assert pair.guest() == before
    assert (pair.prepared("hv1"), pair.prepared("hv2")) == (set(), {LAN, DMZ, MORE})
    pair.remove(MORE)
    pair.until(lambda: pair.is_free(MORE) and pair.quiet())
    assert pair.prepared("hv2") == {LAN, DMZ}


def test_what_is_asked_for_in_a_live_migration_is_done_when_the_guest_has_arrived(pair):
    pair.cluster.world.pace.migration_s = 5.0
    vm_move(pair.ops, VmMove(vm="web", node="hv2"))
    pair.until(lambda: len(pair.cluster.world.present(pair.vm)) == 2)
    pair.remove(DMZ)
    pair.add(MORE)
    pair.until(lambda: pair.cluster.world.running(pair.vm) == ["hv2"] and pair.quiet())
    assert list(pair.guest()) == [LAN, MORE]
    assert pair.is_free(DMZ)
    assert pair.prepared("hv2") == {LAN, MORE}
    assert pair.prepared("hv1") == set()
