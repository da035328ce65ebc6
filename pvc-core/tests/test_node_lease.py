"""The lease: taken by one daemon at a time, known again after a crash, given up on purpose."""

import pytest

from pvc_core.model.node import LeaseGeneration
from pvc_core.node.lease import LeaseBusy, LeaseLost, NodeLease
from pvc_core.node.session import Session
from pvc_core.store import documents, keys
from pvc_core.store.api import Create, StoreUnavailable, TransactionFailed
from pvc_core.store.memory import MemoryTree, Moment
from pvc_core.testkit.simulator.clock import VirtualClock

LEASE_S = 10.0


@pytest.fixture
def clock():
    return VirtualClock(100.0)


@pytest.fixture
def tree(clock):
    tree = MemoryTree()
    store = tree.connect(clock=clock)
    store.commit(*(Create(path, b"") for path in keys.BASE))
    return tree


@pytest.fixture
def store(tree, clock):
    return tree.connect(name="hv1", clock=clock)


def lease_of(store, clock, *, holder="me", predecessor=""):
    return NodeLease(store, "hv1", clock, LEASE_S, holder=holder, predecessor=predecessor)


def last_generation(store):
    entry = documents.read(store, keys.generation("hv1"))
    return None if entry is None else entry.value


def test_taking_raises_the_generation_and_creates_an_ephemeral_lease(store, clock):
    lease = lease_of(store, clock)
    assert lease.generation() is None
    assert lease.ensure() == 1
    assert lease.generation() == 1
    assert store.get(keys.lease("hv1").path).ephemeral
    assert lease.ensure() == 1


def test_a_new_session_takes_a_new_generation(store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    store.expire()
    assert lease.generation() is None
    assert not lease.alive()
    with pytest.raises(StoreUnavailable):
        lease.ensure()
    store.reconnect()
    assert lease.generation() is None
    assert lease.ensure() == 2


def test_no_generation_while_suspended_and_the_same_one_after(store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    store.suspend()
    assert lease.generation() is None
    assert lease.alive()
    store.resume()
    assert lease.generation() == 1


def test_silence_ends_the_lease_on_our_own_clock_before_the_session_can_be_over(store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    store.suspend()
    clock.move_to(clock.monotonic() + LEASE_S * 0.69)
    assert lease.alive()
    clock.move_to(clock.monotonic() + LEASE_S * 0.02)
    assert not lease.alive()


def test_the_lease_of_an_unknown_daemon_is_waited_for(tree, store, clock):
    lease_of(store, clock, holder="other").ensure()
    second = tree.connect(clock=clock)
    lease = lease_of(second, clock)
    with pytest.raises(LeaseBusy, match="two hosts have this node name"):
        lease.ensure()
    store.close()
    assert lease.ensure() == 2


def test_the_lease_of_a_dead_predecessor_on_this_host_is_replaced_at_once(tree, store, clock):
    lease_of(store, clock, holder="before").ensure()
    store.crash()
    lease = lease_of(tree.connect(clock=clock), clock, predecessor="before")
    assert lease.ensure() == 2
    store.expire()
    assert lease.generation() == 2
    assert lease.ensure() == 2


def test_an_answer_that_was_lost_does_not_lock_the_node_out(tree, store, clock):
    lease = lease_of(store, clock)

    def cut(moment, session, operations):
        if moment is Moment.AFTER:
            tree.fault = None
            session.suspend()

    tree.fault = cut
    with pytest.raises(StoreUnavailable):
        lease.ensure()
    assert lease.generation() is None
    store.resume()
    assert lease.ensure() == 2


def test_of_two_takers_at_the_same_moment_one_wins(tree, store, clock):
    other = lease_of(tree.connect(clock=clock), clock, holder="other")
    lease = lease_of(store, clock)

    def overtake(moment, session, operations):
        if moment is Moment.BEFORE and session is store:
            tree.fault = None
            other.ensure()

    tree.fault = overtake
    with pytest.raises(TransactionFailed):
        lease.ensure()
    assert other.generation() == 1
    assert lease.generation() is None


def test_a_session_lost_while_taking_is_not_taken_for_a_lease(tree, store, clock):
    lease = lease_of(store, clock)

    def expire(moment, session, operations):
        if moment is Moment.AFTER:
            tree.fault = None
            session.expire()
            session.reconnect()

    tree.fault = expire
    with pytest.raises(LeaseLost):
        lease.ensure()
    assert lease.generation() is None
    assert lease.ensure() == 2


def test_the_guard_fails_every_write_of_an_older_lease(tree, store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    guard = lease.guard()
    store.commit(Create("/pvc/x", b""), *guard)
    store.expire()
    store.reconnect()
    with pytest.raises(LeaseLost):
        lease.guard()
    with pytest.raises(TransactionFailed):
        store.commit(Create("/pvc/y", b""), *guard)
    lease.ensure()
    with pytest.raises(TransactionFailed):
        store.commit(Create("/pvc/y", b""), *guard)
    store.commit(Create("/pvc/y", b""), *lease.guard())


def test_release_says_that_it_was_on_purpose(store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    lease.release()
    assert store.get(keys.lease("hv1").path) is None
    assert last_generation(store) == LeaseGeneration(node="hv1", generation=1, released=True)
    assert lease.generation() is None
    with pytest.raises(LeaseLost, match="stopping"):
        lease.ensure()


def test_taking_again_after_a_release_clears_the_mark(tree, store, clock):
    lease = lease_of(store, clock)
    lease.ensure()
    lease.release()
    lease_of(tree.connect(clock=clock), clock, holder="next").ensure()
    assert last_generation(store) == LeaseGeneration(node="hv1", generation=2)


class Calls:
    def __init__(self):
        self.seen = []
        self.error = None

    def taken(self, generation):
        if self.error is not None:
            raise self.error
        self.seen.append(generation)

    def lost(self):
        self.seen.append("lost")


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def session(store, clock, calls):
    return Session(lease_of(store, clock), clock, LEASE_S, taken=calls.taken, lost=calls.lost)


def test_the_session_takes_the_lease_and_looks_again_before_it_could_end(session, calls):
    assert session.reconcile("") < LEASE_S * 0.2
    assert calls.seen == [1]
    session.reconcile("")
    assert calls.seen == [1]


def test_a_lost_session_is_told_and_the_lease_taken_again(session, store, calls):
    session.reconcile("")
    store.expire()
    session.reconcile("")
    assert calls.seen == [1, "lost"]
    store.reconnect()
    session.reconcile("")
    assert calls.seen == [1, "lost", 2]


def test_silence_is_told_as_a_loss_though_nobody_said_lost(session, store, clock, calls):
    session.reconcile("")
    store.suspend()
    clock.move_to(clock.monotonic() + LEASE_S)
    session.reconcile("")
    assert calls.seen == [1, "lost"]
    store.resume()
    session.verify()
    session.reconcile("")
    assert calls.seen == [1, "lost", 1]


def test_what_must_be_done_with_a_new_lease_is_repeated_until_it_succeeds(session, calls):
    calls.error = StoreUnavailable("cut")
    with pytest.raises(StoreUnavailable):
        session.reconcile("")
    calls.error = None
    session.reconcile("")
    assert calls.seen == [1]


def test_a_lease_that_somebody_deleted_is_taken_again(session, store, calls):
    session.reconcile("")
    store.commit(documents.read(store, keys.lease("hv1")).delete())
    session.verify()
    session.reconcile("")
    assert calls.seen == [1, "lost", 2]


def test_a_busy_name_is_tried_again_soon(tree, session, clock, calls):
    lease_of(tree.connect(clock=clock), clock, holder="other").ensure()
    assert session.reconcile("") < 1
    assert calls.seen == []
