"""The in-memory store: the contract, and what it has beyond it."""

import pytest

from pvc_core.store.api import ANY, Create, Delete, Operation, Put, SessionState, Store, StoreUnavailable
from pvc_core.store.memory import MemoryStore, MemoryTree, Moment
from pvc_core.testkit.contracts.store import StoreContract


class _Bench:
    def __init__(self) -> None:
        self.tree = MemoryTree()
        self.stores: list[MemoryStore] = []

    def connect(self) -> Store:
        store = self.tree.connect()
        self.stores.append(store)
        return store

    def cut(self, store: Store) -> None:
        _memory(store).suspend()

    def heal(self, store: Store) -> None:
        _memory(store).resume()

    def expire(self, store: Store) -> None:
        _memory(store).expire()
        _memory(store).reconnect()


def _memory(store: Store) -> MemoryStore:
    assert isinstance(store, MemoryStore)
    return store


class TestMemoryStoreKeepsTheContract(StoreContract):
    @pytest.fixture
    def bench(self):
        return _Bench()


class _Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_last_heard_follows_the_clock_while_the_link_is_up_and_stands_still_while_it_is_cut():
    clock = _Clock()
    store = MemoryTree().connect(clock=clock)
    clock.now = 105.0
    assert store.last_heard() == 105.0
    store.suspend()
    clock.now = 120.0
    assert store.last_heard() == 105.0
    store.resume()
    assert store.last_heard() == 120.0


def test_a_session_that_expires_while_cut_off_is_told_so_only_when_the_link_is_back():
    tree = MemoryTree()
    store, observer = tree.connect(), tree.connect()
    states: list[SessionState] = []
    store.watch_state(states.append)
    store.commit(Create("/lease", b"", ephemeral=True))
    first = store.session
    store.suspend()
    store.expire()
    assert observer.get("/lease") is None
    assert (store.state, states) == (SessionState.SUSPENDED, [SessionState.SUSPENDED])
    store.resume()
    assert states == [SessionState.SUSPENDED, SessionState.LOST, SessionState.CONNECTED]
    assert store.session != first


def test_a_crashed_client_is_silent_and_its_ephemeral_nodes_wait_for_the_expiry():
    tree = MemoryTree()
    store, observer = tree.connect(name="hv1"), tree.connect()
    told: list[object] = []
    store.watch("/", told.append)
    store.watch_state(told.append)
    store.commit(Create("/lease", b"", ephemeral=True))
    told.clear()
    store.crash()
    observer.commit(Create("/a", b""))
    with pytest.raises(StoreUnavailable, match=r"hv1 .*crashed"):
        store.get("/lease")
    assert observer.get("/lease") is not None
    store.expire()
    assert observer.get("/lease") is None
    store.close()
    assert told == []


def test_closing_while_cut_off_leaves_the_ephemeral_nodes_to_the_expiry():
    tree = MemoryTree()
    store, observer = tree.connect(), tree.connect()
    store.commit(Create("/lease", b"", ephemeral=True))
    store.suspend()
    store.close()
    assert observer.get("/lease") is not None
    store.expire()
    assert observer.get("/lease") is None


def test_held_callbacks_run_at_deliver_in_order_and_per_session():
    tree = MemoryTree(hold=True)
    one, two = tree.connect(), tree.connect()
    told: list[tuple[str, str | None]] = []
    one.watch("/", lambda path: told.append(("one", path)))
    two.watch("/", lambda path: told.append(("two", path)))
    one.commit(Create("/a", b""))
    one.commit(Create("/b", b""))
    assert (told, tree.pending()) == ([], 4)
    assert tree.deliver(two) == 2
    assert told == [("two", "/a"), ("two", "/b")]
    assert tree.deliver() == 2
    assert told[2:] == [("one", "/a"), ("one", "/b")]


def test_what_was_not_delivered_before_a_cut_is_lost_and_none_comes_instead():
    tree = MemoryTree(hold=True)
    one, two = tree.connect(), tree.connect()
    told: list[str | None] = []
    two.watch("/", told.append)
    one.commit(Create("/a", b""))
    two.suspend()
    one.commit(Create("/b", b""))
    two.resume()
    tree.deliver()
    assert told == [None]


def test_a_callback_that_writes_gets_its_own_events_after_it_has_returned():
    store = MemoryTree().connect()
    told: list[str] = []

    def callback(path: str | None) -> None:
        told.append(f"begin {path}")
        if path == "/a":
            store.commit(Create("/b", b""))
        told.append(f"end {path}")

    store.watch("/", callback)
    store.commit(Create("/a", b""))
    assert told == ["begin /a", "end /a", "begin /b", "end /b"]


class _Boom(Exception):
    pass


def _fault_at(moment: Moment, error: Exception):
    def fault(now: Moment, _store: MemoryStore, operations: tuple[Operation, ...]) -> None:
        if now is moment:
            raise error

    return fault


def test_a_fault_before_a_commit_leaves_the_tree_as_it_was():
    tree = MemoryTree(fault=_fault_at(Moment.BEFORE, _Boom()))
    store = tree.connect()
    with pytest.raises(_Boom):
        store.commit(Create("/a", b""))
    assert tree.dump() == {}


def test_a_fault_after_a_commit_hides_the_answer_of_what_was_applied_and_told():
    tree = MemoryTree(fault=_fault_at(Moment.AFTER, StoreUnavailable("no answer")))
    store, observer = tree.connect(), tree.connect()
    told: list[str | None] = []
    observer.watch("/", told.append)
    with pytest.raises(StoreUnavailable, match="no answer"):
        store.commit(Create("/a", b""))
    assert list(tree.dump()) == ["/a"]
    assert told == ["/a"]


def test_a_fault_of_reads_is_raised_by_every_read():
    store = MemoryTree(fault=_fault_at(Moment.READ, StoreUnavailable("no answer"))).connect()
    for call in (lambda: store.get("/"), lambda: store.get_many([]), lambda: store.children("/")):
        with pytest.raises(StoreUnavailable):
            call()
    store.commit(Create("/a", b""))


def test_a_hook_that_crashes_the_client_after_a_commit_hides_the_answer():
    def fault(moment: Moment, store: MemoryStore, operations: tuple[Operation, ...]) -> None:
        if moment is Moment.AFTER:
            store.crash()

    tree = MemoryTree(fault=fault)
    store = tree.connect()
    with pytest.raises(StoreUnavailable):
        store.commit(Create("/a", b""))
    assert list(tree.dump()) == ["/a"]


def test_a_refused_transaction_restores_values_and_versions_exactly():
    tree = MemoryTree()
    store = tree.connect()
    store.commit(Create("/a", b"1"), Create("/a/b", b"2"), Create("/e", b"3", ephemeral=True))
    store.commit(Put("/a", b"1", ANY))
    before = tree.dump()
    assert before["/e"].ephemeral
    with pytest.raises(Exception, match="not empty"):
        store.commit(Put("/a", b"x", 1), Delete("/e"), Create("/e", b"y"), Put("/a/b", b"z", 0), Delete("/a"))
    assert tree.dump() == before


def test_a_silent_session_seems_connected_and_hears_late_what_happened_meanwhile():
    clock = _Clock()
    tree = MemoryTree()
    store, other = tree.connect(clock=clock), tree.connect()
    told: list[str | None] = []
    store.watch("/", told.append)
    store.silence()
    clock.now = 103.0
    other.commit(Create("/a", b""))
    with pytest.raises(StoreUnavailable):
        store.get("/a")
    with pytest.raises(StoreUnavailable):
        store.commit(Create("/b", b""))
    assert (store.state, store.last_heard(), told) == (SessionState.CONNECTED, 100.0, [])
    assert other.get("/b") is None
    store.resume()
    assert (store.last_heard(), told) == (103.0, ["/a"])


def test_writes_of_a_silent_session_may_arrive_all_the_same():
    tree = MemoryTree()
    store, other = tree.connect(), tree.connect()
    store.silence(arriving=True)
    with pytest.raises(StoreUnavailable):
        store.commit(Create("/a", b""))
    with pytest.raises(StoreUnavailable):
        store.commit(Create("/a", b""))
    assert other.get("/a") is not None
    store.expire()
    with pytest.raises(StoreUnavailable):
        store.commit(Create("/b", b""))
    assert other.get("/b") is None


def test_a_silent_session_that_expired_is_lost_when_the_servers_are_heard_again():
    store = MemoryTree().connect()
    states: list[SessionState] = []
    store.watch_state(states.append)
    store.silence()
    store.expire()
    assert states == []
    store.resume()
    assert states == [SessionState.SUSPENDED, SessionState.LOST, SessionState.CONNECTED]


def test_an_isolated_server_answers_with_what_it_last_knew_and_writes_nothing():
    clock = _Clock()
    tree = MemoryTree()
    store, other = tree.connect(clock=clock), tree.connect()
    other.commit(Create("/a", b"old"))
    store.isolate()
    clock.now = 105.0
    other.commit(Put("/a", b"new", ANY), Create("/b", b""))
    found = store.get("/a")
    assert found is not None
    assert (found.value, store.children("/"), store.last_heard()) == (b"old", ["a"], 105.0)
    with pytest.raises(StoreUnavailable):
        store.commit(Delete("/a"))
    store.resume()
    assert store.children("/") == ["a", "b"]


def test_a_client_without_requests_hears_from_the_servers_with_each_ping():
    clock = _Clock()
    store = MemoryTree().connect(clock=clock, ping_s=3.0)
    clock.now = 107.0
    assert store.last_heard() == 106.0
    store.get("/")
    assert store.last_heard() == 107.0


def test_changes_are_told_at_once_with_the_name_of_who_made_them():
    told: list[tuple[str, list[str]]] = []
    tree = MemoryTree(changed=lambda name, paths: told.append((name, paths)))
    store = tree.connect(name="hv1")
    store.commit(Create("/a", b""), Create("/b", b"", ephemeral=True))
    store.expire()
    assert told == [("hv1", ["/a", "/b"]), ("", ["/b"])]
    assert tree.peek("/b") is None
