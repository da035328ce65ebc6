"""The doctor's rules about a plugin's code: imports, hooks, signatures, capabilities, commands."""

import inspect
import json
import sys
import typing
from collections.abc import Iterator
from typing import Any, Final

from pvc_core.plugin.errors import DriverError
from pvc_core.plugin.manifest import CommandSpec, Manifest
from pvc_core.plugin.markers import PROJECT
from pvc_core.plugin.process import run
from pvc_core.runtime.contract import mismatch, text_of
from pvc_core.runtime.discover import Entry, PluginFailure
from pvc_core.runtime.hooks import DRIVER_SPECS, Hook, hook_names, hooks, overrides
from pvc_core.runtime.load import HOOKS_KIND, Part, lacking
from pvc_core.runtime.manifests import contain, resolve
from pvc_core.runtime.register import hook_problems

_IMPORT_S: Final = 30.0
_LIGHT: Final = ("msgspec", "typing_extensions")  # msgspec imports the other where it is installed
_CORE_LIGHT: Final = ("pvc_core.plugin", "pvc_core.model")
_EXTENDABLE: Final = ("", "cluster", "node", "vm", "network", "storage")

_PROBE: Final = """\
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
before = set(sys.modules)
importlib.import_module(sys.argv[2])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def light_import_problems(entry: Entry, manifest: Manifest) -> Iterator[str]:
    """Import the manifest in a fresh interpreter and tell what it drags along."""
    allowed = {entry.module, *_parents(entry.module)}
    if manifest.config:
        config = manifest.config.partition(":")[0]
        allowed |= {config, *_parents(config)}
    try:
        said = run([sys.executable, "-c", _PROBE, json.dumps(sys.path), entry.module], deadline_s=_IMPORT_S).check()
    except DriverError as error:
        yield f"importing {entry.module} alone fails: {error}"
        return
    heavy = []
    for module in json.loads(said.stdout):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or module in allowed or top in _LIGHT:
            continue
        if top == "pvc_core" and (module == top or module.startswith(_CORE_LIGHT)):
            continue
        heavy.append(module)
    if heavy:
        shown = ", ".join(heavy[:5]) + (f" and {len(heavy) - 5} more" if len(heavy) > 5 else "")
        yield f"importing {entry.module}, which `pvc --help` does, imports {shown}"


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def class_problems(part: Part) -> Iterator[str]:
    """Check an object's hooks without running its constructor."""
    where = f"{part.kind} {part.name!r}"
    bare = _bare(part)
    if isinstance(bare, str):
        yield f"{where}: {bare}"
        return
    for problem in hook_problems(bare, part.kind):
        yield f"{where}: {problem}"


def _bare(part: Part) -> Any:
    """Return an object of the part's class that was not initialised, or what is wrong with the class."""
    if not isinstance(part.target, type):
        return part.target if part.kind == HOOKS_KIND else f"{part.target!r} is not a class"
    spec = DRIVER_SPECS.get(part.kind)
    if spec is not None and not issubclass(part.target, spec):
        return f"{part.target.__name__} is not derived from {spec.__name__}"
    if missing := lacking(part.target):
        return f"{part.target.__name__} lacks mandatory hooks: {', '.join(missing)}"
    cls: Any = part.target
    return cls.__new__(cls)


def annotation_problems(part: Part) -> Iterator[str]:
    """Compare the annotations of an object's hooks with the specifications'; pluggy compares names only."""
    holder = part.target if isinstance(part.target, type) else type(part.target)
    module = inspect.ismodule(part.target)
    for hook in hooks().values():
        own = inspect.getattr_static(part.target if module else holder, hook.name, None)
        if own is not None and (hasattr(own, f"{PROJECT}_impl") or overrides(holder, hook.name)):
            for wrong in _annotation_differences(own, hook):
                yield f"{part.kind} {part.name!r}: {hook.name}: {wrong}"


def _annotation_differences(function: Any, hook: Hook) -> Iterator[str]:
    specified = typing.get_type_hints(getattr(hook.spec, hook.name), include_extras=True)
    try:
        own = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # a name that is only imported for type checkers
        yield f"its annotations cannot be read: {error}"
        return
    for name in (*inspect.signature(function).parameters, "return"):
        if name not in specified or (name in own and text_of(own[name]) == text_of(specified[name])):
            continue
        what = "its result" if name == "return" else f"the argument {name!r}"
        found = f"is annotated {text_of(own[name])}" if name in own else "is not annotated"
        yield f"{what} {found}; the specification says {text_of(specified[name])}"


_NEEDED: Final = {
    "storage": {
        "snapshots": ("snapshot_create", "snapshot_delete", "snapshot_rename", "snapshot_rollback"),
        "streams": ("volume_diff_export", "volume_diff_import"),
        "blocks_nodes": ("node_block", "node_unblock", "node_identity"),
    }
}
"""Kind -> capability -> the optional hooks that it promises."""


def capability_problems(part: Part) -> Iterator[str]:
    """Compare what a driver says it can do with the hooks it has, as far as that is known without a constructor."""
    promised = _NEEDED.get(part.kind, {})
    bare = _bare(part)
    name = f"{part.kind}_capabilities"
    if not promised or isinstance(bare, str):
        return
    try:
        capabilities = contain("capabilities", getattr(bare, name))
    except PluginFailure:
        return  # it needs an initialised object: the contract suite checks this one
    if (wrong := mismatch(capabilities, hooks()[name].returns)) is not None:
        yield f"{part.kind} {part.name!r}: {name} returns {wrong}"
        return
    spec = DRIVER_SPECS[part.kind]
    for capability, needed in promised.items():
        has = {
            hook: getattr(type(bare), hook) is not getattr(spec, hook) for hook in needed if hook in hook_names(spec)
        }
        if getattr(capabilities, capability) and not all(has.values()):
            missing = ", ".join(hook for hook, there in has.items() if not there)
            yield f"{part.kind} {part.name!r}: it says it can {capability!r} but does not have {missing}"
        if not getattr(capabilities, capability) and any(has.values()):
            extra = ", ".join(hook for hook, there in has.items() if there)
            yield f"{part.kind} {part.name!r}: it has {extra} but does not say {capability!r}, so core never calls it"


def command_problems(spec: CommandSpec) -> Iterator[str]:
    """Import a command and check that it is one."""
    if spec.extends not in _EXTENDABLE:
        yield f"the command {spec.name!r} extends {spec.extends!r}: use one of {', '.join(filter(None, _EXTENDABLE))}"
    if not spec.help or "\n" in spec.help:
        yield f"the command {spec.name!r} has no help text of one line"
    try:
        command = contain("commands", lambda: resolve(spec.target))
    except PluginFailure as error:
        yield f"the command {spec.name!r} ({spec.target}) cannot be imported: {error}"
        return
    # Not isinstance: click is imported by the CLI only.
    if not callable(getattr(command, "make_context", None)):
        yield f"{spec.target} is not a click command but a {type(command).__name__}"
