"""The contract of a selector: subclass it, and your selector is tested as core's own are.

::

    class TestMySelector(SchedulingContract):
        __test__ = True

        def make_selector(self):
            return MySelector(context, config).selector_score

A selector runs wherever a placement is decided, many times in one decision: so it must be quick, depend on its
arguments only, and answer for every node there may be.
"""

import math
import time
from collections.abc import Callable

import pytest

from pvc_core.model.placement import NodeView
from pvc_core.model.vm import VmSpec

Score = Callable[[VmSpec, NodeView], float]

_NODES = 1000
_SECONDS = 1.0
"""Deadline of a hook for all nodes of a decision together."""

VM = VmSpec(id="6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01", name="web1", memory_mib=1024, vcpus=2)
EMPTY = NodeView(name="node1")
BUSY = NodeView(
    name="node2",
    cpus=64,
    memory_mib=256 * 1024,
    free_mib=1024,
    allocated_mib=255 * 1024,
    provisioned_mib=300 * 1024,
    allocated_vcpus=640,
    vms=200,
    load1=99.9,
    capabilities=frozenset({"storage:dir", "network:bridge"}),
    accelerators=("kvm",),
)
IDLE = NodeView(name="node3", cpus=64, memory_mib=256 * 1024, free_mib=255 * 1024)
BIG_VM = VmSpec(id="6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a02", name="db1", memory_mib=1024 * 1024, vcpus=512)


class SchedulingContract:
    """All rules for a selector."""

    __test__ = False

    def make_selector(self) -> Score:
        """Return the function that scores a node for a VM."""
        raise NotImplementedError(f"{type(self).__name__}.make_selector() must return the selector's function")

    @pytest.fixture
    def score(self) -> Score:
        return self.make_selector()

    @pytest.mark.parametrize("node", [EMPTY, BUSY, IDLE], ids=lambda node: node.name)
    @pytest.mark.parametrize("vm", [VM, BIG_VM], ids=lambda vm: vm.name)
    def test_every_node_has_a_finite_score(self, score: Score, vm: VmSpec, node: NodeView) -> None:
        assert math.isfinite(score(vm, node))

    def test_the_same_question_has_the_same_answer(self, score: Score) -> None:
        first = [score(VM, node) for node in (EMPTY, BUSY, IDLE)]
        assert [score(VM, node) for node in (EMPTY, BUSY, IDLE)] == first
        assert [self.make_selector()(VM, node) for node in (EMPTY, BUSY, IDLE)] == first

    def test_the_order_of_questions_does_not_matter(self, score: Score) -> None:
        forward = {node.name: score(VM, node) for node in (EMPTY, BUSY, IDLE)}
        backward = {node.name: score(VM, node) for node in (IDLE, BUSY, EMPTY)}
        assert forward == backward

    def test_a_thousand_nodes_are_scored_within_the_deadline(self, score: Score) -> None:
        nodes = [NodeView(name=f"node{number}", memory_mib=1024 * number, cpus=number) for number in range(_NODES)]
        begun = time.perf_counter()
        for node in nodes:
            score(VM, node)
        assert time.perf_counter() - begun < _SECONDS
