"""The ZooKeeper store while cables are pulled: three servers and a client on hosts of their own."""

import time

import pytest

from pvc_core.store.api import Create, SessionState, StoreUnavailable
from pvc_core.testkit.lan import Lan
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, unique_name, wipe

pytestmark = pytest.mark.real

SESSION_S = 4.0
CLIENT = 4
"""The client's host; servers are on hosts 1 to 3."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    lan = Lan(4, name=unique_name("pvczk"))
    try:
        with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper"), 3, lan=lan) as ensemble:
            yield ensemble
    finally:
        lan.close()


@pytest.fixture
def ensemble(running):
    observer = running.connect()
    observer.commit(Create("/pvc", b""))
    observer.close()
    yield running
    for host in running.lan.hosts:
        running.lan.heal(host)
    running.wait_serving()
    cleaner = running.connect()
    wipe(cleaner)
    cleaner.close()


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_client_whose_server_is_cut_off_goes_to_another_and_keeps_its_session(ensemble, sending, role):
    leader = ensemble.leader()
    follower, other = (m.id for m in ensemble.members if m.id != leader)
    cut = leader if role == "leader" else follower
    store, observer = ensemble.connect_to(cut), ensemble.connect_to(other)
    states = []
    store.watch_state(states.append)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    try:
        with sending(store):
            begun = time.monotonic()
            ensemble.lan.cut(cut)
            eventually(lambda: SessionState.SUSPENDED in states, "the silence is noticed")
            assert time.monotonic() - begun < SESSION_S * 2 / 3 + 1.0
            eventually(lambda: states == [SessionState.SUSPENDED, SessionState.CONNECTED], "another server")
            # Longer than the session would have lasted: the lease never goes.
            while time.monotonic() < begun + SESSION_S * 1.4:
                assert observer.get("/pvc/lease") is not None
                time.sleep(0.05)
        assert store.get("/pvc/lease").ephemeral
        assert SessionState.LOST not in states
    finally:
        store.close()
        observer.close()


def test_a_client_that_is_cut_off_loses_its_lease_in_time_and_hears_of_it_when_the_link_is_back(ensemble, sending):
    store, observer = ensemble.connect(at=CLIENT, patience_s=0.1), ensemble.connect()
    states = []
    store.watch_state(states.append)
    seen = []
    observer.watch("/pvc/lease", seen.append)
    store.commit(Create("/pvc/lease", b"", ephemeral=True))
    eventually(lambda: seen == ["/pvc/lease"], "the lease")
    try:
        with sending(store):
            cut = time.monotonic()
            ensemble.lan.cut(CLIENT)
            eventually(lambda: store.state is SessionState.SUSPENDED, "the silence is noticed")
            heard = store.last_heard()
            eventually(lambda: len(seen) == 2, "the lease is gone")
            gone = time.monotonic()
        # Who counts a session's length from what it last heard stops before anybody else may begin.
        assert heard <= cut
        assert gone >= heard + SESSION_S
        assert gone - cut < SESSION_S + 3.0
        assert store.last_heard() == heard
        assert states == [SessionState.SUSPENDED]
        with pytest.raises(StoreUnavailable, match=r"no connection within|silent for|no route to host"):
            store.get("/pvc")
        ensemble.lan.heal(CLIENT)
        wanted = [SessionState.SUSPENDED, SessionState.LOST, SessionState.CONNECTED]
        eventually(lambda: states == wanted, "it learns of the loss and has a new session")
        store.commit(Create("/pvc/lease", b"", ephemeral=True))
    finally:
        store.close()
        observer.close()
