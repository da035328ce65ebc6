"""Networks."""

import logging
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest
from pvc_core.model.names import check_name
from pvc_core.model.network import NetworkSpec, NetworkStatus
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import check_driver, check_parameters, merged
from pvc_core.ops.message import Request, View
from pvc_core.ops.removal import network_operations
from pvc_core.ops.snapshot import NodeFacts, read_nodes
from pvc_core.ops.transaction import attempt
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Delete, Operation, Put
from pvc_core.store.documents import create, read, read_many

log = logging.getLogger(__name__)

_ALL: Final = f"{keys.SPEC}/network"
"""Its version is raised with every change of a network: so changes that must fit together are made one after the other."""


class NetworkView(View, frozen=True, kw_only=True):
    """A network."""

    id: str
    name: str
    generation: int
    driver: str
    description: str = ""
    mtu: int | None = None
    parameters: dict[str, Any] = {}
    vms: int = 0
    """VMs that have a NIC in it."""
    nodes_ready: int = 0
    """Nodes alive where it is set up as last specified."""
    nodes: int = 0
    """Nodes alive that have its driver."""
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What is possible and risky; in answers to adding and changing only."""
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
    parameters: dict[str, Any] = {}


class NetworkModify(Request, frozen=True, kw_only=True):
    """Change a network; what is not given stays."""

    network: str
    description: str | UnsetType = UNSET
    mtu: int | UnsetType | None = UNSET
    parameters: dict[str, Any] = {}
    """Parameters to set; None removes one."""
    generation: int | None = None
    """Refuse with Conflict unless the network still has this generation (the one that was read)."""


class NetworkQuery(Request, frozen=True, kw_only=True):
    """One network, by name or id."""

    network: str


class NetworkList(Request, frozen=True, kw_only=True):
    """Which networks to list."""

    name: str = ""
    """Regular expression found anywhere in the name."""


def network_add(ops: Ops, request: NetworkAdd) -> NetworkView:
    """Add a network.  Raises InvalidRequest (parameters, unknown driver), AlreadyExists."""
    check_name(request.name, "network name")
    id_ = ops.new_id()
    warnings: tuple[str, ...] = ()

    def once() -> NetworkSpec:
        nonlocal warnings
        spec = NetworkSpec(
            id=id_,
            name=request.name,
            driver=request.driver,
            description=request.description,
            mtu=_mtu(request.mtu),
            parameters=request.parameters,
        )
        nodes = read_nodes(ops.store)
        check_driver("network", request.driver, nodes)
        serial = _serial(ops)
        warnings = _check(ops, spec, nodes)
        if ops.store.get(keys.name("network", spec.name)) is not None:
            raise AlreadyExists(f"there is a network named {spec.name!r} already")
        ops.store.commit(
            create(keys.network_spec(id_), spec),
            Create(keys.name("network", spec.name), id_.encode()),
            Create(keys.ref("network", id_), b""),
            serial,
        )
        return spec

    spec = attempt(f"network {request.name!r} could not be added", once)
    log.info("network-added network=%s name=%s driver=%s", spec.id, spec.name, spec.driver)
    return replace(_views(ops, [spec])[0], warnings=warnings)


def network_modify(ops: Ops, request: NetworkModify) -> NetworkView:
    """Change a network.  Raises NotFound, InvalidRequest, Conflict (another generation)."""
    warnings: tuple[str, ...] = ()

    def next_(spec: NetworkSpec) -> NetworkSpec:
        nonlocal warnings
        resolve.refuse_deleting("network", spec.name, deleting=spec.deleting)
        if request.generation not in (None, spec.generation):
            raise Conflict(
                f"network {spec.name!r} was changed meanwhile: it has generation {spec.generation}, not "
                f"{request.generation}; look at it and try again"
            )
        new = merged(spec, request.parameters)
        if request.description is not UNSET:
            new = replace(new, description=request.description)
        if request.mtu is not UNSET:
            new = replace(new, mtu=_mtu(request.mtu))
        warnings = _check(ops, new, read_nodes(ops.store))
        return new

    return replace(_change(ops, request.network, next_), warnings=warnings)


def network_remove(ops: Ops, request: NetworkQuery) -> NetworkView:
    """Remove a network.  Raises NotFound, InUse with the VMs that have a NIC in it."""

    def next_(spec: NetworkSpec) -> NetworkSpec:
        users = _vm_names(ops, ops.store.children(keys.ref("network", spec.id)))
        if users:
            raise InUse(f"network {spec.name!r} is used by VMs ({', '.join(users)}): take their NICs away first")
        return replace(spec, deleting=True)

    # Without this node no VM can be given a NIC in it any more; deleting it fails while one has.
    return _change(ops, request.network, next_, lambda spec: [Delete(keys.ref("network", spec.id))])


def network_list(ops: Ops, request: NetworkList) -> list[NetworkView]:
    """List networks, sorted by name."""
    name = resolve.pattern(request.name)
    return _views(ops, sorted((spec for spec in _specs(ops) if name.search(spec.name)), key=lambda spec: spec.name))


def network_info(ops: Ops, request: NetworkQuery) -> NetworkInfo:
    """Return everything about a network.  Raises NotFound."""
    return read_network_info(ops, resolve.network(ops, request.network).value)


def read_network_info(ops: Ops, spec: NetworkSpec) -> NetworkInfo:
    """Return everything about a network whose spec was read."""
    statuses = _statuses(ops, [spec])[spec.id]
    users = ops.store.children(keys.ref("network", spec.id))
    return NetworkInfo(
        view=_view(spec, statuses, len(users), read_nodes(ops.store)),
        vms=tuple(_vm_names(ops, users)),
        nodes=tuple(statuses),
    )


def network_forget(ops: Ops, network: str, guard: tuple[Operation, ...] = ()) -> bool:
    """Remove the documents of a network (id) that is being deleted, when no node has it any more.

    Returns False, with nothing changed, when it is not being deleted or a node that is alive still reports it (its status
    exists); True when it is gone.  Raises TransactionFailed when it changed meanwhile.
    """
    entry = read(ops.store, keys.network_spec(network))
    if entry is None:
        return True
    reported = {status.node for status in _statuses(ops, [entry.value])[network]}
    if not entry.value.deleting or reported & set(ops.store.children(keys.LEASE)):
        return False
    ops.store.commit(*network_operations(ops.store, entry, sorted(reported)), *guard)
    return True


def _change(
    ops: Ops,
    name: str,
    next_: Callable[[NetworkSpec], NetworkSpec],
    more: Callable[[NetworkSpec], list[Operation]] = lambda _: [],
) -> NetworkView:
    def once() -> NetworkSpec:
        serial = _serial(ops)
        entry = resolve.network(ops, name)
        new = next_(entry.value)
        if new == entry.value:
            return new
        new = replace(new, generation=new.generation + 1)
        ops.store.commit(entry.put(new), *more(new), serial)
        log.info("network-changed network=%s generation=%d deleting=%s", new.id, new.generation, new.deleting)
        return new

    return _views(ops, [attempt(f"network {name!r} could not be changed", once)])[0]


def _serial(ops: Ops) -> Operation:
    """Return the operation that makes a transaction fail when any network was changed since now."""
    node = ops.store.get(_ALL)
    return Put(_ALL, b"", ANY if node is None else node.version)


def _check(ops: Ops, spec: NetworkSpec, nodes: dict[str, NodeFacts]) -> tuple[str, ...]:
    """Check a network against its driver, the nodes, and the driver's other networks; return what the driver warns of.

    Raises InvalidRequest.
    """
    for node, facts in sorted(nodes.items()):
        most = facts.max_mtu(spec.driver)
        if facts.alive and spec.mtu is not None and most and spec.mtu > most:
            raise InvalidRequest(
                f"network {spec.name!r} cannot have MTU {spec.mtu}: driver {spec.driver} on node {node} carries at most "
                f"{most} bytes; raise the MTU of what is below it there, or give the network less"
            )
    others = [other for other in _specs(ops) if other.driver == spec.driver and other.id != spec.id]
    return check_parameters(ops, spec, others)


def _specs(ops: Ops) -> list[NetworkSpec]:
    wanted = [keys.network_spec(id_) for id_ in ops.store.children(_ALL)]
    return [entry.value for entry in read_many(ops.store, wanted) if entry is not None]


def _views(ops: Ops, specs: list[NetworkSpec]) -> list[NetworkView]:
    statuses = _statuses(ops, specs)
    users = ops.store.children_many([keys.ref("network", spec.id) for spec in specs])
    nodes = read_nodes(ops.store)
    return [_view(spec, statuses[spec.id], len(vms), nodes) for spec, vms in zip(specs, users, strict=True)]


def _view(spec: NetworkSpec, statuses: list[NetworkStatus], vms: int, nodes: dict[str, NodeFacts]) -> NetworkView:
    alive = {name: facts for name, facts in nodes.items() if facts.alive}
    here = [status for status in statuses if status.node in alive]
    return NetworkView(
        id=spec.id,
        name=spec.name,
        generation=spec.generation,
        driver=spec.driver,
        description=spec.description,
        mtu=spec.mtu,
        parameters=spec.parameters,
        vms=vms,
        nodes_ready=sum(bool(s.device) and s.observed_generation >= spec.generation for s in here),
        nodes=sum(facts.offers(f"network:{spec.driver}") for facts in alive.values()),
        problems=tuple(
            f"{status.node}: {condition.message or condition.reason}"
            for status in here
            for condition in status.conditions
            if not condition.ok
        ),
        deleting=spec.deleting,
    )


def _statuses(ops: Ops, specs: list[NetworkSpec]) -> dict[str, list[NetworkStatus]]:
    result: dict[str, list[NetworkStatus]] = {spec.id: [] for spec in specs}
    wanted = [
        keys.network_status(network, node)
        for network, _, node in (name.partition("@") for name in ops.store.children(f"{keys.STATUS}/network"))
        if network in result
    ]
    for entry in read_many(ops.store, wanted):
        if entry is not None:
            result[entry.value.id.partition("@")[0]].append(entry.value)
    return result


def _vm_names(ops: Ops, ids: list[str]) -> list[str]:
    specs = read_many(ops.store, [keys.vm_spec(id_) for id_ in ids])
    return sorted(entry.value.name if entry is not None else id_ for id_, entry in zip(ids, specs, strict=True))


def _mtu(mtu: int | None) -> int | None:
    if mtu is not None and not 68 <= mtu <= 65535:
        raise InvalidRequest(
            f"MTU {mtu} is out of range: from 68 to 65535 bytes, or none for what the driver finds possible"
        )
    return mtu
