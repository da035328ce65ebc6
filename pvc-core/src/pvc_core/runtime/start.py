"""Loading the plugins that a node's configuration enables."""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace

from pvc_core.config.schema import NodeConfig
from pvc_core.plugin.config import InvalidSection
from pvc_core.plugin.context import Context, NetworkNic, NodeInfo, Records
from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.process import run
from pvc_core.runtime.bulkhead import Bulkhead
from pvc_core.runtime.discover import Index, PluginFailure, discover
from pvc_core.runtime.hooks import DRIVER_SPECS, LOAD_S, new_plugin_manager
from pvc_core.runtime.load import Part, decode_section, gate, import_parts, instantiate, seed_stevedore
from pvc_core.runtime.register import check, register
from pvc_core.runtime.registry import Registry
from pvc_core.runtime.status import Plugin
from pvc_core.runtime.unit import Unit

log = logging.getLogger(__name__)

PREFLIGHT_EVERY_S: Final = 60.0
TRACE_VARIABLE: Final = "PVC_TRACE_HOOKS"
"""Environment variable: "1" logs every hook call from the start."""

T = TypeVar("T")
Wake = Callable[[str, str], None]
Explain = Callable[[InvalidSection], str]


class StoreAccess(Protocol):
    """What plugins reach of the state store."""

    def records(self, plugin: str) -> Records:
        """Return the records of a plugin."""

    def nodes(self) -> list[str]:
        """Return the names of all nodes of the cluster."""

    def network_nics(self, network: str) -> list[NetworkNic]:
        """Return the NICs in a network (id)."""


def load_plugins(
    config: NodeConfig,
    node: NodeInfo,
    wake: Wake,
    *,
    explain: Explain = str,
    index: Index | None = None,
    preflight_every_s: float | None = PREFLIGHT_EVERY_S,
    access: StoreAccess | None = None,
) -> Registry:
    """Load what ``plugins:`` lists, in its order, and return the registry.  Never raises on a plugin's account.

    Each plugin goes through discover, gate (hook API), config, import, instantiate, register; one that
    fails is off and its status says at which stage and why, and the others go on.  When all are
    registered, drivers are tried (preflight), and those that fail are tried again every
    ``preflight_every_s`` (None: never).  ``wake(kind, id)`` is given to the drivers, and called as
    ``wake("node", name)`` when what works on this node has changed.  ``explain`` says where in its file a
    wrong section is (``config.load.explain``).  ``access``: what they reach of the state store; None: nothing.  Returns after at most the deadlines of one import,
    constructor and preflight for each plugin that hangs.
    """
    index = index or discover()
    seed_stevedore(index)
    changed = functools.partial(wake, "node", node.name)
    plugins = [
        _load(name, section, index, node, wake, changed, explain, access) for name, section in config.plugins.items()
    ]
    manager = new_plugin_manager()
    register(manager, [unit for plugin in plugins for unit in plugin.units])
    registry = Registry(plugins, manager, node=node.name, changed=changed)
    registry.trace(os.environ.get(TRACE_VARIABLE) == "1")
    registry.preflight()
    if preflight_every_s is not None:
        registry.keep_trying(preflight_every_s)
    return registry


def _load(
    name: str,
    section: dict[str, Any] | None,
    index: Index,
    node: NodeInfo,
    wake: Wake,
    changed: Callable[[], None],
    explain: Explain,
    access: StoreAccess | None,
) -> Plugin:
    plugin = Plugin(name)
    try:
        entry, manifest = _in_time(name, "discover", lambda: gate(index, name))
        plugin.version = entry.dist.version if entry.dist is not None else ""
        plugin.offers = frozenset((kind, driver) for kind in DRIVER_SPECS for driver in getattr(manifest, kind))
        settings = _in_time(name, "config", lambda: decode_section(manifest, section))
        parts = _in_time(name, "import", lambda: import_parts(index, entry, manifest))
        context = Context(node=node, log=logging.getLogger(f"pvc.plugin.{name}"), run=run, wake=wake, config=settings)
        if access is not None:
            context = replace(
                context, records=access.records(name), nodes=access.nodes, network_nics=access.network_nics
            )
        plugin.units = [_unit(name, part, context, changed) for part in parts]
    except InvalidSection as error:
        plugin.stage, plugin.error = "config", explain(error)
    except PluginFailure as error:
        plugin.stage, plugin.error = error.stage, str(error)
    if plugin.stage:
        plugin.units = []
        log.error("plugin-failed plugin=%s stage=%s error=%s", name, plugin.stage, plugin.error)
    else:
        log.info("plugin-loaded plugin=%s version=%s", name, plugin.version)
    return plugin


def _unit(name: str, part: Part, context: Context, changed: Callable[[], None]) -> Unit:
    instance = _in_time(name, "instantiate", lambda: instantiate(part, context))
    check(instance, part.kind)
    return Unit(name, part.kind, part.name, instance, changed=changed)


def _in_time(name: str, stage: str, function: Callable[[], T]) -> T:
    """Run a step in a thread that is left behind when it hangs."""
    bulkhead = Bulkhead(f"{name}/{stage}", threads=1)
    try:
        outcome = bulkhead.run(function, LOAD_S)
    except DriverError as error:
        raise PluginFailure(stage, str(error)) from None
    finally:
        bulkhead.shut()
    if outcome.error is not None:
        raise outcome.error
    result: T = outcome.value
    return result
