"""The watchdog's arithmetic, against adversaries that stop and kill the node's daemon at the worst moments.

The adversary's world is written down here a second time, from the terms of the proof: a lease that ends, a daemon that
confirms, checks and feeds with stops between any two steps, a device that resets and feeds once more when its process
dies, and clocks that run at different rates.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.plan.watchdog import DRIFT, RESET_S, confirm_interval, down_after, feed_interval, may_feed

FEEDING_S = st.floats(0.5, 100.0)
TIMEOUT_S = st.floats(2.0, 600.0)


def test_the_figures_of_the_default_timing():
    assert down_after(7.0, 10.0) == pytest.approx(39.37)
    assert feed_interval(10.0) == 1.0
    assert feed_interval(2.0) == 0.4
    assert confirm_interval(7.0) == 1.75


def test_without_a_lease_nothing_is_fed():
    assert not may_feed(100.0, None, 7.0)


@pytest.mark.parametrize(("age", "may"), [(0.0, True), (6.99, True), (7.0, False), (1000.0, False)])
def test_it_is_fed_while_the_newest_confirmation_is_young(age, may):
    assert may_feed(100.0 + age, 100.0, 7.0) is may


@given(FEEDING_S, TIMEOUT_S)
def test_a_healthy_node_gets_several_tries_at_each_step(feeding_s, timeout_s):
    assert 4 * confirm_interval(feeding_s) <= feeding_s
    assert 5 * feed_interval(timeout_s) <= timeout_s * (1 + 1e-9)


class Host:
    """One host and its daemons in true time; every time-out on it passes at a rate of its own."""

    def __init__(self, feeding_s, timeout_s, lease_ends, rng, rates):
        node_rate, watchdog_rate = rates
        self.feeding_s, self.lease_ends, self.rng = feeding_s, lease_ends, rng
        # A slow clock makes a duration longer.
        self.feeding_true, self.timeout_true = feeding_s * node_rate, timeout_s * watchdog_rate
        self.now = 0.0
        self.resets = self.timeout_true
        self.confirmed = 0.0
        self.alive = True

    def stop(self, longest):
        """Let the daemon stand still for a while; returns whether the host lives on."""
        pause = self.rng.choice([0.0, self.rng.uniform(0, longest), max(0.0, self.resets - self.now - 1e-6)])
        self.now += pause
        self.alive = self.now < self.resets
        return self.alive

    def feed(self):
        self.resets = self.now + self.timeout_true

    def confirm(self):
        """Ask the servers; the answer depends on a moment between sending and answer."""
        sent = self.now
        if not self.stop(self.feeding_s):
            return
        processed = sent + (self.now - sent) * self.rng.random()
        if processed < self.lease_ends:
            self.confirmed = max(self.confirmed, sent)

    def check_and_feed(self):
        # The age on the node's clock, which runs at its own rate.
        age = (self.now - self.confirmed) * self.feeding_s / self.feeding_true
        if may_feed(age, 0.0, self.feeding_s) and self.stop(self.timeout_true):
            self.feed()

    def die(self):
        """Let the daemon die: the kernel feeds once more, and nothing comes after, as no daemon gets a lease."""
        if self.stop(self.timeout_true):
            self.feed()
            self.now, self.alive = self.resets, False

    def run(self):
        """Return when the host is reset."""
        while self.alive:
            step = self.rng.choice([self.confirm, self.check_and_feed, self.check_and_feed, self.check_and_feed])
            step()
            if self.alive and self.now > self.lease_ends and self.rng.random() < 0.2:
                self.die()
            elif self.alive:
                self.stop(self.rng.choice([0.1, 1.0]))
        return self.resets


@pytest.mark.parametrize("block", range(20))
def test_no_adversary_keeps_the_host_up_beyond_the_declared_time(block):
    worst = 0.0
    for seed in range(block * 1000, (block + 1) * 1000):
        rng = random.Random(seed)
        feeding_s, timeout_s = rng.uniform(0.5, 30.0), rng.uniform(2.0, 30.0)
        slow = 1 + rng.choice([0.0, DRIFT / 2])
        host = Host(feeding_s, timeout_s, rng.uniform(0.0, 30.0), rng, (slow, slow))
        down = host.run() + rng.uniform(0.0, RESET_S)
        # What the observer's clock shows, which may be fast, at the moment when the host is down.
        shown = (down - host.lease_ends) * (1 + rng.choice([0.0, DRIFT / 3]))
        bound = down_after(feeding_s, timeout_s)
        assert shown <= bound, f"seed {seed}"
        worst = max(worst, shown / bound)
    assert worst > 0.6, "the adversary is worth the name"


def test_the_bound_is_reached_but_for_its_margins():
    """Each of the three time-outs is needed: stopped before feeding, killed before the reset, fed by the kernel."""
    feeding_s, timeout_s, end = 7.0, 10.0, 100.0
    confirmed = end  # processed just before the lease ended
    checked = confirmed + feeding_s
    assert may_feed(checked - 1e-9, confirmed, feeding_s)
    fed_late = checked + timeout_s  # fed just before the check, then stopped for as long as it can be
    killed = fed_late + timeout_s
    reset = killed + timeout_s
    assert reset - end == pytest.approx((down_after(feeding_s, timeout_s) - RESET_S) / (1 + DRIFT))
