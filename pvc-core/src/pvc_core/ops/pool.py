"""Storage pools."""

import logging
from collections.abc import Callable

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from pvc_core.model.base import Condition
from pvc_core.model.errors import AlreadyExists, InUse
from pvc_core.model.names import check_name
from pvc_core.model.storage import PoolSpec, PoolStatus, PoolUsage
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import check_driver, check_parameters, choose_by_drivers, merged
from pvc_core.ops.message import Request, View
from pvc_core.ops.removal import pool_operations
from pvc_core.ops.snapshot import NodeFacts, read_nodes
from pvc_core.ops.transaction import attempt
from pvc_core.store import keys
from pvc_core.store.api import Create, Delete, Operation
from pvc_core.store.documents import create, read, read_many

Parameters = dict[str, str | int | bool | list[str]]

log = logging.getLogger(__name__)


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
    """Its last change is carried out and nothing is wrong with it."""
    settled: bool
    """Its node has seen the last change."""
    usage: PoolUsage = PoolUsage()
    volumes: int = 0
    nodes: tuple[str, ...] = ()
    """Nodes alive whose driver for it works."""
    conditions: tuple[Condition, ...] = ()
    deleting: bool = False
    warnings: tuple[str, ...] = ()
    """What its driver warns of, in the answer to a change."""


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
    """Add a pool.

    Raises InvalidRequest (parameters, unknown driver), AlreadyExists, NoNodeFits (no node alive has the driver).
    """
    check_name(request.name, "pool name")
    id_ = ops.new_id()
    warnings: tuple[str, ...] = ()

    def once() -> PoolSpec:
        nonlocal warnings
        nodes = read_nodes(ops.store)
        check_driver("storage", request.driver, nodes)
        spec = PoolSpec(
            id=id_,
            name=request.name,
            driver=request.driver,
            description=request.description,
            parameters=request.parameters,
        )
        warnings = check_parameters(ops, spec)
        if ops.store.get(keys.name("pool", spec.name)) is not None:
            raise AlreadyExists(f"there is a storage pool named {spec.name!r} already")
        spec = replace(spec, node=choose_by_drivers(nodes, [spec.driver], f"set up pool {spec.name!r}"))
        ops.store.commit(
            create(keys.pool_spec(id_), spec),
            Create(keys.name("pool", spec.name), id_.encode()),
            Create(keys.ref("pool", id_), b""),
        )
        return spec

    spec = attempt(f"storage pool {request.name!r} could not be added", once)
    log.info("pool-added pool=%s name=%s driver=%s node=%s", spec.id, spec.name, spec.driver, spec.node)
    return replace(pool_view(ops, spec), warnings=warnings)


def pool_modify(ops: Ops, request: PoolModify) -> PoolView:
    """Change a pool.  Raises NotFound, InvalidRequest."""
    warnings: tuple[str, ...] = ()

    def next_(spec: PoolSpec) -> PoolSpec:
        nonlocal warnings
        resolve.refuse_deleting("storage pool", spec.name, deleting=spec.deleting)
        new = merged(spec, request.parameters)
        if request.description is not UNSET:
            new = replace(new, description=request.description)
        warnings = check_parameters(ops, new)
        return new

    return replace(_change(ops, request.pool, next_), warnings=warnings)


def pool_remove(ops: Ops, request: PoolQuery) -> PoolView:
    """Remove an empty pool.  Raises NotFound, InUse with its volumes."""

    def next_(spec: PoolSpec) -> PoolSpec:
        volumes = ops.store.children(keys.ref("pool", spec.id))
        if volumes:
            entries = read_many(ops.store, [keys.volume_spec(id_) for id_ in volumes[:10]])
            names = sorted(entry.value.name for entry in entries if entry is not None)
            more = f" and {len(volumes) - len(names)} more" if len(volumes) > len(names) else ""
            raise InUse(f"storage pool {spec.name!r} has volumes ({', '.join(names)}{more}): remove them first")
        return replace(spec, deleting=True)

    # Without this node no volume can be made in it any more; deleting it fails while it has one.
    return _change(ops, request.pool, next_, lambda spec: [Delete(keys.ref("pool", spec.id))])


def pool_list(ops: Ops, request: PoolList) -> list[PoolView]:
    """List pools, sorted by name."""
    name = resolve.pattern(request.name)
    specs = [spec for spec in read_pools(ops) if name.search(spec.name)]
    return _views(ops, sorted(specs, key=lambda spec: spec.name))


def pool_info(ops: Ops, request: PoolQuery) -> PoolView:
    """Return one pool.  Raises NotFound."""
    return pool_view(ops, resolve.pool(ops, request.pool).value)


def pool_view(ops: Ops, spec: PoolSpec) -> PoolView:
    """Return one pool whose spec was read."""
    return _views(ops, [spec])[0]


def read_pools(ops: Ops) -> list[PoolSpec]:
    """Return the specs of all pools."""
    wanted = [keys.pool_spec(id_) for id_ in ops.store.children(f"{keys.SPEC}/pool")]
    return [entry.value for entry in read_many(ops.store, wanted) if entry is not None]


def pool_forget(ops: Ops, pool: str, guard: tuple[Operation, ...] = ()) -> bool:
    """Remove the documents of a pool (id) that is being deleted; called by its node when the backend's pool is gone.

    Returns False, with nothing changed, when it is not being deleted; True when it is gone.  Raises TransactionFailed
    when it changed meanwhile.
    """
    entry = read(ops.store, keys.pool_spec(pool))
    if entry is None:
        return True
    if not entry.value.deleting:
        return False
    ops.store.commit(*pool_operations(ops.store, entry), *guard)
    return True


def _change(
    ops: Ops,
    name: str,
    next_: Callable[[PoolSpec], PoolSpec],
    more: Callable[[PoolSpec], list[Operation]] = lambda _: [],
) -> PoolView:
    def once() -> PoolSpec:
        entry = resolve.pool(ops, name)
        new = next_(entry.value)
        if new == entry.value:
            return new
        new = replace(new, generation=new.generation + 1)
        ops.store.commit(entry.put(new), *more(new))
        log.info("pool-changed pool=%s generation=%d deleting=%s", new.id, new.generation, new.deleting)
        return new

    return pool_view(ops, attempt(f"storage pool {name!r} could not be changed", once))


def _views(ops: Ops, specs: list[PoolSpec]) -> list[PoolView]:
    statuses = read_many(ops.store, [keys.pool_status(spec.id) for spec in specs])
    volumes = ops.store.children_many([keys.ref("pool", spec.id) for spec in specs])
    nodes = read_nodes(ops.store)
    return [
        _view(spec, entry.value if entry is not None else PoolStatus(id=spec.id), len(children), nodes)
        for spec, entry, children in zip(specs, statuses, volumes, strict=True)
    ]


def _view(spec: PoolSpec, status: PoolStatus, volumes: int, nodes: dict[str, NodeFacts]) -> PoolView:
    settled = status.observed_generation >= spec.generation
    return PoolView(
        id=spec.id,
        name=spec.name,
        generation=spec.generation,
        driver=spec.driver,
        description=spec.description,
        parameters=spec.parameters,
        node=spec.node,
        ready=settled and not spec.deleting and all(condition.ok for condition in status.conditions),
        settled=settled,
        usage=status.usage,
        volumes=volumes,
        nodes=tuple(
            name for name, facts in sorted(nodes.items()) if facts.alive and facts.offers(f"storage:{spec.driver}")
        ),
        conditions=status.conditions,
        deleting=spec.deleting,
    )
