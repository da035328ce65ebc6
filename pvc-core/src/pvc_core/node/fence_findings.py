"""The one document in which a coordinator publishes what it found at the nodes' fence devices."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from pvc_core.model.fence import DeviceHealth, FenceHealth
from pvc_core.node.context import NodeContext
from pvc_core.node.own_document import OwnDocument
from pvc_core.store import keys

Health = tuple[DeviceHealth, ...]

_REFRESH: Final = 5
"""So many intervals after the last write the same findings are written again, with the times of the last check."""
_SETTLE_S: Final = 5.0
"""A change waits this long for others that the checks under way may bring."""


class FenceFindings:
    """Writes when there is something new to say.  Not for several threads at once."""

    def __init__(self, context: NodeContext) -> None:
        self._context: Final = context
        self._document: Final = OwnDocument(context, keys.fence_health(context.name))
        self._written = context.clock.monotonic()
        self._changed: float | None = None

    def published(self) -> Mapping[str, Health]:
        """Return what was written last, by this daemon or one before it.  Raises StoreUnavailable."""
        document = self._document.value()
        return document.nodes if document is not None else {}

    def withdraw(self) -> None:
        """Delete the document.  Raises StoreUnavailable, LeaseLost, TransactionFailed."""
        self._document.delete()

    def publish(self, nodes: Mapping[str, Health], *, busy: bool) -> float | None:
        """Write what is known if it says something new; returns the seconds after which that is to be looked at again.

        ``busy``: checks are under way that may bring more.  Raises StoreUnavailable, LeaseLost, TransactionFailed.
        """
        now, timing = self._context.clock.monotonic(), self._context.timing
        before = self._document.value()
        document = FenceHealth(
            coordinator=self._context.name,
            nodes=dict(nodes),
            lease_s=timing.lease,
            grace_s=timing.grace,
            published=self._context.clock.wall(),
        )
        if before is not None and _essence(document) == _essence(before):
            self._changed = None
            if not nodes or now - self._written < _REFRESH * timing.fence_check:
                return None
        else:
            self._changed = now if self._changed is None else self._changed
            left = self._changed + _SETTLE_S - now
            if busy and left > 0:
                return left
        self._document.write(document)
        self._written, self._changed = now, None
        return None


def _essence(found: FenceHealth) -> FenceHealth:
    """Return what is worth a write: not how long the answers took, nor when they came."""
    nodes = {
        name: tuple(replace(device, took_s=0.0, checked=0.0) for device in health)
        for name, health in found.nodes.items()
    }
    return replace(found, nodes=nodes, published=0.0)
