"""The ZooKeeper store while servers crash, hang and come back, and while the client itself is stopped."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from pvc_core.store.api import ANY, Create, Put, SessionState, StoreUnavailable
from pvc_core.store.zookeeper import ZooKeeperStore
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, wipe

pytestmark = pytest.mark.real

SESSION_S = 4.0


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper"), 3) as ensemble:
        yield ensemble


@pytest.fixture
def ensemble(running):
    """Three servers that serve, with an empty ``/pvc``."""
    observer = running.connect()
    observer.commit(Create("/pvc", b""))
    observer.close()
    yield running
    for member in running.members:
        running.up(member.id)
        running.resume(member.id)
    running.wait_serving()
    cleaner = running.connect()
    wipe(cleaner)
    cleaner.close()


@pytest.fixture
def close_later():
    stores = []
    yield stores.append
    for store in stores:
        store.close()


def _states(store):
    states = []
    store.watch_state(states.append)
    return states


def _assert_kept(store, observer, states):
    """The session went on: its ephemeral node is there, and it never heard of a loss."""
    assert SessionState.LOST not in states
    assert observer.get("/pvc/lease").ephemeral
    assert store.get("/pvc/lease").ephemeral


def test_a_server_that_dies_costs_a_moment_but_not_the_session(ensemble, close_later):
    follower = next(m.id for m in ensemble.members if m.id != ensemble.leader())
    store, observer = ensemble.connect_to(follower), ensemble.connect_to(ensemble.leader())
    close_later(store)
    close_later(observer)
    states = _states(store)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    ensemble.kill(follower)
    begun = time.monotonic()
    # Reads are repeated by themselves; nobody has to handle this.
    assert store.get("/pvc/lease") is not None
    assert time.monotonic() - begun < SESSION_S / 2
    store.commit(Put("/pvc/lease", b"1", ANY))
    eventually(lambda: states == [SessionState.SUSPENDED, SessionState.CONNECTED], "told of the interruption")
    _assert_kept(store, observer, states)


def test_the_leaders_death_stops_writes_only_until_another_leads(ensemble, close_later):
    leader = ensemble.leader()
    store = ensemble.connect_to(next(m.id for m in ensemble.members if m.id != leader))
    close_later(store)
    states = _states(store)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    ensemble.kill(leader)
    begun = time.monotonic()

    def written():
        try:
            store.commit(Put("/pvc/lease", b"1", ANY))
        except StoreUnavailable:
            return False
        return True

    eventually(written, "a write", within_s=SESSION_S * 2)
    assert time.monotonic() - begun < SESSION_S * 2
    _assert_kept(store, store, states)


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_hung_server_is_noticed_while_requests_are_being_sent_and_the_session_is_kept(
    ensemble, close_later, sending, role
):
    leader = ensemble.leader()
    follower, other = (m.id for m in ensemble.members if m.id != leader)
    hung = leader if role == "leader" else follower
    store, observer = ensemble.connect_to(hung), ensemble.connect_to(other)
    close_later(store)
    close_later(observer)
    states = _states(store)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    with sending(store):
        begun = time.monotonic()
        ensemble.pause(hung)
        eventually(lambda: SessionState.SUSPENDED in states, "the silence is noticed")
        assert time.monotonic() - begun < SESSION_S * 2 / 3 + 1.0
        eventually(lambda: states == [SessionState.SUSPENDED, SessionState.CONNECTED], "another server")
        # Longer than the session would have lasted: the lease never goes.
        while time.monotonic() < begun + SESSION_S * 1.4:
            assert observer.get("/pvc/lease") is not None
            time.sleep(0.05)
    assert store.server != ensemble.hosts[hung - 1]
    _assert_kept(store, observer, states)


def test_an_idle_client_notices_a_hung_server_too(ensemble, close_later):
    hung = next(m.id for m in ensemble.members if m.id != ensemble.leader())
    store = ensemble.connect_to(hung)
    close_later(store)
    states = _states(store)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    ensemble.pause(hung)
    eventually(lambda: states == [SessionState.SUSPENDED, SessionState.CONNECTED], "another server")
    _assert_kept(store, store, states)


def test_a_new_client_is_not_held_up_by_a_hung_server(ensemble, close_later):
    hung = next(m.id for m in ensemble.members if m.id != ensemble.leader())
    ensemble.pause(hung)
    for _ in range(6):
        begun = time.monotonic()
        close_later(ensemble.connect())
        assert time.monotonic() - begun < SESSION_S / 2


def test_a_closed_client_does_not_wait_for_a_hung_server(ensemble):
    hung = next(m.id for m in ensemble.members if m.id != ensemble.leader())
    store = ensemble.connect_to(hung)
    ensemble.pause(hung)
    begun = time.monotonic()
    store.close()
    assert time.monotonic() - begun < 3.0


def test_last_heard_stands_still_while_the_server_hangs(running, tmp_path, close_later, sending):
    with ZooKeeperEnsemble(tmp_path / "one") as ensemble:
        store = ensemble.connect(patience_s=0.1)
        close_later(store)
        store.commit(Create("/pvc", b""), Create("/pvc/lease", b"", ephemeral=True))
        states = _states(store)
        seen = []
        store.watch("/pvc", seen.append)
        paused = time.monotonic()
        ensemble.pause(1)
        with sending(store):
            eventually(lambda: SessionState.SUSPENDED in states, "the silence is noticed")
        heard = store.last_heard()
        assert heard <= paused
        with pytest.raises(StoreUnavailable, match=ensemble.hosts[0]):
            store.get("/pvc")
        eventually(lambda: time.monotonic() > paused + SESSION_S, "the session's time is over")
        assert store.last_heard() == heard
        # No server can tell it so, but nothing has been heard for a session's length: that is what a node counts by.
        assert store.state is SessionState.SUSPENDED
        ensemble.resume(1)
        eventually(lambda: store.state is SessionState.CONNECTED, "connected again")
        eventually(lambda: store.last_heard() > paused + SESSION_S, "answers again")
        eventually(lambda: seen[:1] == [None], "the watch says: read again")
        lost = SessionState.LOST in states
        eventually(lambda: (store.get("/pvc/lease") is None) == lost, "the lease went with the session, if that went")


def test_all_servers_may_go_and_come_back(ensemble, close_later):
    store = ensemble.connect(patience_s=0.2)
    close_later(store)
    seen = []
    store.watch("/pvc", seen.append)
    for member in ensemble.members:
        ensemble.kill(member.id)
    eventually(lambda: store.state is SessionState.SUSPENDED, "suspended")
    refused = ", ".join(rf"{host} \(connection refused\)" for host in ensemble.hosts)

    def message():
        with pytest.raises(StoreUnavailable) as caught:
            store.get("/pvc")
        return str(caught.value)

    eventually(lambda: re.search(f"tried {refused}; check that ZooKeeper runs", message()), "all servers are named")
    seen.clear()  # the client may have moved from one server to the next while they were killed one by one
    with pytest.raises(StoreUnavailable):
        store.commit(Put("/pvc", b"", ANY))
    ensemble.start()
    eventually(lambda: store.state is SessionState.CONNECTED, "connected again", within_s=30)
    eventually(lambda: None in seen, "the watch says: read again")
    store.commit(Put("/pvc", b"back", ANY))
    eventually(lambda: "/pvc" in seen, "the watch goes on")


def test_servers_are_found_again_after_any_number_of_tries(ensemble, close_later):
    """An outage of an hour is thousands of tries, and the time that each server is given doubles only so often."""
    store = ensemble.connect(patience_s=0.2)
    close_later(store)
    for member in ensemble.members:
        ensemble.kill(member.id)
    eventually(lambda: store.state is SessionState.SUSPENDED, "suspended")
    store._client.connection._round = 5000
    ensemble.start()
    eventually(lambda: store.state is SessionState.CONNECTED, "connected again", within_s=30)


def test_without_any_server_the_first_connection_fails_soon_and_names_what_was_tried(ensemble):
    store = ZooKeeperStore(["127.0.0.1:1", "no-such-host.invalid:2181"], session_timeout_s=10)
    begun = time.monotonic()
    with pytest.raises(
        StoreUnavailable,
        match=r"tried 127.0.0.1:1 \(connection refused\), no-such-host.invalid:2181 \(the name does not resolve\)",
    ):
        store.wait_connected(1.0)
    store.close()
    assert time.monotonic() - begun < 5.0


_CLIENT = """
import logging
import os
import sys
from pvc_core.store.api import Create
from pvc_core.store.zookeeper import ZooKeeperStore

logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")

def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\\n".encode())  # in one piece: two threads speak

store = ZooKeeperStore(sys.argv[1].split(","), session_timeout_s=4.0)
store.wait_connected(20)
store.watch("/pvc", lambda path: say("watch", path))
store.watch_state(lambda state: say("state", state.value))
store.commit(Create("/pvc/lease", b"", ephemeral=True))
say("ready")
sys.stdin.read()
store.close()
"""


class _Process:
    """A client in a process of its own, so that it can be stopped."""

    def __init__(self, ensemble):
        self.child = subprocess.Popen(
            [sys.executable, "-c", _CLIENT, ",".join(ensemble.hosts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            eventually(lambda: "ready" in self.lines, "the client is ready")
        except BaseException:
            self.close()
            raise

    def _read(self):
        self.lines.extend(line.strip() for line in iter(self.child.stdout.readline, ""))

    def signal(self, number):
        os.kill(self.child.pid, number)

    def close(self):
        self.signal(signal.SIGCONT)
        self.child.stdin.close()
        try:
            self.child.wait(20)
        finally:
            self.child.kill()
            self.child.wait()
            self._reader.join()
            self.child.stdout.close()


@pytest.fixture
def process(ensemble):
    process = _Process(ensemble)
    yield process
    process.close()


def test_a_client_that_is_stopped_for_a_moment_keeps_its_session(ensemble, process, close_later):
    observer = ensemble.connect()
    close_later(observer)
    process.signal(signal.SIGSTOP)
    deadline = time.monotonic() + SESSION_S / 2
    while time.monotonic() < deadline:
        assert observer.get("/pvc/lease") is not None
        time.sleep(0.05)
    process.signal(signal.SIGCONT)
    observer.commit(Put("/pvc", b"tell", ANY))
    eventually(lambda: "watch /pvc" in process.lines, "it goes on")
    assert observer.get("/pvc/lease") is not None
    assert "state lost" not in process.lines


def test_a_client_that_is_stopped_for_too_long_loses_its_session_and_gets_a_new_one(ensemble, process, close_later):
    observer = ensemble.connect()
    close_later(observer)
    seen = []
    observer.watch("/pvc/lease", seen.append)
    begun = time.monotonic()
    process.signal(signal.SIGSTOP)
    eventually(lambda: seen == ["/pvc/lease"], "the lease is gone")
    assert SESSION_S / 2 < time.monotonic() - begun < SESSION_S + 3.0
    assert observer.get("/pvc/lease") is None
    process.signal(signal.SIGCONT)
    wanted = ["state suspended", "state lost", "state connected"]
    eventually(lambda: [line for line in process.lines if line.startswith("state")] == wanted, "it learns of the loss")
    eventually(lambda: "watch None" in process.lines, "its watch says: read again")
