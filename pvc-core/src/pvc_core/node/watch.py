"""Counts, on this node's own clock, for how long other nodes have had no lease.

Every coordinator counts all the time, so that one that becomes primary need not begin anew.  The count belongs to one
lease: a node that was back in between, however briefly, is counted from its next loss.
"""

from typing import NamedTuple

from pvc_core.model.node import LeaseGeneration
from pvc_core.node.context import NodeContext
from pvc_core.node.host import Host
from pvc_core.store import documents, keys
from pvc_core.store.documents import Entry


class Gone(NamedTuple):
    """A node without a lease."""

    last: Entry[LeaseGeneration]
    """Of the lease that is gone."""
    since: float
    """When this was first seen, on this node's monotonic clock: the lease was gone by then."""
    cold_until: float
    """Until then its host may be starting, as this one was a short while ago; a time in the past: it is not."""


class Missing(NamedTuple):
    """Nodes without a lease."""

    beyond: frozenset[str]
    """Gone for longer than the grace time: no daemon of theirs works on anything."""
    within: frozenset[str]
    """Gone for less: their daemons are probably only started again."""
    next_s: float | None
    """Seconds until the next of these joins the others."""


class Watch:
    """Looks at all leases."""

    def __init__(self, context: NodeContext, host: Host) -> None:
        self._context = context
        self._warm = context.clock.monotonic() + context.timing.cold_start - host.figures().uptime_s
        """From then on every host had the time to start."""
        self._seen: set[str] = set()
        """Nodes that had a lease at some look."""
        self._gone: dict[str, Gone] = {}
        self._never: dict[str, float] = {}
        """Nodes that are members and never had a lease, or one of which nothing can be read."""

    def look(self) -> None:
        """Read all leases; what the other methods return is as of then."""
        store = self._context.store
        members, leases = store.children_many([f"{keys.SPEC}/node", keys.LEASE])
        without = sorted(set(members) - set(leases))
        found = documents.read_all(store, [keys.generation(node) for node in without])
        last = {entry.value.node: entry for entry in found}
        # Looked at once more: a lease that was taken between the two reads is not gone.  And the time after the reads:
        # what was seen gone was gone by then.
        again = set(store.children(keys.LEASE)) if without else set()
        now = self._context.clock.monotonic()
        self._seen |= set(leases) | again
        gone: dict[str, Gone] = {}
        never: dict[str, float] = {}
        for node in without:
            if node in again:
                continue
            entry = last.get(node)
            if entry is None:
                never[node] = self._never.get(node, now)
                continue
            before = self._gone.get(node)
            same = before is not None and before.last.value.generation == entry.value.generation
            since = before.since if same and before is not None else now
            gone[node] = Gone(entry, since, since if node in self._seen else self._warm)
        self._gone, self._never = gone, never

    def gone(self) -> dict[str, Gone]:
        """Return the nodes whose lease is gone; those that never had one are not among them."""
        return dict(self._gone)

    def missing(self) -> Missing:
        """Return the nodes without a lease, by the grace time."""
        since = {node: gone.since for node, gone in self._gone.items()} | self._never
        now, grace = self._context.clock.monotonic(), self._context.timing.grace
        beyond = frozenset(node for node, when in since.items() if now - when >= grace)
        left = {node: when + grace - now for node, when in since.items() if node not in beyond}
        return Missing(beyond, frozenset(left), min(left.values(), default=None))
