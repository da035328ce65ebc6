"""What every state store must do.

Subclass ``StoreContract`` in a test module and override the fixture ``bench``.  A store that is
another program's gets real faults from its bench, and real time to notice them.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.store.api import (
    ANY,
    Check,
    CheckAbsent,
    Create,
    Delete,
    Failure,
    Node,
    Operation,
    Put,
    SessionState,
    Store,
    StoreUnavailable,
    TransactionFailed,
)
from pvc_core.store.limits import MAX_REQUEST, TooLarge
from pvc_core.testkit.waiting import eventually

ROOT = "/pvc"
WRITERS = 20


class StoreBench(Protocol):
    """Makes clients of one empty tree, and troubles their sessions."""

    def connect(self) -> Store:
        """Return a new connected client; the bench closes it."""

    def cut(self, store: Store) -> None:
        """Cut a client off from the store."""

    def heal(self, store: Store) -> None:
        """Let it reach the store again."""

    def expire(self, store: Store) -> None:
        """End a client's session while it can reach the store; it gets a new one."""


class StoreContract:
    """The suite."""

    @pytest.fixture
    def bench(self) -> StoreBench:
        """Return a bench whose tree has no ``/pvc``."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def store(self, bench: StoreBench) -> Store:
        """A client of a tree that has ``/pvc``."""
        store = bench.connect()
        store.commit(Create(ROOT, b"root"))
        return store

    @pytest.fixture
    def other(self, bench: StoreBench, store: Store) -> Store:  # noqa: ARG002  (after /pvc was made)
        """Another client of the same tree."""
        return bench.connect()

    # Values and versions.

    def test_a_created_node_is_read_with_version_zero(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/a", b"\x00 any bytes \xff"))
        assert store.get("/pvc/a") == Node(b"\x00 any bytes \xff", 0)
        assert other.get("/pvc/a") == Node(b"\x00 any bytes \xff", 0)

    def test_an_empty_value_is_read_as_empty(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b""))
        assert store.get("/pvc/a") == Node(b"", 0)
        assert store.get_many(["/pvc/a"]) == [Node(b"", 0)]

    def test_an_absent_node_is_none(self, store: Store) -> None:
        assert store.get("/pvc/absent") is None

    def test_each_put_raises_the_version_by_one(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"0"))
        for version in range(3):
            store.commit(Put("/pvc/a", b"%d" % (version + 1), version))
        assert store.get("/pvc/a") == Node(b"3", 3)

    def test_a_put_of_the_same_value_raises_the_version_too(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"same"))
        store.commit(Put("/pvc/a", b"same", 0))
        assert store.get("/pvc/a") == Node(b"same", 1)

    def test_a_put_of_any_version_replaces_what_is_there(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"0"))
        store.commit(Put("/pvc/a", b"1", ANY))
        assert store.get("/pvc/a") == Node(b"1", 1)

    def test_a_node_made_anew_begins_at_version_zero(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"old"))
        store.commit(Put("/pvc/a", b"older", 0))
        store.commit(Delete("/pvc/a", 1))
        store.commit(Create("/pvc/a", b"new"))
        assert store.get("/pvc/a") == Node(b"new", 0)

    def test_a_put_with_an_old_version_changes_nothing(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/a", b"0"))
        other.commit(Put("/pvc/a", b"other", 0))
        assert _failure(store, Put("/pvc/a", b"mine", 0)) is Failure.BAD_VERSION
        assert store.get("/pvc/a") == Node(b"other", 1)

    def test_of_concurrent_increments_none_is_lost(self, bench: StoreBench, store: Store) -> None:
        store.commit(Create("/pvc/count", b"0"))

        def increment(client: Store) -> None:
            for _ in range(5):
                while True:
                    node = client.get("/pvc/count")
                    assert node is not None
                    with suppress(TransactionFailed):
                        client.commit(Put("/pvc/count", b"%d" % (int(node.value) + 1), node.version))
                        break

        _at_once([partial(increment, bench.connect()) for _ in range(4)])
        assert store.get("/pvc/count") == Node(b"20", 20)

    # The tree.

    def test_children_are_sorted_names(self, store: Store) -> None:
        for name in ("b", "a", "c"):
            store.commit(Create(f"/pvc/{name}", b""))
        store.commit(Create("/pvc/a/deeper", b""))
        assert store.children("/pvc") == ["a", "b", "c"]
        assert store.children("/pvc/b") == []

    def test_an_absent_node_has_no_children(self, store: Store) -> None:
        assert store.children("/pvc/absent") == []

    def test_children_of_many_come_in_the_order_asked_for(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b""), Create("/pvc/a/2", b""), Create("/pvc/a/1", b""), Create("/pvc/b", b""))
        assert store.children_many(["/pvc/b", "/pvc/x", "/pvc/a", "/pvc"]) == [[], [], ["1", "2"], ["a", "b"]]
        assert store.children_many([]) == []

    def test_a_node_cannot_be_made_without_its_parent(self, store: Store) -> None:
        assert _failure(store, Create("/pvc/absent/a", b"")) is Failure.NO_NODE

    def test_a_node_cannot_be_made_twice(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"first"))
        assert _failure(store, Create("/pvc/a", b"second")) is Failure.EXISTS
        assert store.get("/pvc/a") == Node(b"first", 0)

    def test_a_node_with_children_cannot_be_deleted(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b""), Create("/pvc/a/b", b""))
        assert _failure(store, Delete("/pvc/a")) is Failure.NOT_EMPTY
        store.commit(Delete("/pvc/a/b"))
        store.commit(Delete("/pvc/a"))
        assert store.children("/pvc") == []

    @pytest.mark.parametrize("operation", [Put("/pvc/x", b"", ANY), Delete("/pvc/x"), Check("/pvc/x")])
    def test_an_absent_node_cannot_be_changed_or_relied_on(self, store: Store, operation: Operation) -> None:
        assert _failure(store, operation) is Failure.NO_NODE

    @pytest.mark.parametrize("operation", [Put("/pvc/a", b"", 7), Delete("/pvc/a", 7), Check("/pvc/a", 7)])
    def test_another_version_is_refused(self, store: Store, operation: Operation) -> None:
        store.commit(Create("/pvc/a", b""))
        assert _failure(store, operation) is Failure.BAD_VERSION
        assert store.get("/pvc/a") == Node(b"", 0)

    @pytest.mark.parametrize("path", ["pvc", "/pvc/", "/pvc//a", "/pvc/../a", "/pvc/./a", "/pvc/a\x00", ""])
    def test_a_path_that_is_none_is_refused_everywhere(self, store: Store, path: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get(path),
            lambda: store.get_many([path]),
            lambda: store.children(path),
            lambda: store.commit(Create(path, b"")),
            lambda: store.watch(path, _ignore),
        ]
        for call in calls:
            with pytest.raises(InvalidRequest, match="not a path"):
                call()

    def test_get_many_keeps_the_order_and_says_what_is_absent(self, store: Store) -> None:
        count = 1203
        for start in range(0, count, 401):
            store.commit(*(Create(f"/pvc/{number}", b"%d" % number) for number in range(start, start + 401)))
        wanted = [*reversed(range(count)), 99999, 5, 5]
        found = store.get_many([f"/pvc/{number}" for number in wanted])
        assert found == [None if number == 99999 else Node(b"%d" % number, 0) for number in wanted]
        assert store.get_many([]) == []

    # Transactions.

    def test_a_transaction_is_carried_out_whole(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"a"), Create("/pvc/b", b"b"))
        store.commit(Check("/pvc/a", 0), Put("/pvc/a", b"A", 0), Delete("/pvc/b", 0), Create("/pvc/c", b"c"))
        assert store.get_many(["/pvc/a", "/pvc/b", "/pvc/c"]) == [Node(b"A", 1), None, Node(b"c", 0)]

    def test_a_transaction_that_fails_changes_nothing(self, store: Store) -> None:
        store.commit(Create("/pvc/a", b"a"), Create("/pvc/b", b"b"))
        failing = Check("/pvc/b", 5)
        with pytest.raises(TransactionFailed) as caught:
            store.commit(
                Put("/pvc/a", b"A", 0), Create("/pvc/c", b"c"), Delete("/pvc/b"), Create("/pvc/b", b"again"), failing
            )
        assert (caught.value.operation, caught.value.failure) == (failing, Failure.BAD_VERSION)
        assert store.get_many(["/pvc/a", "/pvc/b", "/pvc/c"]) == [Node(b"a", 0), Node(b"b", 0), None]
        assert store.children("/pvc") == ["a", "b"]

    def test_the_first_operation_that_fails_is_named(self, store: Store) -> None:
        operations = (Check(ROOT), CheckAbsent(ROOT), Delete("/pvc/absent"))
        with pytest.raises(TransactionFailed, match=r"checkabsent /pvc: exists") as caught:
            store.commit(*operations)
        assert caught.value.operation == operations[1]

    def test_an_operation_sees_those_before_it(self, store: Store) -> None:
        store.commit(
            CheckAbsent("/pvc/a"),
            Create("/pvc/a", b"0"),
            Check("/pvc/a", 0),
            Put("/pvc/a", b"1", 0),
            Create("/pvc/a/b", b""),
            Delete("/pvc/a/b", 0),
            Put("/pvc/a", b"2", 1),
        )
        assert store.get("/pvc/a") == Node(b"2", 2)
        assert store.children("/pvc/a") == []

    def test_a_check_of_absence_holds_and_leaves_nothing_behind(self, store: Store) -> None:
        store.commit(CheckAbsent("/pvc/a"), Create("/pvc/b", b""))
        assert store.children("/pvc") == ["b"]
        assert _failure(store, CheckAbsent("/pvc/b"), Put(ROOT, b"", ANY)) is Failure.EXISTS
        assert store.get(ROOT) == Node(b"root", 0)
        assert _failure(store, CheckAbsent("/pvc/absent/a")) is Failure.NO_NODE

    def test_a_transaction_of_nothing_is_carried_out(self, store: Store) -> None:
        store.commit()

    def test_a_value_that_is_too_large_is_refused_before_it_is_sent(self, store: Store) -> None:
        with pytest.raises(TooLarge, match=r"/pvc/a has 1,000,001 bytes.* at most 1,000,000"):
            store.commit(Create("/pvc/a", b"x" * (MAX_REQUEST + 1)))
        with pytest.raises(TooLarge, match="several smaller"):
            store.commit(*(Create(f"/pvc/{number}", b"x" * 300_000) for number in range(4)))
        assert store.state is SessionState.CONNECTED
        assert store.children("/pvc") == []

    def test_a_value_of_nearly_the_greatest_size_is_kept(self, store: Store) -> None:
        value = bytes(MAX_REQUEST - 1000)
        store.commit(Create("/pvc/a", value))
        assert store.get("/pvc/a") == Node(value, 0)

    def test_of_twenty_writers_of_one_name_one_wins(self, bench: StoreBench, store: Store) -> None:
        store.commit(Create("/pvc/name", b""), Create("/pvc/spec", b""))
        outcomes: list[Failure | None] = []

        def define(client: Store, number: int) -> None:
            try:
                client.commit(Create("/pvc/name/web1", b"%d" % number), Create(f"/pvc/spec/{number}", b""))
                outcomes.append(None)
            except TransactionFailed as error:
                outcomes.append(error.failure)

        _at_once([partial(define, bench.connect(), number) for number in range(WRITERS)])
        assert Counter(outcomes) == {None: 1, Failure.EXISTS: WRITERS - 1}
        name = store.get("/pvc/name/web1")
        assert name is not None
        assert store.children("/pvc/spec") == [name.value.decode()]

    # Sessions.

    def test_an_ephemeral_node_ends_with_its_session(self, store: Store, other: Store) -> None:
        other.commit(Create("/pvc/lease", b"7", ephemeral=True))
        assert store.get("/pvc/lease") == Node(b"7", 0, ephemeral=True)
        assert store.get_many(["/pvc/lease", ROOT]) == [Node(b"7", 0, ephemeral=True), Node(b"root", 0)]
        other.close()
        eventually(lambda: store.get("/pvc/lease") is None, "the lease is gone")

    def test_an_ephemeral_node_has_no_children(self, store: Store) -> None:
        store.commit(Create("/pvc/lease", b"", ephemeral=True))
        assert _failure(store, Create("/pvc/lease/a", b"")) is Failure.EPHEMERAL_PARENT
        assert _failure(store, CheckAbsent("/pvc/lease/a")) is Failure.EPHEMERAL_PARENT

    def test_another_session_may_change_and_delete_an_ephemeral_node(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/lease", b"1", ephemeral=True))
        other.commit(Put("/pvc/lease", b"2", 0))
        assert store.get("/pvc/lease") == Node(b"2", 1, ephemeral=True)
        other.commit(Delete("/pvc/lease", 1))
        assert store.get("/pvc/lease") is None

    def test_a_lost_session_takes_its_ephemeral_nodes_and_a_new_one_follows(
        self, bench: StoreBench, store: Store, other: Store
    ) -> None:
        states: list[SessionState] = []
        other.watch_state(states.append)
        other.commit(Create("/pvc/lease", b"1", ephemeral=True), Create("/pvc/lasting", b""))
        bench.expire(other)
        eventually(lambda: states[-2:] == [SessionState.LOST, SessionState.CONNECTED], "lost, and connected again")
        assert other.state is SessionState.CONNECTED
        assert store.children("/pvc") == ["lasting"]
        other.commit(Create("/pvc/lease", b"2", ephemeral=True))
        assert store.get("/pvc/lease") == Node(b"2", 0, ephemeral=True)

    def test_a_session_outlives_a_short_cut(self, bench: StoreBench, store: Store, other: Store) -> None:
        states: list[SessionState] = []
        other.watch_state(states.append)
        other.commit(Create("/pvc/lease", b"1", ephemeral=True))
        bench.cut(other)
        eventually(lambda: other.state is SessionState.SUSPENDED, "suspended")
        bench.heal(other)
        eventually(lambda: states == [SessionState.SUSPENDED, SessionState.CONNECTED], "suspended and connected")
        assert store.get("/pvc/lease") == Node(b"1", 0, ephemeral=True)

    def test_a_client_that_is_cut_off_gets_no_answer_and_knows_since_when(
        self, bench: StoreBench, store: Store, other: Store
    ) -> None:
        eventually(lambda: other.get(ROOT), "an answer")
        bench.cut(other)
        eventually(lambda: other.state is SessionState.SUSPENDED, "suspended")
        heard = other.last_heard()
        calls: list[Callable[[], object]] = [
            lambda: other.get(ROOT),
            lambda: other.get_many([ROOT]),
            lambda: other.children(ROOT),
            lambda: other.commit(Put(ROOT, b"", ANY)),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                call()
        assert other.last_heard() == heard
        bench.heal(other)
        eventually(lambda: other.state is SessionState.CONNECTED, "connected")
        other.commit(Put(ROOT, b"back", 0))
        assert store.get(ROOT) == Node(b"back", 1)
        assert other.last_heard() > heard

    def test_a_closed_store_refuses_calls_and_may_be_closed_again(self, store: Store, other: Store) -> None:
        states: list[SessionState] = []
        other.watch_state(states.append)
        other.close()
        other.close()
        eventually(lambda: states == [SessionState.CLOSED], "closed, told once")
        assert other.state is SessionState.CLOSED
        with pytest.raises(StoreUnavailable):
            other.get(ROOT)
        with pytest.raises(StoreUnavailable):
            other.commit(Put(ROOT, b"", ANY))
        assert store.get(ROOT) == Node(b"root", 0)

    # Watches.

    def test_a_watch_tells_of_every_kind_of_change_below(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/spec", b""))
        with _watching(store, "/pvc/spec") as seen:
            other.commit(Create("/pvc/spec/vm", b""))
            other.commit(Create("/pvc/spec/vm/1", b""))
            other.commit(Put("/pvc/spec/vm/1", b"x", 0))
            other.commit(Put("/pvc/spec", b"x", 0))
            other.commit(Delete("/pvc/spec/vm/1"))
            wanted = ["/pvc/spec/vm", *["/pvc/spec/vm/1"] * 2, "/pvc/spec", "/pvc/spec/vm/1"]
            eventually(lambda: seen == wanted, "all changes in order")

    def test_a_watch_tells_of_all_changes_of_a_transaction(self, store: Store, other: Store) -> None:
        with _watching(store, ROOT) as seen:
            other.commit(Create("/pvc/a", b""), Create("/pvc/b", b""), Put(ROOT, b"x", ANY))
            eventually(lambda: seen == ["/pvc/a", "/pvc/b", ROOT], "three changes")

    def test_a_watch_does_not_tell_of_what_is_elsewhere(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/spec", b""))
        with _watching(store, "/pvc/spec") as seen:
            other.commit(Put(ROOT, b"x", 0))
            other.commit(Create("/pvc/spec2", b""))
            other.commit(Create("/pvc/spec/last", b""))
            eventually(lambda: seen, "a change")
            assert seen == ["/pvc/spec/last"]

    def test_a_watch_of_an_absent_node_tells_when_it_comes(self, store: Store, other: Store) -> None:
        with _watching(store, "/pvc/later") as seen:
            other.commit(Create("/pvc/later", b""))
            eventually(lambda: seen == ["/pvc/later"], "the creation")

    def test_a_watch_tells_of_own_changes_too(self, store: Store) -> None:
        with _watching(store, ROOT) as seen:
            store.commit(Put(ROOT, b"x", 0))
            eventually(lambda: seen == [ROOT], "the change")

    def test_a_watch_tells_when_an_ephemeral_node_ends(self, bench: StoreBench, store: Store, other: Store) -> None:
        other.commit(Create("/pvc/lease", b"", ephemeral=True))
        with _watching(store, "/pvc/lease") as seen:
            bench.expire(other)
            eventually(lambda: "/pvc/lease" in seen, "the end of the lease")

    def test_two_watches_of_one_client_are_both_told(self, store: Store, other: Store) -> None:
        store.commit(Create("/pvc/a", b""))
        with _watching(store, ROOT) as seen, _watching(store, "/pvc/a") as below, _watching(store, "/pvc/a") as again:
            other.commit(Put("/pvc/a", b"x", 0))
            eventually(lambda: seen == below == again == ["/pvc/a"], "the change, three times")

    def test_a_callback_that_fails_does_not_end_the_watch(
        self, store: Store, other: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str | None] = []

        def callback(path: str | None) -> None:
            seen.append(path)
            raise ValueError("a callback with a mistake")

        store.watch(ROOT, callback)
        other.commit(Put(ROOT, b"1", 0))
        eventually(lambda: seen == [ROOT], "the first change")
        other.commit(Put(ROOT, b"2", 1))
        eventually(lambda: seen == [ROOT, ROOT], "the second change")
        eventually(lambda: "a callback with a mistake" in caplog.text, "the mistake is logged")

    def test_after_a_cut_a_watch_says_that_something_may_be_missed_and_goes_on(
        self, bench: StoreBench, store: Store, other: Store
    ) -> None:
        with _watching(other, ROOT) as seen:
            bench.cut(other)
            eventually(lambda: other.state is SessionState.SUSPENDED, "suspended")
            store.commit(Create("/pvc/missed", b""))
            bench.heal(other)
            eventually(lambda: seen == [None], "it says: read again")
            assert other.get("/pvc/missed") is not None
            store.commit(Create("/pvc/next", b""))
            eventually(lambda: seen == [None, "/pvc/next"], "the next change")

    def test_after_a_new_session_a_watch_says_so_and_goes_on(
        self, bench: StoreBench, store: Store, other: Store
    ) -> None:
        with _watching(other, "/pvc/a") as seen:
            bench.expire(other)
            eventually(lambda: seen == [None], "it says: read again")
            store.commit(Create("/pvc/a", b""))
            eventually(lambda: seen == [None, "/pvc/a"], "the next change")

    def test_a_watch_that_is_set_while_cut_off_works_after_it(
        self, bench: StoreBench, store: Store, other: Store
    ) -> None:
        bench.cut(other)
        eventually(lambda: other.state is SessionState.SUSPENDED, "suspended")
        with _watching(other, ROOT) as seen:
            bench.heal(other)
            eventually(lambda: seen == [None], "it says: read")
            store.commit(Put(ROOT, b"x", 0))
            eventually(lambda: seen == [None, ROOT], "the change")


def _failure(store: Store, *operations: Operation) -> Failure:
    with pytest.raises(TransactionFailed) as caught:
        store.commit(*operations)
    return caught.value.failure


@contextmanager
def _watching(store: Store, prefix: str) -> Iterator[list[str | None]]:
    seen: list[str | None] = []
    store.watch(prefix, seen.append)
    yield seen


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Run all calls in threads of their own, as nearly at once as can be; raise the first error."""
    start = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        start.wait()
        try:
            call()
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _ignore(_path: str | None) -> None:
    """Take no notice."""
