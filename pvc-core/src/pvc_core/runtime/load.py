"""From a plugin's name in the configuration to its objects: manifest, section, classes, instances.

stevedore imports the entry points, one name at a time, each step in a boundary (``contain``): stevedore
5.x lets AssertionError and SystemExit through, and one of them would end the loading of all others.
"""

from importlib.metadata import EntryPoint
from typing import Any, Final, NamedTuple

from stevedore import ExtensionManager, NamedExtensionManager

from pvc_core.plugin.config import decode
from pvc_core.plugin.context import Context
from pvc_core.plugin.errors import ConfigError
from pvc_core.plugin.manifest import Manifest
from pvc_core.runtime.discover import HOOKS_GROUP, PLUGIN_GROUP, Entry, Index, PluginFailure, distribution_of
from pvc_core.runtime.hooks import DRIVER_SPECS
from pvc_core.runtime.manifests import contain, load_manifest, resolve

HOOKS_KIND: Final = "hooks"


class Part(NamedTuple):
    """An object that a plugin offers: a driver, or one with collect and event hooks (``kind`` is "hooks")."""

    kind: str
    name: str
    target: Any
    """The class, or for hooks possibly the object itself."""


def seed_stevedore(index: Index) -> None:
    """Give stevedore our index, so that it neither reads the metadata again nor trusts its cache on disk.

    That cache knows times to 128 s only, so a plugin installed again within two minutes stays invisible
    (stevedore 5.10), and its entry points have no distribution.
    """
    cache: dict[str, list[Any]] = ExtensionManager.ENTRY_POINT_CACHE
    cache.update({group: list(entries) for group, entries in index.groups.items()})


def gate(index: Index, name: str) -> tuple[Entry, Manifest]:
    """Find a plugin and check its manifest; nothing else of it is imported.  Raises PluginFailure."""
    entry = index.find(PLUGIN_GROUP, name)
    return entry, load_manifest(entry)


def schema(manifest: Manifest) -> type[Any] | None:
    """Import the class of a plugin's section, None when it takes no settings.  Raises PluginFailure (config)."""
    if not manifest.config:
        return None
    found = contain("config", lambda: resolve(manifest.config))
    if not isinstance(found, type):
        raise PluginFailure("config", f"{manifest.config} is not a class")
    return found


def decode_section(manifest: Manifest, section: dict[str, Any] | None) -> Any:
    """Return a plugin's section as its own schema.  Raises InvalidSection, PluginFailure (config)."""
    path = f"plugins.{manifest.name}"
    wanted = schema(manifest)
    if wanted is not None:
        try:
            return decode(section, wanted, path)
        except ConfigError:
            raise
        except Exception as error:
            raise PluginFailure("config", f"{manifest.config} is not a usable schema: {error}") from error
    if section:
        raise PluginFailure("config", f"{path}: unknown key {next(iter(section))!r}: this plugin takes no settings")
    return None


def import_parts(index: Index, entry: Entry, manifest: Manifest) -> list[Part]:
    """Import everything that a manifest names.  Raises PluginFailure (discover, import)."""
    wanted: list[tuple[str, str, str]] = [
        (kind, f"pvc.{kind}", name) for kind in DRIVER_SPECS for name in getattr(manifest, kind)
    ]
    wanted += [(HOOKS_KIND, HOOKS_GROUP, name) for name in manifest.hooks]
    for _, group, name in wanted:
        offered = index.find(group, name)
        if offered.dist is not None and entry.dist is not None and offered.dist.name != entry.dist.name:
            raise PluginFailure(
                "discover",
                f"its manifest names {group} {name!r}, which belongs to {distribution_of(offered)}, "
                f"not to {distribution_of(entry)}",
            )
    return [Part(kind, name, _import(group, name)) for kind, group, name in wanted]


def _import(group: str, name: str) -> Any:
    def fail(_manager: object, _entry: EntryPoint, error: BaseException) -> None:
        raise error

    def load() -> Any:
        return NamedExtensionManager(
            group, [name], on_load_failure_callback=fail, on_missing_entrypoints_callback=None
        )[name].plugin

    return contain("import", load)


def instantiate(part: Part, context: Context) -> Any:
    """Construct a driver, or an object with hooks.  Raises PluginFailure (instantiate)."""
    target = part.target
    if part.kind == HOOKS_KIND:
        if not isinstance(target, type):
            return target
    else:
        spec = DRIVER_SPECS[part.kind]
        if not isinstance(target, type) or not issubclass(target, spec):
            raise PluginFailure("instantiate", f"the {part.kind} driver {part.name!r} is not a {spec.__name__} class")
        if missing := lacking(target):
            raise PluginFailure("instantiate", f"{target.__name__} lacks mandatory hooks: {', '.join(missing)}")
    return contain("instantiate", lambda: target(context, context.config))


def lacking(driver: type) -> list[str]:
    """Return the mandatory hooks that a driver class does not have."""
    return sorted(getattr(driver, "__abstractmethods__", ()))
