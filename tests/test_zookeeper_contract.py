"""The ZooKeeper store on a real server: the contract."""

import pytest

from pvc_core.store.api import Store
from pvc_core.store.zookeeper import ZooKeeperStore
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
