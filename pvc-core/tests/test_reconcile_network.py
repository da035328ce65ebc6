"""Networks on every node: made, changed, deleted, and cleared up after nodes that were dead meanwhile."""

import pytest
from msgspec.structs import replace

from pvc_core.model.network import NetworkSpec
from pvc_core.ops.network import NetworkAdd, NetworkModify, NetworkQuery, network_add, network_modify, network_remove
from pvc_core.plugin.errors import DriverError, NotReady, ObjectBusy
from pvc_core.store import documents, keys
from pvc_core.testkit.doomed import every_death
from pvc_core.testkit.storage_site import StorageSite

NODES = ("hv1", "hv2", "hv3")


@pytest.fixture
def site():
    return StorageSite(*NODES)


def _add(site, name="lan", **more):
    return network_add(site.ops, NetworkAdd(name=name, driver="fakenet", **more)).id


def _ready(site, network, nodes=NODES):
    found = [site.network_status(network, node) for node in nodes]
    return all(status is not None and status.device for status in found)


def _gone(site, network):
    return documents.read(site.ops.store, keys.network_spec(network)) is None


def test_every_node_makes_every_network(site):
    network = _add(site, mtu=1400)
    site.until(lambda: _ready(site, network))
    for node in NODES:
        assert list(site.kernels[node].networks) == [network]
        status = site.network_status(network, node)
        assert (status.mtu, status.observed_generation, status.node) == (1400, 1, node)
        assert all(condition.ok for condition in status.conditions)


def test_a_node_without_the_driver_has_no_status(site):
    site.drivers["hv2"].break_driver("fakenet", "not configured here")
    network = _add(site)
    site.until(lambda: _ready(site, network, ("hv1", "hv3")))
    site.cluster.run(120)
    assert site.network_status(network, "hv2") is None


def test_a_driver_that_comes_later_makes_the_networks_that_are_there(site):
    site.drivers["hv2"].break_driver("fakenet", "the module is not loaded")
    network = _add(site)
    site.until(lambda: _ready(site, network, ("hv1", "hv3")))
    site.drivers["hv2"].mend_driver("fakenet")
    site.until(lambda: _ready(site, network))


def test_a_driver_that_breaks_makes_the_network_unusable_there(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.drivers["hv2"].break_driver("fakenet", "netlink is gone")
    site.until(lambda: not site.network_status(network, "hv2").device)
    (condition,) = site.network_status(network, "hv2").conditions
    assert (condition.ok, condition.reason) == (False, "BackendNotReady")
    assert "netlink is gone" in condition.message
    site.drivers["hv2"].mend_driver("fakenet")
    site.until(lambda: _ready(site, network))


def test_a_changed_network_is_changed_in_place(site):
    network = _add(site, mtu=1500)
    site.until(lambda: _ready(site, network))
    network_modify(site.ops, NetworkModify(network="lan", mtu=9000))
    site.until(lambda: all(site.network_status(network, node).observed_generation == 2 for node in NODES))
    assert {site.network_status(network, node).mtu for node in NODES} == {9000}
    assert site.kernels["hv1"].networks[network].mtu == 9000


def test_an_unchanged_network_is_not_written_again(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    version = site.ops.store.get(keys.network_status(network, "hv1").path).version
    calls = site.network_faults["hv1"].count("network_ensure")
    site.cluster.run(600)
    assert site.network_faults["hv1"].count("network_ensure") > calls
    assert site.ops.store.get(keys.network_status(network, "hv1").path).version == version


def test_what_a_driver_refuses_is_said_and_not_repeated_at_once(site):
    for node in NODES:
        site.network_faults[node].fail_always("network_ensure", DriverError("eth1 belongs to br0", retryable=False))
    network = _add(site)
    site.until(lambda: site.network_status(network, "hv1") is not None)
    status = site.network_status(network, "hv1")
    assert (status.device, status.observed_generation) == ("", 1)
    assert [(c.ok, c.reason, c.message) for c in status.conditions] == [(False, "Failed", "eth1 belongs to br0")]
    calls = site.network_faults["hv1"].count("network_ensure")
    site.cluster.run(30)
    assert site.network_faults["hv1"].count("network_ensure") == calls


def test_what_may_pass_is_tried_again(site):
    for node in NODES:
        site.network_faults[node].fail("network_ensure", NotReady("no device eth1"), times=3)
    network = _add(site)
    site.until(lambda: site.network_status(network, "hv1") is not None)
    assert [c.reason for c in site.network_status(network, "hv1").conditions] == ["BackendNotReady"]
    site.until(lambda: _ready(site, network), 60.0)
    assert all(c.ok for c in site.network_status(network, "hv1").conditions)


def test_what_was_undone_by_hand_is_repaired(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.kernels["hv2"].networks.clear()
    site.until(lambda: network in site.kernels["hv2"].networks, 90.0)


def test_a_deleted_network_leaves_nothing(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    network_remove(site.ops, NetworkQuery(network="lan"))
    site.until(lambda: _gone(site, network))
    assert site.paths() == []
    assert not any(site.kernels[node].networks for node in NODES)
    _add(site)


def test_a_deleted_network_waits_for_a_node_that_cannot_remove_it(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.network_faults["hv2"].fail_always("network_remove", ObjectBusy("vnet0 is still in it"))
    network_remove(site.ops, NetworkQuery(network="lan"))
    site.until(lambda: site.network_status(network, "hv1") is None and site.network_status(network, "hv3") is None)
    site.cluster.run(60)
    assert not _gone(site, network)
    (condition,) = site.network_status(network, "hv2").conditions
    assert (condition.ok, condition.reason, condition.message) == (False, "Busy", "vnet0 is still in it")
    site.network_faults["hv2"].clear()
    site.until(lambda: _gone(site, network))


def test_a_dead_node_does_not_hold_up_a_deletion_and_clears_up_when_it_is_back(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.cut_off("hv2")
    network_remove(site.ops, NetworkQuery(network="lan"))
    site.until(lambda: _gone(site, network))
    assert site.paths() == []
    assert list(site.kernels["hv2"].networks) == [network]
    site.nodes["hv2"].start()
    site.until(lambda: not site.kernels["hv2"].networks)
    assert site.paths() == []


def test_a_node_that_dies_while_a_network_is_deleted_does_not_hold_it_up(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.network_faults["hv2"].fail_always("network_remove")
    network_remove(site.ops, NetworkQuery(network="lan"))
    site.until(lambda: site.network_status(network, "hv1") is None and site.network_status(network, "hv3") is None)
    site.cut_off("hv2")
    site.until(lambda: _gone(site, network), 10.0)


def test_a_broken_driver_does_not_hold_up_a_deletion(site):
    network = _add(site)
    site.until(lambda: _ready(site, network))
    site.drivers["hv2"].break_driver("fakenet", "netlink is gone")
    network_remove(site.ops, NetworkQuery(network="lan"))
    site.until(lambda: _gone(site, network))
    site.drivers["hv2"].mend_driver("fakenet")
    site.until(lambda: not site.kernels["hv2"].networks, 150.0)


def test_networks_of_the_kernel_that_nobody_wants_are_removed(site):
    site.kernels["hv1"].network_ensure(NetworkSpec(id="stranded", name="old", driver="fakenet"))
    site.until(lambda: not site.kernels["hv1"].networks, 150.0)


def test_a_network_is_made_whenever_the_daemon_dies():
    def add(site):
        network = _add(site)
        return lambda: _ready(site, network, ("hv1",))

    def check(site):
        (network,) = site.kernels["hv1"].networks
        assert len(site.paths()) == 4
        assert site.network_status(network, "hv1").observed_generation == 1

    assert every_death(StorageSite, add, check) >= 4


def test_a_network_is_deleted_whenever_the_daemon_dies():
    def make():
        site = StorageSite("hv1", "hv2")
        network = _add(site)
        site.until(lambda: _ready(site, network, ("hv1", "hv2")))
        return site

    def remove(site):
        (network,) = site.kernels["hv1"].networks
        network_remove(site.ops, NetworkQuery(network="lan"))
        # The bridge of a daemon that was dead at the end of it goes when the daemon is back.
        return lambda: _gone(site, network) and not site.kernels["hv1"].networks

    def check(site):
        assert site.paths() == []
        assert not site.kernels["hv2"].networks

    assert every_death(make, remove, check) >= 4


def test_no_status_is_written_for_a_network_that_is_being_deleted(site):
    """The daemon reads the spec, then somebody deletes the network, then the daemon writes its status."""
    network = _add(site)
    site.until(lambda: _ready(site, network))
    entry = documents.read(site.ops.store, keys.network_spec(network))
    kernel, real = site.kernels["hv1"], site.kernels["hv1"].network_ensure

    def overtaken(spec):
        if not spec.deleting and spec.generation == 2:
            network_remove(site.ops, NetworkQuery(network="lan"))
        return real(spec)

    kernel.network_ensure = overtaken
    site.ops.store.commit(entry.put(replace(entry.value, mtu=1400, generation=2)))
    site.until(lambda: _gone(site, network))
    site.cluster.run(120)
    assert site.paths() == []
    assert not kernel.networks
