"""Networks."""

from msgspec import UNSET, UnsetType

from pvc_core.model.network import NetworkStatus
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View

Parameters = dict[str, str | int | bool | list[str]]


class NetworkView(View, frozen=True, kw_only=True):
    """A network."""

    id: str
    name: str
    generation: int
    driver: str
    description: str = ""
    mtu: int | None = None
    parameters: Parameters = {}
    vms: int = 0
    """VMs that have a NIC in it."""
    nodes_ready: int = 0
    nodes: int = 0
    """Nodes that report it at all."""
    problems: tuple[str, ...] = ()
    deleting: bool = False


class NetworkInfo(View, frozen=True, kw_only=True):
    """Everything about one network."""

    view: NetworkView
    vms: tuple[str, ...] = ()
    """Names of the VMs that have a NIC in it."""
    nodes: tuple[NetworkStatus, ...] = ()


class NetworkAdd(Request, frozen=True, kw_only=True):
    """Add a network."""

    name: str
    driver: str
    description: str = ""
    mtu: int | None = None
    parameters: Parameters = {}


class NetworkModify(Request, frozen=True, kw_only=True):
    """Change a network; what is not given stays."""

    network: str
    description: str | UnsetType = UNSET
    mtu: int | UnsetType | None = UNSET
    parameters: dict[str, str | int | bool | list[str] | None] = {}
    """Parameters to set; None removes one."""


class NetworkQuery(Request, frozen=True, kw_only=True):
    """One network, by name or id."""

    network: str


class NetworkList(Request, frozen=True, kw_only=True):
    """Which networks to list."""

    name: str = ""
    """Regular expression found anywhere in the name."""


def network_add(ops: Ops, request: NetworkAdd) -> NetworkView:
    """Add a network.  Raises InvalidRequest (parameters, unknown driver), AlreadyExists."""
    raise NotImplementedError


def network_modify(ops: Ops, request: NetworkModify) -> NetworkView:
    """Change a network.  Raises NotFound, InvalidRequest."""
    raise NotImplementedError


def network_remove(ops: Ops, request: NetworkQuery) -> NetworkView:
    """Remove a network.  Raises NotFound, InUse with the VMs that have a NIC in it."""
    raise NotImplementedError


def network_list(ops: Ops, request: NetworkList) -> list[NetworkView]:
    """List networks, sorted by name."""
    raise NotImplementedError


def network_info(ops: Ops, request: NetworkQuery) -> NetworkInfo:
    """Return everything about a network.  Raises NotFound."""
    raise NotImplementedError


def network_forget(ops: Ops, network: str) -> bool:
    """Remove the documents of a network that is being deleted.

    Returns False while a node that is alive still reports it (its status exists), True when it is gone.
    """
    raise NotImplementedError
