"""Small parts of the daemon at its edges: calls with a deadline, plugins' placement rules."""

import threading

import pytest

from pvc_core.model.errors import NoNodeFits
from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec
from pvc_core.node.bounded import call_with_deadline
from pvc_core.node.policy import policy_of
from pvc_core.plan.placement import place, require_node
from pvc_core.plugin.errors import DeadlineExceeded
from pvc_core.plugin.specs.scheduling import SelectorDriver
from pvc_core.testkit.drivers import DirectDrivers

VM = VmSpec(id="a", name="a", memory_mib=64, vcpus=1)


def views(*names):
    return [NodeView(name=name, cpus=4, memory_mib=4096, free_mib=4096) for name in names]


def test_a_call_in_time_returns_and_its_error_is_the_callers():
    done = []
    call_with_deadline("x", lambda: done.append(1), 10)
    assert done == [1]

    def fail():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        call_with_deadline("x", fail, 10)


def test_a_call_that_hangs_is_left_behind():
    release = threading.Event()
    with pytest.raises(DeadlineExceeded, match="acquire address"):
        call_with_deadline("acquire address", lambda: release.wait(30) and None, 0.05)
    release.set()


def test_filters_and_weighers_of_plugins_take_part_in_placement():
    drivers = DirectDrivers(
        collectors={
            "node_filter": [lambda vm, node: "it is on fire" if node.name == "hv1" else None],
            "node_weight": [lambda vm, node: 1.0 if node.name == "hv3" else None],
        }
    )
    decision = place(VM, views("hv1", "hv2", "hv3"), policy_of(drivers))
    assert decision.node == "hv3"
    assert decision.reasons == {"hv1": "it is on fire"}
    with pytest.raises(NoNodeFits, match="it is on fire"):
        require_node(place(VM, views("hv1"), policy_of(drivers)))


class LastByName(SelectorDriver):
    def selector_score(self, vm, node):
        return float(node.name[2:])


def test_selectors_of_plugins_are_known_by_their_names():
    class Drivers(DirectDrivers):
        def status(self):
            from pvc_core.model.node import PluginStatus

            return (PluginStatus(name="x", state="healthy", capabilities=("scheduling:last", "storage:y")),)

    policy = policy_of(Drivers(selectors={"last": LastByName()}))
    assert set(policy.selectors) == {"last"}
    assert place(VM, views("hv1", "hv2", "hv3"), policy._replace(default_selector="last")).node == "hv3"
