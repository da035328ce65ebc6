"""What a node records of itself while it is healthy, so that others can keep it from writing when it is lost."""

import pytest

from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.specs.storage import StorageCapabilities
from pvc_core.store import documents, keys
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fakes import FakeBackend, FakeStorage
from pvc_core.testkit.stepped import SteppedCluster

CONDITION = "StorageIdentity/fake"


class Site:
    def __init__(self):
        self.cluster = SteppedCluster()
        self.storage = FakeStorage(FakeBackend(), "hv1")
        plain = FakeStorage(FakeBackend(), "hv1", capabilities=StorageCapabilities())
        self.node = self.cluster.add("hv1", drivers=DirectDrivers(storage={"fake": self.storage, "plain": plain}))
        self.cluster.settle()

    def status(self):
        return documents.read(self.cluster.operator, keys.node_status("hv1")).value

    def report(self):
        """Let the next report be written."""
        self.cluster.run(self.cluster.timing.publish + 1)
        return self.status()

    def new_lease(self):
        """Let the node lose its session, and take a new lease."""
        self.node.store.expire()
        self.node.store.reconnect()
        self.cluster.settle()

    def condition(self):
        return next((c for c in self.status().conditions if c.type == CONDITION), None)


@pytest.fixture
def site():
    return Site()


def test_a_node_reports_by_what_the_drivers_that_can_keep_it_out_know_it(site):
    status = site.status()
    assert status.lease == 1
    assert status.identities == {"fake": {"client": "hv1"}}


def test_a_changed_identity_is_in_the_next_report(site):
    site.storage.client = "hv1-second-address"
    assert site.report().identities == {"fake": {"client": "hv1-second-address"}}


def test_a_storm_of_reports_does_not_ask_the_driver_each_time(site):
    before = site.storage.faults.count("node_identity")
    for number in range(20):
        site.node.parts.state.set_condition("Weather", ok=bool(number % 2))
        site.cluster.run(1.1)
    assert site.storage.faults.count("node_identity") - before <= 5


def test_a_driver_that_cannot_say_keeps_what_it_said_and_that_is_told(site):
    site.storage.faults.fail_always("node_identity", DriverError("the cluster does not answer"))
    assert site.report().identities == {"fake": {"client": "hv1"}}
    condition = site.condition()
    assert not condition.ok
    assert "the cluster does not answer; what it said before is kept" in condition.message
    site.storage.faults.clear()
    site.report()
    assert site.condition() is None


def test_what_a_driver_said_under_an_earlier_lease_is_not_reported_under_this_one(site):
    site.storage.faults.fail_always("node_identity", DriverError("the cluster does not answer"))
    site.new_lease()
    status = site.report()
    assert status.lease == 2
    assert status.identities == {}
    assert "it has not said so before" in site.condition().message
    site.storage.faults.clear()
    assert site.report().identities == {"fake": {"client": "hv1"}}


def test_a_driver_that_stops_working_is_still_known(site):
    site.node.drivers.break_driver("fake", "too many calls are stuck")
    assert site.report().identities == {"fake": {"client": "hv1"}}


def test_the_last_reports_of_a_daemon_that_stops_ask_no_driver(site):
    before = site.storage.faults.count("node_identity")
    site.cluster.clock.move_to(site.cluster.clock.monotonic() + 8)
    site.node.parts.state.daemon = "stopping"
    site.node.parts.publisher.publish()
    assert site.storage.faults.count("node_identity") == before
    assert site.status().identities == {"fake": {"client": "hv1"}}
