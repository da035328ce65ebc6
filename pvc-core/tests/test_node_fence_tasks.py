"""A node's power as a task: levels in order, read back, and not of a node that may be at work."""

import pytest
from msgspec.structs import replace

from pvc_core.model.fence import FenceDevice, FenceLevel
from pvc_core.model.node import LeaseGeneration, NodeSpec
from pvc_core.model.task import FINAL, Task, TaskState
from pvc_core.model.vm import VmClaim
from pvc_core.plugin.errors import AuthFailed
from pvc_core.plugin.specs.fencing import PowerState
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fake_fence import FakeFence, FakePower
from pvc_core.testkit.stepped import SteppedCluster

LEVEL = FenceLevel(devices=(FenceDevice(driver="fake"),))
OTHER = FenceLevel(devices=(FenceDevice(driver="other"),))
BOTH = FenceLevel(devices=(FenceDevice(driver="fake"), FenceDevice(driver="other")))


class Site:
    """One coordinator, and a node ``n1`` that was lost with lease 4: its record says nothing yet."""

    def __init__(self, *levels):
        self.cluster = SteppedCluster()
        self.power, self.other = FakePower(), FakePower()
        for power in (self.power, self.other):
            power.add("n1")
            power.add("hv1")
        self.fence = FakeFence(self.power)
        drivers = DirectDrivers(fencing={"fake": self.fence, "other": FakeFence(self.other)})
        self.cluster.add("hv1", drivers=drivers)
        self.cluster.settle()
        # In maintenance: the fencer itself leaves it alone.
        self.put(create(keys.node_spec("n1"), NodeSpec(id="n1", maintenance=True, fence_levels=levels)))
        self.put(create(keys.generation("n1"), LeaseGeneration(node="n1", generation=4)))
        self.tasks = 0

    def put(self, *operations):
        self.cluster.operator.commit(*operations)
        self.cluster.settle()

    def alive(self, node="n1"):
        self.put(documents.create(keys.lease(node), documents.read(self.cluster.operator, keys.lease("hv1")).value))

    def run(self, action, node="n1", **arguments):
        """Run a task to its end and return it."""
        self.tasks += 1
        id_ = f"t{self.tasks}"
        given = {"node": node, "action": action, **arguments}
        self.put(create(keys.task(id_), Task(id=id_, kind="fence.power", node="hv1", arguments=given)))
        task = documents.read(self.cluster.operator, keys.task(id_)).value
        assert task.state in FINAL
        return task

    def read(self, power=None):
        return (power or self.power).read("n1")


def test_status_tells_of_every_device_what_it_said():
    site = Site(LEVEL, BOTH)
    site.other.silent.add("n1")
    task = site.run("status")
    assert task.state is TaskState.DONE
    assert task.result["1.1"] == "fake: on"
    assert task.result["2.1"] == "fake: on"
    assert task.result["2.2"].startswith("other: the power controller of node n1 does not answer")
    assert site.read() is PowerState.ON


def test_off_is_confirmed_by_the_first_level_that_can():
    site = Site(LEVEL, OTHER)
    assert site.run("off").result == {"power": "off", "level": 1, "message": "fake: off"}
    assert (site.read(), site.read(site.other)) == (PowerState.OFF, PowerState.ON)
    site.power.write("n1", PowerState.ON)
    site.power.stuck.add("n1")
    assert site.run("off").result == {"power": "off", "level": 2, "message": "other: off"}


def test_all_devices_of_a_level_must_confirm():
    site = Site(BOTH)
    site.other.stuck.add("n1")
    task = site.run("off")
    assert task.state is TaskState.FAILED
    assert task.error == "node n1 was not confirmed off by any fence level: level 1: fake: off, other: on"


def test_a_failure_names_what_each_level_said():
    site = Site(LEVEL, OTHER)
    site.power.unreadable.add("n1")
    site.fence.faults.fail_always("power_off", AuthFailed("the password is wrong"))
    site.other.stuck.add("n1")
    task = site.run("off")
    assert task.error.endswith(": level 1: fake: the password is wrong; level 2: other: on")


def test_on_switches_the_devices_of_the_first_level_that_works():
    site = Site(LEVEL, BOTH)
    for power in (site.power, site.other):
        power.write("n1", PowerState.OFF)
    assert site.run("on").result == {"power": "on", "level": 1, "message": "fake: on"}
    site.power.silent.add("n1")
    assert "level 2: fake: the power controller" in site.run("on").error


def test_cycle_switches_on_only_what_was_confirmed_off():
    site = Site(LEVEL)
    task = site.run("cycle")
    assert task.result == {"power": "on", "level": 1, "message": "off: fake: off; on: fake: on"}
    assert site.fence.faults.calls.index("power_off") < site.fence.faults.calls.index("power_on")
    site.power.stuck.add("n1")
    assert site.run("cycle").state is TaskState.FAILED
    assert site.fence.faults.count("power_on") == 1


def test_a_cycle_that_cannot_switch_on_says_that_the_node_stays_off():
    site = Site(LEVEL)
    site.fence.faults.fail_always("power_on")
    task = site.run("cycle")
    assert task.state is TaskState.FAILED
    assert task.error.startswith("node n1 was switched off (level 1) and stays off: ")
    assert site.read() is PowerState.OFF


@pytest.mark.parametrize("action", ["off", "cycle"])
def test_a_node_with_a_lease_is_switched_off_by_force_only(action):
    site = Site(LEVEL)
    site.alive()
    task = site.run(action)
    assert task.state is TaskState.FAILED
    assert "its lease stands" in task.error
    assert site.fence.faults.count("power_off") == 0
    assert site.run(action, force=True).state is TaskState.DONE


def test_a_node_that_comes_back_between_two_levels_is_not_switched_off():
    site = Site(LEVEL, OTHER)

    def back(*_):
        site.alive()
        return PowerState.UNKNOWN

    site.fence.power_off = back
    assert "its lease stands" in site.run("off").error
    assert site.read(site.other) is PowerState.ON


def test_a_node_that_comes_back_while_its_device_is_waited_for_is_not_switched_off():
    site = Site(LEVEL)
    read = site.fence.power_status

    def back(target):
        site.alive()
        return read(target)

    site.fence.power_status = back
    assert "its lease stands" in site.run("off").error
    assert (site.fence.faults.count("power_off"), site.read()) == (0, PowerState.ON)


def test_guests_that_go_on_under_a_stopped_daemon_are_protected():
    site = Site(LEVEL)
    entry = documents.read(site.cluster.operator, keys.generation("n1"))
    site.put(
        entry.put(replace(entry.value, released=True)),
        create(keys.claim("web"), VmClaim(vm="web", node="n1", lease=4, epoch=1)),
    )
    assert "VMs run on it" in site.run("off").error
    claim = documents.read(site.cluster.operator, keys.claim("web"))
    site.put(claim.put(replace(claim.value, node="")))
    assert site.run("off").state is TaskState.DONE


@pytest.mark.parametrize("action", ["off", "cycle"])
def test_a_node_does_not_switch_itself_off(action):
    site = Site(LEVEL)
    entry = documents.read(site.cluster.operator, keys.node_spec("hv1"))
    site.put(entry.put(replace(entry.value, generation=entry.value.generation + 1, fence_levels=(LEVEL,))))
    assert "ask another coordinator" in site.run(action, node="hv1", force=True).error
    assert site.run("status", node="hv1").result == {"1.1": "fake: on"}


def test_switching_off_a_lost_node_is_in_the_log_with_its_lease(caplog):
    site = Site(LEVEL)
    site.run("off")
    assert "power-off-of-lost-node node=n1 lease=4 level=1" in caplog.text
    caplog.clear()
    site.alive()
    site.run("off", force=True)
    assert "power-confirmed node=n1 power=off level=1" in caplog.text
    assert "power-off-of-lost-node" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"node": "", "action": "off"}, "needs the argument 'node'"),
        ({"node": None, "action": "off"}, "needs the argument 'node'"),
        ({"action": "explode"}, "one of status, off, on, cycle; it has 'explode'"),
        ({"action": None}, "it has None"),
        ({"node": "n2", "action": "off"}, "there is no node n2"),
        ({"node": "hv1", "action": "on"}, "node hv1 has no fence levels: add one with"),
    ],
)
def test_a_wrong_request_is_refused_and_nothing_is_switched(arguments, error):
    site = Site(LEVEL)
    task = site.run(**arguments)
    assert task.state is TaskState.FAILED
    assert error in task.error
    assert site.fence.faults.count("power_off") + site.fence.faults.count("power_on") == 0


def cancel_while_it_is_switched_off(site, answer):
    def power_off(target):
        site.power.write(target.node, PowerState.OFF)
        # A while passes, as it does with a real controller, before the task looks for its cancellation.
        site.cluster.clock.move_to(site.cluster.clock.monotonic() + 2)
        entry = documents.read(site.cluster.operator, keys.task("t1"))
        site.cluster.operator.commit(entry.put(replace(entry.value, cancel=True)))
        return answer

    site.fence.power_off = power_off


def test_a_cancelled_task_tries_no_further_level():
    site = Site(LEVEL, OTHER)
    cancel_while_it_is_switched_off(site, PowerState.UNKNOWN)
    assert site.run("off").state is TaskState.CANCELLED
    assert site.read(site.other) is PowerState.ON


def test_a_cycle_that_is_cancelled_half_way_still_switches_on():
    site = Site(LEVEL)
    cancel_while_it_is_switched_off(site, PowerState.OFF)
    assert site.run("cycle").state is TaskState.DONE
    assert site.read() is PowerState.ON
