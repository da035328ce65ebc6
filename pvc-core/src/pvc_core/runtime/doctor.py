"""``pvc plugin doctor``: what is wrong with an installed plugin, for its author and for operators.

One function per rule; each returns findings.  Unlike loading, which is as tolerant as it safely can be,
the doctor is strict.
"""

import functools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from pvc_core.plugin.manifest import Manifest
from pvc_core.runtime.discover import GROUPS, HOOKS_GROUP, PLUGIN_GROUP, Entry, Index, PluginFailure, discover
from pvc_core.runtime.doctor_code import (
    annotation_problems,
    capability_problems,
    class_problems,
    command_problems,
    light_import_problems,
)
from pvc_core.runtime.doctor_config import config_problems
from pvc_core.runtime.hooks import DRIVER_SPECS
from pvc_core.runtime.load import Part, import_parts, seed_stevedore
from pvc_core.runtime.manifests import contain, load_manifest, manifests, resolve


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a rule objects to."""

    rule: str
    level: Literal["error", "warning"]
    """An error keeps the plugin, or a part of it, from working here."""
    message: str


class Patient(NamedTuple):
    """A plugin under examination."""

    name: str
    installed: Index
    entry: Entry
    manifest: Manifest
    parts: list[Part]
    core_commands: Collection[str]


def examine(name: str, *, core_commands: Collection[str] = (), index: Index | None = None) -> list[Finding]:
    """Return everything that is wrong with an installed plugin; imports it, drivers and all.

    ``core_commands`` are the words after ``pvc`` that core uses itself.  Never raises on its account.
    """
    index = index or discover()
    seed_stevedore(index)
    try:
        entry = index.find(PLUGIN_GROUP, name)
        manifest = load_manifest(entry)
    except PluginFailure as error:
        rule = "hook-api" if error.stage == "gate" else "manifest"
        return [Finding(rule=rule, level="error", message=str(error))]
    findings = []
    parts: list[Part] = []
    try:
        parts = import_parts(index, entry, manifest)
    except PluginFailure as error:
        rule = "entry-points" if error.stage == "discover" else "driver-import"
        findings.append(Finding(rule=rule, level="error", message=str(error)))
    patient = Patient(name, index, entry, manifest, parts, core_commands)
    for rule, (level, objections) in RULES.items():
        try:
            objects = contain(rule, functools.partial(_all, objections, patient))
        except PluginFailure as error:
            objects = [str(error)]
        findings += [Finding(rule=rule, level=level, message=message) for message in objects]
    return findings


Objections = Callable[[Patient], Iterator[str]]


def _all(objections: Objections, patient: Patient) -> list[str]:
    return list(objections(patient))


def _one_manifest(patient: Patient) -> Iterator[str]:
    dist = patient.entry.dist
    own = [e.name for e in patient.installed.groups[PLUGIN_GROUP] if dist and e.dist and e.dist.name == dist.name]
    if len(own) > 1:
        yield f"{dist.name if dist else ''} offers {len(own)} plugins ({', '.join(own)}): one distribution, one plugin"


def _name(patient: Patient) -> Iterator[str]:
    dist = patient.entry.dist
    if dist is not None and dist.name not in (f"pvc-{patient.name}", f"pvc_{patient.name}"):
        yield f"the distribution is called {dist.name!r}: expected 'pvc-{patient.name}'"


def _all_offered(patient: Patient) -> Iterator[str]:
    named = {(f"pvc.{kind}", name) for kind in DRIVER_SPECS for name in getattr(patient.manifest, kind)}
    named |= {(HOOKS_GROUP, name) for name in patient.manifest.hooks}
    dist = patient.entry.dist
    for group in GROUPS:
        for entry in patient.installed.groups[group]:
            mine = dist is not None and entry.dist is not None and entry.dist.name == dist.name
            if mine and group != PLUGIN_GROUP and (group, entry.name) not in named:
                yield f"the entry point {group} {entry.name!r} is not named in the manifest, so it is never loaded"


def _light(patient: Patient) -> Iterator[str]:
    yield from light_import_problems(patient.entry, patient.manifest)


def _classes(patient: Patient) -> Iterator[str]:
    for part in patient.parts:
        yield from class_problems(part)


def _annotations(patient: Patient) -> Iterator[str]:
    for part in patient.parts:
        yield from annotation_problems(part)


def _capabilities(patient: Patient) -> Iterator[str]:
    for part in patient.parts:
        yield from capability_problems(part)


def _config(patient: Patient) -> Iterator[str]:
    yield from config_problems(patient.manifest)


def _validators(patient: Patient) -> Iterator[str]:
    own = {*patient.manifest.storage, *patient.manifest.network, *patient.manifest.fencing}
    for driver, target in (*patient.manifest.validators.items(), *patient.manifest.nic_validators.items()):
        if driver not in own:
            yield f"it validates parameters of {driver!r}, which is not its own storage, network or fence driver"
        try:
            function = contain("validators", functools.partial(resolve, target))
        except PluginFailure as error:
            yield f"{target}: {error}"
        else:
            if not callable(function):
                yield f"{target} is not a function"


def _commands(patient: Patient) -> Iterator[str]:
    others = {
        (spec.extends, spec.name): installed.name
        for installed in manifests(patient.installed)
        if installed.manifest is not None and installed.name != patient.name
        for spec in installed.manifest.commands
    }
    for spec in patient.manifest.commands:
        yield from command_problems(spec)
        if not spec.extends and spec.name in patient.core_commands:
            yield f"the command {spec.name!r} is core's own; the plugin's is not shown"
        if (spec.extends, spec.name) in others:
            yield f"the command {spec.name!r} is offered by plugin {others[spec.extends, spec.name]!r} too"


def _typed(patient: Patient) -> Iterator[str]:
    package = patient.entry.module.partition(".")[0]
    dist = patient.entry.dist
    files = {str(file) for file in (dist.files or [])} if dist is not None else set()
    source = getattr(contain("typed", lambda: resolve(package)), "__path__", None)
    if source is None:
        yield f"{package} is a single module, which cannot have a py.typed"
    elif f"{package}/py.typed" not in files and not any(Path(path, "py.typed").exists() for path in source):
        yield f"{package} has no py.typed, so type checkers ignore its annotations"


def _bounds(patient: Patient) -> Iterator[str]:
    dist = patient.entry.dist
    for requirement in (dist.requires or []) if dist is not None else []:
        if requirement.replace("_", "-").startswith("pvc-core"):
            if "<" not in requirement and "==" not in requirement and "~=" not in requirement:
                yield f"it requires {requirement!r}: give it an upper bound, such as pvc-core>=0.1,<0.2"
            return
    yield "it does not say which pvc-core it requires"


RULES: Final[dict[str, tuple[Literal["error", "warning"], Objections]]] = {
    "one-manifest": ("error", _one_manifest),
    "distribution-name": ("warning", _name),
    "all-offered": ("warning", _all_offered),
    "light-manifest": ("error", _light),
    "hooks": ("error", _classes),
    "annotations": ("error", _annotations),
    "capabilities": ("error", _capabilities),
    "config": ("error", _config),
    "validators": ("error", _validators),
    "commands": ("error", _commands),
    "typed": ("warning", _typed),
    "requires": ("warning", _bounds),
}
"""Rule -> level of its findings, and the function.  Besides: manifest, hook-api, entry-points, driver-import."""
