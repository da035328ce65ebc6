"""Fence devices are asked before they are needed: by whom, how often, what is published and said, and what is not."""

import threading

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import DeviceHealth, FenceDevice, FenceHealth, FenceLevel, FenceRecord, FenceStage
from pvc_core.model.node import NodeSpec
from pvc_core.model.task import Task
from pvc_core.node.fence_health import AT_ONCE
from pvc_core.node.tasks import spawn_thread
from pvc_core.plugin.errors import AuthFailed
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fake_fence import FakeFence, FakePower
from pvc_core.testkit.stepped import SteppedCluster
from pvc_core.testkit.waiting import eventually

LEVEL = FenceLevel(devices=(FenceDevice(driver="fake"),))
TWO = FenceLevel(devices=(FenceDevice(driver="fake"), FenceDevice(driver="other")))


class Asked(FakeFence):
    """Notes whom it asks, and may be kept from answering."""

    def __init__(self, power):
        super().__init__(power)
        self.asked = []
        self.at_once = 0
        self.most_at_once = 0
        self.gates = {}
        self._lock = threading.Lock()

    def power_status(self, target):
        with self._lock:
            self.asked.append(target.node)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if target.node in self.gates:
                self.gates[target.node].wait()
            return super().power_status(target)
        finally:
            with self._lock:
                self.at_once -= 1


class Site:
    """Coordinators ``hv1`` and ``hv2`` and a hypervisor ``hv3``; further nodes are documents only."""

    def __init__(self, *names, **assembly):
        self.cluster = SteppedCluster(("hv1", "hv2"))
        self.power, self.other = FakePower(), FakePower()
        self.fences = {}
        for name in names or ("hv1", "hv2", "hv3"):
            self.power.add(name)
            self.other.add(name)
            fence = self.fences[name] = Asked(self.power)
            drivers = DirectDrivers(fencing={"fake": fence, "other": FakeFence(self.other)})
            self.cluster.add(name, drivers=drivers, **assembly)
        self.cluster.settle()

    def level(self, node, *levels):
        entry = documents.read(self.cluster.operator, keys.node_spec(node))
        new = replace(entry.value, generation=entry.value.generation + 1, fence_levels=levels)
        self.cluster.operator.commit(entry.put(new))
        self.cluster.settle()

    def outside(self, *names, levels=(LEVEL,)):
        """Add nodes whose daemons do not run."""
        for name in names:
            self.power.add(name)
        self.cluster.operator.commit(
            *[create(keys.node_spec(n), NodeSpec(id=n, maintenance=True, fence_levels=levels)) for n in names]
        )
        self.cluster.settle()

    def document(self, coordinator="hv1"):
        entry = documents.read(self.cluster.operator, keys.fence_health(coordinator))
        return entry.value if entry is not None else None

    def found(self, node, coordinator="hv1"):
        """Return (power, error) of each device of a node."""
        return [(device.power, device.error) for device in self.document(coordinator).nodes.get(node, ())]

    def writes(self, coordinator="hv1"):
        written = []
        self.cluster.operator.watch(keys.fence_health(coordinator).path, written.append)
        return written

    def condition(self, node="hv1"):
        conditions = self.cluster.nodes[node].parts.state.conditions
        return next((c for c in conditions if c.type == "Fencing"), None)

    @property
    def check_s(self):
        return self.cluster.timing.fence_check


@pytest.fixture
def site():
    return Site()


def test_every_device_of_every_node_with_levels_is_asked_and_its_answer_published(site):
    site.level("hv3", LEVEL, TWO)
    devices = site.document().nodes["hv3"]
    assert [(d.level, d.device, d.driver, d.power, d.error) for d in devices] == [
        (1, 1, "fake", "on", ""),
        (2, 1, "fake", "on", ""),
        (2, 2, "other", "on", ""),
    ]
    assert devices[0].checked > 0
    assert site.document().nodes.keys() == {"hv3"}


def test_every_coordinator_asks_and_the_primary_is_the_first(site):
    site.level("hv3", LEVEL)
    assert site.found("hv3", "hv1") == [("on", "")]
    assert site.fences["hv2"].asked == []
    site.cluster.run(10)
    assert site.found("hv3", "hv2") == [("on", "")]


def test_a_hypervisor_asks_nobody_and_publishes_nothing(site):
    site.level("hv2", LEVEL)
    site.cluster.run(site.check_s * 2)
    assert site.fences["hv3"].asked == []
    assert site.document("hv3") is None


def test_a_coordinator_that_became_a_hypervisor_takes_back_what_it_had_published():
    site = Site("hv1")
    site.cluster.operator.commit(create(keys.fence_health("hv3"), FenceHealth(coordinator="hv3")))
    site.cluster.add("hv3")
    site.cluster.settle()
    assert site.document("hv3") is None


def test_a_node_is_asked_again_and_again_at_the_interval(site):
    site.level("hv3", LEVEL)
    site.cluster.run(site.check_s * 5 + 1)
    assert site.fences["hv1"].asked == ["hv3"] * 6


def test_a_device_that_goes_bad_is_published_and_said_once_and_so_is_its_return(site, caplog):
    caplog.set_level("INFO", "pvc_core.node.fence_health")
    site.level("hv3", LEVEL)
    site.power.silent.add("hv3")
    site.cluster.run(site.check_s * 3)
    ((power, error),) = site.found("hv3")
    assert (power, "does not answer" in error) == ("unknown", True)
    bad = [r.getMessage() for r in caplog.records if "fence-device-bad" in r.getMessage()]
    assert len(bad) == 2, "once by each coordinator"
    assert "node=hv3 level=1 device=1 driver=fake error=" in bad[0]
    assert "fence-device-good" not in caplog.text
    site.power.silent.clear()
    site.cluster.run(site.check_s + 1)
    assert site.found("hv3") == [("on", "")]
    assert caplog.text.count("fence-device-good") == 2


def test_a_controller_that_cannot_tell_the_state_is_bad_too(site):
    site.power.unreadable.add("hv3")
    site.level("hv3", LEVEL)
    ((power, error),) = site.found("hv3")
    assert power == "unknown"
    assert "cannot tell" in error


def test_another_error_than_before_is_said_and_published(site, caplog):
    site.power.silent.add("hv3")
    site.level("hv3", LEVEL)
    site.fences["hv1"].faults.fail_always("power_status", AuthFailed("the password is wrong"))
    site.cluster.run(site.check_s + 1)
    assert site.found("hv3") == [("unknown", "the password is wrong")]
    assert "error=the password is wrong" in caplog.text


def test_as_long_as_nothing_changes_only_every_fifth_check_is_written(site):
    site.level("hv3", LEVEL)
    written = site.writes()
    site.cluster.run(site.check_s * 20)
    assert 3 <= len(written) <= 4


def test_a_hundred_nodes_cost_a_handful_of_writes():
    site = Site("hv1")
    written = site.writes()
    site.outside(*[f"n{number}" for number in range(100)])
    site.cluster.run(site.check_s - 1)
    assert len(site.document().nodes) == 100
    assert len(written) <= 3


def test_changed_levels_are_asked_at_once_and_what_was_known_of_the_old_ones_is_dropped(site):
    site.level("hv3", LEVEL)
    site.other.silent.add("hv3")
    site.level("hv3", TWO)
    assert [power for power, _ in site.found("hv3")] == ["on", "unknown"]
    site.level("hv3")
    assert site.document().nodes == {}


def test_a_removed_node_vanishes(site):
    site.outside("n1")
    assert site.found("n1") == [("on", "")]
    entry = documents.read(site.cluster.operator, keys.node_spec("n1"))
    site.cluster.operator.commit(entry.delete())
    site.cluster.settle()
    assert site.document().nodes == {}


@pytest.mark.parametrize(
    ("stage", "asked"),
    [
        (FenceStage.SUSPECTED, False),
        (FenceStage.FENCING, False),
        (FenceStage.RECOVERED, True),
        (FenceStage.CANCELLED, True),
    ],
)
def test_a_node_is_not_asked_while_it_is_being_fenced(site, stage, asked):
    # A record without a lost lease behind it: the fencer leaves it alone.
    site.cluster.operator.commit(create(keys.fence("n1"), FenceRecord(node="n1", lease=1, stage=stage)))
    site.outside("n1", "n2")
    site.cluster.run(site.check_s * 2)
    assert ("n1" in site.fences["hv1"].asked) is asked
    assert "n2" in site.fences["hv1"].asked


def test_a_restarted_daemon_keeps_what_it_knew_until_it_has_asked_again(site):
    site.level("hv3", LEVEL)
    site.cluster.run(site.check_s)
    before = documents.read(site.cluster.operator, keys.fence_health("hv2"))
    assert before.value.nodes
    site.cluster.nodes["hv2"].kill().expire()
    site.fences["hv2"].asked.clear()
    site.cluster.nodes["hv2"].start()
    site.cluster.settle()
    assert site.document("hv2").nodes == before.value.nodes
    site.cluster.run(10)
    assert site.fences["hv2"].asked == ["hv3"]
    assert documents.read(site.cluster.operator, keys.fence_health("hv2")).version == before.version


def test_what_an_earlier_daemon_found_of_other_devices_is_not_believed(site):
    old = DeviceHealth(level=1, device=1, driver="gone", power="on")
    site.level("hv3", LEVEL)
    site.cluster.run(site.check_s)
    entry = documents.read(site.cluster.operator, keys.fence_health("hv2"))
    site.cluster.nodes["hv2"].kill().expire()
    site.cluster.operator.commit(entry.put(replace(entry.value, nodes={"hv3": (old,)})))
    site.cluster.nodes["hv2"].start()
    site.cluster.settle()
    assert site.found("hv3", "hv2") == []


def test_a_coordinator_without_a_driver_that_levels_need_says_so_until_it_has_it(site):
    site.level("hv2", LEVEL)
    site.level("hv3", LEVEL)
    assert site.condition() is None
    site.cluster.nodes["hv1"].drivers.break_driver("fake", "ipmitool is not installed")
    site.cluster.run(site.check_s + 1)
    condition = site.condition()
    assert not condition.ok
    assert condition.message.startswith("driver fake, which level 1 of node hv2 and 1 more needs, does not work here: ")
    assert "ipmitool is not installed" in condition.message
    assert "ipmitool is not installed" in site.found("hv3")[0][1]
    assert site.condition("hv2") is None
    site.cluster.nodes["hv1"].drivers.mend_driver("fake")
    site.cluster.run(site.check_s)
    assert site.condition() is None
    assert site.found("hv3") == [("on", "")]


def test_devices_that_an_operator_has_used_are_asked_again_at_once(site):
    site.power.silent.add("hv3")
    site.level("hv3", LEVEL)
    assert site.found("hv3")[0][0] == "unknown"
    site.power.silent.clear()
    test = Task(id="t", kind="fence.power", node="hv1", arguments={"node": "hv3", "action": "status"})
    site.cluster.operator.commit(create(keys.task("t"), test))
    site.cluster.settle()
    assert site.found("hv3") == [("on", "")]


def test_devices_are_asked_as_soon_as_their_driver_works(site):
    site.cluster.nodes["hv1"].drivers.break_driver("fake", "its preflight failed")
    site.level("hv3", LEVEL)
    site.cluster.nodes["hv1"].drivers.mend_driver("fake")
    site.fences["hv1"].asked.clear()
    # What the daemon does when a driver became ready.
    site.cluster.nodes["hv1"].agent.queue.add("resync", "")
    site.cluster.settle()
    assert site.found("hv3") == [("on", "")]


def test_how_long_a_coordinator_waits_before_it_fences_is_published_without_any_level_too(site):
    document = site.document()
    assert (document.coordinator, document.nodes) == ("hv1", {})
    assert (document.lease_s, document.grace_s) == (site.cluster.timing.lease, site.cluster.timing.grace)


def test_a_defect_in_one_check_does_not_cost_the_other_nodes_theirs(caplog):
    site = Site("hv1")
    site.fences["hv1"].faults.fail("power_status", ZeroDivisionError("division by zero"))
    site.outside("n1", "n2")
    assert site.document().nodes.keys() == {"n2"}
    assert "fence-check-defect node=n1" in caplog.text
    site.cluster.run(site.check_s + 1)
    assert site.document().nodes.keys() == {"n1", "n2"}


# --- in threads, as in a daemon -----------------------------------------------------------------------------


@pytest.fixture
def threaded():
    site = Site("hv1", spawn=spawn_thread)
    yield site
    for gate in site.fences["hv1"].gates.values():
        gate.set()


def test_a_controller_that_hangs_does_not_keep_the_others_waiting(threaded):
    fence = threaded.fences["hv1"]
    gate = fence.gates["n1"] = threading.Event()
    names = {f"n{number}" for number in range(10)}
    others = names - {"n1"}
    threaded.outside(*sorted(names))
    eventually(
        lambda: _later(threaded, 6).document().nodes.keys() == others, "all but the one that hangs are published"
    )
    before = len(fence.asked)
    eventually(lambda: set(_later(threaded, 6).fences["hv1"].asked[before:]) == others, "the others are asked again")
    assert fence.asked.count("n1") == 1
    gate.set()
    eventually(lambda: _settled(threaded).document().nodes.keys() == names, "all are published")


def test_so_many_nodes_are_asked_at_once_and_no_more(threaded):
    fence = threaded.fences["hv1"]
    names = [f"n{number}" for number in range(3 * AT_ONCE)]
    for name in names:
        fence.gates[name] = threading.Event()
    threaded.outside(*names)
    eventually(lambda: fence.at_once == AT_ONCE, "the first are asked")
    for gate in fence.gates.values():
        gate.set()
    eventually(lambda: _settled(threaded).document().nodes.keys() == set(names), "all are published")
    assert fence.most_at_once == AT_ONCE


def test_levels_that_change_while_their_node_is_asked_are_asked_after_it(threaded):
    fence = threaded.fences["hv1"]
    gate = fence.gates["n1"] = threading.Event()
    threaded.outside("n1")
    eventually(lambda: fence.at_once == 1, "it is being asked")
    threaded.level("n1", LEVEL, LEVEL)
    assert threaded.document().nodes == {}
    gate.set()
    eventually(lambda: len(_settled(threaded).found("n1")) == 2, "both levels are published")


def _settled(site):
    return _later(site, 0)


def _later(site, seconds):
    site.cluster.run(seconds)
    return site


def test_a_device_that_says_off_of_a_node_that_stays_alive_is_told_to_mislead(site):
    site.power.write("hv3", PowerState.OFF)
    site.level("hv3", LEVEL)
    assert not site.document().nodes["hv3"][0].misleading
    site.cluster.run(site.check_s + 1.0)
    device = site.document().nodes["hv3"][0]
    assert device.misleading
    assert device.error == "it says off, but the node is alive: it is not this node's, and proves nothing"
    site.power.write("hv3", PowerState.ON)
    site.cluster.run(site.check_s + 10.0)
    assert site.found("hv3") == [("on", "")]


def test_a_node_that_has_just_lost_its_power_is_not_a_reason_to_doubt_the_device(site):
    site.level("hv3", LEVEL)
    site.power.write("hv3", PowerState.OFF)
    site.cluster.run(site.check_s)
    node = site.cluster.nodes["hv3"]
    node.kill().expire()
    site.cluster.run(site.check_s * 3)
    assert not site.document().nodes["hv3"][0].misleading


def test_a_device_that_misled_is_still_doubted_when_the_node_is_dead(site):
    site.power.write("hv3", PowerState.OFF)
    site.level("hv3", LEVEL)
    site.cluster.run(site.check_s + 1.0)
    assert site.document().nodes["hv3"][0].misleading
    site.cluster.nodes["hv3"].kill().expire()
    site.cluster.run(site.check_s * 3)
    assert site.document().nodes["hv3"][0].misleading


def test_one_dark_power_supply_of_two_is_no_reason_to_doubt_it(site):
    site.power.write("hv3", PowerState.OFF)
    site.level("hv3", TWO)
    site.cluster.run(site.check_s * 3)
    assert site.found("hv3") == [("off", ""), ("on", "")]
