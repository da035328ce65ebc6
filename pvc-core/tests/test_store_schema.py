"""Making the tree's base, checking its layout, bringing it up to date."""

import threading

import msgspec
import pytest

from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import Unavailable
from pvc_core.model.node import Primary
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Delete, Put, StoreUnavailable
from pvc_core.store.documents import encode, read
from pvc_core.store.memory import MemoryTree, Moment
from pvc_core.store.schema import RESTORING, SCHEMA, SchemaMismatch, initialise, upgrade


@pytest.fixture
def tree():
    return MemoryTree()


@pytest.fixture
def store(tree):
    return tree.connect()


def _set_schema(store, schema):
    entry = read(store, keys.CLUSTER)
    store.commit(entry.put(msgspec.structs.replace(entry.value, schema=schema)))


def test_an_empty_tree_gets_its_base_the_settings_and_the_primary(store):
    cluster = initialise(store, name="lab")
    assert cluster == Cluster(name="lab", schema=SCHEMA)
    assert None not in store.get_many(keys.BASE)
    assert read(store, keys.CLUSTER).value == cluster
    assert read(store, keys.PRIMARY).value == Primary()


def test_a_second_time_changes_nothing(store, tree):
    initialise(store, name="lab")
    before = tree.dump()
    assert initialise(store, name="other").name == "lab"
    assert tree.dump() == before


def test_what_a_newer_version_adds_to_the_base_is_made_in_an_old_tree(store, tree):
    initialise(store)
    complete = tree.dump()
    store.commit(Delete(f"{keys.NAME}/mac"), Delete(keys.USAGE))
    initialise(store)
    assert tree.dump() == complete


def test_many_nodes_may_begin_at_once(tree):
    start = threading.Barrier(8)
    clusters = []

    def begin():
        store = tree.connect()
        start.wait()
        clusters.append(initialise(store))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clusters == [Cluster()] * 8


def test_a_node_that_comes_in_between_is_no_failure(tree):
    other = tree.connect()
    raced = []

    def fault(moment, store, operations):
        if moment is Moment.BEFORE and store is not other and not raced:
            raced.append(True)
            initialise(other, name="first")

    tree.fault = fault
    assert initialise(tree.connect(), name="second").name == "first"


def test_an_interrupted_beginning_is_finished_by_the_next(tree):
    commits = []

    def fault(moment, store, operations):
        if moment is Moment.AFTER:
            commits.append(operations)
            if len(commits) == 1:
                raise StoreUnavailable("no answer")

    tree.fault = fault
    store = tree.connect()
    with pytest.raises(StoreUnavailable):
        initialise(store)
    assert initialise(store) == Cluster()


@pytest.mark.parametrize(("schema", "advice"), [(SCHEMA + 1, "update PVC on this machine"), (0, "older version")])
def test_another_layout_is_refused_saying_what_to_do(store, schema, advice):
    initialise(store)
    _set_schema(store, schema)
    with pytest.raises(SchemaMismatch, match=rf"layout {schema}, .*{advice}"):
        initialise(store)


def test_no_node_starts_on_a_half_restored_tree(store):
    initialise(store)
    store.commit(Create(RESTORING, b""))
    with pytest.raises(Unavailable, match="restore"):
        initialise(store)


def test_an_upgrade_takes_every_step_in_order(store):
    initialise(store)
    _set_schema(store, 1)
    taken = []
    assert upgrade(store, steps={1: lambda _: taken.append(1), 2: lambda _: taken.append(2)}, target=3) == 1
    assert taken == [1, 2]
    assert read(store, keys.CLUSTER).value.schema == 3
    assert upgrade(store, steps={}, target=3) == 3


def test_an_interrupted_upgrade_goes_on_where_it_was(store):
    initialise(store)
    taken = []

    def failing(_):
        taken.append("2 fails")
        raise StoreUnavailable("no answer")

    with pytest.raises(StoreUnavailable):
        upgrade(store, steps={1: lambda _: taken.append(1), 2: failing}, target=3)
    assert read(store, keys.CLUSTER).value.schema == 2
    upgrade(store, steps={1: lambda _: taken.append(1), 2: lambda _: taken.append(2)}, target=3)
    assert taken == [1, "2 fails", 2]


def test_an_upgrade_without_a_way_is_refused(store):
    initialise(store)
    with pytest.raises(SchemaMismatch, match="no way from layout 1 of the state tree to 2"):
        upgrade(store, steps={}, target=2)


def test_an_upgrade_of_no_tree_is_refused(store):
    with pytest.raises(SchemaMismatch, match="/pvc/v1/cluster"):
        upgrade(store)


def test_settings_that_this_version_does_not_know_survive_the_upgrade(store):
    initialise(store)
    store.commit(Put(keys.CLUSTER.path, encode(Cluster())[:-1] + b',"later":7}', ANY))
    upgrade(store, steps={1: lambda _: None}, target=2)
    assert msgspec.json.decode(store.get(keys.CLUSTER.path).value)["later"] == 7
