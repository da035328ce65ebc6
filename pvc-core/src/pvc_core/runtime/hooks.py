"""Every hook with its kind, lane and default deadline: the one table that calls and documentation are made from."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple

import pluggy

from pvc_core.plugin.markers import PROJECT
from pvc_core.plugin.specs.fencing import FenceDriver
from pvc_core.plugin.specs.lifecycle import CollectHooks, EventHooks
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.plugin.specs.scheduling import SchedulingHooks, SelectorDriver
from pvc_core.plugin.specs.storage import StorageDriver
from pvc_core.runtime.contract import returns

Kind = Literal["driver", "collect", "event"]
Lane = Literal["work", "long", "told"]

TASK_S: Final = 86400.0
"""Deadline of hooks that run inside a task: the task's own time limit ends them before, through ``progress``."""
ROLE_SERVICE_S: Final = 30.0
QUERY_S: Final = 20.0
LOAD_S: Final = 30.0
"""Deadline of each step of loading a plugin: import, constructor."""
SLOW_S: Final = 10.0
"""A call that takes longer is logged while it runs, unless it is of the lane for long ones."""
_LONG_S: Final = 300.0

DRIVER_SPECS: Final[dict[str, type]] = {
    "storage": StorageDriver,
    "network": NetworkDriver,
    "fencing": FenceDriver,
    "scheduling": SelectorDriver,
}
"""What the class at an entry point of group ``pvc.<kind>`` must be derived from."""

OTHER_SPECS: Final[dict[type, Kind]] = {CollectHooks: "collect", SchedulingHooks: "collect", EventHooks: "event"}

_DATA_S: Final = 86400.0
"""Of calls that take as long as there is data: begun again they would begin from the start."""

DEADLINES: Final[dict[str, float]] = {
    "storage_capabilities": 5,
    "storage_preflight": 30,
    "storage_close": 10,
    "pool_ensure": 60,
    "pool_delete": 60,
    "pool_usage": 10,
    "volume_list": 60,
    "volume_info": 10,
    "volume_create": 60,
    "volume_delete": 600,
    "volume_resize": 60,
    "volume_rename": 60,
    "volume_clone": _DATA_S,
    "volume_import": TASK_S,
    "volume_export": TASK_S,
    "volume_diff_export": TASK_S,
    "volume_diff_import": TASK_S,
    "snapshot_create": 60,
    "snapshot_delete": _DATA_S,
    "snapshot_rename": 60,
    "snapshot_protect": 60,
    "snapshot_rollback": TASK_S,
    "disk_attach": 30,
    "disk_detach": 30,
    "disk_attachments": 10,
    "disk_flush_locks": 30,
    "node_identity": 5,
    "node_block": 30,
    "node_unblock": 30,
    "network_capabilities": 5,
    "network_preflight": 30,
    "network_close": 10,
    "network_ensure": 30,
    "network_remove": 30,
    "network_list": 10,
    "nic_attach": 30,
    "nic_detach": 30,
    "nic_arrived": 10,
    "network_check": 60,
    "fence_preflight": 10,
    "fence_close": 10,
    "power_status": 20,
    "power_off": 60,
    "power_on": 60,
    "selector_score": 1,
    "node_filter": 1,
    "node_weight": 1,
    "role_services": 10,
    "task_runners": 10,
    "queries": 10,
    "resource_kinds": 10,
    "resource_reconcile": 60,
    "health_checks": 10,
    "metrics": 10,
    "node_starting": 10,
    "node_started": 10,
    "node_stopping": 10,
    "node_lost": 10,
    "node_fenced": 10,
    "fence_stage": 10,
    "primary_changed": 10,
    "vm_started": 10,
    "vm_stopped": 10,
    "vm_migrated": 10,
    "vm_failed": 10,
}
"""Seconds until the caller is free again; ``within`` gives the calls of a block another one."""


class Hook(NamedTuple):
    """A hook as it is specified."""

    name: str
    kind: Kind
    spec: type
    deadline_s: float
    lane: Lane
    """Which of a plugin's pools runs it: one for long calls, so that they never delay the others; one for
    collect and event hooks, so that a plugin that hangs when told of an event still does its work."""
    returns: Any
    """Annotation of its result."""


@functools.cache
def hooks() -> dict[str, Hook]:
    """Return all hooks by name, drivers' first, in the order of their specification."""
    found: dict[str, Hook] = {}
    specs: dict[type, Kind] = {**dict.fromkeys(DRIVER_SPECS.values(), "driver"), **OTHER_SPECS}
    for spec, kind in specs.items():
        for name in hook_names(spec):
            found[name] = Hook(name, kind, spec, DEADLINES[name], _lane(name, kind), returns(getattr(spec, name)))
    return found


def hook_names(spec: type) -> list[str]:
    """Return the names of the hooks that a specification class declares, in its order."""
    return [name for name, value in vars(spec).items() if hasattr(value, f"{PROJECT}_spec")]


def _lane(name: str, kind: Kind) -> Lane:
    if kind != "driver" and name != "resource_reconcile":
        return "told"
    return "long" if DEADLINES[name] >= _LONG_S else "work"


class _PluginManager(pluggy.PluginManager):
    """Takes a driver's override of a specified hook as its implementation, marked ``@hookimpl`` or not.

    A driver is derived from its specification, so overriding says it already, and a forgotten mark would
    make the specification's default answer.  Collect and event hooks have no base class and are marked.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        """Return how an attribute implements a hook, None when it does not."""
        options = super().parse_hookimpl_opts(plugin, name)
        return {} if options is None and overrides(type(plugin), name) else options


def overrides(driver: type, name: str) -> bool:
    """Return whether a driver class has a method of its own for a hook of its specification."""
    hook = hooks().get(name)
    if hook is None or hook.kind != "driver" or not issubclass(driver, hook.spec):
        return False
    own = inspect.getattr_static(driver, name)
    return inspect.isroutine(own) and own is not vars(hook.spec)[name]


def new_plugin_manager() -> pluggy.PluginManager:
    """Return a pluggy manager that knows all specifications and no plugin."""
    manager = _PluginManager(PROJECT)
    for spec in (*DRIVER_SPECS.values(), *OTHER_SPECS):
        manager.add_hookspecs(spec)
    return manager


_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(deadline_s: float) -> Iterator[None]:
    """Give every hook that this thread calls in the block this deadline, in seconds, instead of its default."""
    token = _deadline.set(deadline_s)
    try:
        yield
    finally:
        _deadline.reset(token)


def deadline_of(hook: Hook) -> float:
    """Return the deadline that a call of this hook has now."""
    chosen = _deadline.get()
    return hook.deadline_s if chosen is None else chosen
