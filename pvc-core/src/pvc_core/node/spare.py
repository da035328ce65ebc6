"""The last look before something is done to a lost node: whether it must be left alone by now."""

from pvc_core.node.context import NodeContext
from pvc_core.store import documents, keys


def why_spared(context: NodeContext, node: str, lost: int) -> str:
    """Return why a node that lost this lease must be left alone now; an empty string: it need not.

    Asked immediately before each call that cuts power or closes storage, as the call may have waited long for its turn.
    Raises StoreUnavailable, LeaseLost, Conflict: then it is unknown.
    """
    lease, generation = keys.lease(node), keys.generation(node)
    spec, cluster = keys.node_spec(node), keys.CLUSTER
    context.catch_up()
    found = context.store.get_many([lease.path, generation.path, spec.path, cluster.path])
    if found[0] is not None:
        return "the node is back"
    last = documents.maybe(generation, found[1])
    if last is None or last.value.generation != lost:
        return "the node has been back since"
    if last.value.released:
        return "its daemon was stopped on purpose"
    for what, settings in (("node", documents.maybe(spec, found[2])), ("cluster", documents.maybe(cluster, found[3]))):
        if settings is not None and settings.value.maintenance:
            return f"the {what} is in maintenance now"
    return ""
