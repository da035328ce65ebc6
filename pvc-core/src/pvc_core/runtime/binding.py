"""Drivers as core calls them: the methods of the specification, each going through the driver's unit.

A binding is-a specification class, so a type checker sees the real signatures; the methods are made from
the specification, so they cannot drift from it.
"""

import abc
import inspect
from collections.abc import Callable
from typing import Any, Final

from pvc_core.model.task import Task
from pvc_core.plugin.specs.fencing import FenceDriver
from pvc_core.plugin.specs.lifecycle import Query, RoleService, TaskProgress, TaskRunner
from pvc_core.plugin.specs.network import NetworkDriver
from pvc_core.plugin.specs.scheduling import SelectorDriver
from pvc_core.plugin.specs.storage import StorageDriver
from pvc_core.runtime.hooks import QUERY_S, ROLE_SERVICE_S, hook_names, hooks
from pvc_core.runtime.unit import Unit


class Binding:
    """What all bindings have."""

    def __init__(self, unit: Unit) -> None:
        self.unit: Final = unit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.unit.plugin}/{self.unit.name}>"


class StorageBinding(Binding, StorageDriver):
    """A storage driver."""


class NetworkBinding(Binding, NetworkDriver):
    """A network driver."""


class FenceBinding(Binding, FenceDriver):
    """A fence driver."""


class SelectorBinding(Binding, SelectorDriver):
    """A selector."""


BINDINGS: Final[dict[str, type[Binding]]] = {
    "storage": StorageBinding,
    "network": NetworkBinding,
    "fencing": FenceBinding,
    "scheduling": SelectorBinding,
}

_CAPABILITIES: Final = ("storage_capabilities", "network_capabilities")


def _forward(name: str, specified: Callable[..., Any]) -> Callable[..., Any]:
    hook = hooks()[name]
    signature = inspect.signature(specified)

    def method(self: Binding, /, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        _, *arguments = bound.arguments.items()
        if name in _CAPABILITIES and self.unit.capabilities is not None:
            return self.unit.capabilities  # asked once, when it became ready
        return self.unit.call(hook, dict(arguments))

    method.__name__, method.__qualname__ = name, f"{hook.spec.__name__}.{name}"
    method.__doc__ = specified.__doc__
    return method


for _binding in BINDINGS.values():
    _spec = _binding.__mro__[_binding.__mro__.index(Binding) + 1]
    for _name in hook_names(_spec):
        setattr(_binding, _name, _forward(_name, getattr(_spec, _name)))
    abc.update_abstractmethods(_binding)


class BoundRoleService(RoleService):
    """A plugin's role service, supervised like its hooks."""

    def __init__(self, unit: Unit, service: RoleService) -> None:
        self._unit = unit
        self._service = service
        self.name = service.name
        self.order = service.order

    def acquire(self, term: int) -> None:
        """Begin the service; raises DriverError."""
        what = f"role_service({self.name}).acquire"
        self._unit.run(what, lambda: self._service.acquire(term), ROLE_SERVICE_S, f"role {self.name}")

    def relinquish(self) -> None:
        """End the service; raises DriverError."""
        what = f"role_service({self.name}).relinquish"
        self._unit.run(what, self._service.relinquish, ROLE_SERVICE_S, f"role {self.name}")


def bound_query(unit: Unit, name: str, query: Query) -> Query:
    """Return a plugin's query with its deadline, in the plugin's threads, and its exceptions mapped."""

    def answer(arguments: dict[str, Any]) -> Any:
        return unit.run(name, lambda: query(arguments), QUERY_S, f"query {name}")

    return answer


def bound_task_runner(unit: Unit, kind: str, runner: TaskRunner) -> TaskRunner:
    """Return a plugin's task runner with its exceptions mapped; it runs in the caller's thread."""

    def run(task: Task, progress: TaskProgress) -> dict[str, str | int | float | bool | None]:
        try:
            return runner(task, progress)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            unit.fail(error, f"task {kind}")

    return run
