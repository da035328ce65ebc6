"""Daemons with a watchdog, on real nodes: what resets a node, and what does not."""

import os
import signal

import pytest

from pvc_core.testkit.waiting import eventually
from pvc_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

TIMEOUT_S = 4.0
DAEMON = "pvcnoded"


class Node:
    """One node of the sandbox."""

    def __init__(self, sandbox, name):
        self.sandbox, self.name = sandbox, name

    def said(self, log):
        path = self.sandbox.logs(self.name)[log]
        return path.read_text(errors="replace")

    def resets(self):
        return self.said("watchdog").count("power is off")

    def arrivals(self):
        return self.said(DAEMON).count("watchdog-declared")

    def signal(self, number):
        self.sandbox.host(self.name).signal_service(DAEMON, number)

    def wait_back(self, arrivals):
        eventually(lambda: self.arrivals() > arrivals, f"{self.name} is back", within_s=90.0)
        self.sandbox.wait_ready([self.name])


@pytest.fixture(scope="module")
def sandbox():
    sandbox = Sandbox(f"watchdog-{os.getpid()}")
    try:
        sandbox.up(nodes=3, watchdog=True, watchdog_timeout_s=TIMEOUT_S, bmc=False)
        yield sandbox
    finally:
        sandbox.down()


@pytest.fixture
def node(sandbox):
    return Node(sandbox, "hv3")


def test_a_daemon_that_is_killed_comes_back_before_the_node_is_reset(node):
    resets, arrivals = node.resets(), node.arrivals()
    node.signal(signal.SIGKILL)
    node.wait_back(arrivals)
    assert node.resets() == resets


def test_a_daemon_that_is_stopped_in_good_order_disarms_first(node):
    resets, arrivals = node.resets(), node.arrivals()
    node.signal(signal.SIGTERM)
    node.wait_back(arrivals)
    assert "disarmed" in node.said("watchdog")
    assert "watchdog-disarmed" in node.said(DAEMON)
    assert node.resets() == resets


def test_a_daemon_that_hangs_costs_the_node(node):
    resets, arrivals = node.resets(), node.arrivals()
    node.signal(signal.SIGSTOP)
    eventually(lambda: node.resets() > resets, "the node is reset", within_s=60.0)
    node.wait_back(arrivals)


def test_a_node_that_is_cut_off_is_reset(sandbox, node):
    resets, arrivals = node.resets(), node.arrivals()
    sandbox.cut_link(node.name)
    try:
        eventually(lambda: node.resets() > resets, "the node is reset", within_s=60.0)
    finally:
        sandbox.heal_link(node.name)
    assert "watchdog-starving" in node.said(DAEMON)
    node.wait_back(arrivals)
