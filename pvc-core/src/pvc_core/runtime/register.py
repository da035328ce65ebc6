"""Putting a plugin's objects into pluggy, after checking each alone.

pluggy checks the names of hooks and of their arguments; what it lets through (1.7) is checked here:
keyword-only arguments (it never passes them), wrappers (they would see other plugins' calls), hooks of
another kind of driver, hooks that are no methods.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pluggy

from pvc_core.runtime.discover import PluginFailure
from pvc_core.runtime.hooks import DRIVER_SPECS, Hook, hook_names, hooks, new_plugin_manager
from pvc_core.runtime.manifests import contain
from pvc_core.runtime.unit import Unit


def check(instance: Any, kind: str) -> None:
    """Raise PluginFailure (register) unless the object's hooks fit their specifications."""
    if problems := hook_problems(instance, kind):
        raise PluginFailure("register", "; ".join(problems))


def hook_problems(instance: Any, kind: str) -> list[str]:
    """Return everything that is wrong with the hooks of an object of this kind of driver ("hooks": of none)."""
    manager = new_plugin_manager()
    try:
        contain("register", lambda: hash(instance))
        manager.register(instance)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        return [" ".join(str(error).split())]
    except PluginFailure as error:
        return [str(error)]
    problems = []
    for caller in manager.get_hookcallers(instance) or []:
        if caller.name not in hooks():  # marked optional by its author: for another version of core
            continue
        hook = hooks()[caller.name]
        problems += [
            f"{caller.name}: {wrong}" for impl in caller.get_hookimpls() for wrong in _impl_problems(impl, hook, kind)
        ]
    spec = DRIVER_SPECS.get(kind)
    for name in hook_names(spec) if spec else []:
        if not inspect.isroutine(own := inspect.getattr_static(type(instance), name)):
            problems.append(f"{name}: it is a {type(own).__name__}, not a method")
    return problems


def _impl_problems(impl: Any, hook: Hook, kind: str) -> Iterable[str]:
    if impl.hookwrapper or impl.wrapper:
        yield "plugins may not wrap hooks"
    if hook.kind == "driver" and hook.spec is not DRIVER_SPECS.get(kind):
        yield f"this hook belongs to a {hook.spec.__name__}"
    for parameter in inspect.signature(impl.function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield f"its argument {parameter.name!r} is keyword-only, which hooks may not have"


def register(manager: pluggy.PluginManager, units: Iterable[Unit]) -> None:
    """Register checked objects so that the first is called first, and fill in how each one's hooks are called."""
    ordered = list(units)
    for unit in reversed(ordered):  # pluggy calls the last registered first
        manager.register(unit.instance, name=f"{unit.plugin}/{unit.label}")
    everyone = {unit.instance for unit in ordered}
    for unit in ordered:
        others = everyone - {unit.instance}
        for hook in hooks().values():
            if (function := _function(manager, unit, hook, others)) is not None:
                unit.functions[hook.name] = function


def _function(manager: pluggy.PluginManager, unit: Unit, hook: Hook, others: set[Any]) -> Callable[..., Any] | None:
    caller = getattr(manager.hook, hook.name)
    if not any(impl.plugin is unit.instance for impl in caller.get_hookimpls()):
        inherited = hook.spec is DRIVER_SPECS.get(unit.kind)
        return functools.partial(getattr(hook.spec, hook.name), unit.instance) if inherited else None
    alone = manager.subset_hook_caller(hook.name, others)
    return alone if hook.kind == "driver" else functools.partial(_only_answer, alone)


def _only_answer(caller: Callable[..., Any], **arguments: Any) -> Any:
    answers = caller(**arguments)
    return answers[0] if answers else None
