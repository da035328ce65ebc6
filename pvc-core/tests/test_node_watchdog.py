"""The node's watchdog: fed on what the servers confirm, declared only while it is armed, left armed rather than trusted."""

import itertools
import logging

import pytest

from pvc_core.model.node import LeaseGeneration
from pvc_core.node.lease import NodeLease
from pvc_core.node.watchdog import Watchdog, WatchdogThreads
from pvc_core.node.watchdog_device import WatchdogError
from pvc_core.plan.watchdog import down_after
from pvc_core.store import documents, keys
from pvc_core.store.api import Create, SessionState, StoreUnavailable
from pvc_core.store.memory import MemoryTree, Moment
from pvc_core.testkit.doomed import Died, Doom
from pvc_core.testkit.fake_watchdog import FakeWatchdog
from pvc_core.testkit.simulator.clock import VirtualClock
from pvc_core.testkit.waiting import eventually

LEASE_S = 10.0
FEEDING_S = 7.0
TIMEOUT_S = 10.0
DOWN_S = down_after(FEEDING_S, TIMEOUT_S)


class Site:
    """A node whose daemons die and are started again, on a host with a watchdog."""

    def __init__(self, *, granted_s=None):
        self.clock = VirtualClock(100.0)
        self.tree = MemoryTree()
        self.observer = self.tree.connect(clock=self.clock)
        self.observer.commit(*(Create(path, b"") for path in keys.BASE))
        self.doom = Doom()
        self.hardware = FakeWatchdog(self.clock, granted_s=granted_s, moment=self.moment)
        self.conditions = []
        self.daemons = itertools.count(1)
        self.start()

    def moment(self, what):
        del what
        self.doom.moment()

    def start(self):
        number = next(self.daemons)
        self.store = self.tree.connect(name=f"hv1-{number}", clock=self.clock)
        self.lease = NodeLease(
            self.store, "hv1", self.clock, LEASE_S, holder=f"d{number}", predecessor=f"d{number - 1}"
        )
        self.watchdog = Watchdog(self.lease, self.clock, lambda: self.hardware.open(TIMEOUT_S), self.conditions.append)

    def die(self):
        self.store.crash()
        self.hardware.process_died()

    def up(self):
        """Take the lease and arm."""
        self.lease.ensure()
        self.watchdog.tick()

    def declared(self):
        entry = documents.read(self.observer, keys.generation("hv1"))
        return 0.0 if entry is None else entry.value.watchdog_down_s

    def run(self, seconds):
        """Let time pass with everything that the daemon does in it; returns when the host was reset, or None."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.clock.move_to(self.clock.monotonic() + 0.25)
            due = self.hardware.due()
            if due is not None and due <= self.clock.monotonic():
                return due
            self.watchdog.tick()
        return None


@pytest.fixture
def site():
    return Site()


def test_nothing_is_touched_before_there_is_a_lease(site):
    assert site.run(60.0) is None
    assert site.hardware.due() is None
    assert not site.conditions


def test_with_the_lease_it_is_armed_declared_and_fed(site):
    site.up()
    assert site.declared() == pytest.approx(DOWN_S)
    assert site.hardware.due() == pytest.approx(site.clock.monotonic() + TIMEOUT_S)
    assert site.run(300.0) is None
    assert [(c.type, c.ok, c.reason) for c in site.conditions] == [("Watchdog", True, "Armed")]


def test_writes_with_the_guard_go_on_after_the_declaration(site):
    site.up()
    site.store.commit(Create("/pvc/x", b""), *site.lease.guard())
    assert site.lease.ensure() == 1


def test_what_the_device_grants_counts(caplog):
    site = Site(granted_s=30.0)
    site.up()
    assert site.declared() == pytest.approx(down_after(FEEDING_S, 30.0))


def test_a_session_that_the_servers_grant_for_a_shorter_time_is_counted_with(site):
    site.lease.limit(4.0)
    site.up()
    assert site.declared() == pytest.approx(down_after(2.8, TIMEOUT_S))


def test_it_starves_when_nothing_is_confirmed_though_the_session_says_connected(site, caplog):
    site.up()
    site.run(20.0)
    begun = site.clock.monotonic()

    def cut_off(moment, session, operations):
        if moment is Moment.BEFORE and session is site.store:
            raise StoreUnavailable("this server has no majority")

    site.tree.fault = cut_off
    reset = site.run(60.0)
    assert site.store.state is SessionState.CONNECTED
    assert site.lease.alive(), "pings are answered all the time"
    assert begun + TIMEOUT_S <= reset <= begun + FEEDING_S + TIMEOUT_S
    assert caplog.text.count("watchdog-starving") == 1


def test_it_starves_when_the_link_is_silent(site):
    site.up()
    begun = site.clock.monotonic()
    site.store.silence()
    assert site.run(60.0) <= begun + FEEDING_S + TIMEOUT_S


def test_it_is_fed_again_when_the_lease_is_back_in_time(site, caplog):
    site.up()
    site.store.suspend()
    assert site.run(FEEDING_S + 3.0) is None
    assert "watchdog-starving" in caplog.text
    site.store.resume()
    assert site.run(60.0) is None
    assert "watchdog-fed-again" in caplog.text
    assert site.declared() == pytest.approx(DOWN_S)


def test_a_lease_that_is_known_to_be_lost_feeds_nothing_until_the_next_one(site):
    site.up()
    site.store.expire()
    fed = site.hardware.feedings
    site.run(3.0)
    assert site.hardware.feedings == fed
    site.store.reconnect()
    site.lease.ensure()
    assert site.declared() == 0.0, "a new lease declares nothing yet"
    assert site.run(60.0) is None
    assert site.declared() == pytest.approx(DOWN_S)


def test_a_stopped_daemon_feeds_late_at_most_once_and_is_down_in_time(site):
    """SIGSTOP right after the check, SIGCONT just before the reset, then a death, which Linux takes for a feeding."""
    site.up()
    site.run(20.0)
    # The lease ends right after it was confirmed for the last time.
    while site.lease.confirmed() != site.clock.monotonic():
        site.run(0.25)
    end = site.clock.monotonic()
    site.store.silence()
    site.run(FEEDING_S - 0.25)
    checked = site.clock.monotonic()

    def stopped(what):
        site.clock.move_to(checked + TIMEOUT_S - 0.01)

    site.hardware._moment = stopped
    site.watchdog.feed()
    site.hardware._moment = site.moment
    site.clock.move_to(site.hardware.due() - 0.01)
    site.watchdog.tick()
    assert site.hardware.due() == pytest.approx(site.clock.monotonic() + 0.01), "not fed again"
    site.die()
    assert site.hardware.due() - end > FEEDING_S + 2 * TIMEOUT_S
    assert site.hardware.due() - end < DOWN_S


def test_a_daemon_that_comes_back_without_a_lease_feeds_nothing(site):
    site.up()
    site.run(5.0)
    site.die()
    due = site.hardware.due()
    site.start()
    site.store.suspend()
    assert site.run(60.0) == due


def test_a_daemon_that_comes_back_in_time_goes_on(site):
    site.up()
    site.die()
    site.clock.move_to(site.clock.monotonic() + 2.0)
    site.start()
    site.lease.ensure()
    assert site.declared() == 0.0
    assert site.run(60.0) is None
    assert site.declared() == pytest.approx(DOWN_S)


def test_a_daemon_that_dies_between_any_two_steps_never_leaves_a_declaration_without_an_armed_device():
    """From the first lease through a lost session to the orderly stop; each write's answer may be lost as well."""

    def life(site):
        site.up()
        site.watchdog.tick()
        site.store.expire()
        site.store.reconnect()
        site.up()
        site.hardware.broken = "has failed"
        site.watchdog.feed()
        site.watchdog.confirm()
        site.hardware.broken = ""
        site.clock.move_to(site.clock.monotonic() + 15.0)
        site.lease.confirm()
        site.watchdog.confirm()
        site.watchdog.stop(released=site.lease.release())

    for count in range(200):
        site = Site()

        def moment(moment, session, operations, site=site):
            if moment is not Moment.READ and session is site.store:
                site.doom.moment()

        site.tree.fault = moment
        site.doom.after(count)
        try:
            life(site)
        except Died:
            site.die()
        armed = site.hardware.due() is not None
        assert armed or not site.declared(), f"moment {count}"
        if not site.doom.struck:
            break
    else:
        raise AssertionError("no end")
    assert count > 10
    assert not armed


def test_a_declaration_whose_answer_is_lost_costs_the_lease_and_nothing_else(site):
    site.lease.ensure()

    def lose(moment, session, operations):
        if moment is Moment.AFTER and session is site.store:
            site.tree.fault = None
            raise StoreUnavailable("the answer is lost")

    site.tree.fault = lose
    site.watchdog.tick()
    assert site.lease.confirmed() is None
    assert site.lease.ensure() == 2
    assert site.declared() == 0.0
    assert site.run(10.0) is None
    assert site.declared() == pytest.approx(DOWN_S)


def test_release_then_disarm(site):
    site.up()
    site.watchdog.stop(released=site.lease.release())
    assert site.hardware.due() is None
    entry = documents.read(site.observer, keys.generation("hv1"))
    assert entry.value == LeaseGeneration(node="hv1", generation=1, released=True)
    assert site.run(60.0) is None


def test_a_release_whose_answer_was_lost_is_found_when_repeated(site):
    site.up()

    def lose(moment, session, operations):
        if moment is Moment.AFTER and session is site.store:
            site.tree.fault = None
            raise StoreUnavailable("the answer is lost")

    site.tree.fault = lose
    with pytest.raises(StoreUnavailable):
        site.lease.release()
    assert site.lease.release()


def test_without_a_release_on_record_the_device_is_left_armed_and_that_is_said(site, caplog):
    site.up()
    site.store.suspend()
    with pytest.raises(StoreUnavailable):
        site.lease.release()
    site.watchdog.stop(released=False)
    assert "watchdog-left-armed" in caplog.text
    assert site.run(60.0) is not None


def test_a_lease_that_was_lost_before_is_not_released(site):
    site.up()
    site.store.expire()
    assert not site.lease.release()


def test_a_device_that_cannot_be_opened_is_told_and_tried_again(site):
    site.hardware.broken = "is not there"
    site.up()
    assert site.declared() == 0.0
    assert [(c.ok, c.reason) for c in site.conditions] == [(False, "NotArmed")]
    assert "is not there" in site.conditions[0].message
    site.hardware.broken = ""
    site.run(15.0)
    assert site.declared() == pytest.approx(DOWN_S)
    assert site.conditions[-1].ok


def test_a_device_that_cannot_be_fed_is_declared_no_longer_and_opened_again(site, caplog):
    site.up()
    site.hardware.broken = "has failed"
    site.run(3.0)
    assert site.declared() == 0.0
    assert site.conditions[-1].reason == "NotFed"
    assert "watchdog-not-fed" in caplog.text
    site.hardware.broken = ""
    site.run(15.0)
    assert site.declared() == pytest.approx(DOWN_S)
    assert site.conditions[-1].ok


def test_a_device_that_fails_while_it_is_confirmed_is_not_disarmed_before_that_is_declared(site):
    site.up()

    def fail_meanwhile(moment, session, operations):
        if moment is Moment.BEFORE:
            site.tree.fault = None
            site.hardware.broken = "has failed"
            site.watchdog.feed()

    site.tree.fault = fail_meanwhile
    site.watchdog.confirm()
    assert site.conditions[-1].reason == "NotFed"
    assert site.declared()
    assert site.hardware.due() is not None
    site.watchdog.confirm()
    assert not site.declared()
    assert site.hardware.due() is None


def test_a_device_that_cannot_be_disarmed_is_not_hidden(site):
    site.up()
    site.hardware.nowayout = True
    with pytest.raises(WatchdogError, match="nowayout"):
        site.watchdog.stop(released=site.lease.release())


def test_a_device_that_opens_while_the_daemon_stops_is_closed_again(site):
    opened = site.hardware.open

    def slow(timeout_s):
        device = opened(timeout_s)
        site.watchdog.stop(released=site.lease.release())
        return device

    site.hardware.open = slow
    site.up()
    assert site.hardware.due() is None
    assert site.declared() == 0.0


@pytest.fixture
def threads(site):
    threads = WatchdogThreads(site.watchdog)
    threads.start()
    yield threads
    threads.stop(released=True)


def test_the_threads_have_it_armed_when_a_new_lease_is_told(site, threads):
    site.lease.ensure()
    threads.taken(1)
    assert site.declared() == pytest.approx(DOWN_S)
    fed = site.hardware.feedings
    eventually(lambda: site.hardware.feedings > fed + 1, "the feeder feeds")


def test_a_defect_does_not_end_the_threads(site, threads, caplog):
    site.lease.ensure()
    with caplog.at_level(logging.CRITICAL):
        site.hardware.open = None
        threads.taken(1)
        del site.hardware.open
    site.clock.move_to(site.clock.monotonic() + 15.0)
    site.lease.confirm()
    threads.taken(1)
    assert site.declared() == pytest.approx(DOWN_S)
