"""What really happened to the nodes of a simulation, which no daemon can know: the measure of every proof."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from pvc_core.model.fence import Proof, ProofKind
from pvc_core.testkit.fakes import FakeBackend
from pvc_core.testkit.simulator.clock import VirtualClock

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.node import SimNode

_LATE_S: Final = 1.0
"""A fence call may begin so long after the node has got a new lease: the look at the lease and the call are two things."""


class Truth:
    """Ledger of leases, power and fence calls.  ``violated`` is called with what must never happen."""

    def __init__(self, clock: VirtualClock, nodes: Mapping[str, "SimNode"], backend: FakeBackend) -> None:
        self._clock = clock
        self._nodes = nodes
        self._backend = backend
        self.violated: Callable[[str], None] = lambda _: None
        self._boot: dict[tuple[str, int], int] = {}
        """Number of the host's start in which a lease was taken."""
        self._taken: dict[str, float] = {}
        """Nodes that have a lease, and since when."""
        self._lost: dict[tuple[str, int], float] = {}
        self._standing: dict[str, int] = {}
        self._powered: dict[str, float] = {}
        """When the power last came back."""
        self._released: set[str] = set()
        self._maintained: dict[str, float] = {}
        """Nodes in maintenance, and since when; ``""`` is the cluster."""
        self._switching = ""
        self.fence_calls = 0
        self.late_kills = 0
        """Nodes that had a lease again by the time their power was cut by a call that began before."""

    # --- what is told -------------------------------------------------------------------------------

    def lease_taken(self, node: str, lease: int) -> None:
        """A node took a lease."""
        self._boot[node, lease] = self._nodes[node].boots
        self._taken[node] = self._clock.monotonic()
        self._standing[node] = lease

    def lease_gone(self, node: str) -> None:
        """A node's lease is gone, whatever the reason."""
        lease = self._standing.pop(node, None)
        self._taken.pop(node, None)
        if lease is not None:
            self._lost[node, lease] = self._clock.monotonic()

    def released(self, node: str, *, on_purpose: bool) -> None:
        """A node gave its lease up on purpose, or took another one."""
        (self._released.add if on_purpose else self._released.discard)(node)

    def maintenance(self, node: str, *, on: bool) -> None:
        """A node (empty: the cluster) was put into maintenance, or taken out of it."""
        if on:
            self._maintained.setdefault(node, self._clock.monotonic())
        else:
            self._maintained.pop(node, None)

    def power_lost(self, node: str) -> None:
        """A node's host is off."""
        if node in self._standing and self._switching == node:
            self.late_kills += 1

    def switched(self, node: str) -> None:
        """A fence device is about to cut a node's power (empty: it has)."""
        self._switching = node

    def power_back(self, node: str) -> None:
        """A node's host starts."""
        self._powered[node] = self._clock.monotonic()

    def fencing(self, node: str, by: str, on_request: bool) -> None:
        """A coordinator begins a call that will switch a node, or a part of its power, off."""
        now = self._clock.monotonic()
        self.fence_calls += 1
        since = self._taken.get(node)
        why_not = "" if on_request else self._left_alone(node, now)
        if since is not None and now - since > _LATE_S:
            why_not = f"has had a lease for {now - since:.1f} s"
        if why_not:
            self.violated(f"{by} fences {node}, which {why_not}")

    def _left_alone(self, node: str, now: float) -> str:
        if node in self._released:
            return "gave its lease up on purpose"
        for what, name in ((node, "is in maintenance"), ("", "is left alone: the cluster is in maintenance")):
            since = self._maintained.get(what)
            if since is not None and now - since > 2 * _LATE_S:
                return f"{name} for {now - since:.1f} s"
        return ""

    # --- what is asked ------------------------------------------------------------------------------

    def standing(self, node: str) -> int | None:
        """Return the generation of the lease that a node has."""
        return self._standing.get(node)

    def is_node(self, name: str) -> bool:
        """It is a node, not an operator."""
        return name in self._nodes

    def is_late(self, by: str) -> bool:
        """It is a node without a lease."""
        return by in self._nodes and by not in self._standing

    def blocked(self, node: str) -> bool:
        """Whatever executes on a node cannot write to shared storage."""
        return self._nodes[node].client in self._backend.blocked

    def disproof(self, proof: Proof, node: str, lease: int, pools: Collection[str]) -> str:
        """Return why a proof about a node that lost this lease is not true, or an empty string.

        ``pools``: what a VM's disks are on, for a proof that is about storage.
        """
        if proof.kind is ProofKind.STORAGE:
            if not set(pools) <= set(proof.pools) or not pools:
                return f"it covers pools {sorted(proof.pools)}, and the disks are on {sorted(pools)}"
            return "" if self.blocked(node) or self._is_over(node, lease) else "the node is not kept from writing"
        lost = self._lost.get((node, lease))
        if lost is None:
            return f"its lease {lease} was never lost"
        host = self._nodes[node]
        if not self._is_over(node, lease):
            return "its host still runs as it did under that lease"
        if proof.kind is ProofKind.POWER and host.power.on and self._powered.get(node, 0.0) < lost:
            return "its power was never off after that lease was lost"
        return ""

    def _is_over(self, node: str, lease: int) -> bool:
        """The host's start in which it had this lease is over."""
        host = self._nodes[node]
        return not host.power.on or host.boots > self._boot.get((node, lease), host.boots)
