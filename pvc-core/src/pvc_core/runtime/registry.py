"""The plugins of a node, loaded: implements ``runtime.api.Drivers``.

Everything is registered in pluggy before the first call and nothing later (pluggy has no locks), so a
driver whose preflight fails is registered all the same; it is only not given out until a later preflight
succeeds.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import pluggy

from pvc_core.model.node import PluginStatus
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.plugin.specs.fencing import FenceDriver
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.plugin.specs.scheduling import SelectorDriver
from pvc_core.plugin.specs.storage import Cancelled, StorageDriver
from pvc_core.runtime.binding import BINDINGS, BoundRoleService, bound_query, bound_task_runner
from pvc_core.runtime.events import EventThread
from pvc_core.runtime.hooks import hooks
from pvc_core.runtime.status import Plugin, plugin_status, why_absent
from pvc_core.runtime.unit import Call, Unit

log = logging.getLogger(__name__)
D = TypeVar("D")

PREFIX: Final = {"storage": "storage", "network": "network", "fencing": "fence"}
"""Kind of driver -> prefix of its preflight and close hooks; a selector has neither."""


class Registry:
    """The loaded plugins.  Made by ``start.load_plugins``.  Every method may be called from any thread."""

    def __init__(
        self,
        plugins: Sequence[Plugin],
        manager: pluggy.PluginManager,
        *,
        node: str,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._plugins: Final = tuple(plugins)
        self._node: Final = node
        self._changed: Final = changed
        self._units: Final = tuple(unit for plugin in plugins for unit in plugin.units)
        self._bindings: Final = {
            (unit.kind, unit.name): BINDINGS[unit.kind](unit) for unit in self._units if unit.kind in BINDINGS
        }
        unit_of = {id(unit.instance): unit for unit in self._units}
        # The list of implementations has the one that is called first at its end.
        self._listeners: Final = {
            name: [unit_of[id(impl.plugin)] for impl in reversed(getattr(manager.hook, name).get_hookimpls())]
            for name, hook in hooks().items()
            if hook.kind != "driver"
        }
        self._events: Final = EventThread(self._tell)
        self._complained: Final[dict[tuple[str, str], str]] = {}
        self._preflight: Final = threading.Lock()
        self._closing: Final = threading.Event()

    def storage(self, driver: str) -> StorageDriver:
        """Return the storage driver of this name; raises NotReady saying why it is not there."""
        return self._driver("storage", driver, StorageDriver)  # type: ignore[type-abstract]

    def network(self, driver: str) -> NetworkDriver:
        """Return the network driver of this name; raises NotReady."""
        return self._driver("network", driver, NetworkDriver)  # type: ignore[type-abstract]

    def fencing(self, driver: str) -> FenceDriver:
        """Return the fence driver of this name; raises NotReady."""
        return self._driver("fencing", driver, FenceDriver)  # type: ignore[type-abstract]

    def selector(self, driver: str) -> SelectorDriver:
        """Return the selector of this name; raises NotReady."""
        return self._driver("scheduling", driver, SelectorDriver)  # type: ignore[type-abstract]

    def storage_drivers(self) -> list[str]:
        """Return the names of the storage drivers that work here now."""
        return self._working("storage")

    def network_drivers(self) -> list[str]:
        """Return the names of the network drivers that work here now."""
        return self._working("network")

    def notify(self, event: str, **arguments: Any) -> None:
        """Tell all plugins of an event; returns at once, never raises on a plugin's account."""
        self._check_kind(event, "event")
        if self._listeners[event]:
            self._events.put(event, arguments)

    def notify_and_wait(self, event: str, **arguments: Any) -> None:
        """Tell all plugins of an event and return when they have heard it; never raises on a plugin's account."""
        self._check_kind(event, "event")
        self._tell(event, arguments)

    def collect(self, hook: str, **arguments: Any) -> list[Any]:
        """Ask all plugins at once; return the answers of those that gave one, in call order.

        A plugin that fails has given none, with two exceptions: a node filter that fails is a reason against
        the node, and when ``resource_reconcile`` fails its DriverError is raised after all were asked.
        """
        self._check_kind(hook, "collect")
        begun = [(unit, self._begin(unit, hook, arguments)) for unit in self._listeners[hook]]
        answers = [(unit, self._answer(unit, hook, call)) for unit, call in begun]
        for _, answer in answers:
            if isinstance(answer, _Failed) and hook == "resource_reconcile":
                # Its caller must not take an effect for undone, and tries again.
                raise answer.error
        if hook == "node_filter":
            answers = [
                (unit, answer.reason(unit) if isinstance(answer, _Failed) else answer) for unit, answer in answers
            ]
        return [
            _supervised(unit, hook, answer)
            for unit, answer in answers
            if answer is not None and not isinstance(answer, _Failed)
        ]

    def status(self) -> tuple[PluginStatus, ...]:
        """Return the state of every enabled plugin, broken ones included."""
        return tuple(plugin_status(plugin) for plugin in self._plugins)

    def trace(self, on: bool) -> None:
        """Log every hook call to the logger ``pvc.trace`` (level info), with secrets left out; off at first."""
        for unit in self._units:
            unit.tracing = on

    def preflight(self) -> None:
        """Try every driver that is not ready, all at the same time, and give those out that are.

        Called at the start, and every minute by ``keep_trying``.
        """
        with self._preflight:
            waiting = [unit for unit in self._units if unit.kind in BINDINGS and not unit.ready]
            begun = []
            for unit in waiting:
                hook = _prefixed(unit, "preflight")
                begun.append((unit, hook, self._begin(unit, hook, {}) if hook else None))
            for unit, hook, call in begun:
                self._judge(unit, hook, call)

    def keep_trying(self, every_s: float) -> None:
        """Repeat ``preflight`` in a thread of its own until the registry is closed."""

        def repeat() -> None:
            while not self._closing.wait(every_s):
                self.preflight()

        threading.Thread(target=repeat, name="pvc-preflight", daemon=True).start()

    def close(self) -> None:
        """Tell waiting events, close all drivers, each in its boundary; never waits for a stuck one."""
        self._closing.set()
        self._events.close()
        begun = []
        for unit in self._units:
            hook = _prefixed(unit, "close")
            if hook and not unit.open:
                begun.append((unit, hook, self._begin(unit, hook, {})))
        for unit, hook, call in begun:
            self._answer(unit, hook, call)
        for unit in self._units:
            unit.shut()

    def _driver(self, kind: str, name: str, spec: type[D]) -> D:
        binding = self._bindings.get((kind, name))
        if binding is not None and binding.unit.ready:
            assert isinstance(binding, spec)
            return binding
        reason = why_absent(self._plugins, kind, name) if binding is None else binding.unit.reason
        what = {"fencing": "fence driver", "scheduling": "selector"}.get(kind, f"{kind} driver")
        raise NotReady(f"the {what} {name!r} does not work on node {self._node}: {reason}")

    def _working(self, kind: str) -> list[str]:
        return [unit.name for unit in self._units if unit.kind == kind and unit.ready and not unit.open]

    def _check_kind(self, hook: str, kind: str) -> None:
        if hook not in hooks() or hooks()[hook].kind != kind:
            raise ValueError(f"{hook!r} is no {kind} hook")

    def _begin(self, unit: Unit, hook: str, arguments: Mapping[str, Any]) -> Call | DriverError:
        try:
            return unit.begin(hooks()[hook], arguments)
        except DriverError as error:
            return error

    def _answer(self, unit: Unit, hook: str, call: Call | DriverError) -> Any:
        try:
            if isinstance(call, DriverError):
                raise call
            answer = unit.finish(call)
        except (DriverError, Cancelled) as error:
            # Asked every few seconds: complain when the complaint is new.
            if self._complained.get((unit.label, hook)) != str(error):
                self._complained[unit.label, hook] = str(error)
                log.warning("hook-failed plugin=%s unit=%s hook=%s error=%s", unit.plugin, unit.label, hook, error)
            return _Failed(error)
        self._complained.pop((unit.label, hook), None)
        return answer

    def _tell(self, event: str, arguments: Mapping[str, Any]) -> None:
        for unit in self._listeners[event]:
            self._answer(unit, event, self._begin(unit, event, arguments))

    def _judge(self, unit: Unit, hook: str, call: Call | DriverError | None) -> None:
        try:
            if isinstance(call, DriverError):
                raise call
            if call is not None and not unit.finish(call):
                raise NotReady("its preflight returned False without a reason")
            if (asks := f"{unit.kind}_capabilities") in hooks():
                unit.capabilities = unit.call(hooks()[asks], {})
        except (DriverError, Cancelled) as error:
            reason = str(error.args[0] if error.args else error)
            if reason != unit.reason:
                log.warning(
                    "driver-not-ready plugin=%s driver=%s hook=%s reason=%s", unit.plugin, unit.label, hook, reason
                )
            unit.reason = reason
            return
        unit.ready = True
        unit.ill = 0
        log.info("driver-ready plugin=%s driver=%s", unit.plugin, unit.label)
        self._changed()


class _Failed(NamedTuple):
    """What stands for the answer of a plugin that failed."""

    error: Exception

    def reason(self, unit: Unit) -> str:
        """Return it as a reason against a node."""
        return f"plugin {unit.plugin!r} failed to judge it: {self.error}"


def _prefixed(unit: Unit, hook: str) -> str:
    """Return the whole name of a driver's preflight or close hook, empty when its kind has none."""
    return f"{PREFIX[unit.kind]}_{hook}" if unit.kind in PREFIX else ""


def _supervised(unit: Unit, hook: str, answer: Any) -> Any:
    if hook == "role_services":
        return [BoundRoleService(unit, service) for service in answer]
    if hook == "queries":
        return {name: bound_query(unit, name, query) for name, query in answer.items()}
    if hook == "task_runners":
        return {kind: bound_task_runner(unit, kind, runner) for kind, runner in answer.items()}
    return answer
