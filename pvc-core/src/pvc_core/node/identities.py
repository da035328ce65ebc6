"""By what storage drivers know this node: recorded while it is healthy, so that others can keep it from writing later."""

from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.node.context import NodeContext
from pvc_core.node.state import NodeState
from pvc_core.node.storage_block import blocking_drivers


class Identities:
    """The identities of one lease.  Not for several threads at once.

    A driver that cannot tell now keeps what it said earlier under the same lease.  What was said under an earlier
    lease is dropped: another start of the host may be behind it.
    """

    def __init__(self, context: NodeContext, state: NodeState) -> None:
        self._context: Final = context
        self._state: Final = state
        self._lease = 0
        self._known: dict[str, dict[str, str]] = {}
        self._asked: float | None = None

    def of(self, lease: int) -> dict[str, dict[str, str]]:
        """Return driver -> identity under this lease (0: none); drivers are asked at most twice in a report's interval.

        Blocks for 5 s per driver at the most; not while the daemon stops.
        """
        if not lease:
            return {}
        if lease != self._lease:
            self._lease, self._known, self._asked = lease, {}, None
        now = self._context.clock.monotonic()
        due = self._asked is None or now - self._asked >= self._context.timing.publish / 2
        if due and self._state.daemon == "running":
            self._asked = now
            for driver in blocking_drivers(self._context.drivers):
                self._ask(driver)
        return dict(self._known)

    def _ask(self, driver: str) -> None:
        condition = f"StorageIdentity/{driver}"
        try:
            self._known[driver] = self._context.drivers.storage(driver).node_identity()
        except PvcError as error:
            known = "what it said before is kept" if driver in self._known else "it has not said so before"
            message = (
                f"storage driver {driver} cannot say by what it knows this node, which is needed to keep it from "
                f"writing should it be lost: {error}; {known}"
            )
            self._state.set_condition(condition, ok=False, reason="Unknown", message=message)
        else:
            self._state.clear_condition(condition)
