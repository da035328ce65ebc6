"""Storage pools."""

from msgspec import UNSET, UnsetType

from pvc_core.model.base import Condition
from pvc_core.model.storage import PoolUsage
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.network import Parameters


class PoolView(View, frozen=True, kw_only=True):
    """A storage pool."""

    id: str
    name: str
    generation: int
    driver: str
    description: str = ""
    parameters: Parameters = {}
    node: str | None = None
    """The node that carries out changes."""
    ready: bool
    settled: bool
    usage: PoolUsage = PoolUsage()
    volumes: int = 0
    nodes: tuple[str, ...] = ()
    """Nodes whose driver for it works."""
    conditions: tuple[Condition, ...] = ()
    deleting: bool = False


class PoolAdd(Request, frozen=True, kw_only=True):
    """Add a storage pool."""

    name: str
    driver: str
    description: str = ""
    parameters: Parameters = {}


class PoolModify(Request, frozen=True, kw_only=True):
    """Change a pool; what is not given stays."""

    pool: str
    description: str | UnsetType = UNSET
    parameters: dict[str, str | int | bool | list[str] | None] = {}
    """Parameters to set; None removes one."""


class PoolQuery(Request, frozen=True, kw_only=True):
    """One pool, by name or id."""

    pool: str


class PoolList(Request, frozen=True, kw_only=True):
    """Which pools to list."""

    name: str = ""
    """Regular expression found anywhere in the name."""


def pool_add(ops: Ops, request: PoolAdd) -> PoolView:
    """Add a pool.  Raises InvalidRequest (parameters, unknown driver), AlreadyExists, NoNodeFits (no node with the driver)."""
    raise NotImplementedError


def pool_modify(ops: Ops, request: PoolModify) -> PoolView:
    """Change a pool.  Raises NotFound, InvalidRequest."""
    raise NotImplementedError


def pool_remove(ops: Ops, request: PoolQuery) -> PoolView:
    """Remove an empty pool.  Raises NotFound, InUse with its volumes."""
    raise NotImplementedError


def pool_list(ops: Ops, request: PoolList) -> list[PoolView]:
    """List pools, sorted by name."""
    raise NotImplementedError


def pool_info(ops: Ops, request: PoolQuery) -> PoolView:
    """Return one pool.  Raises NotFound."""
    raise NotImplementedError


def pool_forget(ops: Ops, pool: str) -> bool:
    """Remove the documents of a pool that is being deleted; called by its node when the backend's pool is gone.

    Returns False when it is not being deleted, True when it is gone.
    """
    raise NotImplementedError
