"""What plugins find right and wrong with this node."""

from typing import Final

from pvc_core.model.base import Condition
from pvc_core.node.context import NodeContext
from pvc_core.node.state import NodeState

INTERVAL_S: Final = 15.0


class Health:
    """Reconciler of the key ``("health", "")``: asks every plugin's health checks for conditions of this node."""

    def __init__(self, context: NodeContext, state: NodeState) -> None:
        self._context = context
        self._state = state
        self._told: set[str] = set()

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one node)
        """Ask once; a condition that is no longer told is taken back."""
        found = [
            condition
            for answer in self._context.drivers.collect("health_checks")
            for condition in answer
            if isinstance(condition, Condition)
        ]
        for condition in found:
            self._state.put_condition(condition)
        told = {condition.type for condition in found}
        for type_ in sorted(self._told - told):
            self._state.clear_condition(type_)
        self._told = told
        return INTERVAL_S
