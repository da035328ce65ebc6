"""The ZooKeeper store on a real server: the contract."""

import pytest

from pvc_core.store import zookeeper
from pvc_core.store.api import Create, Node, Store
from pvc_core.store.zookeeper import ZooKeeperStore
from pvc_core.store.zookeeper_wire import MultiRead
from pvc_core.testkit.contracts.store import StoreContract
from pvc_core.testkit.gate import Gate
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, wipe

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper")) as ensemble:
        yield ensemble


class _Bench:
    """Each client has a gate of its own between itself and the server."""

    def __init__(self, ensemble: ZooKeeperEnsemble) -> None:
        self._ensemble = ensemble
        self._gates: dict[Store, Gate] = {}

    def connect(self) -> Store:
        host, _, port = self._ensemble.hosts[0].rpartition(":")
        gate = Gate((host, int(port)))
        store = self._ensemble.connect(hosts=[gate.address], session_timeout_s=10.0, patience_s=0.2)
        self._gates[store] = gate
        return store

    def cut(self, store: Store) -> None:
        self._gates[store].cut()

    def heal(self, store: Store) -> None:
        self._gates[store].heal()

    def expire(self, store: Store) -> None:
        assert isinstance(store, ZooKeeperStore)
        self._ensemble.expire(store)

    def close(self) -> None:
        for store, gate in self._gates.items():
            store.close()
            gate.close()


class TestZooKeeperStoreKeepsTheContract(StoreContract):
    @pytest.fixture
    def bench(self, ensemble):
        bench = _Bench(ensemble)
        yield bench
        bench.close()
        cleaner = ensemble.connect()
        wipe(cleaner)
        cleaner.close()


class _UnknownRequest(MultiRead, frozen=True):
    type = 199


def test_servers_that_refuse_to_read_many_at_once_are_read_one_by_one(ensemble, monkeypatch):
    monkeypatch.setattr(zookeeper, "MultiRead", _UnknownRequest)
    store = ensemble.connect()
    store.commit(Create("/pvc", b"root"), Create("/pvc/a", b"a"))
    wanted = ["/pvc/a", "/absent", "/pvc"] * 500
    assert store.get_many(wanted) == [Node(b"a", 0), None, Node(b"root", 0)] * 500
    assert store.children_many(["/absent", "/pvc"]) == [[], ["a"]]
    wipe(store)
    store.close()


def test_ten_thousand_documents_are_read_in_a_few_dozen_requests(ensemble, monkeypatch):
    made = []

    class Counted(MultiRead, frozen=True):
        def __post_init__(self):
            made.append(len(self.paths))

    monkeypatch.setattr(zookeeper, "MultiRead", Counted)
    store = ensemble.connect()
    store.commit(Create("/pvc", b""))
    paths = [f"/pvc/{number:05d}-0b1f-4d7e-9b57-000000000000" for number in range(10_000)]
    values = [b"x" * (400 + number % 500) for number in range(10_000)]
    for start in range(0, 10_000, 500):
        chunk = slice(start, start + 500)
        store.commit(*(Create(path, value) for path, value in zip(paths[chunk], values[chunk], strict=True)))
    made.clear()
    assert [node.value for node in store.get_many(paths)] == values
    assert sum(made) == len(paths)
    assert len(made) <= 50
    wipe(store)
    store.close()
