"""A client with a session of its own with the state store: what the CLI uses."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pvc_core.config.schema import Service
from pvc_core.model.errors import Unavailable
from pvc_core.model.names import not_found
from pvc_core.ops.context import Ops, Validator, ValidatorLookup, no_validators
from pvc_core.ops.message import decode_request
from pvc_core.ops.snapshot import read_nodes
from pvc_core.store.api import Store

if TYPE_CHECKING:
    from pvc_core.client.service import ServiceClient

CONNECT_S: Final = 5.0
"""Time for the state store to answer before a command gives up."""
_SESSION_S: Final = 10.0
"""Session time-out that is asked for; a client holds nothing that would end with its session."""


class Client:
    """A cluster.  The state store is opened at the first use; calls may come from one thread at a time."""

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        cluster: str = "pvc",
        service: Service | None = None,
        validators: ValidatorLookup = no_validators,
        nic_validators: ValidatorLookup = no_validators,
    ) -> None:
        self.cluster: Final = cluster
        """Name of the cluster in the configuration file."""
        self._open_store = open_store
        self._service = service or Service()
        self._validators = validators
        self._nic_validators = nic_validators
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The state store.  Raises StoreUnavailable when it does not answer within the connect time-out."""
        if self._store is None:
            self._store = self._open_store()
        return self._store

    @property
    def ops(self) -> Ops:
        """What operations work with."""
        return Ops(store=self.store, validators=self._validators, nic_validators=self._nic_validators)

    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Run an operation by its name (``network.list``); return its response.  Raises PvcError."""
        from pvc_core.ops.table import lookup

        found = lookup(operation)
        return found.run(self.ops, decode_request(found.request, arguments, operation))

    def ask(self, query: str, /, node: str = "", **arguments: Any) -> Any:
        """Ask a plugin on a node (empty: any live one that has the plugin) and return its answer.

        Raises NotFound, Unavailable, and what the plugin says.
        """
        return self.service(node or self._node_with(query.partition(".")[0])).query(query, arguments)

    def _node_with(self, plugin: str) -> str:
        states = {
            name: status.state
            for name, facts in read_nodes(self.store).items()
            if facts.alive and facts.status is not None
            for status in facts.status.plugins
            if status.name == plugin
        }
        if not states:
            raise Unavailable(f"no live node has the plugin {plugin!r}: see `pvc plugin list`")
        return min(states, key=lambda name: (states[name] != "healthy", name))

    def service(self, node: str) -> "ServiceClient":
        """Return a client for the service of a node.  Raises NotFound, Unavailable when the node is not alive."""
        # http.client costs 20 ms: only consoles and logs pay for it.
        from pvc_core.client.service import ServiceClient

        nodes = read_nodes(self.store)
        if node not in nodes:
            raise not_found("node", node, nodes)
        facts = nodes[node]
        if not facts.alive or facts.status is None:
            raise Unavailable(f"node {node} is not alive, and this can only be read there")
        port = facts.status.service_port or self._service.port
        return ServiceClient(node, facts.status.address, port, self._service.token_file)

    def close(self) -> None:
        """End the session with the store; may be called twice."""
        if self._store is not None:
            self._store.close()
            self._store = None


def connect(path: str | None, *, timeout_s: float = CONNECT_S) -> Client:
    """Return a client for the cluster that a configuration file names (None: the usual places).

    Enters the file's ``network_namespace``, so call it before anything opens a socket or starts a thread.
    The store is not opened yet.  Raises ConfigError, InvalidRequest.
    """
    from pvc_core.config.load import load_client

    config = load_client(path)
    if config.network_namespace:
        from pvc_core.client.netns import enter

        enter(config.network_namespace)

    def open_store() -> Store:
        # kazoo costs 60 ms: only commands that use the store pay for it.
        from pvc_core.store import connect as store_connect

        return store_connect.open_store(config.cluster, _SESSION_S, wait_s=timeout_s, patience_s=timeout_s)

    return Client(
        open_store,
        cluster=config.cluster.name,
        service=config.service,
        validators=_validator,
        nic_validators=_nic_validator,
    )


def _validator(driver: str) -> Validator | None:
    """Return the check that the installed plugin of a driver brings; the manifests are read at the first use."""
    from pvc_core.runtime.manifests import validator

    return validator(driver)


def _nic_validator(driver: str) -> Validator | None:
    """Return the check of NICs that the installed plugin of a network driver brings."""
    from pvc_core.runtime.manifests import validator

    return validator(driver, of="nic_validators")
