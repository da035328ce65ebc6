"""Fence levels of nodes: add, remove, list."""

import logging
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.fence import FenceDevice, FenceLevel
from pvc_core.model.names import did_you_mean, not_found
from pvc_core.model.node import NodeSpec
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.drivers import check_parameters
from pvc_core.ops.message import Request, View
from pvc_core.ops.snapshot import NodeFacts, offered, read_nodes
from pvc_core.ops.transaction import attempt
from pvc_core.store import keys
from pvc_core.store.documents import read_many

log = logging.getLogger(__name__)

Levels = tuple[FenceLevel, ...]

_LOGIN = frozenset({"user", "username", "login"})
"""Parameters that say who logs in to a device, not which device it is."""


class FenceLevelAdd(Request, frozen=True, kw_only=True):
    """Add a device that can cut a node's power."""

    node: str
    driver: str
    parameters: dict[str, str] = {}
    level: int | None = None
    """The level that gets the device, from 1: all devices of a level must confirm.  None, or the number after the last
    one: a new level."""
    force: bool = False
    """Also when no coordinator has a working driver of this name yet, or when another node has the same device."""


class FenceLevelRemove(Request, frozen=True, kw_only=True):
    """Remove a level, or one of its devices."""

    node: str
    level: int
    """From 1."""
    device: int | None = None
    """From 1; None: all of them."""


class FenceLevelList(Request, frozen=True, kw_only=True):
    """Whose levels to list."""

    node: str = ""
    """Empty: of all nodes."""


class NodeLevels(View, frozen=True, kw_only=True):
    """A node's fence levels, in the order in which they are tried."""

    node: str
    levels: Levels = ()


class FenceLevelAdded(View, frozen=True, kw_only=True):
    """The level that has the device, and all levels of the node now."""

    node: str
    level: int
    """From 1."""
    changed: bool
    """False: it was there already."""
    without_driver: tuple[str, ...] = ()
    """Coordinators alive that have no working driver for it: as primary they could not use it."""
    levels: Levels = ()


def fence_level_add(ops: Ops, request: FenceLevelAdd) -> FenceLevelAdded:
    """Add a fence device, as a level of its own or to a level; the same again changes nothing.

    Raises NotFound (node, level), InvalidRequest (driver that no coordinator offers, parameters, a literal secret,
    another node's device).
    """
    device = FenceDevice(driver=request.driver, parameters=request.parameters)
    _refuse_secrets(device)
    nodes = read_nodes(ops.store)
    if request.node not in nodes:
        raise not_found("node", request.node, nodes)
    if not request.force:
        _check_driver(request.driver, nodes)
        _refuse_shared(request.node, device, nodes)
    check_parameters(ops, device)
    number = 0
    changed = False

    def next_(levels: Levels) -> Levels:
        nonlocal number, changed
        new, number = _with_device(request.node, levels, device, request.level)
        changed = new != levels
        return new

    spec = _change(ops, request.node, next_)
    lacking = [name for name, facts in _coordinators(nodes).items() if facts.alive and not _has(facts, device.driver)]
    return FenceLevelAdded(
        node=spec.id, level=number, changed=changed, without_driver=tuple(sorted(lacking)), levels=spec.fence_levels
    )


def fence_level_remove(ops: Ops, request: FenceLevelRemove) -> NodeLevels:
    """Remove a fence level or one of its devices; later ones move up.  Raises NotFound."""

    def next_(levels: Levels) -> Levels:
        old = _level(request.node, levels, request.level)
        rest: tuple[FenceDevice, ...] = ()
        if request.device is not None:
            if not 1 <= request.device <= len(old.devices):
                raise NotFound(
                    f"level {request.level} of node {request.node} has no device {request.device}: it has "
                    f"{len(old.devices)}"
                )
            rest = old.devices[: request.device - 1] + old.devices[request.device :]
        kept = (FenceLevel(devices=rest),) if rest else ()
        return levels[: request.level - 1] + kept + levels[request.level :]

    spec = _change(ops, request.node, next_)
    return NodeLevels(node=spec.id, levels=spec.fence_levels)


def fence_level_list(ops: Ops, request: FenceLevelList) -> list[NodeLevels]:
    """List the fence levels of one node or of all, also of those that have none.  Raises NotFound."""
    if request.node:
        specs = [resolve.node(ops, request.node).value]
    else:
        wanted = [keys.node_spec(name) for name in ops.store.children(f"{keys.SPEC}/node")]
        specs = [entry.value for entry in read_many(ops.store, wanted) if entry is not None]
    return [NodeLevels(node=spec.id, levels=spec.fence_levels) for spec in specs]


def _with_device(node: str, levels: Levels, device: FenceDevice, number: int | None) -> tuple[Levels, int]:
    """Return the levels with a device in them, and the number of its level."""
    if number is None:
        alone = FenceLevel(devices=(device,))
        if alone in levels:
            return levels, levels.index(alone) + 1
        return (*levels, alone), len(levels) + 1
    if number == len(levels) + 1:
        return (*levels, FenceLevel(devices=(device,))), number
    old = _level(node, levels, number)
    if device in old.devices:
        return levels, number
    return (*levels[: number - 1], FenceLevel(devices=(*old.devices, device)), *levels[number:]), number


def _level(node: str, levels: Levels, number: int) -> FenceLevel:
    if 1 <= number <= len(levels):
        return levels[number - 1]
    has = f"it has {len(levels)}" if levels else "it has none"
    raise NotFound(f"node {node} has no fence level {number}: {has}")


def _refuse_secrets(device: FenceDevice) -> None:
    # The public package for plugins is imported by those commands only that need it.
    from pvc_core.plugin.config import sensitive

    for name in device.parameters:
        if sensitive(name) and not name.endswith("_script"):
            raise InvalidRequest(
                f"{name} is a secret, which everybody could read who may read the state store: write it to a file on "
                f"every coordinator (mode 0600) and name that file with {name}_file=PATH"
            )


def _check_driver(driver: str, nodes: Mapping[str, NodeFacts]) -> None:
    coordinators = _coordinators(nodes)
    if any(_has(facts, driver) for facts in coordinators.values()):
        return
    elsewhere = sorted(name for name, facts in nodes.items() if _has(facts, driver))
    known = sorted(offered(coordinators, "fencing"))
    broken = sorted(
        f"plugin {plugin.name} on {name} is {plugin.state}: {plugin.error}"
        for name, facts in coordinators.items()
        for plugin in (facts.status.plugins if facts.status is not None else ())
        if plugin.state in ("failed", "open") and driver in plugin.name
    )
    if elsewhere:
        found = f"only {', '.join(elsewhere)} has it"
    elif broken:
        found = "; ".join(broken)
    else:
        found = f"they offer {', '.join(known) or 'none'}"
    raise InvalidRequest(
        f"no coordinator has a working fence driver {driver!r}{did_you_mean(driver, known)}; {found}: fencing is done by "
        "coordinators, so enable the plugin in their pvcnoded.yml, or add the device before that with --force"
    )


def _refuse_shared(node: str, device: FenceDevice, nodes: Mapping[str, NodeFacts]) -> None:
    """Refuse a device that another node has, whoever logs in to it: copied, and the address or the outlet forgotten."""
    for name, facts in sorted(nodes.items()):
        theirs = [other for level in facts.spec.fence_levels for other in level.devices]
        if name != node and device.parameters and any(_same_device(device, other) for other in theirs):
            raise InvalidRequest(
                f"node {name} has the same fence device: fencing one node could cut the power "
                "of the other; if the device tells them apart by their names, add it with --force"
            )


def _same_device(one: FenceDevice, other: FenceDevice) -> bool:
    def place(device: FenceDevice) -> dict[str, str]:
        return {k: v for k, v in device.parameters.items() if k not in _LOGIN and not k.endswith("_file")}

    return one.driver == other.driver and place(one) == place(other)


def _coordinators(nodes: Mapping[str, NodeFacts]) -> dict[str, NodeFacts]:
    return {name: facts for name, facts in nodes.items() if facts.spec.role == "coordinator"}


def _has(facts: NodeFacts, driver: str) -> bool:
    return facts.offers(f"fencing:{driver}")


def _change(ops: Ops, node: str, next_: Callable[[Levels], Levels]) -> NodeSpec:
    def once() -> NodeSpec:
        entry = resolve.node(ops, node)
        levels = next_(entry.value.fence_levels)
        if levels == entry.value.fence_levels:
            return entry.value
        new = replace(entry.value, fence_levels=levels, generation=entry.value.generation + 1)
        ops.store.commit(entry.put(new))
        log.info("fence-levels-changed node=%s levels=%d", new.id, len(levels))
        return new

    return attempt(f"the fence levels of node {node!r} could not be changed", once)
