"""The in-memory store against ZooKeeper: the same random transactions must have the same outcome."""

import random

import pytest

from pvc_core.store.api import ANY, Check, CheckAbsent, Create, Delete, Failure, Put, TransactionFailed
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, wipe

pytestmark = pytest.mark.real

SEEDS = range(4)
TRANSACTIONS = 400
DEEP = [f"/pvc/{a}/{b}/z" for a in "abc" for b in "xy"]
PATHS = ["/pvc", *(f"/pvc/{a}" for a in "abc"), *(f"/pvc/{a}/{b}" for a in "abc" for b in "xy"), *DEEP]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper")) as ensemble:
        yield ensemble


@pytest.fixture
def stores(ensemble):
    stores = [ensemble.connect(), ensemble.connect()]
    yield stores
    stores[1].close()
    wipe(stores[0])
    stores[0].close()


def _operation(dice):
    path = dice.choice(PATHS)
    version = dice.choice([ANY, ANY, 0, 0, 1, 2])
    return dice.choice(
        [
            Create(path, dice.randbytes(3), ephemeral=dice.random() < 0.4),
            Create(path, b""),
            Put(path, dice.randbytes(3), version),
            Delete(path, version),
            Check(path, version),
            CheckAbsent(path),
        ]
    )


def _outcome(store, operations):
    try:
        store.commit(*operations)
    except TransactionFailed as error:
        return error.operation, error.failure
    return None


def _tree(store):
    nodes = {path: node for path, node in zip(PATHS, store.get_many(PATHS), strict=True) if node}
    return nodes, dict(zip(PATHS, store.children_many(PATHS), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_both_stores_agree(stores, seed):
    dice = random.Random(seed)
    tree = MemoryTree()
    models = [tree.connect(), tree.connect()]
    failures = set()
    for number in range(TRANSACTIONS):
        who = dice.randrange(2)
        operations = [_operation(dice) for _ in range(dice.choice([1, 1, 2, 3, 5]))]
        expected, found = _outcome(models[who], operations), _outcome(stores[who], operations)
        assert found == expected, (number, operations)
        if expected:
            failures.add(expected[1])
        if number % 20 == 0:
            assert _tree(stores[0]) == _tree(models[0]), number
    # The dice have tried everything.
    assert failures == set(Failure)
    models[1].close()
    stores[1].close()
    eventually(lambda: _tree(stores[0]) == _tree(models[0]), "the same ephemeral nodes are gone")
