"""What core itself answers when a node is asked for what only it can see, beside the queries of plugins."""

from collections.abc import Callable, Mapping
from typing import Any

from pvc_core.model.errors import NotFound
from pvc_core.node.context import NodeContext
from pvc_core.plugin.specs.lifecycle import Query
from pvc_core.store import keys
from pvc_core.store.documents import read


def core_queries(context: NodeContext) -> Mapping[str, Query]:
    """Return name -> query."""
    return {"network.check": _network_check(context)}


def _network_check(context: NodeContext) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    def check(arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the findings of the network's driver on this node.  ``network``: its id."""
        entry = read(context.store, keys.network_spec(str(arguments.get("network", ""))))
        if entry is None:
            raise NotFound("there is no such network any more")
        network = entry.value
        findings = context.drivers.network(network.driver).network_check(network)
        return [{"ok": found.ok, "check": found.check, "message": found.message} for found in findings]

    return check
