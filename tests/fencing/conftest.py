"""Clusters whose nodes are fenced through real BMCs, and guests whose disks prove that they never ran twice.

The default timing is for those who want to see it: ``./dev bench failover`` and the demo.  Here leases are short.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

POOL = "fencing"
TIMING = {"lease": 4.0, "grace": 2.0, "publish": 2.0, "fence_retry": 1.0, "fence_retry_max": 4.0, "fence_check": 6.0}
DAEMON = "pvcnoded"


class Lab:
    """A cluster whose nodes are lost and come back."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.sandbox = cluster.sandbox
        self.pvc = cluster.pvc
        self.eventually = cluster.eventually
        self._guests: dict[str, Any] = {}

    # --- guests -------------------------------------------------------------------------------------

    def guest(self, node: str, name: str = "witness") -> Any:
        """Return a guest with heartbeats that runs on this node; one of this name is brought there."""
        known = self._guests.get(name)
        if known is None:
            known = self._guests[name] = self.new_guest(node, name)
        elif self.cluster.place(name) != ("running", node):
            self.pvc("vm", "move", name, "--node", node)
        return known

    def new_guest(self, node: str, name: str, **fields: Any) -> Any:
        """Return a new guest with heartbeats, that the test removes itself."""
        from pvc_sandbox.heartbeat import start_heartbeat_guest

        return start_heartbeat_guest(self.sandbox, POOL, name, node=node, **fields)

    def moved(self, guest: Any, *, away_from: str) -> str:
        """Wait until a guest executes on another node than before; return its name."""
        return str(self.eventually(f"{guest.name} runs elsewhere", lambda: self._other_host(guest, away_from)))

    def _other_host(self, guest: Any, node: str) -> str:
        host = guest.beats()[-1].host
        return host if host != node else ""

    def goes_on(self, guest: Any, beats: int) -> None:
        """Wait for so many further heartbeats."""
        self.go_on([guest], beats)

    def go_on(self, guests: list[Any], beats: int) -> None:
        """Wait for so many further heartbeats of each."""
        wanted = [(guest, len(guest.beats()) + beats) for guest in guests]
        self.eventually("the guests go on", lambda: all(len(guest.beats()) >= count for guest, count in wanted))

    # --- fencing ------------------------------------------------------------------------------------

    def record(self, node: str) -> Any:
        """Return what is on record of a node's last loss, None when it was never lost."""
        from pvc_core.store import keys

        return self._read(keys.fence(node))

    def losses(self) -> dict[str, int]:
        """Return the lease of each node's last loss on record."""
        return {node: record.lease if (record := self.record(node)) else 0 for node in self.sandbox.nodes()}

    def until(self, node: str, *stages: str, within_s: float = 60.0) -> Any:
        """Wait until the fencing of a node's last lease has come to one of these stages; return the record."""

        def reached() -> Any:
            record = self.record(node)
            return record if record is not None and record.stage in stages else None

        return self.eventually(f"the fencing of {node} is {' or '.join(stages)}", reached, within_s)

    def lease(self, node: str) -> int:
        """Return the generation of a node's lease; 0 when it has none."""
        from pvc_core.store import keys

        lease = self._read(keys.lease(node))
        return lease.generation if lease is not None else 0

    # --- nodes --------------------------------------------------------------------------------------

    def primary(self) -> str:
        """Return the primary, as soon as there is one that has its lease."""
        from pvc_core.store import keys

        def found() -> str:
            primary = self._read(keys.PRIMARY)
            return primary.node if primary is not None and primary.node and self.lease(primary.node) else ""

        return str(self.eventually("a primary", found))

    def others(self, *nodes: str) -> list[str]:
        return [node for node in self.sandbox.nodes() if node not in nodes]

    def _read(self, key: Any) -> Any:
        """Return a document, straight from the store: a command takes a hundred times longer."""
        from pvc_core.store.documents import read

        entry = read(self.cluster.store, key)
        return entry.value if entry is not None else None

    def kill_daemon_for_good(self, node: str) -> None:
        """Kill a node's daemon; what would start it again hangs, and everything else goes on."""
        os.kill(self.sandbox.host(node).pid, signal.SIGSTOP)
        self.sandbox.exec(node, ["pkill", "-KILL", "-f", "pvc_core.node.main"]).check()

    def bring_back(self, *nodes: str) -> None:
        """Repair and switch on what was lost, and put it into service."""
        for node in nodes:
            self.sandbox.bmc(node).mend()
            self.sandbox.power_on(node)
        self.cluster.bring_into_service(*nodes)


@contextmanager
def _lab(view_of: Callable[[Any], Any], suffix: str, nodes: int, **changes: Any) -> Iterator[Lab]:
    from pvc_sandbox.sandbox import Sandbox

    sandbox = Sandbox(f"pytest-{os.getpid()}-{suffix}")
    try:
        sandbox.up(nodes=nodes, **({"timing": TIMING, "bmc": True} | changes))
        path = sandbox.shared / POOL
        path.mkdir()
        kind = ["-d", "ceph-rbd", "-p", "pgs=8"] if sandbox.plan.has_ceph else ["-d", "dir", "-p", f"path={path}"]
        sandbox.pvc("storage", "pool", "add", POOL, *kind)
        cluster = view_of(sandbox)
        yield Lab(cluster)
        cluster.close()
    finally:
        sandbox.down()


@pytest.fixture(scope="package")
def lab3(view_of: Callable[[Any], Any]) -> Iterator[Lab]:
    """Return a cluster of three nodes; a test brings back what it takes away."""
    with _lab(view_of, "three", 3) as lab:
        yield lab


@pytest.fixture(scope="module")
def lab5(view_of: Callable[[Any], Any]) -> Iterator[Lab]:
    """Return a cluster of five nodes, all coordinators."""
    with _lab(view_of, "five", 5) as lab:
        yield lab


@pytest.fixture(scope="module")
def watched_lab(view_of: Callable[[Any], Any]) -> Iterator[Lab]:
    """Return a cluster of three nodes with watchdogs."""
    with _lab(view_of, "watched", 3, watchdog=True, watchdog_timeout_s=2.0, watchdog_reboot_s=-1.0) as lab:
        yield lab


@pytest.fixture(scope="module")
def ceph_lab(view_of: Callable[[Any], Any]) -> Iterator[Lab]:
    """Return a cluster of three nodes whose pool is on Ceph."""
    with _lab(view_of, "blocking", 3, storage="ceph") as lab:
        yield lab
