"""The watchdog on a real ZooKeeper whose cables are pulled: what is confirmed is true, what is only answered need not be."""

import time

import pytest

from pvc_core.model.errors import PvcError
from pvc_core.node.clock import SystemClock
from pvc_core.node.lease import NodeLease
from pvc_core.store import keys
from pvc_core.store.api import Create
from pvc_core.testkit.lan import Lan
from pvc_core.testkit.waiting import eventually
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble, unique_name

pytestmark = pytest.mark.real

SESSION_S = 4.0
SYNC_TICKS = 40
"""10 s: a server that is cut off from the others answers its clients for so long."""


@pytest.fixture
def ensemble(tmp_path):
    lan = Lan(3, name=unique_name("pvcwd"))
    try:
        with ZooKeeperEnsemble(tmp_path, 3, lan=lan, sync_ticks=SYNC_TICKS) as ensemble:
            yield ensemble
    finally:
        lan.close()


def test_a_node_that_shares_the_fate_of_its_server_confirms_nothing_after_its_lease_has_ended(ensemble):
    leader = ensemble.leader()
    server, other = (member.id for member in ensemble.members if member.id != leader)
    observer = ensemble.connect(hosts=[ensemble.hosts[other - 1]], at=other)
    node = ensemble.connect(hosts=[ensemble.hosts[server - 1]], at=server, session_timeout_s=SESSION_S)
    try:
        observer.commit(*(Create(path, b"") for path in keys.BASE))
        lease = NodeLease(node, "hv1", SystemClock(), SESSION_S, holder="me")
        lease.ensure()
        lease.confirm()
        eventually(lambda: observer.get(keys.lease("hv1").path), "the lease is seen")
        ensemble.lan.cut(server)
        cut = time.monotonic()
        eventually(lambda: observer.get(keys.lease("hv1").path) is None, "the lease ends", within_s=30.0)
        ended = time.monotonic()
        eventually(lambda: node.last_heard() > ended, "its server goes on answering pings")
        assert lease.generation() == 1, "so the node cannot know"
        with pytest.raises(PvcError):
            lease.confirm()
        assert lease.confirmed() is None or lease.confirmed() < cut
    finally:
        ensemble.lan.heal(server)
        node.close()
        observer.close()
